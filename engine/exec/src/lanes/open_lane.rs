//! An open lane, and what the engine tracks of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pseidon_delivery::{LaneCommit, LaneId, Ledger, Position, SplitId};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::Lane;
use pseidon_plugin::rollover::Rollover;

use super::suspects::PositionRange;
use crate::sync::now;

/// A lane that accepts rows.
pub(super) struct OpenLane {
    pub(super) lane: Box<dyn Lane>,
    /// What it holds of each split; in order, so that a step is the same in each run of a simulation.
    held: BTreeMap<SplitId, SplitInLane>,
    records: u64,
    opened: Instant,
    written: Instant,
    /// The size of its buffers when it was last asked.
    pub(super) memory: usize,
    /// It is too old or idle, and is sealed as soon as it may be.
    pub(super) is_due: bool,
}

/// What a lane holds of a split.
#[derive(Default)]
struct SplitInLane {
    /// The position of the first record.
    first: Position,
    /// The position after the last record.
    upto: Position,
    /// How many of the last chunks ended with that record's position while more rows of it were to
    /// come in another batch.
    cut_chunks: usize,
}

impl OpenLane {
    /// Creates an empty lane.
    pub(super) fn new(lane: Box<dyn Lane>) -> OpenLane {
        let (opened, memory) = (now(), lane.memory());
        OpenLane {
            lane,
            held: BTreeMap::new(),
            records: 0,
            opened,
            written: opened,
            memory,
            is_due: false,
        }
    }

    /// Called with the next rows of a split before they are offered. If they begin at a higher
    /// position, the one before is complete.
    pub(super) fn expect(&mut self, rows: &Rows) {
        let Some(held) = self.held.get_mut(&rows.batch().split.id) else {
            return;
        };
        if rows.position(0) >= held.upto {
            held.cut_chunks = 0;
        }
    }

    /// Called when the lane has accepted these rows. `end` is the chunk's
    /// [`next`](pseidon_plugin::sink::Chunk::next) if they are the last of it.
    pub(super) fn note(&mut self, rows: &Rows, end: Option<Position>) {
        let Some(last) = rows.len().checked_sub(1).map(|row| rows.position(row)) else {
            return;
        };
        let split = &rows.batch().split.id;
        if !self.held.contains_key(split) {
            let held = SplitInLane {
                first: rows.position(0),
                ..SplitInLane::default()
            };
            self.held.insert(split.clone(), held);
        }
        let Some(held) = self.held.get_mut(split) else {
            return;
        };
        let is_cut = end.is_some_and(|next| last >= next);
        held.cut_chunks = if !is_cut {
            0
        } else {
            1 + if held.upto == last + 1 {
                held.cut_chunks
            } else {
                0
            }
        };
        held.upto = last + 1;
        self.records += rows.len() as u64;
        self.written = now();
    }

    /// The positions that it holds, a range for each split.
    pub(super) fn ranges(&self) -> Vec<PositionRange> {
        let range = |(split, held): (&SplitId, &SplitInLane)| PositionRange {
            split: split.clone(),
            first: held.first,
            upto: held.upto,
        };
        self.held.iter().map(range).collect()
    }

    /// How many records it may still get; the rows of one position may exceed this only together.
    pub(super) fn room(&self, rollover: &Rollover) -> u64 {
        rollover
            .records
            .map_or(u64::MAX, |most| most.saturating_sub(self.records))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn is_full(&self, rollover: &Rollover) -> bool {
        rollover.is_full(self.lane.bytes(), self.records)
    }

    pub(super) fn is_over(&self, rollover: &Rollover, now: Instant) -> bool {
        rollover.is_over(self.opened, self.written, now)
    }

    /// When rows were last written.
    pub(super) fn written(&self) -> Instant {
        self.written
    }

    /// Whether it holds records of one of these splits.
    pub(super) fn holds(&self, splits: &[SplitId]) -> bool {
        splits.iter().any(|split| self.held.contains_key(split))
    }

    /// The split of which it holds a part of a position, if there is one: more rows of that
    /// position may come. Until then it must not be sealed.
    ///
    /// Batches may have been dispatched that have not arrived here yet. So the position is complete
    /// when its end was dispatched, and all chunks of it that were dispatched to this lane have
    /// arrived.
    pub(super) fn cut_split(&self, lane: &LaneId, ledger: &Ledger) -> Option<&SplitId> {
        let is_over = |split: &SplitId, held: &SplitInLane| {
            let has_ended = ledger
                .frontier(split)
                .is_none_or(|frontier| frontier >= held.upto);
            has_ended && ledger.chunks_up_to(split, lane, held.upto - 1) == held.cut_chunks
        };
        self.held
            .iter()
            .find(|(split, held)| held.cut_chunks > 0 && !is_over(split, held))
            .map(|(split, _)| split)
    }

    /// Returns the content of its commit, and the lane itself.
    pub(super) fn into_commit(self, lane: LaneId) -> (LaneCommit, Box<dyn Lane>) {
        (
            LaneCommit {
                lane,
                splits: self
                    .held
                    .into_iter()
                    .map(|(split, held)| (split, held.upto))
                    .collect(),
            },
            self.lane,
        )
    }

    /// Its status for people.
    fn shown(&self, lane: LaneId) -> LaneStatus {
        LaneStatus {
            lane,
            bytes: self.lane.bytes(),
            records: self.records,
            opened: self.opened,
        }
    }
}

/// The status of an open lane, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The name of the lane; for files, their bucket.
    pub lane: LaneId,
    /// The bytes in the target so far, plus an estimate for what is buffered.
    pub bytes: u64,
    /// The number of records in it.
    pub records: u64,
    /// When it was opened.
    pub opened: Instant,
}

/// The status of the open lanes of all writers of a sink, as of their last rows.
#[derive(Clone, Default)]
pub struct LaneStatuses(Arc<Mutex<HashMap<LaneId, LaneStatus>>>);

impl LaneStatuses {
    /// All of them, ordered by name.
    pub fn list(&self) -> Vec<LaneStatus> {
        let mut lanes: Vec<LaneStatus> = self.0.lock().values().cloned().collect();
        lanes.sort_by(|one, other| one.lane.cmp(&other.lane));
        lanes
    }

    /// Updates the status. A lane that does not report its size is not open for long, and is not
    /// shown.
    pub(super) fn show(&self, lane: &LaneId, open: &OpenLane) {
        if open.lane.bytes() == 0 {
            return;
        }
        let mut lanes = self.0.lock();
        match lanes.get_mut(lane) {
            Some(known) => (known.bytes, known.records) = (open.lane.bytes(), open.records),
            None => _ = lanes.insert(lane.clone(), open.shown(lane.clone())),
        }
    }

    pub(super) fn hide(&self, lane: &LaneId) {
        self.0.lock().remove(lane);
    }
}
