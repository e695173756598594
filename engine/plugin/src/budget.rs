//! Two memory budgets: one for all bytes in flight, and one for what open lanes buffer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The memory budget. It refuses nothing: sources check [`Budget::is_full`] and stop reading above
/// the high mark until the low mark is reached, so the bytes in flight exceed the limit by at most
/// one read of each source.
///
/// Each source charges its bytes to a [`Share`] of its own. If several sources use the budget, a
/// source whose bytes are not written, because its sink is blocked or slow, is held back before it
/// has taken all of the memory, and its bytes do not keep the others from reading.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// The part of `used` that belongs to shares that are held back.
    held_back: AtomicUsize,
    /// Whether the high mark was reached, and the low mark not yet since.
    full: AtomicBool,
    room: Condvar,
    room_lock: Mutex<()>,
    shares: Mutex<Vec<Weak<Share>>>,
    /// The number of sources that have a share.
    sources: AtomicUsize,
}

/// One source's part of the budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    is_a_sources: bool,
    state: Mutex<ShareState>,
}

#[derive(Debug, Default)]
struct ShareState {
    used: usize,
    /// Since when the source has used more than its part without interruption.
    over_since: Option<Instant>,
    is_held_back: bool,
}

/// How long a source may use more than its part of the budget before it is held back. A source
/// whose sink keeps up falls below its part again within this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// A source's part is this multiple of what is left of the budget, which is more than it uses when
/// it falls to the low mark by itself.
const PART_OF_REST: usize = 4;
/// A source that uses less than `1/SPARED_PART` of the limit, and less than half of an even share,
/// is never held back.
const SPARED_PART: usize = 16;

/// Bytes charged to a share; dropping it returns them.
#[derive(Debug)]
pub struct Charge {
    share: Arc<Share>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `limit` bytes. The low mark is three quarters of the high mark.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
            held_back: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
            shares: Mutex::default(),
            sources: AtomicUsize::new(0),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes in flight.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Creates the share of a source.
    pub fn share(self: &Arc<Self>) -> Arc<Share> {
        let share = Arc::new(Share {
            budget: self.clone(),
            is_a_sources: true,
            state: Mutex::default(),
        });
        self.sources.fetch_add(1, Ordering::Relaxed);
        let mut shares = self.shares.lock();
        shares.retain(|share| share.strong_count() > 0);
        shares.push(Arc::downgrade(&share));
        share
    }

    /// Charges `bytes` that belong to no source, until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        Arc::new(Share {
            budget: self.clone(),
            is_a_sources: false,
            state: Mutex::default(),
        })
        .charge(bytes)
    }

    /// Whether sources must wait.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Waits up to `patience` until there is room. Returns whether there is.
    pub fn wait_for_room(&self, patience: Duration) -> bool {
        if !self.is_full() {
            return true;
        }
        self.hold_back_at(Instant::now());
        let mut guard = self.room_lock.lock();
        if self.is_full() {
            self.room.wait_for(&mut guard, patience);
        }
        !self.is_full()
    }

    /// Updates which shares are held back.
    fn hold_back_at(&self, now: Instant) {
        let shares: Vec<Arc<Share>> = self
            .shares
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for share in shares {
            share.is_held_back_at(now);
        }
    }

    /// The high mark for the bytes that are not held back: at least half of the limit, however many
    /// bytes are held back.
    fn high_mark(&self) -> usize {
        self.limit - self.held_back.load(Ordering::Relaxed).min(self.limit / 2)
    }

    fn flowing(&self) -> usize {
        self.used()
            .saturating_sub(self.held_back.load(Ordering::Relaxed))
    }

    fn check_high_mark(&self) {
        if self.flowing() >= self.high_mark() {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    fn check_low_mark(&self) {
        if self.is_full() && self.flowing() <= self.high_mark() / 4 * 3 {
            let _guard = self.room_lock.lock();
            self.full.store(false, Ordering::Relaxed);
            self.room.notify_all();
        }
    }
}

impl Share {
    /// Charges `bytes` until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let mut state = self.state.lock();
        state.used += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if state.is_held_back {
            self.budget.held_back.fetch_add(bytes, Ordering::Relaxed);
        }
        drop(state);
        self.budget.check_high_mark();
        Charge {
            share: self.clone(),
            bytes,
        }
    }

    /// The budget of the share.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Whether its source must wait although the budget may have room for others: it has used more
    /// than its part for a while, and has not fallen below half of its part since. Its part is four
    /// times what is left of the budget, so it shrinks as the others use more, and something is
    /// left for them however many are held back. The only source of a budget is never held back.
    pub fn is_held_back(&self) -> bool {
        self.is_held_back_at(Instant::now())
    }

    fn is_held_back_at(&self, now: Instant) -> bool {
        let budget = &self.budget;
        let sources = budget.sources.load(Ordering::Relaxed);
        let is_alone = sources < 2;
        let spared = budget.limit / SPARED_PART.max(sources * 2);
        let mut state = self.state.lock();
        let part = (budget.limit.saturating_sub(budget.used()) * PART_OF_REST).max(spared);
        if state.is_held_back {
            if is_alone || state.used <= part / 2 {
                self.let_go(&mut state);
            }
        } else if is_alone || state.used <= part || budget.used() <= budget.limit / 2 {
            state.over_since = None;
        } else if now.saturating_duration_since(*state.over_since.get_or_insert(now)) >= PATIENCE {
            state.is_held_back = true;
            budget.held_back.fetch_add(state.used, Ordering::Relaxed);
        }
        let is_held_back = state.is_held_back;
        drop(state);
        budget.check_low_mark();
        is_held_back
    }

    fn let_go(&self, state: &mut ShareState) {
        state.is_held_back = false;
        state.over_since = None;
        self.budget
            .held_back
            .fetch_sub(state.used, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.is_a_sources {
            self.budget.sources.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Charge {
    /// The number of bytes; [`Charge::more`] does not change it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges more bytes to the same share.
    pub fn more(&self, bytes: usize) -> Charge {
        self.share.charge(bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let budget = &self.share.budget;
        let mut state = self.share.state.lock();
        state.used -= self.bytes;
        budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if state.is_held_back {
            budget.held_back.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        drop(state);
        budget.check_low_mark();
    }
}

/// The memory that the open lanes of all sinks may use for buffers. It refuses nothing either: a
/// writer checks [`LaneUse::is_too_much`] and writes out or commits some of its own lanes.
#[derive(Debug)]
pub struct LaneMemory {
    limit: usize,
    used: AtomicUsize,
    users: AtomicUsize,
}

impl LaneMemory {
    /// Creates a limit of `limit` bytes for all writers together.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(LaneMemory {
            limit,
            used: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
        })
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// The part of [`LaneMemory`] that one writer uses. Dropping it returns all of it.
#[derive(Debug)]
pub struct LaneUse {
    memory: Arc<LaneMemory>,
    bytes: usize,
}

impl LaneUse {
    /// Creates the part of a writer that buffers nothing yet.
    pub fn new(memory: &Arc<LaneMemory>) -> LaneUse {
        LaneUse {
            memory: memory.clone(),
            bytes: 0,
        }
    }

    /// Sets how many bytes the writer buffers now.
    pub fn set(&mut self, bytes: usize) {
        match (self.bytes, bytes) {
            (0, 1..) => drop(self.memory.users.fetch_add(1, Ordering::Relaxed)),
            (1.., 0) => drop(self.memory.users.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        if bytes >= self.bytes {
            self.memory
                .used
                .fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.memory
                .used
                .fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Whether the writer should buffer less: all writers together exceed the limit, and this one
    /// uses more than half of a fair share. So a writer that uses little is spared while others use
    /// a lot, and whenever the limit is exceeded, at least one writer must give way.
    pub fn is_too_much(&self) -> bool {
        let users = self.memory.users.load(Ordering::Relaxed).max(1);
        self.memory.used.load(Ordering::Relaxed) > self.memory.limit
            && self.bytes > self.memory.limit / users / 2
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

    /// Updates the shares now and again after the patience.
    fn look_for_long(budget: &Budget) {
        let now = Instant::now();
        budget.hold_back_at(now);
        budget.hold_back_at(now + PATIENCE);
    }

    #[test]
    fn the_only_source_is_limited_by_the_marks_alone() {
        let budget = Budget::new(1000);
        let share = budget.share();
        let first = share.charge(300);
        let second = share.charge(699);
        assert!(!budget.is_full());
        let third = share.charge(1);
        look_for_long(&budget);
        assert!(budget.is_full() && !share.is_held_back());
        drop(third);
        assert!(budget.is_full(), "until the low mark");
        drop(first);
        assert!(!budget.is_full());
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_blocked_source_leaves_room_for_the_others() {
        let budget = Budget::new(1000);
        let (blocked, other) = (budget.share(), budget.share());
        let all = blocked.charge(1200);
        assert!(
            budget.is_full() && !blocked.is_held_back(),
            "it may soon fall below its part"
        );
        look_for_long(&budget);
        assert!(blocked.is_held_back() && !other.is_held_back() && !budget.is_full());
        // The others have half of the limit, with the same marks in it.
        let more = other.charge(500);
        assert!(budget.is_full());
        drop(more);
        assert!(!budget.is_full());
        drop(all);
        assert!(!blocked.is_held_back());
        assert_eq!(
            (budget.used(), budget.held_back.load(Ordering::Relaxed)),
            (0, 0)
        );
    }

    #[test]
    fn a_source_whose_sink_keeps_up_is_not_held_back() {
        let budget = Budget::new(1000);
        let (busy, _other) = (budget.share(), budget.share());
        let now = Instant::now();
        for round in 0..100 {
            let charge = busy.charge(1000);
            budget.hold_back_at(now + PATIENCE * round);
            drop(charge);
            budget.hold_back_at(now + PATIENCE * round);
        }
        assert!(!busy.is_held_back());
    }

    #[test]
    fn many_blocked_sources_do_not_fill_the_budget() {
        for blocked in [1, 2, 5, 10, 100] {
            let budget = Budget::new(1 << 20);
            let (shares, other): (Vec<_>, _) = (
                (0..blocked).map(|_| budget.share()).collect(),
                budget.share(),
            );
            let mut charges = Vec::new();
            for round in 0..200 {
                budget.hold_back_at(Instant::now() + PATIENCE * round);
                if budget.is_full() {
                    continue;
                }
                for share in &shares {
                    if !share.state.lock().is_held_back {
                        charges.push(share.charge(1000));
                    }
                }
            }
            assert!(
                !budget.is_full(),
                "{blocked} blocked sources have filled the budget: {} bytes",
                budget.used()
            );
            assert!(!other.is_held_back());
            assert!(
                budget.used() < (1 << 20) + blocked * 1000,
                "{blocked} blocked sources use {} bytes",
                budget.used()
            );
        }
    }

    #[test]
    fn the_writer_with_the_largest_buffers_gives_way() {
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
        assert!(small.is_too_much(), "a single writer has the whole limit");
        small.set(0);
        assert_eq!(
            (
                memory.used.load(Ordering::Relaxed),
                memory.users.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }
}
