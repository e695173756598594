//! Blocking on a thread that is shared.
//!
//! Writer threads work for many runs. Lanes do not wait for their targets ([`crate::lane`]). Where
//! a call has to wait all the same, for the state store or for a broker's answer, it says so, and
//! another thread takes the place of this one. A thread that blocks without a word is replaced as
//! well, but only after a second.

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static HAND_OVER: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Sets what this thread calls when it is about to wait.
pub fn when_about_to_wait(hand_over: impl Fn() + 'static) {
    HAND_OVER.set(Some(Rc::new(hand_over)));
}

/// Says that this thread is about to wait for something that may take long.
pub fn about_to_wait() {
    let hand_over = HAND_OVER.with_borrow(Clone::clone);
    if let Some(hand_over) = hand_over {
        hand_over();
    }
}
