//! Threads that a plugin starts, or the coroutines that a simulation has instead.
//!
//! In a simulation the threads of a run are coroutines on one thread of the operating system
//! ([`Coroutines`]), so a thread that blocked there would block everything. What a sink does in the
//! background is started by [`spawn`], and waits by [`wait_until`].

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, MutexGuard};

thread_local! {
    static COROUTINES: RefCell<Option<Rc<Coroutines>>> = const { RefCell::new(None) };
}

/// What a thread does.
pub type Work = Box<dyn FnOnce() + Send>;

/// What a simulation has instead of threads.
pub struct Coroutines {
    /// Starts a coroutine beside the one that calls.
    pub spawn: Box<dyn Fn(Work)>,
    /// Lets other coroutines work. Returns false at once if the calling one is being killed: then
    /// it must not wait any more.
    pub switch: Box<dyn Fn() -> bool>,
}

/// From now on [`spawn`] and [`wait_until`] use coroutines on this thread of the operating system.
pub fn simulate_threads(coroutines: Coroutines) {
    COROUTINES.set(Some(Rc::new(coroutines)));
}

fn coroutines() -> Option<Rc<Coroutines>> {
    COROUTINES.with_borrow(Clone::clone)
}

/// A thread that was started, or what a simulation has instead.
pub struct Background(Option<JoinHandle<()>>);

/// Starts a thread.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Background> {
    if let Some(coroutines) = coroutines() {
        (coroutines.spawn)(Box::new(work));
        return Ok(Background(None));
    }
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(|thread| Background(Some(thread)))
}

impl Background {
    /// Whether the thread has come to its end.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the thread has come to its end. A coroutine is not waited for: a caller that
    /// needs its end waits for what it does last.
    pub fn join(self) {
        if let Some(thread) = self.0 {
            // What a thread that panicked had to say was printed.
            let _ = thread.join();
        }
    }
}

/// Waits until `changed` is notified, at most until `deadline`. Returns whether that has passed.
/// May return early.
pub fn wait_until<T>(changed: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
    let Some(coroutines) = coroutines() else {
        return changed.wait_until(guard, deadline).timed_out();
    };
    let may_wait = MutexGuard::unlocked(guard, || (coroutines.switch)());
    !may_wait || Instant::now() >= deadline
}
