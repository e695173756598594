//! The bookkeeping of the delivery protocol, without any I/O: which positions wait in which lane.
//!
//! The ledger of a sink tracks, for every split that this instance owns, three things: the
//! **frontier** (all records below it have been handed to lanes or filtered out), the records that
//! **wait** in lanes and are not yet durable, and the lanes that are **ahead** of the low position.
//! The low position is the lowest position that still waits anywhere, or the frontier if nothing
//! waits.
//!
//! For the waiting records of a lane only their range is stored. After a commit in the middle of it
//! the rest is assumed to start right there, which may be too low and never too high: reading a
//! record again costs time, and the lane skips it; leaving one out would lose it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::{
    CommitRecord, LaneCommit, LaneId, Position, ResumePoint, ResumeToken, SplitCommit, SplitId,
};

/// How many [`ResumeToken`]s of a split are stored above its low position. Beyond that every second
/// one is dropped: the source then continues with an older one, which belongs to a lower position.
const MAX_RESUME_POINTS: usize = 1024;

/// The ledger of one sink.
#[derive(Debug, Default)]
pub struct Ledger {
    splits: HashMap<SplitId, SplitLedger>,
    /// The splits whose low position has moved since [`Ledger::take_moved`].
    moved: HashSet<SplitId>,
    /// The splits that have changed since [`Ledger::prepare_idle`] found nothing to store of them. A
    /// process may own many splits of which few have records.
    changed: HashSet<SplitId>,
}

#[derive(Debug)]
struct SplitLedger {
    epoch: u64,
    sequence: u64,
    /// As in the store.
    low: Position,
    frontier: Position,
    ahead: HashMap<LaneId, Position>,
    /// The same entries ordered by position, so that those that the low position has passed are
    /// found without a scan of all.
    ahead_order: BTreeSet<(Position, LaneId)>,
    waiting: HashMap<LaneId, WaitingRange>,
    /// The first waiting position of each lane, in ascending order.
    waiting_order: BTreeSet<(Position, LaneId)>,
    /// What the source provided beside positions, as in the store.
    resume: Option<ResumeToken>,
    /// The same for positions above the low one, in ascending order.
    resumes: VecDeque<ResumePoint>,
    /// The end of the split, once the source has reported it: no record at or above it will come.
    end: Option<Position>,
    /// When the split was finished, as in the store.
    finished: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct WaitingRange {
    first: Position,
    last: Position,
    /// How many of the last dispatches ended at `last`.
    ended_at_last: usize,
}

impl Ledger {
    /// Starts to own a split with this record; `start` is where it is read from if the record does
    /// not say.
    pub fn take(&mut self, split: SplitId, record: CommitRecord, start: Position) {
        let low = record.low.unwrap_or(start);
        let ahead_order = record
            .ahead
            .iter()
            .map(|(lane, upto)| (*upto, lane.clone()))
            .collect();
        let ledger = SplitLedger {
            epoch: record.epoch,
            sequence: record.sequence,
            low,
            frontier: low,
            ahead: record.ahead,
            ahead_order,
            waiting: HashMap::new(),
            waiting_order: BTreeSet::new(),
            resume: record.resume,
            resumes: VecDeque::new(),
            end: None,
            finished: None,
        };
        self.moved.insert(split.clone());
        self.changed.insert(split.clone());
        self.splits.insert(split, ledger);
    }

    /// Stops owning the split. Returns the epoch under which it was held, and whether it is
    /// finished. `None` if it was not owned.
    pub fn drop_split(&mut self, split: &SplitId) -> Option<(u64, bool)> {
        self.moved.remove(split);
        self.changed.remove(split);
        self.splits
            .remove(split)
            .map(|ledger| (ledger.epoch, ledger.finished.is_some()))
    }

    /// Whether this instance owns the split.
    pub fn has(&self, split: &SplitId) -> bool {
        self.splits.contains_key(split)
    }

    /// The position below which the records of this split are already durable in the lane, and must
    /// not be written to it again.
    pub fn already_held(&self, split: &SplitId, lane: &LaneId) -> Position {
        let Some(ledger) = self.splits.get(split) else {
            return 0;
        };
        ledger.ahead.get(lane).copied().unwrap_or(0).max(ledger.low)
    }

    /// Notes that records of this split from `first` to `last` (inclusive) now go to the lane's
    /// writer. Calls for a lane come in order.
    pub fn dispatch(&mut self, split: &SplitId, lane: &LaneId, first: Position, last: Position) {
        let Some(ledger) = self.splits.get_mut(split) else {
            return;
        };
        debug_assert!(first <= last);
        match ledger.waiting.get_mut(lane) {
            Some(waiting) => {
                waiting.ended_at_last = 1 + if waiting.last == last {
                    waiting.ended_at_last
                } else {
                    0
                };
                waiting.last = last;
            }
            None => {
                ledger.waiting.insert(
                    lane.clone(),
                    WaitingRange {
                        first,
                        last,
                        ended_at_last: 1,
                    },
                );
                ledger.waiting_order.insert((first, lane.clone()));
            }
        }
    }

    /// How many of the last dispatches to a lane ended with records at `last`; 0 if later ones
    /// ended at a higher position.
    pub fn chunks_up_to(&self, split: &SplitId, lane: &LaneId, last: Position) -> usize {
        let waiting = self
            .splits
            .get(split)
            .and_then(|ledger| ledger.waiting.get(lane));
        waiting
            .filter(|waiting| waiting.last == last)
            .map_or(0, |waiting| waiting.ended_at_last)
    }

    /// Notes that everything below `frontier` has been dispatched or filtered out. `resume` is
    /// stored if it belongs to a position up to there.
    pub fn advance(&mut self, split: &SplitId, frontier: Position, resume: Option<&ResumePoint>) {
        let Some(ledger) = self.splits.get_mut(split) else {
            return;
        };
        if frontier > ledger.frontier {
            ledger.frontier = frontier;
            note_change(&mut self.changed, split);
        }
        if let Some(resume) = resume.filter(|resume| resume.position <= frontier) {
            ledger.keep_resume(resume);
        }
    }

    /// Notes that no record of the split will follow: once everything below the frontier is
    /// durable it is finished.
    pub fn end(&mut self, split: &SplitId) {
        if let Some(ledger) = self.splits.get_mut(split) {
            ledger.end = Some(ledger.frontier);
            note_change(&mut self.changed, split);
        }
    }

    /// What is durable of a split, in the form of a step. `None` if it is not owned.
    pub(crate) fn durable(&self, split: &SplitId) -> Option<SplitCommit> {
        let ledger = self.splits.get(split)?;
        Some(SplitCommit {
            resume: ledger.resume.clone(),
            finished: ledger.finished,
            ..SplitCommit::to_low(split.clone(), ledger.epoch, ledger.sequence, ledger.low)
        })
    }

    /// The low position of each split, as in the store.
    pub fn lows(&self) -> Vec<(SplitId, Position)> {
        self.splits
            .iter()
            .map(|(split, ledger)| (split.clone(), ledger.low))
            .collect()
    }

    /// The position of each split below which no record waits in a lane or is on its way to one.
    /// The store may not know it yet.
    pub fn settled(&self) -> Vec<(SplitId, Position)> {
        self.splits
            .iter()
            .map(|(split, ledger)| (split.clone(), ledger.low_after(&HashMap::new())))
            .collect()
    }

    /// The low position of a split, as in the store; `None` if the split is not owned.
    pub fn low(&self, split: &SplitId) -> Option<Position> {
        self.splits.get(split).map(|ledger| ledger.low)
    }

    /// The position below which all records of a split have been handed to lanes or filtered out;
    /// `None` if the split is not owned.
    pub fn frontier(&self, split: &SplitId) -> Option<Position> {
        self.splits.get(split).map(|ledger| ledger.frontier)
    }

    /// The highest position of a split: its frontier, or that of a lane which is further ahead; `None`
    /// if the split is not owned.
    pub fn highest(&self, split: &SplitId) -> Option<Position> {
        let ledger = self.splits.get(split)?;
        let ahead = ledger.ahead_order.last().map_or(0, |(upto, _)| *upto);
        Some(ledger.frontier.max(ahead))
    }

    /// The splits whose low position in the store has moved since the last call, including those
    /// that became owned.
    pub fn take_moved(&mut self) -> HashSet<SplitId> {
        std::mem::take(&mut self.moved)
    }

    /// Prepares the step that makes `lanes` durable. Splits that are not owned are left out; the
    /// caller has lost them. `now`, in seconds since 1970, becomes the finish time of those splits
    /// that the step finishes.
    ///
    /// The step describes the ledger as it is now, so the next one must not be prepared before this
    /// one is [confirmed](Self::confirm).
    pub fn prepare(&self, lanes: &[LaneCommit], now: u64) -> Vec<SplitCommit> {
        let mut by_split: HashMap<&SplitId, HashMap<&LaneId, Position>> = HashMap::new();
        for lane_commit in lanes {
            for (split, upto) in &lane_commit.splits {
                let upto_of_lane = by_split
                    .entry(split)
                    .or_default()
                    .entry(&lane_commit.lane)
                    .or_insert(0);
                *upto_of_lane = (*upto_of_lane).max(*upto);
            }
        }
        let commit_of = |(split, lanes): (&&SplitId, &HashMap<&LaneId, Position>)| {
            self.splits
                .get(*split)
                .map(|ledger| ledger.prepare((*split).clone(), lanes, now))
        };
        by_split.iter().filter_map(commit_of).collect()
    }

    /// Prepares a step for every split whose low position has moved, or which is finished, without
    /// any lane's commit.
    pub fn prepare_idle(&mut self, now: u64) -> Vec<SplitCommit> {
        let none = HashMap::new();
        let has_news = |ledger: &SplitLedger| {
            let low = ledger.low_after(&none);
            low > ledger.low || (ledger.finished.is_none() && ledger.is_finished_at(low))
        };
        let mut news = Vec::new();
        self.changed.retain(|split| {
            let ledger = self.splits.get(split).filter(|ledger| has_news(ledger));
            news.extend(ledger.map(|ledger| ledger.prepare(split.clone(), &none, now)));
            ledger.is_some()
        });
        news
    }

    /// Notes that the store has applied a prepared step.
    pub fn confirm(&mut self, lanes: &[LaneCommit], commits: &[SplitCommit]) {
        for lane_commit in lanes {
            for (split, upto) in &lane_commit.splits {
                if let Some(ledger) = self.splits.get_mut(split) {
                    ledger.settle(&lane_commit.lane, *upto);
                    note_change(&mut self.changed, split);
                }
            }
        }
        for commit in commits {
            if let Some(ledger) = self.splits.get_mut(&commit.split) {
                if commit.low > ledger.low {
                    self.moved.insert(commit.split.clone());
                }
                ledger.apply(commit);
            }
        }
    }
}

/// Adds a split to those that have changed; mostly it is among them.
fn note_change(changed: &mut HashSet<SplitId>, split: &SplitId) {
    if !changed.contains(split) {
        changed.insert(split.clone());
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
        let other = self
            .waiting_order
            .iter()
            .find(|(_, lane)| !durable.contains_key(lane));
        if let Some((first, _)) = other {
            low = low.min(*first);
        }
        low.max(self.low)
    }

    /// Whether nothing of the split is left once the low position is this one.
    fn is_finished_at(&self, low: Position) -> bool {
        self.end.is_some_and(|end| low >= end)
    }

    fn keep_resume(&mut self, new: &ResumePoint) {
        match self.resumes.back_mut() {
            // The last entry is found for the higher position too.
            Some(last) if last.resume == new.resume => return,
            None if self.resume.as_ref() == Some(&new.resume) => return,
            Some(last) if last.position == new.position => *last = new.clone(),
            _ => self.resumes.push_back(new.clone()),
        }
        if self.resumes.len() > MAX_RESUME_POINTS {
            let mut after = self.resumes.len();
            // The newest is always kept.
            self.resumes.retain(|_| {
                after -= 1;
                after.is_multiple_of(2)
            });
        }
    }

    /// The entry that belongs to the greatest position up to this one.
    fn resume_at(&self, low: Position) -> Option<&ResumeToken> {
        self.resumes
            .iter()
            .take_while(|from| from.position <= low)
            .last()
            .map(|from| &from.resume)
    }

    fn prepare(
        &self,
        split: SplitId,
        durable: &HashMap<&LaneId, Position>,
        now: u64,
    ) -> SplitCommit {
        let low = self.low_after(durable);
        let ahead = durable
            .iter()
            .filter(|(_, upto)| **upto > low)
            .map(|(lane, upto)| ((*lane).clone(), *upto))
            .collect();
        let passed = self.ahead_order.iter().take_while(|(upto, _)| *upto <= low);
        let caught_up = passed
            .map(|(_, lane)| lane)
            .filter(|lane| durable.get(lane).is_none_or(|upto| *upto <= low))
            .cloned()
            .collect();
        let resume = self.resume_at(low).cloned();
        let finished = self
            .is_finished_at(low)
            .then(|| self.finished.unwrap_or(now));
        SplitCommit {
            split,
            epoch: self.epoch,
            sequence: self.sequence,
            low,
            ahead,
            caught_up,
            resume,
            finished,
        }
    }

    /// Notes that what waited in the lane below `upto` is durable.
    fn settle(&mut self, lane: &LaneId, upto: Position) {
        let Some(waiting) = self.waiting.get_mut(lane) else {
            return;
        };
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
        self.finished = commit.finished;
        if commit.resume.is_some() {
            self.resume.clone_from(&commit.resume);
        }
        self.frontier = self.frontier.max(commit.low);
        // What the store has now is not sent again.
        let stored = self
            .resumes
            .iter()
            .take_while(|from| from.position <= commit.low)
            .count();
        self.resumes.drain(..stored);
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
