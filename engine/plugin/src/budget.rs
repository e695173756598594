//! One budget for every byte in flight, and one for what open lanes buffer.

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

/// What the open lanes of all sinks together may buffer. Nothing is refused here either: a writer looks at [`LaneUse::is_too_much`] and
/// writes out or commits some of its own lanes.
#[derive(Debug)]
pub struct LaneMemory {
    limit: usize,
    used: AtomicUsize,
    users: AtomicUsize,
}

impl LaneMemory {
    /// `limit` bytes for all.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(LaneMemory { limit, used: AtomicUsize::new(0), users: AtomicUsize::new(0) })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// What one writer buffers of it. Dropping it gives all of it back.
#[derive(Debug)]
pub struct LaneUse {
    memory: Arc<LaneMemory>,
    bytes: usize,
}

impl LaneUse {
    /// A writer that buffers nothing yet.
    pub fn new(memory: &Arc<LaneMemory>) -> LaneUse {
        LaneUse { memory: memory.clone(), bytes: 0 }
    }

    /// The writer buffers so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        match (self.bytes, bytes) {
            (0, 1..) => drop(self.memory.users.fetch_add(1, Ordering::Relaxed)),
            (1.., 0) => drop(self.memory.users.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        if bytes >= self.bytes {
            self.memory.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Whether the writer should buffer less: all together have too much, and it has at least half of a fair share. So a writer with
    /// little is spared while others have a lot, and whenever there is too much, somebody has to give way.
    pub fn is_too_much(&self) -> bool {
        let users = self.memory.users.load(Ordering::Relaxed).max(1);
        self.memory.used.load(Ordering::Relaxed) > self.memory.limit && self.bytes > self.memory.limit / users / 2
    }
}

impl Drop for LaneUse {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_buffers_much_gives_way() {
        let memory = LaneMemory::new(1000);
        let (mut large, mut small) = (LaneUse::new(&memory), LaneUse::new(&memory));
        large.set(900);
        small.set(100);
        assert!(!large.is_too_much() && !small.is_too_much());
        large.set(950);
        assert!(large.is_too_much() && !small.is_too_much());
        large.set(850);
        assert!(!large.is_too_much());
        small.set(300);
        assert!(large.is_too_much() && small.is_too_much());
        drop(large);
        assert!(!small.is_too_much());
        small.set(1001);
        assert!(small.is_too_much(), "alone it has the whole limit");
        small.set(0);
        assert_eq!((memory.used.load(Ordering::Relaxed), memory.users.load(Ordering::Relaxed)), (0, 0));
    }
}
