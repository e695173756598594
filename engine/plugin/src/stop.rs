//! How a run is told to end, or to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::threads::wait_until;

/// Two levels of ending a run: *stop reading, finish what was read*, and *leave now*. Clones share
/// their state.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    reading: AtomicBool,
    now: Arc<AtomicBool>,
    changed: Condvar,
    lock: Mutex<()>,
}

impl Stop {
    /// Nothing is stopped yet.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Sources stop reading; what was read is finished.
    pub fn stop_reading(&self) {
        let _guard = self.inner.lock.lock();
        self.inner.reading.store(true, Ordering::Relaxed);
        self.inner.changed.notify_all();
    }

    /// Everybody gives up what is not committed.
    pub fn leave_now(&self) {
        self.inner.now.store(true, Ordering::Relaxed);
        self.stop_reading();
    }

    /// Whether sources are to end.
    pub fn reading_stopped(&self) -> bool {
        self.inner.reading.load(Ordering::Relaxed)
    }

    /// Whether to give up waiting for anything.
    pub fn leaving_now(&self) -> bool {
        self.inner.now.load(Ordering::Relaxed)
    }

    /// The flag behind [`Stop::leaving_now`].
    pub fn abandoned(&self) -> Arc<AtomicBool> {
        self.inner.now.clone()
    }

    /// Sleeps for `time`, or until reading is stopped. Gives whether it is.
    pub fn sleep(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut guard = self.inner.lock.lock();
        while !self.reading_stopped() {
            if wait_until(&self.inner.changed, &mut guard, deadline) {
                break;
            }
        }
        self.reading_stopped()
    }
}

/// Whether the user wants sources to read nothing for now. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicBool>);

impl Pause {
    /// The user pauses the run, or resumes it.
    pub fn set(&self, paused: bool) {
        self.0.store(paused, Ordering::Relaxed);
    }

    /// Whether it is paused.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
