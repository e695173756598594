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
        owner: InstanceId,
    },
    Hold {
        sink: SinkId,
        splits: Vec<(SplitId, u64)>,
        claimant: Claimant,
    },
    Release {
        sink: SinkId,
        splits: Vec<(SplitId, u64)>,
    },
    RecordsOf {
        sink: SinkId,
        splits: Vec<SplitId>,
    },
    Sinks,
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
    Held(Result<(), CommitError>),
    Records(Vec<CommitRecord>),
    Sinks(Vec<SinkId>),
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
                owner,
            } => StoreAnswer::Taken(content.take(sink, splits, owner)),
            StoreRequest::Hold {
                sink,
                splits,
                claimant,
            } => StoreAnswer::Held(content.hold(sink, splits, claimant)),
            StoreRequest::Release { sink, splits } => {
                content.release(sink, splits);
                StoreAnswer::Done
            }
            StoreRequest::RecordsOf { sink, splits } => {
                StoreAnswer::Records(content.records_of(sink, splits))
            }
            StoreRequest::Sinks => StoreAnswer::Sinks(content.sinks()),
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
                owner,
            } => format!("take {sink} {splits:?} for {owner}"),
            StoreRequest::Hold {
                sink,
                splits,
                claimant,
            } => format!(
                "hold {sink} {splits:?} for {} with {}",
                claimant.owner, claimant.plan
            ),
            StoreRequest::Release { sink, splits } => format!("release {sink} {splits:?}"),
            StoreRequest::RecordsOf { sink, splits } => format!("records {sink} {splits:?}"),
            StoreRequest::Sinks => "sinks".into(),
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
            StoreAnswer::Taken(Ok(records)) | StoreAnswer::Records(records) => records
                .iter()
                .map(describe_record)
                .collect::<Vec<_>>()
                .join(", "),
            StoreAnswer::Held(Ok(())) => "held".into(),
            StoreAnswer::Sinks(sinks) => format!("{sinks:?}"),
            StoreAnswer::Owners(owners) => format!("{owners:?}"),
            StoreAnswer::Committed(Ok(())) => "committed".into(),
            StoreAnswer::Taken(Err(error))
            | StoreAnswer::Held(Err(error))
            | StoreAnswer::Committed(Err(error)) => error.to_string(),
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
