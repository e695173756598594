//! The file with the groups of a stage and the positions of its splits.
//!
//! Groups belong to a generation. The current one is collected; those before it are closed, until
//! their results are durable elsewhere and they are removed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::error::ArrowError;
use pseidon_delivery::embedded::open_database;
use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{LaneId, Position, Reason, SinkId, SplitCommit, SplitId, StoreError};
use pseidon_dsl::conceal::conceal;
use pseidon_expr::aggregate::{Group, Grouping, Groups};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};

/// By generation and key: the state of the group.
const GROUPS: TableDefinition<'static, (u64, &[u8]), &[u8]> = TableDefinition::new("groups");
/// The position of each split below which everything is in its group.
const POSITIONS: TableDefinition<'static, &str, u64> = TableDefinition::new("positions");
const NUMBERS: TableDefinition<'static, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'static, &str, &str> = TableDefinition::new("texts");

/// The first generation that is not removed.
const FIRST: &str = "first generation";
/// The generation that is collected.
const CURRENT: &str = "current generation";
/// The version of the file. A change of the bytes of keys or states, such as by another version of
/// Arrow's row format, needs another one.
const VERSION: &str = "version";
const THIS_VERSION: u64 = 2;
/// Files of this version have narrower sums of decimals, and are otherwise the same.
const NARROW_SUMS: u64 = 1;
/// How many bytes of stored groups a commit reads at once.
const MERGED_BYTES: usize = 4 << 20;
/// What computes the groups of the current generation.
const GROUPING: &str = "grouping";

/// Unfinished groups that this plan cannot continue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ForeignGroups {
    /// They are those of a stage with this description.
    OtherGrouping(String),
    /// Their sums of decimals are those of an earlier version of the file.
    NarrowSums,
}

/// Why the table cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Storage(Box<redb::Error>),
    /// Results cannot be computed.
    #[error(transparent)]
    Compute(#[from] ArrowError),
    /// The values of a group, such as the list of `array_agg`, have more bytes than this.
    #[error(
        "a group has values of more than {0} bytes together: divide the groups further, collect \
         less in them, or raise `:memory`"
    )]
    TooLarge(usize),
}

macro_rules! from_storage_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for TableError {
            fn from(error: redb::$error) -> TableError {
                TableError::Storage(Box::new(error.into()))
            }
        }
    )*};
}

from_storage_errors!(TransactionError, TableError, StorageError, CommitError);

impl TableError {
    /// Whether a retry may succeed, for example when the disk has room again.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            TableError::Storage(error) => {
                matches!(**error, redb::Error::Io(_) | redb::Error::PreviousIo)
            }
            TableError::Compute(_) | TableError::TooLarge(_) => false,
        }
    }
}

impl From<TableError> for Reason {
    fn from(error: TableError) -> Reason {
        let what = match error {
            TableError::Storage(_) => "cannot read or write the groups",
            TableError::Compute(_) | TableError::TooLarge(_) => "cannot compute the groups",
        };
        Reason::caused_by(what, error)
    }
}

/// An open table.
pub(crate) struct GroupTable {
    database: Database,
    /// Where it is, for messages.
    pub(crate) location: String,
}

impl GroupTable {
    /// Opens the table of a stage in a folder, and creates it if it is missing.
    pub(crate) fn open(
        folder: &Path,
        pipeline: &str,
        stage: &SinkId,
        cache: usize,
    ) -> Result<GroupTable, StoreError> {
        let (path, database) = open_database(folder, pipeline, stage, cache)?;
        GroupTable::with(database, path.display().to_string())
    }

    /// A table in memory.
    pub(crate) fn in_memory() -> Result<GroupTable, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = redb::Builder::new().create_with_backend(backend);
        let database = database.map_err(|error| StoreError::Failed(Reason::of(error)))?;
        GroupTable::with(database, "memory".to_owned())
    }

    fn with(database: Database, location: String) -> Result<GroupTable, StoreError> {
        let table = GroupTable { database, location };
        let failed = |error: TableError| StoreError::Failed(Reason::from(error));
        let version = table.write(|transaction| {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let known = numbers.get(VERSION)?.map(|version| version.value());
            if known.is_none() {
                numbers.insert(VERSION, THIS_VERSION)?;
            }
            // The other tables exist from now on.
            transaction.open_table(GROUPS)?;
            transaction.open_table(POSITIONS)?;
            transaction.open_table(TEXTS)?;
            Ok(known.unwrap_or(THIS_VERSION))
        });
        match version.map_err(failed)? {
            // `begin` upgrades it.
            NARROW_SUMS | THIS_VERSION => Ok(table),
            other => {
                let what = format!(
                    "{} has the format {other}, which this version of Pseidon cannot read: run the \
                     pipeline with the version that has written it, or forget its state and groups \
                     with `pseidon reset`",
                    table.location
                );
                Err(StoreError::Failed(what.into()))
            }
        }
    }

    /// Prepares the table for groups of this description, and upgrades it to this version. Returns
    /// why it does not if it has groups that cannot be continued.
    pub(crate) fn begin(
        &self,
        grouping: &str,
        widens_decimals: bool,
    ) -> Result<Option<ForeignGroups>, TableError> {
        self.write(|transaction| {
            let mut texts = transaction.open_table(TEXTS)?;
            let known = texts.get(GROUPING)?.map(|text| text.value().to_owned());
            let has_groups = {
                let groups = transaction.open_table(GROUPS)?;
                groups.iter()?.next().is_some()
            };
            let mut numbers = transaction.open_table(NUMBERS)?;
            let version = numbers.get(VERSION)?.map(|version| version.value());
            let has_narrow_sums = version == Some(NARROW_SUMS) && widens_decimals;
            let kept = kept(grouping);
            match known {
                // Versions before this one kept the description as it is.
                Some(known) if known != kept && known != grouping && has_groups => {
                    return Ok(Some(ForeignGroups::OtherGrouping(known)));
                }
                _ if has_narrow_sums && has_groups => return Ok(Some(ForeignGroups::NarrowSums)),
                Some(known) if known == kept => {}
                _ => drop(texts.insert(GROUPING, &*kept)?),
            }
            numbers.insert(VERSION, THIS_VERSION)?;
            Ok(None)
        })
    }

    /// The positions of these splits, as far as the table has any.
    pub(crate) fn positions<'s>(
        &self,
        splits: impl Iterator<Item = &'s SplitId>,
    ) -> Result<HashMap<SplitId, Position>, TableError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(POSITIONS)?;
        let mut positions = HashMap::new();
        for split in splits {
            if let Some(position) = table.get(split.as_str())? {
                positions.insert(split.clone(), position.value());
            }
        }
        Ok(positions)
    }

    /// Adds groups to the current generation, and sets the positions of their splits. A group of
    /// more than `largest` bytes is an error.
    pub(crate) fn commit(
        &self,
        grouping: &Arc<Grouping>,
        groups: &mut Groups,
        splits: &[SplitCommit],
        (lane, largest): (&LaneId, usize),
    ) -> Result<(), TableError> {
        let mut new = groups.take()?.into_iter().peekable();
        self.write(|transaction| {
            let (_, current) = generations(transaction)?;
            let mut table = transaction.open_table(GROUPS)?;
            // A part of the groups at a time, since what is stored of them may be large.
            while new.peek().is_some() {
                let (mut some, mut stored, mut bytes) = (Vec::new(), Vec::new(), 0);
                while bytes < MERGED_BYTES
                    && let Some(group) = new.next()
                {
                    if let Some(state) = table.get((current, group.key.as_slice()))? {
                        let (key, state) = (group.key.clone(), state.value().to_vec());
                        bytes += key.len() + state.len();
                        stored.push(Group { key, state });
                    }
                    some.push(group);
                }
                for group in together(grouping, stored, some)? {
                    if group.state.len() > largest {
                        return Err(TableError::TooLarge(largest));
                    }
                    table.insert((current, group.key.as_slice()), group.state.as_slice())?;
                }
            }
            let mut positions = transaction.open_table(POSITIONS)?;
            for commit in splits {
                positions.insert(commit.split.as_str(), commit.upto(lane))?;
            }
            Ok(())
        })?;
        reach("groups-committed");
        Ok(())
    }

    /// Closes the current generation if it has groups. Returns the closed generations.
    pub(crate) fn close(&self) -> Result<Range<u64>, TableError> {
        self.write(|transaction| {
            let (first, mut current) = generations(transaction)?;
            let has_groups = {
                let groups = transaction.open_table(GROUPS)?;
                groups.range(of_generation(current))?.next().is_some()
            };
            if has_groups {
                current += 1;
                let mut numbers = transaction.open_table(NUMBERS)?;
                numbers.insert(CURRENT, current)?;
            }
            Ok(first..current)
        })
    }

    /// The groups of a closed generation from the one with this number on, in the order of their
    /// keys: at most `count`, and no more once they have this many bytes. `after` is the key of the
    /// group before them, if it is known.
    pub(crate) fn groups(
        &self,
        generation: u64,
        skipped: u64,
        after: Option<&[u8]>,
        (count, bytes): (usize, usize),
    ) -> Result<Vec<Group>, TableError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(GROUPS)?;
        let (from, skipped) = match after {
            Some(key) => (key, 1),
            None => (&[][..], skipped),
        };
        let end = (generation + 1, &[][..]);
        let range = table.range((generation, from)..end)?;
        let (mut groups, mut read) = (Vec::new(), 0);
        for entry in range.skip(skipped as usize).take(count) {
            let (key, state) = entry?;
            let (key, state) = (key.value().1.to_vec(), state.value().to_vec());
            read += key.len() + state.len();
            groups.push(Group { key, state });
            if read >= bytes {
                break;
            }
        }
        Ok(groups)
    }

    /// Removes a closed generation, which is the first one.
    pub(crate) fn remove(&self, generation: u64) -> Result<(), TableError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(GROUPS)?;
            table.retain_in(of_generation(generation), |_, _| false)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            numbers.insert(FIRST, generation + 1)?;
            Ok(())
        })?;
        reach("groups-removed");
        Ok(())
    }

    fn write<T>(
        &self,
        steps: impl FnOnce(&WriteTransaction) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        let transaction = self.database.begin_write()?;
        let value = steps(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

/// The first generation that is not removed, and the one that is collected.
fn generations(transaction: &WriteTransaction) -> Result<(u64, u64), TableError> {
    let numbers = transaction.open_table(NUMBERS)?;
    let number = |name: &str| -> Result<u64, TableError> {
        Ok(numbers.get(name)?.map_or(1, |number| number.value()))
    };
    Ok((number(FIRST)?, number(CURRENT)?))
}

fn of_generation(generation: u64) -> Range<(u64, &'static [u8])> {
    (generation, &[][..])..(generation + 1, &[][..])
}

/// A description as it is kept: with placeholders instead of secrets, and then with a digest, since
/// groups with another value are other groups.
fn kept(description: &str) -> Cow<'_, str> {
    match conceal(description) {
        Cow::Borrowed(same) => same.into(),
        Cow::Owned(shown) => {
            let digest = Sha256::digest(description);
            let digest = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
            format!("{shown} ({digest:016x})").into()
        }
    }
}

/// The groups in `new`, with what was stored of them. What was stored comes first, as it was read
/// first.
fn together(
    grouping: &Arc<Grouping>,
    stored: Vec<Group>,
    new: Vec<Group>,
) -> Result<Vec<Group>, ArrowError> {
    if stored.is_empty() {
        return Ok(new);
    }
    let mut groups = Groups::new(grouping.clone())?;
    groups.merge(&stored)?;
    groups.merge(&new)?;
    groups.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of this version of the file, with a group if `is_pending`.
    fn stored(version: u64, is_pending: bool) -> Result<GroupTable, StoreError> {
        stored_as(version, is_pending, "a")
    }

    /// The same with groups of this description.
    fn stored_as(
        version: u64,
        is_pending: bool,
        description: &str,
    ) -> Result<GroupTable, StoreError> {
        let table = GroupTable::in_memory().unwrap();
        let written = table.write(|transaction| {
            transaction.open_table(NUMBERS)?.insert(VERSION, version)?;
            transaction
                .open_table(TEXTS)?
                .insert(GROUPING, description)?;
            if is_pending {
                let mut groups = transaction.open_table(GROUPS)?;
                groups.insert((1, &b"key"[..]), &b"state"[..])?;
            }
            Ok(())
        });
        written.unwrap();
        GroupTable::with(table.database, "memory".to_owned())
    }

    fn version(table: &GroupTable) -> u64 {
        let transaction = table.database.begin_read().unwrap();
        let numbers = transaction.open_table(NUMBERS).unwrap();
        numbers.get(VERSION).unwrap().unwrap().value()
    }

    #[test]
    fn a_table_of_the_version_before_is_upgraded() {
        for (is_pending, grouping, widens_decimals) in
            [(false, "a", true), (false, "b", true), (true, "a", false)]
        {
            let table = stored(NARROW_SUMS, is_pending).unwrap();
            assert_eq!(table.begin(grouping, widens_decimals).unwrap(), None);
            assert_eq!(version(&table), THIS_VERSION);
            assert_eq!(table.close().unwrap().is_empty(), !is_pending);
        }
    }

    #[test]
    fn pending_groups_that_cannot_be_continued_are_refused() {
        let table = stored(NARROW_SUMS, true).unwrap();
        for _ in 0..2 {
            let refused = table.begin("a", true).unwrap();
            assert_eq!(refused, Some(ForeignGroups::NarrowSums));
        }
        let refused = table.begin("b", true).unwrap();
        let other = ForeignGroups::OtherGrouping("a".to_owned());
        assert_eq!(refused, Some(other));
        assert_eq!(version(&table), NARROW_SUMS);
        // Those of this version have wide sums.
        let table = stored(THIS_VERSION, true).unwrap();
        assert_eq!(table.begin("a", true).unwrap(), None);
    }

    #[test]
    fn the_description_has_no_secret() {
        let description = |value: &str| format!("first by concat('{value}', n)");
        for value in ["grouped-s3cret", "other-s3cret"] {
            pseidon_dsl::conceal::register("${env:GROUPED}", value).expect("it is short");
        }
        let known = |table: &GroupTable| {
            let transaction = table.database.begin_read().unwrap();
            let texts = transaction.open_table(TEXTS).unwrap();
            texts.get(GROUPING).unwrap().unwrap().value().to_owned()
        };
        let table = stored(THIS_VERSION, false).unwrap();
        let [one, other] = ["grouped-s3cret", "other-s3cret"].map(description);
        assert_eq!(table.begin(&one, false).unwrap(), None);
        let of_one = known(&table);
        assert!(
            of_one.starts_with("first by concat('${env:GROUPED}', n) ("),
            "{of_one}"
        );
        assert_eq!(table.begin(&one, false).unwrap(), None);
        assert_eq!(known(&table), of_one);
        assert_eq!(table.begin(&other, false).unwrap(), None);
        assert_ne!(
            known(&table),
            of_one,
            "another value is another description"
        );

        // An earlier version kept the description as it is.
        pseidon_dsl::conceal::register("${env:GROUPED}", "earlier-a").expect("it is short");
        let table = stored_as(THIS_VERSION, true, "earlier-a").unwrap();
        assert_eq!(table.begin("earlier-a", false).unwrap(), None);
        assert!(known(&table).starts_with("${env:GROUPED} ("));
        let refused = table.begin("b", false).unwrap();
        assert!(matches!(refused, Some(ForeignGroups::OtherGrouping(_))));
    }

    #[test]
    fn a_table_of_a_later_version_is_refused() {
        let Err(StoreError::Failed(reason)) = stored(THIS_VERSION + 1, false) else {
            panic!("the table is opened");
        };
        let reason = reason.to_string();
        assert!(reason.contains("has the format 3"), "{reason}");
        assert!(reason.contains("`pseidon reset`"), "{reason}");
    }
}
