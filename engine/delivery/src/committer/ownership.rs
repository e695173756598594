//! Owning splits: they are taken, begun and released, and dead owners are fenced.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Committer, CommitterError, Positions, now};
use crate::{
    CommitError, CommitRecord, InstanceId, Position, ResumeToken, SinkId, SplitCommit, SplitId,
    StoredPlan,
};

/// A split that was taken and is about to be read.
#[derive(Clone, Debug)]
pub struct SplitToBegin {
    /// A split that this instance holds.
    pub split: SplitId,
    /// The record that [`Committer::take`] returned.
    pub record: CommitRecord,
    /// Where to start a split that was never begun.
    pub start: Position,
    /// What the source needs beside that position.
    pub resume: Option<ResumeToken>,
}

impl Committer {
    /// Raises the epochs of splits and returns their records, each with its previous owners. Call
    /// [`Committer::hold`] next, when this is done in every sink that their records reach.
    pub fn take(&self, splits: &[SplitId]) -> Result<Vec<CommitRecord>, CommitterError> {
        let records = self.until_answered(|| {
            match self.store.take(&self.sink, splits, &self.claimant.owner) {
                Err(CommitError::Store(error)) => Err(error),
                other => Ok(other),
            }
        })?;
        let records = records.map_err(CommitterError::Fenced)?;
        for (split, record) in splits.iter().zip(&records) {
            self.seen.check(split, record)?;
        }
        if self.positions == Positions::InTarget {
            let mut copies = self.copies.lock();
            let both = splits.iter().zip(&records);
            both.for_each(|(split, record)| copies.note_stored(split, record.low));
        }
        Ok(records)
    }

    /// Makes this instance the sole owner of splits whose earlier owners are fenced, and its plan
    /// the plan of their records. `taken` has the splits with the epochs that [`Committer::take`]
    /// returned. Call [`Committer::begin`] next.
    ///
    /// # Errors
    /// [`CommitterError::Fenced`] if another instance has taken one of them since.
    pub fn hold(&self, taken: &[(SplitId, u64)]) -> Result<(), CommitterError> {
        let held =
            self.until_answered(
                || match self.store.hold(&self.sink, taken, &self.claimant) {
                    Err(CommitError::Store(error)) => Err(error),
                    other => Ok(other),
                },
            )?;
        held.map_err(CommitterError::Fenced)
    }

    /// Makes sure that the store has the text of the claimant's plan. `text` makes it.
    pub fn keep_plan(&self, text: &dyn Fn() -> String) -> Result<(), CommitterError> {
        let fingerprint = &self.claimant.plan;
        self.until_answered(|| {
            if self.store.has_plan(fingerprint)? {
                return Ok(());
            }
            self.store.add_plan(&StoredPlan {
                fingerprint: fingerprint.clone(),
                text: text(),
            })
        })
    }

    /// The store's note of this name, if there is one; see
    /// [`StateStore::note`](crate::StateStore::note).
    pub fn note(&self, key: &str) -> Result<Option<String>, CommitterError> {
        self.until_answered(|| self.store.note(key))
    }

    /// The sink's records of the splits that satisfy the predicate.
    pub fn records(
        &self,
        is_wanted: impl Fn(&SplitId) -> bool,
    ) -> Result<Vec<(SplitId, CommitRecord)>, CommitterError> {
        let mut records = self.until_answered(|| self.store.records(&self.sink))?;
        records.retain(|(split, _)| is_wanted(split));
        Ok(records)
    }

    /// Sets the store's note of this name.
    pub fn set_note(&self, key: &str, value: &str) -> Result<(), CommitterError> {
        self.until_answered(|| self.store.set_note(key, value))
    }

    /// The records of splits in every sink of the state except these, each in the order of
    /// `splits`.
    pub fn records_in_other_sinks(
        &self,
        sinks: &[&SinkId],
        splits: &[SplitId],
    ) -> Result<Vec<(SinkId, Vec<CommitRecord>)>, CommitterError> {
        let known = self.until_answered(|| self.store.sinks())?;
        let others = known.into_iter().filter(|sink| !sinks.contains(&sink));
        let read = |sink: SinkId| {
            let records = self.until_answered(|| self.store.records_of(&sink, splits))?;
            Ok((sink, records))
        };
        others.map(read).collect()
    }

    /// Fences a dead instance off, whatever splits it has. After this returns, nothing that it ever
    /// sent is applied; see [`StateStore::fence`](crate::StateStore::fence).
    pub fn fence(&self, owner: &InstanceId) -> Result<(), CommitterError> {
        self.until_answered(|| self.store.fence(&self.sink, owner))
    }

    /// The instances that are owners in a commit record of the sink. All others must take splits
    /// before they can commit anything.
    pub fn owners(&self) -> Result<BTreeSet<InstanceId>, CommitterError> {
        self.until_answered(|| self.store.owners(&self.sink))
    }

    /// Removes splits that were finished at least `retention` ago and for which `is_gone` returns
    /// true: the source does not find them any more. Returns their number.
    ///
    /// A sink whose target holds the positions forgets none. The target keeps the position, and only
    /// the record has the [`ResumeToken`] by which the source tells a new file with the same identity
    /// from the old one.
    pub fn forget_finished(
        &self,
        retention: Duration,
        is_gone: impl Fn(&SplitId) -> bool,
    ) -> Result<usize, CommitterError> {
        if self.positions == Positions::InTarget {
            return Ok(0);
        }
        let until = now().saturating_sub(retention.as_secs());
        let records = self.until_answered(|| self.store.records(&self.sink))?;
        let is_over = |record: &CommitRecord| record.finished.is_some_and(|at| at <= until);
        let over: Vec<SplitId> = records
            .into_iter()
            .filter(|(split, record)| is_over(record) && is_gone(split))
            .map(|(split, _)| split)
            .collect();
        self.until_answered(|| self.store.forget_splits(&self.sink, &over))?;
        Ok(over.len())
    }

    /// Starts to own the splits. The start of splits that were never begun is stored first, in one
    /// step for all of them: a start such as "the latest" must mean the same after a crash. The same
    /// step says that splits which were finished are read again, because they have grown: what is
    /// committed of them in one sink only must not look finished in all.
    pub fn begin(&self, mut splits: Vec<SplitToBegin>) -> Result<(), CommitterError> {
        if splits.is_empty() {
            return Ok(());
        }
        let _step = self.step.lock();
        let changes = |record: &CommitRecord| record.low.is_none() || record.finished.is_some();
        let first = |begin: &SplitToBegin| SplitCommit {
            resume: begin.resume.clone().filter(|_| begin.record.low.is_none()),
            ..SplitCommit::to_low(
                begin.split.clone(),
                begin.record.epoch,
                begin.record.sequence,
                begin.record.low.unwrap_or(begin.start),
            )
        };
        let begun: Vec<SplitCommit> = splits
            .iter()
            .filter(|begin| changes(&begin.record))
            .map(first)
            .collect();
        if !begun.is_empty() {
            self.commit_until_answered(&self.step_of(begun, Vec::new(), Vec::new()))?;
        }
        // In this order, as where the copies are written.
        let mut copies = self.copies.lock();
        let mut ledger = self.ledger.lock();
        for mut begin in splits.drain(..) {
            let is_stored = changes(&begin.record);
            if is_stored {
                begin.record.sequence += 1;
                begin.record.finished = None;
            }
            if begin.record.low.is_none() {
                begin.record.low = Some(begin.start);
                begin.record.resume = begin.resume.take();
            }
            self.seen
                .note(&begin.split, begin.record.epoch, begin.record.sequence);
            if self.positions == Positions::InTarget {
                copies.take(begin.split.clone(), &begin.record, is_stored);
                self.uncopied.lock().insert(begin.split.clone());
            }
            ledger.take(begin.split, begin.record, begin.start);
        }
        Ok(())
    }

    /// Releases splits: everything of them must have been committed. Another instance can take them
    /// at once.
    pub fn release(&self, splits: &[SplitId]) -> Result<(), CommitterError> {
        self.commit_idle()?;
        let held: Vec<_> = {
            let mut ledger = self.ledger.lock();
            splits
                .iter()
                .filter_map(|split| {
                    ledger
                        .drop_split(split)
                        .map(|(epoch, finished)| (split.clone(), epoch, finished))
                })
                .collect()
        };
        self.copies.lock().drop_splits(splits);
        for (split, _, _) in held.iter().filter(|(_, _, finished)| *finished) {
            // It will hardly be taken again, and there may be millions of finished splits.
            self.seen.forget(split);
        }
        let held: Vec<_> = held
            .into_iter()
            .map(|(split, epoch, _)| (split, epoch))
            .collect();
        self.release_unbegun(&held)
    }

    /// Releases those splits of which nothing was left when they were taken, with the records that
    /// [`Committer::take`] returned: they had no owner, or they are settled. The others keep an
    /// owner although they were not begun: they were not released by a graceful stop, and another
    /// plan has to see that.
    pub fn release_free<'a>(
        &self,
        taken: impl IntoIterator<Item = (&'a SplitId, &'a CommitRecord)>,
    ) -> Result<(), CommitterError> {
        let is_free = |record: &CommitRecord| record.owners.is_empty() || record.is_settled();
        let taken: Vec<_> = taken.into_iter().collect();
        let splits: Vec<SplitId> = taken.iter().map(|(split, _)| (*split).clone()).collect();
        self.copies.lock().drop_splits(&splits);
        let free: Vec<(SplitId, u64)> = taken
            .into_iter()
            .filter(|(_, record)| is_free(record))
            .map(|(split, record)| (split.clone(), record.epoch))
            .collect();
        self.release_unbegun(&free)
    }

    /// Releases splits that were taken and not begun, under the epochs that [`Committer::take`]
    /// returned.
    pub fn release_unbegun(&self, taken: &[(SplitId, u64)]) -> Result<(), CommitterError> {
        if taken.is_empty() {
            return Ok(());
        }
        self.until_answered(|| self.store.release(&self.sink, taken))
    }
}
