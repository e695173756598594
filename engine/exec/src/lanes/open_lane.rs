//! An open lane with what the engine knows of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pseidon_delivery::{LaneCommit, LaneId, Ledger, Position, SplitId};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::Lane;
use pseidon_plugin::rollover::Rollover;

use crate::sync::now;

/// A lane that takes rows.
pub(super) struct OpenLane {
    pub(super) lane: Box<dyn Lane>,
    held: Vec<Held>,
    records: u64,
    opened: Instant,
    written: Instant,
    /// What it buffered when it was asked last.
    pub(super) memory: usize,
    /// Its time has come, and it is sealed as soon as it may be.
    pub(super) is_due: bool,
}

/// What a lane holds of a split.
struct Held {
    split: SplitId,
    /// The position after the last record.
    upto: Position,
    /// How many of the last chunks ended with that record's position while more rows of it were to
    /// come in another batch.
    cut_chunks: usize,
}

impl OpenLane {
    /// Nothing is in it.
    pub(super) fn new(lane: Box<dyn Lane>) -> OpenLane {
        let (opened, memory) = (now(), lane.memory());
        OpenLane {
            lane,
            held: Vec::new(),
            records: 0,
            opened,
            written: opened,
            memory,
            is_due: false,
        }
    }

    /// These rows are the next of their split for the lane. Where they begin at a higher position,
    /// the one before has come to its end.
    pub(super) fn expect(&mut self, rows: &Rows) {
        let Some(held) = self
            .held
            .iter_mut()
            .find(|held| held.split == rows.batch().split.id)
        else {
            return;
        };
        if rows.position(0) >= held.upto {
            held.cut_chunks = 0;
        }
    }

    /// The lane has taken these rows. `end` is the chunk's
    /// [`next`](pseidon_plugin::sink::Chunk::next) if they are the last of it.
    pub(super) fn note(&mut self, rows: &Rows, end: Option<Position>) {
        let Some(last) = rows.len().checked_sub(1).map(|row| rows.position(row)) else {
            return;
        };
        let split = &rows.batch().split.id;
        let number = self
            .held
            .iter()
            .position(|held| held.split == *split)
            .unwrap_or_else(|| {
                self.held.push(Held {
                    split: split.clone(),
                    upto: 0,
                    cut_chunks: 0,
                });
                self.held.len() - 1
            });
        let held = &mut self.held[number];
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

    /// How many records it may still get; all of one position count as one that is too many only
    /// together.
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

    /// When rows were written last.
    pub(super) fn written(&self) -> Instant {
        self.written
    }

    /// Whether it holds records of one of these splits.
    pub(super) fn holds(&self, splits: &[SplitId]) -> bool {
        self.held.iter().any(|held| splits.contains(&held.split))
    }

    /// The split of which it holds a part of a position, if there is one: more rows of that
    /// position may come. Until then it must not be sealed.
    ///
    /// Batches may have been dispatched that have not come here yet. So the position is over when
    /// its end was dispatched, and all chunks of it that were dispatched to this lane have come.
    pub(super) fn cut_split(&self, lane: &LaneId, ledger: &Ledger) -> Option<&SplitId> {
        let is_over = |held: &Held| {
            let has_ended = ledger
                .frontier(&held.split)
                .is_none_or(|frontier| frontier >= held.upto);
            has_ended && ledger.chunks_up_to(&held.split, lane, held.upto - 1) == held.cut_chunks
        };
        self.held
            .iter()
            .find(|held| held.cut_chunks > 0 && !is_over(held))
            .map(|held| &held.split)
    }

    /// What its commit says, and the lane itself.
    pub(super) fn into_commit(self, lane: LaneId) -> (LaneCommit, Box<dyn Lane>) {
        (
            LaneCommit {
                lane,
                splits: self
                    .held
                    .into_iter()
                    .map(|held| (held.split, held.upto))
                    .collect(),
            },
            self.lane,
        )
    }

    /// As it is shown to a person.
    fn shown(&self, lane: LaneId) -> ShownLane {
        ShownLane {
            lane,
            bytes: self.lane.bytes(),
            records: self.records,
            opened: self.opened,
        }
    }
}

/// An open lane, for a person who looks at the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownLane {
    /// The lane: of files, their bucket.
    pub lane: LaneId,
    /// The bytes in the target so far, with an estimate of what is buffered.
    pub bytes: u64,
    /// The records in it.
    pub records: u64,
    /// When it was opened.
    pub opened: Instant,
}

/// The open lanes of all writers of a sink, as they were after their last rows.
#[derive(Clone, Default)]
pub struct ShownLanes(Arc<Mutex<HashMap<LaneId, ShownLane>>>);

impl ShownLanes {
    /// All of them, in the order of their names.
    pub fn list(&self) -> Vec<ShownLane> {
        let mut lanes: Vec<ShownLane> = self.0.lock().values().cloned().collect();
        lanes.sort_by(|one, other| one.lane.cmp(&other.lane));
        lanes
    }

    /// A lane that does not say how large it is is not open for long, and is not shown.
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
