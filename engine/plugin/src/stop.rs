//! Stopping and pausing a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::threads::wait_until;

/// The stop signal of a run, with two levels: *stop reading, finish what was read*, and *leave
/// now*. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    inner: Arc<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    reading: AtomicBool,
    now: Arc<AtomicBool>,
    changed: Condvar,
    lock: Mutex<()>,
}

impl Stop {
    /// Creates a signal that is not set.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Sources stop reading; what was read is still processed and committed.
    pub fn stop_reading(&self) {
        let _guard = self.inner.lock.lock();
        self.inner.reading.store(true, Ordering::Relaxed);
        self.inner.changed.notify_all();
    }

    /// All threads abandon uncommitted work and leave.
    pub fn leave_now(&self) {
        self.inner.now.store(true, Ordering::Relaxed);
        self.stop_reading();
    }

    /// Whether sources must stop reading.
    pub fn reading_stopped(&self) -> bool {
        self.inner.reading.load(Ordering::Relaxed)
    }

    /// Whether to stop waiting for anything.
    pub fn leaving_now(&self) -> bool {
        self.inner.now.load(Ordering::Relaxed)
    }

    /// The flag behind [`Stop::leaving_now`].
    pub fn abandoned(&self) -> Arc<AtomicBool> {
        self.inner.now.clone()
    }

    /// Sleeps for `time`, or until reading is stopped. Returns whether it is stopped.
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

/// Whether the user has paused the run, so that sources read nothing. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<AtomicBool>);

impl Pause {
    /// Pauses or resumes the run.
    pub fn set(&self, paused: bool) {
        self.0.store(paused, Ordering::Relaxed);
    }

    /// Whether the run is paused.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
