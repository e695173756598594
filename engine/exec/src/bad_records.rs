//! The last invalid records of a run, which observers see.

use std::collections::VecDeque;

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};

/// How many invalid records are remembered.
const MAX_RECENT: usize = 20;

/// The last invalid records.
#[derive(Default)]
pub(crate) struct RecentBadRecords(Mutex<VecDeque<RecentBadRecord>>);

/// An invalid record, for observers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentBadRecord {
    /// The stage that could not process it.
    pub stage: String,
    /// The split of the record.
    pub split: SplitId,
    /// Its position in the split.
    pub position: Position,
    /// Why the stage could not process it, without stage and position.
    pub reason: String,
}

impl RecentBadRecords {
    /// Remembers a record, and forgets the oldest one if there are too many.
    pub(crate) fn note(&self, bad: RecentBadRecord) {
        let mut last = self.0.lock();
        if last.len() == MAX_RECENT {
            last.pop_front();
        }
        last.push_back(bad);
    }

    /// All that are remembered, the newest last.
    pub(crate) fn list(&self) -> Vec<RecentBadRecord> {
        self.0.lock().iter().cloned().collect()
    }
}
