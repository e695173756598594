//! Stopping and pausing a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
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
    /// The signals that are set with this one.
    children: Mutex<Vec<Weak<StopState>>>,
}

impl Stop {
    /// Creates a signal that is not set.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Creates a signal that is set with this one, and by itself if only a part of the run must stop
    /// reading.
    pub fn child(&self) -> Stop {
        let state = StopState {
            now: self.inner.now.clone(),
            ..StopState::default()
        };
        let child = Stop {
            inner: Arc::new(state),
        };
        let mut children = self.inner.children.lock();
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child.inner));
        drop(children);
        if self.reading_stopped() {
            child.stop_reading();
        }
        child
    }

    /// Sources stop reading; what was read is still processed and committed.
    pub fn stop_reading(&self) {
        let guard = self.inner.lock.lock();
        self.inner.reading.store(true, Ordering::Relaxed);
        self.inner.changed.notify_all();
        drop(guard);
        let children = self.inner.children.lock().clone();
        for inner in children.iter().filter_map(Weak::upgrade) {
            Stop { inner }.stop_reading();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_set_with_its_parent_and_not_the_other_way_round() {
        let parent = Stop::new();
        let (one, other) = (parent.child(), parent.child());
        let grandchild = one.child();
        one.stop_reading();
        assert!(one.reading_stopped() && grandchild.reading_stopped());
        assert!(!parent.reading_stopped() && !other.reading_stopped());
        drop(one);
        parent.stop_reading();
        assert!(other.reading_stopped() && !other.leaving_now());
        let late = parent.child();
        assert!(late.reading_stopped() && late.sleep(Duration::from_secs(3600)));
        parent.leave_now();
        assert!(other.leaving_now() && late.leaving_now() && grandchild.leaving_now());
    }
}
