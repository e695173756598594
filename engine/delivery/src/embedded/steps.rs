//! The steps of the protocol inside a transaction.

use redb::{ReadableTable, WriteTransaction};

use super::tables::{self, AHEAD, FENCED, RECORDS, STAGED, forget_staged, lanes_ahead, record_of};
use crate::store::{SplitVersion, refusal};
use crate::{Commit, CommitError, CommitRecord, InstanceId, SinkId, SplitId};

/// Whether an owner is fenced.
pub(super) fn is_fenced(
    transaction: &WriteTransaction,
    sink: &SinkId,
    owner: &InstanceId,
) -> Result<bool, redb::Error> {
    Ok(transaction
        .open_table(FENCED)?
        .get((sink.as_str(), owner.as_str()))?
        .is_some())
}

/// Takes a split over. Returns its record with the owners before.
pub(super) fn take_split(
    transaction: &WriteTransaction,
    sink: &SinkId,
    split: &SplitId,
    owner: &InstanceId,
) -> Result<CommitRecord, redb::Error> {
    let mut rows = transaction.open_table(RECORDS)?;
    let ahead = transaction.open_table(AHEAD)?;
    let key = (sink.as_str(), split.as_str());
    let mut record = rows
        .get(key)?
        .map(|row| record_of(row.value()))
        .unwrap_or_default();
    record.epoch += 1;
    record.ahead = lanes_ahead(&ahead, sink, split)?;
    record.owners.retain(|other| other != owner);
    let owners = [record.owners.as_slice(), std::slice::from_ref(owner)].concat();
    tables::insert(
        &mut rows,
        key,
        &CommitRecord {
            owners,
            ..record.clone()
        },
    )?;
    Ok(record)
}

/// Applies a step inside the transaction. If it cannot be applied, returns why and writes nothing
/// of it.
pub(super) fn apply(
    transaction: &WriteTransaction,
    sink: &SinkId,
    commit: &Commit,
) -> Result<Option<CommitError>, redb::Error> {
    let mut rows = transaction.open_table(RECORDS)?;
    let mut records = Vec::with_capacity(commit.splits.len());
    for step in &commit.splits {
        let row = rows.get((sink.as_str(), step.split.as_str()))?;
        records.push(row.map(|row| record_of(row.value())).unwrap_or_default());
    }
    let shown: Vec<SplitVersion> = records
        .iter()
        .map(|record| SplitVersion {
            epoch: record.epoch,
            sequence: record.sequence,
        })
        .collect();
    if let Some(refused) = refusal(
        &commit.owner,
        is_fenced(transaction, sink, &commit.owner)?,
        &commit.splits,
        &shown,
    ) {
        return Ok(Some(refused));
    }
    let mut ahead = transaction.open_table(AHEAD)?;
    for (step, record) in commit.splits.iter().zip(records) {
        let after = CommitRecord {
            sequence: step.sequence + 1,
            low: Some(step.low),
            resume: step.resume.clone().or(record.resume),
            finished: step.finished,
            ..record
        };
        let (name, split) = (sink.as_str(), step.split.as_str());
        tables::insert(&mut rows, (name, split), &after)?;
        for (lane, upto) in &step.ahead {
            ahead.insert((name, split, lane.as_str()), *upto)?;
        }
        for lane in &step.caught_up {
            ahead.remove((name, split, lane.as_str()))?;
        }
    }
    forget_staged(transaction, sink, &commit.published)?;
    let mut staged = transaction.open_table(STAGED)?;
    for entry in &commit.staged {
        staged.insert((sink.as_str(), entry.id.as_str()), entry.detail.as_str())?;
    }
    Ok(None)
}
