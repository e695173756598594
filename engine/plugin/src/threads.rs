//! Threads that a plugin starts, and the coroutines that replace them in a simulation.
//!
//! In a simulation the threads of a run are coroutines on one OS thread ([`Coroutines`]), so a call
//! that blocked that thread would block everything. Background work of a sink is started with
//! [`spawn`] and waits with [`wait_until`].

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, MutexGuard};

thread_local! {
    static COROUTINES: RefCell<Option<Rc<Coroutines>>> = const { RefCell::new(None) };
}

/// The body of a thread.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// What replaces threads in a simulation.
pub struct Coroutines {
    /// Starts a coroutine beside the calling one.
    pub spawn: Box<dyn Fn(ThreadBody)>,
    /// Switches to other coroutines. Returns false at once if the calling coroutine is being
    /// killed: then it must not wait any more.
    pub switch: Box<dyn Fn() -> bool>,
}

/// Makes [`spawn`] and [`wait_until`] use coroutines on this OS thread from now on.
pub fn simulate_threads(coroutines: Coroutines) {
    COROUTINES.set(Some(Rc::new(coroutines)));
}

fn coroutines() -> Option<Rc<Coroutines>> {
    COROUTINES.with_borrow(Clone::clone)
}

/// A started thread, or the coroutine that replaces it in a simulation.
pub struct BackgroundThread(Option<JoinHandle<()>>);

/// Starts a thread with this name.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<BackgroundThread> {
    if let Some(coroutines) = coroutines() {
        (coroutines.spawn)(Box::new(work));
        return Ok(BackgroundThread(None));
    }
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(|thread| BackgroundThread(Some(thread)))
}

impl BackgroundThread {
    /// Whether the thread has exited. Always true for a coroutine.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the thread has exited. Does not wait for a coroutine: a caller that needs its
    /// end waits for the last thing it does.
    pub fn join(self) {
        if let Some(thread) = self.0 {
            // The panic message of a thread was already printed.
            let _ = thread.join();
        }
    }
}

/// Waits until `changed` is notified or `deadline` has passed. Returns whether it has passed. May
/// return early.
pub fn wait_until<T>(changed: &Condvar, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
    let Some(coroutines) = coroutines() else {
        return changed.wait_until(guard, deadline).timed_out();
    };
    let may_wait = MutexGuard::unlocked(guard, || (coroutines.switch)());
    !may_wait || Instant::now() >= deadline
}
