//! The tables of the state file and their rows.

use std::collections::HashMap;

use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use crate::{CommitRecord, InstanceId, LaneId, ResumeToken, SinkId, SplitId, StagedId};

/// Values that concern the whole file, under the keys below.
pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const IDENTITY_KEY: &str = "identity";
/// The names of the files that are removed before the state is emptied.
pub(super) const CLEARING_KEY: &str = "clearing";

pub(super) type SplitKey<'a> = (&'a str, &'a str);
/// (epoch, sequence, low, owners, plan, resume, finished)
pub(super) type RecordRow<'a> = (
    u64,
    u64,
    Option<u64>,
    &'a str,
    Option<&'a str>,
    Option<&'a str>,
    Option<u64>,
);
/// Separates the names of several owners.
pub(super) const OWNERS: &str = "\n";

/// (sink, split) → a commit record without the lanes that are ahead.
pub(super) const RECORDS: TableDefinition<SplitKey, RecordRow> = TableDefinition::new("records");
/// (sink, split, lane) → the position up to which the lane is ahead.
pub(super) const AHEAD: TableDefinition<(&str, &str, &str), u64> = TableDefinition::new("ahead");
/// (sink, id) → detail.
pub(super) const STAGED: TableDefinition<(&str, &str), &str> = TableDefinition::new("staged");
/// (sink, owner): fenced instances.
pub(super) const FENCED: TableDefinition<(&str, &str), ()> = TableDefinition::new("fenced");
/// fingerprint → text.
pub(super) const PLANS: TableDefinition<&str, &str> = TableDefinition::new("plans");
pub(super) const NOTES: TableDefinition<&str, &str> = TableDefinition::new("notes");

/// Converts a row to a commit record, without the lanes that are ahead.
pub(super) fn record_of(
    (epoch, sequence, low, owners, plan, resume, finished): RecordRow,
) -> CommitRecord {
    CommitRecord {
        epoch,
        sequence,
        low,
        ahead: HashMap::new(),
        owners: owners
            .split(OWNERS)
            .filter(|owner| !owner.is_empty())
            .map(InstanceId::from)
            .collect(),
        plan: plan.map(str::to_owned),
        resume: resume.map(ResumeToken::from),
        finished,
    }
}

/// Writes a record; its lanes that are ahead have rows of their own.
pub(super) fn insert(
    rows: &mut Table<SplitKey, RecordRow>,
    key: SplitKey,
    record: &CommitRecord,
) -> Result<(), redb::Error> {
    let owners: Vec<&str> = record.owners.iter().map(InstanceId::as_str).collect();
    let owners = owners.join(OWNERS);
    let (plan, resume) = (
        record.plan.as_deref(),
        record.resume.as_ref().map(ResumeToken::as_str),
    );
    rows.insert(
        key,
        (
            record.epoch,
            record.sequence,
            record.low,
            owners.as_str(),
            plan,
            resume,
            record.finished,
        ),
    )?;
    Ok(())
}

/// The records of a sink, without the lanes that are ahead.
pub(super) fn records_of(
    table: &impl ReadableTable<SplitKey<'static>, RecordRow<'static>>,
    sink: &SinkId,
    mut each: impl FnMut(SplitId, CommitRecord) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    for row in table.range((sink.as_str(), "")..)? {
        let (key, row) = row?;
        let (of, split) = key.value();
        if of != sink.as_str() {
            break;
        }
        each(split.into(), record_of(row.value()))?;
    }
    Ok(())
}

pub(super) fn lanes_ahead(
    table: &impl ReadableTable<(&'static str, &'static str, &'static str), u64>,
    sink: &SinkId,
    split: &SplitId,
) -> Result<HashMap<LaneId, u64>, redb::Error> {
    let mut lanes = HashMap::new();
    for row in table.range((sink.as_str(), split.as_str(), "")..)? {
        let (key, upto) = row?;
        let (of_sink, of_split, lane) = key.value();
        if (of_sink, of_split) != (sink.as_str(), split.as_str()) {
            break;
        }
        lanes.insert(lane.into(), upto.value());
    }
    Ok(lanes)
}

pub(super) fn forget_staged(
    transaction: &WriteTransaction,
    sink: &SinkId,
    ids: &[StagedId],
) -> Result<(), redb::Error> {
    let mut staged = transaction.open_table(STAGED)?;
    for id in ids {
        staged.remove((sink.as_str(), id.as_str()))?;
    }
    Ok(())
}

pub(super) fn value(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<&'static str, &'static str>,
    key: &str,
) -> Result<Option<String>, redb::Error> {
    let Some(table) = existing(transaction.open_table(table))? else {
        return Ok(None);
    };
    Ok(table.get(key)?.map(|value| value.value().to_owned()))
}

/// Opens a table; `None` if it does not exist because nothing was written to it yet.
pub(super) fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
