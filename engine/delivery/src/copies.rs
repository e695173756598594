//! Copies of the positions that a target holds.
//!
//! If the target holds the positions, the store has epochs, owners and where each split began. A
//! target that loses its positions would then go unnoticed: everything would be delivered again. So
//! the committer copies them into the store now and then. A copy is written after the target's own,
//! so it is never above it, and a target that holds less than the copy has lost data.

use std::collections::HashMap;

use crate::{CommitRecord, Ledger, Position, SplitCommit, SplitId};

/// The sequence of a record that was begun and never copied to.
const BEGUN: u64 = 1;

/// The store's records of the owned splits, as they were last written.
#[derive(Debug, Default)]
pub(crate) struct PositionCopies {
    owned: HashMap<SplitId, PositionCopy>,
    /// The copies of splits that are taken and not begun.
    stored: HashMap<SplitId, Option<Position>>,
}

#[derive(Clone, Debug)]
struct PositionCopy {
    epoch: u64,
    sequence: u64,
    low: Option<Position>,
    finished: Option<u64>,
}

impl PositionCopies {
    /// Notes the copy that the store has of a split that is taken. It may be older than the target's
    /// position.
    pub(crate) fn note_stored(&mut self, split: &SplitId, copy: Option<Position>) {
        self.stored.insert(split.clone(), copy);
    }

    /// Starts to own a split with this record, whose position is that of the target. `is_new` says
    /// that the record was stored just now. Otherwise an older copy is replaced soon, even if the
    /// position does not move: another plan may have to rely on it.
    pub(crate) fn take(&mut self, split: SplitId, record: &CommitRecord, is_new: bool) {
        let stored = self.stored.remove(&split).filter(|_| !is_new);
        let copy = PositionCopy {
            epoch: record.epoch,
            sequence: record.sequence,
            low: stored.unwrap_or(record.low),
            finished: record.finished,
        };
        self.owned.insert(split, copy);
    }

    /// Stops owning the splits.
    pub(crate) fn drop_splits(&mut self, splits: &[SplitId]) {
        for split in splits {
            self.owned.remove(split);
            self.stored.remove(split);
        }
    }

    /// Prepares the step that updates the copies of these splits to what is durable in the target.
    pub(crate) fn prepare<'a>(
        &self,
        splits: impl IntoIterator<Item = &'a SplitId>,
        ledger: &Ledger,
    ) -> Vec<SplitCommit> {
        let step = |split: &SplitId| {
            let durable = ledger.durable(split)?;
            let PositionCopy {
                epoch,
                sequence,
                low,
                finished,
            } = *self.owned.get(split)?;
            let is_news = Some(durable.low) > low || durable.finished != finished;
            is_news.then_some(SplitCommit {
                epoch,
                sequence,
                ..durable
            })
        };
        splits.into_iter().filter_map(step).collect()
    }

    /// Notes that the store has applied the step.
    pub(crate) fn confirm(&mut self, step: &[SplitCommit]) {
        for commit in step {
            if let Some(copy) = self.owned.get_mut(&commit.split) {
                (copy.sequence, copy.low, copy.finished) =
                    (commit.sequence + 1, Some(commit.low), commit.finished);
            }
        }
    }
}

/// Where to resume a split, given the store's record and the position that the target holds. An
/// error is the store's copy of a position that the target has lost.
pub fn position_in_target(
    record: &CommitRecord,
    held: Option<Position>,
) -> Result<Option<Position>, Position> {
    match record.low {
        Some(copy) if record.sequence > BEGUN && held.is_none_or(|held| held < copy) => Err(copy),
        low => Ok(low.max(held)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_holds_less_than_the_copy_has_lost_data() {
        for (sequence, low, held, expected) in [
            (0, None, None, Ok(None)),
            (0, None, Some(7), Ok(Some(7))),
            // The split was begun at a position and nothing was committed since, or the target
            // knows the split from another state.
            (1, Some(5), None, Ok(Some(5))),
            (1, Some(5), Some(3), Ok(Some(5))),
            (1, Some(5), Some(9), Ok(Some(9))),
            (2, Some(8), Some(8), Ok(Some(8))),
            (2, Some(8), Some(9), Ok(Some(9))),
            (2, Some(8), Some(7), Err(8)),
            (2, Some(8), None, Err(8)),
        ] {
            let record = CommitRecord {
                sequence,
                low,
                ..CommitRecord::default()
            };
            assert_eq!(
                position_in_target(&record, held),
                expected,
                "{sequence} {low:?} {held:?}"
            );
        }
    }

    #[test]
    fn a_copy_that_is_older_than_the_target_is_replaced_without_a_move() {
        let split = SplitId::from("s");
        let record = |sequence, low| CommitRecord {
            epoch: 1,
            sequence,
            low: Some(low),
            ..CommitRecord::default()
        };
        let steps = |stored: Option<Option<Position>>, is_new: bool| {
            let (mut copies, mut ledger) = (PositionCopies::default(), Ledger::default());
            if let Some(stored) = stored {
                copies.note_stored(&split, stored);
            }
            copies.take(split.clone(), &record(4, 9), is_new);
            ledger.take(split.clone(), record(4, 9), 9);
            let steps = copies.prepare([&split], &ledger);
            steps.iter().map(|step| step.low).collect::<Vec<_>>()
        };
        assert_eq!(steps(Some(Some(5)), false), [9]);
        assert_eq!(
            steps(Some(None), false),
            [9],
            "the target knows it from elsewhere"
        );
        assert!(steps(Some(Some(9)), false).is_empty());
        assert!(steps(Some(None), true).is_empty(), "it was stored just now");
        assert!(steps(None, false).is_empty());
    }
}
