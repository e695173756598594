//! Locks, threads and the time, as the queue and the writer threads use them. Model tests put others in their place.

use std::io;
use std::time::Instant;

pub(crate) use parking_lot::{Condvar, Mutex};

/// A running thread.
pub(crate) type JoinHandle = std::thread::JoinHandle<()>;

/// Starts a thread.
pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    std::thread::Builder::new().name(name).spawn(work)
}

/// The time.
pub(crate) fn now() -> Instant {
    Instant::now()
}
