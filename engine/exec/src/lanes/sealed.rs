//! Sealed lanes on their way to be durable, committed and published, in this order.

use std::collections::VecDeque;

use pseidon_delivery::{Committer, LaneCommit, SplitId, StagedEntry, failpoint};
use pseidon_plugin::lane::{Completion, LaneProgress};
use pseidon_plugin::sink::{PublishProgress, Sink, SinkError};

use super::backoff::Backoff;

/// The maximum number of sealed lanes that wait for the next check, so that many lanes that fill up
/// at the same time cost one step.
pub(super) const MAX_SEALED: usize = 16;

/// The sealed lanes of one writer.
#[derive(Default)]
pub(super) struct SealedLanes {
    /// In the order in which they were sealed.
    lanes: VecDeque<SealedLane>,
    /// Committed, but not published because the target is blocked.
    unpublished: Vec<StagedEntry>,
}

struct SealedLane {
    commit: LaneCommit,
    /// `None` if it is durable.
    completion: Option<Box<dyn Completion>>,
}

impl SealedLanes {
    /// Adds a sealed lane; without a completion it is already durable.
    pub(super) fn push(&mut self, commit: LaneCommit, completion: Option<Box<dyn Completion>>) {
        self.lanes.push_back(SealedLane { commit, completion });
    }

    /// Whether so many wait that they must be committed now.
    pub(super) fn are_many(&self) -> bool {
        self.lanes.len() >= MAX_SEALED
    }

    /// Whether so much waits for the target, after [`SealedLanes::advance`], that nothing more may
    /// be written.
    pub(super) fn are_stuck(&self) -> bool {
        !self.unpublished.is_empty() || self.are_many()
    }

    /// Whether nothing is left of the splits that `is_meant` selects.
    pub(super) fn are_done(&self, is_meant: impl Fn(&SplitId) -> bool) -> bool {
        let holds = |sealed: &SealedLane| {
            sealed
                .commit
                .splits
                .iter()
                .any(|(split, _)| is_meant(split))
        };
        self.unpublished.is_empty() && !self.lanes.iter().any(holds)
    }

    /// Commits what is durable, in one step, and publishes it.
    pub(super) fn advance(
        &mut self,
        sink: &dyn Sink,
        committer: &Committer,
        backoff: &mut Backoff,
    ) -> Result<(), SinkError> {
        let (mut lanes, mut staged) = (Vec::new(), Vec::new());
        let outcome = self.complete(&mut lanes, &mut staged, backoff);
        // What is durable belongs to the store from now on, even if another lane has failed.
        if !lanes.is_empty() {
            if !staged.is_empty() {
                failpoint::reach("synced");
            }
            committer.commit(&lanes, staged.clone())?;
            if !staged.is_empty() {
                failpoint::reach("committed");
            }
            self.unpublished.extend(staged);
        }
        outcome?;
        self.publish(sink, committer, backoff)
    }

    /// Removes the durable lanes, up to the first that is not durable.
    fn complete(
        &mut self,
        lanes: &mut Vec<LaneCommit>,
        staged: &mut Vec<StagedEntry>,
        backoff: &mut Backoff,
    ) -> Result<(), SinkError> {
        while let Some(first) = self.lanes.front_mut() {
            let progress = first
                .completion
                .as_mut()
                .map_or(Ok(LaneProgress::Durable(Vec::new())), |completion| {
                    completion.advance()
                })?;
            match progress {
                LaneProgress::Durable(of_lane) => staged.extend(of_lane),
                LaneProgress::Pending => break,
                LaneProgress::Blocked(reason) => {
                    backoff.block(&reason);
                    break;
                }
            }
            lanes.extend(self.lanes.pop_front().map(|sealed| sealed.commit));
        }
        Ok(())
    }

    fn publish(
        &mut self,
        sink: &dyn Sink,
        committer: &Committer,
        backoff: &mut Backoff,
    ) -> Result<(), SinkError> {
        if self.unpublished.is_empty() {
            return Ok(());
        }
        match sink.publish(&self.unpublished)? {
            PublishProgress::Done(ids) => {
                failpoint::reach("published");
                self.unpublished.clear();
                committer.published(ids);
            }
            PublishProgress::Blocked(reason) => backoff.block(&reason),
        }
        Ok(())
    }
}
