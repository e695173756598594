//! The store without one of its safeguards.

use pseidon_delivery::{Commit, CommitError, SinkId, SplitCommit};

use super::World;
use super::requests::{StoreAnswer, StoreRequest};
use crate::names::{ProcessId, SinkKind, plan_name};
use crate::scenario::Mutation;

impl World {
    /// Applies a request of this process without the safeguard that is removed. `None` if that does
    /// not concern the request.
    pub(super) fn apply_without_safeguard(
        &mut self,
        sender: ProcessId,
        request: &StoreRequest,
        now: u64,
    ) -> Option<StoreAnswer> {
        match (request, self.mutation?) {
            (StoreRequest::Fence { .. }, Mutation::UnfencedOwners) => Some(StoreAnswer::Done),
            (
                StoreRequest::Take { .. } | StoreRequest::RecordsOf { .. },
                Mutation::ForgottenPlans,
            ) => {
                let answer = request.apply(&mut self.store, now);
                Some(with_plan_of(sender, answer))
            }
            (StoreRequest::Hold { .. }, Mutation::UncheckedHolds) => {
                request.apply(&mut self.store, now);
                Some(StoreAnswer::Held(Ok(())))
            }
            (StoreRequest::Commit { sink, commit }, Mutation::UncheckedTarget)
                if self.holds_positions(sink) =>
            {
                Some(self.commit_without_copies(sink, commit))
            }
            (StoreRequest::Commit { sink, commit }, Mutation::ForgottenMoves) => {
                Some(self.commit_and_forget_staged(sink, commit))
            }
            (StoreRequest::Commit { sink, commit }, Mutation::TrustedClaims) if self.is_shared => {
                Some(self.commit_by_claims(sink, commit, now))
            }
            _ => None,
        }
    }

    /// Whether the sink's target holds the positions.
    fn holds_positions(&self, sink: &SinkId) -> bool {
        self.sinks.contains(&(sink.clone(), SinkKind::Target))
    }

    fn commit_without_copies(&mut self, sink: &SinkId, commit: &Commit) -> StoreAnswer {
        let mut commit = commit.clone();
        for step in commit.splits.iter_mut().filter(|step| step.sequence > 0) {
            step.low = self.store.record(sink, &step.split).low.unwrap_or_default();
        }
        self.note_begun(&commit);
        StoreAnswer::Committed(self.store.commit(sink, &commit))
    }

    fn commit_and_forget_staged(&mut self, sink: &SinkId, commit: &Commit) -> StoreAnswer {
        let own = format!("{}/", commit.owner);
        let staged = self
            .store
            .staged(sink)
            .into_iter()
            .map(|entry| entry.id)
            .filter(|id| id.as_str().starts_with(&own));
        let commit = Commit {
            published: staged.chain(commit.published.clone()).collect(),
            ..commit.clone()
        };
        StoreAnswer::Committed(self.store.commit(sink, &commit))
    }

    fn commit_by_claims(&mut self, sink: &SinkId, commit: &Commit, now: u64) -> StoreAnswer {
        let shared = self.store.shared();
        let is_lost = |step: &&SplitCommit| !shared.is_free_for(&commit.owner, &step.split, now);
        if let Some(lost) = commit.splits.iter().find(is_lost) {
            let fenced = CommitError::Fenced(vec![lost.split.clone()]);
            return StoreAnswer::Committed(Err(fenced));
        }
        let mut commit = commit.clone();
        for step in &mut commit.splits {
            let record = self.store.record(sink, &step.split);
            (step.epoch, step.sequence) = (record.epoch, record.sequence);
        }
        StoreAnswer::Committed(self.store.commit(sink, &commit))
    }
}

/// The same records, as if the process's own version of the pipeline had written them. Without any
/// version they would be refused, as those of an unknown one.
fn with_plan_of(process: ProcessId, mut answer: StoreAnswer) -> StoreAnswer {
    if let StoreAnswer::Taken(Ok(records)) | StoreAnswer::Records(records) = &mut answer {
        let own = Some(plan_name(process.plan));
        records
            .iter_mut()
            .for_each(|record| record.plan.clone_from(&own));
    }
    answer
}
