//! Locks, threads and time, as the queue and the writer threads use them. Model tests replace them,
//! so that every order of steps can be tried.

#[cfg(all(test, feature = "model"))]
mod model;

#[cfg(all(test, feature = "model"))]
pub(crate) use model::{
    Condvar, JoinHandle, Mutex, about_to_wait, has_ended, now, spawn, when_about_to_wait,
};
#[cfg(not(all(test, feature = "model")))]
pub(crate) use real::{Condvar, JoinHandle, Mutex, has_ended, now, spawn, when_about_to_wait};

#[cfg(not(all(test, feature = "model")))]
mod real {
    use std::io;
    use std::time::Instant;

    pub(crate) use parking_lot::{Condvar, Mutex};
    pub(crate) use pseidon_plugin::waiting::when_about_to_wait;

    /// A running thread.
    pub(crate) type JoinHandle = std::thread::JoinHandle<()>;

    /// Starts a thread of this name. An error means that the system refused it.
    pub(crate) fn spawn(
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle> {
        std::thread::Builder::new().name(name).spawn(work)
    }

    /// Whether a thread has exited.
    pub(crate) fn has_ended(thread: &JoinHandle) -> bool {
        thread.is_finished()
    }

    /// The current time.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
