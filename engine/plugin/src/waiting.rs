//! Waiting on a thread that others need too.
//!
//! Writer threads work for many runs. When the target of one cannot be written, its writer waits, and its thread with it; the others must not
//! wait as well. So whoever is about to wait for long says so, and the owner of the thread has somebody else go on with the rest.

use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static HAND_OVER: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// From now on, `hand_over` is called when this thread is about to wait.
pub fn when_about_to_wait(hand_over: impl Fn() + 'static) {
    HAND_OVER.set(Some(Rc::new(hand_over)));
}

/// This thread is about to wait for something that may take long. What else it has to do can be handed over.
pub fn about_to_wait() {
    let hand_over = HAND_OVER.with_borrow(Clone::clone);
    if let Some(hand_over) = hand_over {
        hand_over();
    }
}
