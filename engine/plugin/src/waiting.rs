//! Blocking on a shared thread.
//!
//! Writer threads work for many runs. Lanes do not wait for their targets ([`crate::lane`]). A call
//! that must wait all the same, for the state store or for a broker's answer, calls
//! [`about_to_wait`] first, and another thread takes the place of this one. A thread that blocks
//! without this call is replaced too, but only after a second.
//!
//! The call finds its thread's pool through a thread-local, as tokio's `block_in_place` does, so
//! that no layer between the pool and the wait has a parameter for it (`docs/decisions.md`).

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static HAND_OVER: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Sets what [`about_to_wait`] calls on this thread.
pub fn when_about_to_wait(hand_over: impl Fn() + 'static) {
    HAND_OVER.set(Some(Rc::new(hand_over)));
}

/// Announces that this thread is about to wait for something that may take long.
pub fn about_to_wait() {
    let hand_over = HAND_OVER.with_borrow(Clone::clone);
    if let Some(hand_over) = hand_over {
        hand_over();
    }
}
