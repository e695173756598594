//! Which positions wait in which lane: the delivery protocol's bookkeeping, without any I/O.
//!
//! The ledger of a sink follows, for every split that is ours, three things: the **frontier** (all records below it have been handed
//! to lanes or filtered out), the records that **wait** in lanes and are not yet durable, and the lanes that are **ahead** of the low
//! position. The low position is the least position that still waits anywhere, or the frontier when nothing waits.
//!
//! Of what waits in a lane only the range is kept. After a commit in the middle of it the rest is taken to start right there, which
//! may be too low and never too high: reading a record again costs time, and the lane skips it; leaving one out would lose it.

use std::collections::{BTreeSet, HashMap};

use crate::{CommitRecord, LaneCommit, LaneId, Position, SplitCommit, SplitId};

/// The bookkeeping of one sink.
#[derive(Debug, Default)]
pub struct Ledger {
    splits: HashMap<SplitId, SplitLedger>,
}

#[derive(Debug)]
struct SplitLedger {
    epoch: u64,
    sequence: u64,
    /// As the store has it.
    low: Position,
    frontier: Position,
    ahead: HashMap<LaneId, Position>,
    /// The same entries ordered by position, so that those that the low position has passed are found without looking at all.
    ahead_order: BTreeSet<(Position, LaneId)>,
    waiting: HashMap<LaneId, Waiting>,
    /// The first waiting position of each lane, least first.
    waiting_order: BTreeSet<(Position, LaneId)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Position,
    last: Position,
}

impl Ledger {
    /// A split is ours from now on, with this record; `start` is where it is read from if the record does not say.
    pub fn take(&mut self, split: SplitId, record: CommitRecord, start: Position) {
        let low = record.low.unwrap_or(start);
        let ahead_order = record.ahead.iter().map(|(lane, upto)| (*upto, lane.clone())).collect();
        let ledger = SplitLedger {
            epoch: record.epoch,
            sequence: record.sequence,
            low,
            frontier: low,
            ahead: record.ahead,
            ahead_order,
            waiting: HashMap::new(),
            waiting_order: BTreeSet::new(),
        };
        self.splits.insert(split, ledger);
    }

    /// The split is not ours any more. Gives the epoch that it was held under.
    pub fn drop_split(&mut self, split: &SplitId) -> Option<u64> {
        self.splits.remove(split).map(|ledger| ledger.epoch)
    }

    /// The splits that are ours.
    pub fn splits(&self) -> impl Iterator<Item = &SplitId> {
        self.splits.keys()
    }

    /// Records of this split below this position are already durable in the lane, and must not be written to it again.
    pub fn already_held(&self, split: &SplitId, lane: &LaneId) -> Position {
        let Some(ledger) = self.splits.get(split) else { return 0 };
        ledger.ahead.get(lane).copied().unwrap_or(0).max(ledger.low)
    }

    /// Records of this split from `first` to `last` (inclusive) go to the lane's writer now. They come in order.
    pub fn dispatch(&mut self, split: &SplitId, lane: &LaneId, first: Position, last: Position) {
        let Some(ledger) = self.splits.get_mut(split) else { return };
        debug_assert!(first <= last);
        match ledger.waiting.get_mut(lane) {
            Some(waiting) => waiting.last = last,
            None => {
                ledger.waiting.insert(lane.clone(), Waiting { first, last });
                ledger.waiting_order.insert((first, lane.clone()));
            }
        }
    }

    /// All records below `frontier` have been dispatched or filtered out.
    pub fn advance(&mut self, split: &SplitId, frontier: Position) {
        let Some(ledger) = self.splits.get_mut(split) else { return };
        ledger.frontier = ledger.frontier.max(frontier);
    }

    /// The low position of each split as the store has it.
    pub fn lows(&self) -> Vec<(SplitId, Position)> {
        self.splits.iter().map(|(split, ledger)| (split.clone(), ledger.low)).collect()
    }

    /// The step that makes `lanes` durable. Splits that are not ours are left out; the caller has lost them.
    ///
    /// The step describes the ledger as it is now, so the next one must not be prepared before this one is [confirmed](Self::confirm).
    pub fn prepare(&self, lanes: &[LaneCommit]) -> Vec<SplitCommit> {
        let mut by_split: HashMap<&SplitId, HashMap<&LaneId, Position>> = HashMap::new();
        for lane_commit in lanes {
            for (split, upto) in &lane_commit.splits {
                let upto_of_lane = by_split.entry(split).or_default().entry(&lane_commit.lane).or_insert(0);
                *upto_of_lane = (*upto_of_lane).max(*upto);
            }
        }
        let commit_of = |(split, lanes): (&&SplitId, &HashMap<&LaneId, Position>)| {
            self.splits.get(*split).map(|ledger| ledger.prepare((*split).clone(), lanes))
        };
        by_split.iter().filter_map(commit_of).collect()
    }

    /// A step for every split whose low position has moved without any lane's commit.
    pub fn prepare_idle(&self) -> Vec<SplitCommit> {
        let none = HashMap::new();
        let moved = self.splits.iter().filter(|(_, ledger)| ledger.low_after(&none) > ledger.low);
        moved.map(|(split, ledger)| ledger.prepare(split.clone(), &none)).collect()
    }

    /// The store has applied a prepared step.
    pub fn confirm(&mut self, lanes: &[LaneCommit], commits: &[SplitCommit]) {
        for lane_commit in lanes {
            for (split, upto) in &lane_commit.splits {
                if let Some(ledger) = self.splits.get_mut(split) {
                    ledger.settle(&lane_commit.lane, *upto);
                }
            }
        }
        for commit in commits {
            if let Some(ledger) = self.splits.get_mut(&commit.split) {
                ledger.apply(commit);
            }
        }
    }
}

impl SplitLedger {
    /// The low position if these lanes were durable up to these positions.
    fn low_after(&self, durable: &HashMap<&LaneId, Position>) -> Position {
        let mut low = self.frontier;
        for (&lane, &upto) in durable {
            if let Some(waiting) = self.waiting.get(lane)
                && waiting.last >= upto
            {
                low = low.min(waiting.first.max(upto));
            }
        }
        let other = self.waiting_order.iter().find(|(_, lane)| !durable.contains_key(lane));
        if let Some((first, _)) = other {
            low = low.min(*first);
        }
        low.max(self.low)
    }

    fn prepare(&self, split: SplitId, durable: &HashMap<&LaneId, Position>) -> SplitCommit {
        let low = self.low_after(durable);
        let ahead = durable.iter().filter(|(_, upto)| **upto > low).map(|(lane, upto)| ((*lane).clone(), *upto)).collect();
        let passed = self.ahead_order.iter().take_while(|(upto, _)| *upto <= low);
        let caught_up = passed.map(|(_, lane)| lane).filter(|lane| durable.get(lane).is_none_or(|upto| *upto <= low)).cloned().collect();
        SplitCommit { split, epoch: self.epoch, sequence: self.sequence, low, ahead, caught_up }
    }

    /// What waited in the lane below `upto` is durable.
    fn settle(&mut self, lane: &LaneId, upto: Position) {
        let Some(waiting) = self.waiting.get_mut(lane) else { return };
        self.waiting_order.remove(&(waiting.first, lane.clone()));
        if waiting.last < upto {
            self.waiting.remove(lane);
            return;
        }
        waiting.first = waiting.first.max(upto);
        self.waiting_order.insert((waiting.first, lane.clone()));
    }

    fn apply(&mut self, commit: &SplitCommit) {
        self.sequence = commit.sequence + 1;
        self.low = commit.low;
        self.frontier = self.frontier.max(commit.low);
        for (lane, upto) in &commit.ahead {
            if let Some(before) = self.ahead.insert(lane.clone(), *upto) {
                self.ahead_order.remove(&(before, lane.clone()));
            }
            self.ahead_order.insert((*upto, lane.clone()));
        }
        for lane in &commit.caught_up {
            if let Some(before) = self.ahead.remove(lane) {
                self.ahead_order.remove(&(before, lane.clone()));
            }
        }
    }
}
