//! One budget for every byte in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The memory budget. Nothing is refused: sources look at [`Budget::is_full`] and stop reading above the high mark until the low mark
/// is reached, so what is in flight exceeds the limit by no more than one read of each source.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Above the high mark, and not yet below the low one.
    full: AtomicBool,
    room: Condvar,
    room_lock: Mutex<()>,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes. The low mark is at three quarters of it.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0), full: AtomicBool::new(false), room: Condvar::new(), room_lock: Mutex::new(()) })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes in flight.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts `bytes` until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used >= self.limit {
            self.full.store(true, Ordering::Relaxed);
        }
        Charge { budget: self.clone(), bytes }
    }

    /// Whether sources should wait.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Waits until there is room, at most `patience`. Gives whether there is.
    pub fn wait_for_room(&self, patience: Duration) -> bool {
        if !self.is_full() {
            return true;
        }
        let mut guard = self.room_lock.lock();
        if self.is_full() {
            self.room.wait_for(&mut guard, patience);
        }
        !self.is_full()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let used = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        if used <= self.budget.limit / 4 * 3 && self.budget.is_full() {
            let _guard = self.budget.room_lock.lock();
            self.budget.full.store(false, Ordering::Relaxed);
            self.budget.room.notify_all();
        }
    }
}
