//! Requests to commit and publish lanes that hold records of some splits.

use std::sync::Arc;

use pseidon_delivery::{LaneId, SplitId};
use pseidon_plugin::sink::SinkError;

use super::open_lane::OpenLane;
use super::{Lanes, WaitingChunk};

/// A request to commit and publish all lanes that hold records of these splits, or every lane.
pub(super) struct PendingFlush {
    splits: Option<Arc<[SplitId]>>,
    done: Box<dyn FnOnce() + Send>,
}

impl Lanes {
    /// Commits and publishes every lane that holds records of one of these splits, or every lane,
    /// and then calls `done`. That happens during the call unless the target is blocked.
    ///
    /// # Errors
    /// Fails if, among other reasons, a split has ended inside a position.
    pub fn flush(
        &mut self,
        splits: Option<&[SplitId]>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), SinkError> {
        self.flushes.push(PendingFlush {
            splits: splits.map(Arc::from),
            done: Box::new(done),
        });
        self.finish_flushes()
    }

    /// Continues the flushes, and answers those that are complete.
    pub(super) fn finish_flushes(&mut self) -> Result<(), SinkError> {
        if self.flushes.is_empty() {
            return Ok(());
        }
        // A flush stays with the lanes until it is complete: if it fails, it is dropped with them,
        // after the failure has been reported.
        let wanted: Vec<Option<Arc<[SplitId]>>> = self
            .flushes
            .iter()
            .map(|flush| flush.splits.clone())
            .collect();
        wanted
            .iter()
            .try_for_each(|splits| self.seal_splits(splits.as_deref()))?;
        self.commit()?;
        if self.open.is_empty() {
            self.commit_moved_positions()?;
        }
        let (done, left) = std::mem::take(&mut self.flushes)
            .into_iter()
            .partition(|flush| self.is_flushed(flush.splits.as_deref()));
        self.flushes = left;
        done.into_iter()
            .for_each(|flush: PendingFlush| (flush.done)());
        Ok(())
    }

    /// Seals the lanes that hold records of these splits, or every lane.
    fn seal_splits(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        self.seal_where(|lane| splits.is_none_or(|splits| lane.holds(splits)))?;
        let Some(splits) = splits else { return Ok(()) };
        let ledger = self.setup.committer.ledger();
        let cut = |(lane, open): (&LaneId, &OpenLane)| {
            // More rows of the position may wait in front of the lane.
            open.cut_split(lane, &ledger)
                .filter(|split| splits.contains(split) && !self.waiting.contains_key(lane))
                .cloned()
        };
        match self.open.iter().find_map(cut) {
            Some(split) => {
                let what =
                    format!("internal error: {split} was released in the middle of a position");
                Err(SinkError::Fatal(what.into()))
            }
            None => Ok(()),
        }
    }

    /// Whether everything is published that these splits have here; for `None`, everything up to
    /// positions that are not complete.
    fn is_flushed(&self, splits: Option<&[SplitId]>) -> bool {
        let is_meant = |split: &SplitId| splits.is_none_or(|splits| splits.contains(split));
        let ledger = self.setup.committer.ledger();
        let is_open = |(lane, open): (&LaneId, &OpenLane)| match splits {
            Some(splits) => open.holds(splits),
            None => open.cut_split(lane, &ledger).is_none(),
        };
        let of_chunk = |waiting: &WaitingChunk| is_meant(&waiting.chunk.rows.batch().split.id);
        self.sealed.are_done(is_meant)
            && !self.open.iter().any(is_open)
            && !self.waiting.values().flatten().any(of_chunk)
    }
}
