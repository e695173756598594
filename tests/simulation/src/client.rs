//! A process's connection to the store: each call is a message, and yields to other processes.

use std::collections::BTreeSet;

use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, InstanceId, SinkId, SplitId,
    StagedEntry, StagedId, StateStore, StoreError, StoredPlan,
};

use crate::names::ProcessId;
use crate::world::SharedWorld;
use crate::world::network::SentCall;
use crate::world::requests::{StoreAnswer, StoreRequest};

/// A process's connection to the store.
pub(crate) struct Client {
    pub(crate) world: SharedWorld,
    pub(crate) process: ProcessId,
}

impl Client {
    fn call(&self, request: StoreRequest) -> Result<StoreAnswer, StoreError> {
        if self.world.lock().is_dying {
            return Err(unavailable());
        }
        // Other processes may run before the request arrives.
        self.world.maybe_switch();
        let sent = self.world.lock().send(self.process, request);
        match sent {
            SentCall::Ended(answer) => {
                self.world.maybe_switch();
                answer.map_err(|()| unavailable())
            }
            SentCall::Waits(call) => self.wait_for_answer(call),
        }
    }

    fn wait_for_answer(&self, call: u64) -> Result<StoreAnswer, StoreError> {
        loop {
            self.world.switch_in_step();
            let answer = self.world.lock().take_answer(call);
            if let Some(answer) = answer {
                return answer.map_err(|()| unavailable());
            }
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("no answer".into())
}

fn unexpected(answer: &StoreAnswer) -> StoreError {
    StoreError::Failed(format!("the simulated store answered another request: {answer:?}").into())
}

impl StateStore for Client {
    fn identity(&self) -> Result<String, StoreError> {
        Ok("simulated".into())
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        match self.call(StoreRequest::Take {
            sink: sink.clone(),
            splits: splits.to_vec(),
            owner: owner.clone(),
        })? {
            StoreAnswer::Taken(taken) => taken,
            other => Err(unexpected(&other).into()),
        }
    }

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        match self.call(StoreRequest::Hold {
            sink: sink.clone(),
            splits: splits.to_vec(),
            claimant: claimant.clone(),
        })? {
            StoreAnswer::Held(held) => held,
            other => Err(unexpected(&other).into()),
        }
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        self.call(StoreRequest::Release {
            sink: sink.clone(),
            splits: splits.to_vec(),
        })
        .map(|_| ())
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        self.call(StoreRequest::Fence {
            sink: sink.clone(),
            owner: owner.clone(),
        })
        .map(|_| ())
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        match self.call(StoreRequest::Owners { sink: sink.clone() })? {
            StoreAnswer::Owners(owners) => Ok(owners),
            other => Err(unexpected(&other)),
        }
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let commit = |sink: &SinkId, commit: &Commit| match self.call(StoreRequest::Commit {
            sink: sink.clone(),
            commit: commit.clone(),
        })? {
            StoreAnswer::Committed(outcome) => outcome,
            other => Err(unexpected(&other).into()),
        };
        steps
            .iter()
            .map(|(sink, step)| commit(sink, step))
            .collect()
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        match self.call(StoreRequest::Staged { sink: sink.clone() })? {
            StoreAnswer::Staged(entries) => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    fn claim(&self, _: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        let ClaimRound {
            owner,
            lease,
            held,
            wanted,
            total,
        } = *round;
        match self.call(StoreRequest::Claim {
            owner: owner.clone(),
            lease,
            held: held.to_vec(),
            wanted: wanted.to_vec(),
            total,
        })? {
            StoreAnswer::Claimed(claims) => Ok(claims),
            other => Err(unexpected(&other)),
        }
    }

    fn unclaim(
        &self,
        _: &str,
        splits: &[SplitId],
        owner: &InstanceId,
        leaves: bool,
    ) -> Result<(), StoreError> {
        self.call(StoreRequest::Unclaim {
            splits: splits.to_vec(),
            owner: owner.clone(),
            leaves,
        })
        .map(|_| ())
    }

    fn forget(&self, _: &SinkId, _: &[StagedId]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn records(&self, _: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        not_simulated()
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        match self.call(StoreRequest::RecordsOf {
            sink: sink.clone(),
            splits: splits.to_vec(),
        })? {
            StoreAnswer::Records(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    fn forget_splits(&self, _: &SinkId, _: &[SplitId]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        match self.call(StoreRequest::Sinks)? {
            StoreAnswer::Sinks(sinks) => Ok(sinks),
            other => Err(unexpected(&other)),
        }
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        not_simulated()
    }

    fn plan(&self, _: &str) -> Result<Option<String>, StoreError> {
        not_simulated()
    }

    fn add_plan(&self, _: &StoredPlan) -> Result<(), StoreError> {
        not_simulated()
    }

    fn forget_plans(&self, _: &[String]) -> Result<(), StoreError> {
        not_simulated()
    }

    fn note(&self, _: &str) -> Result<Option<String>, StoreError> {
        not_simulated()
    }

    fn set_note(&self, _: &str, _: &str) -> Result<(), StoreError> {
        not_simulated()
    }
}

/// Neither a committer nor a sink makes this call.
fn not_simulated<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed(
        "the simulation has no message for this call".into(),
    ))
}
