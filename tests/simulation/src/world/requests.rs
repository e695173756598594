//! Requests to the store and its answers.

use std::collections::BTreeSet;
use std::time::Duration;

use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, InstanceId, SinkId,
    SplitCommit, SplitId, StagedEntry,
};

use crate::store::StoreContent;

/// A request to the store.
#[derive(Clone, Debug)]
pub(crate) enum StoreRequest {
    Take {
        sink: SinkId,
        splits: Vec<SplitId>,
        claimant: Claimant,
    },
    SetOwner {
        sink: SinkId,
        splits: Vec<(SplitId, u64)>,
        owner: Option<InstanceId>,
    },
    Fence {
        sink: SinkId,
        owner: InstanceId,
    },
    Owners {
        sink: SinkId,
    },
    Commit {
        sink: SinkId,
        commit: Commit,
    },
    Staged {
        sink: SinkId,
    },
    Claim {
        owner: InstanceId,
        lease: Duration,
        held: Vec<SplitId>,
        wanted: Vec<SplitId>,
        total: usize,
    },
    Unclaim {
        splits: Vec<SplitId>,
        owner: InstanceId,
        leaves: bool,
    },
}

/// The answer of the store.
#[derive(Debug)]
pub(crate) enum StoreAnswer {
    Done,
    Taken(Result<Vec<CommitRecord>, CommitError>),
    Owners(BTreeSet<InstanceId>),
    Committed(Result<(), CommitError>),
    Staged(Vec<StagedEntry>),
    Claimed(Claims),
}

impl StoreRequest {
    /// Applies the request when the store's clock shows `now`.
    pub(super) fn apply(&self, content: &mut StoreContent, now: u64) -> StoreAnswer {
        match self {
            StoreRequest::Take {
                sink,
                splits,
                claimant,
            } => StoreAnswer::Taken(content.take(sink, splits, claimant)),
            StoreRequest::SetOwner {
                sink,
                splits,
                owner,
            } => {
                content.set_owner(sink, splits, owner.as_ref());
                StoreAnswer::Done
            }
            StoreRequest::Fence { sink, owner } => {
                content.fence(sink, owner);
                StoreAnswer::Done
            }
            StoreRequest::Owners { sink } => StoreAnswer::Owners(content.owners(sink)),
            StoreRequest::Commit { sink, commit } => {
                StoreAnswer::Committed(content.commit(sink, commit))
            }
            StoreRequest::Staged { sink } => StoreAnswer::Staged(content.staged(sink)),
            StoreRequest::Claim {
                owner,
                lease,
                held,
                wanted,
                total,
            } => StoreAnswer::Claimed(content.shared().claim(
                &ClaimRound {
                    owner,
                    lease: *lease,
                    held,
                    wanted,
                    total: *total,
                },
                now,
            )),
            StoreRequest::Unclaim {
                splits,
                owner,
                leaves,
            } => {
                content.shared().unclaim(splits, owner, *leaves);
                StoreAnswer::Done
            }
        }
    }

    /// One line for the trace.
    pub(super) fn describe(&self) -> String {
        match self {
            StoreRequest::Take {
                sink,
                splits,
                claimant,
            } => format!(
                "take {sink} {splits:?} for {} with {}",
                claimant.owner, claimant.plan
            ),
            StoreRequest::SetOwner {
                sink,
                splits,
                owner,
            } => format!(
                "owner {sink} {splits:?} = {}",
                owner.as_ref().map_or("none", InstanceId::as_str)
            ),
            StoreRequest::Fence { sink, owner } => format!("fence {sink} {owner}"),
            StoreRequest::Owners { sink } => format!("owners {sink}"),
            StoreRequest::Commit { sink, commit } => {
                let steps: Vec<String> = commit.splits.iter().map(describe_step).collect();
                let staged: Vec<&str> = commit
                    .staged
                    .iter()
                    .map(|entry| entry.id.as_str())
                    .collect();
                format!(
                    "commit {sink} [{}] staged {staged:?} published {:?}",
                    steps.join(", "),
                    commit.published
                )
            }
            StoreRequest::Staged { sink } => format!("staged {sink}"),
            StoreRequest::Claim {
                owner,
                held,
                wanted,
                ..
            } => format!("claim for {owner}: holds {held:?}, wants {wanted:?}"),
            StoreRequest::Unclaim {
                splits,
                owner,
                leaves,
            } => {
                format!(
                    "unclaim {splits:?} of {owner}{}",
                    if *leaves { ", which leaves" } else { "" }
                )
            }
        }
    }
}

impl StoreAnswer {
    /// One line for the trace.
    pub(super) fn describe(&self) -> String {
        match self {
            StoreAnswer::Done => "done".into(),
            StoreAnswer::Taken(Ok(records)) => records
                .iter()
                .map(describe_record)
                .collect::<Vec<_>>()
                .join(", "),
            StoreAnswer::Owners(owners) => format!("{owners:?}"),
            StoreAnswer::Committed(Ok(())) => "committed".into(),
            StoreAnswer::Taken(Err(error)) | StoreAnswer::Committed(Err(error)) => {
                error.to_string()
            }
            StoreAnswer::Claimed(claims) => {
                format!(
                    "granted {:?}, lost {:?}, fair share {}",
                    claims.granted, claims.lost, claims.fair_share
                )
            }
            StoreAnswer::Staged(entries) => format!(
                "{:?}",
                entries
                    .iter()
                    .map(|entry| entry.id.as_str())
                    .collect::<Vec<_>>()
            ),
        }
    }
}

fn describe_record(record: &CommitRecord) -> String {
    let mut ahead: Vec<_> = record.ahead.iter().collect();
    ahead.sort();
    let low = record.low.map_or("none".into(), |low| low.to_string());
    let plan = record.plan.as_deref().unwrap_or("no plan");
    format!(
        "epoch {} commit {} low {low} ahead {ahead:?} owners {:?} {plan}",
        record.epoch, record.sequence, record.owners
    )
}

fn describe_step(step: &SplitCommit) -> String {
    let mut ahead = step.ahead.clone();
    ahead.sort();
    format!(
        "{} epoch {} commit {} low {} ahead {ahead:?}",
        step.split, step.epoch, step.sequence, step.low
    )
}
