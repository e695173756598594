//! The store that needs no server: a redb file.
//!
//! The file lies in a folder of its own beside the pipeline file and belongs to one process at a time. A commit is one redb transaction,
//! on disk when it returns, and writes only the rows that change: lanes that are ahead have rows of their own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition, TableError, WriteTransaction};

use crate::store::new_identity;
use crate::{Commit, CommitError, CommitRecord, LaneId, SinkId, SplitCommit, SplitId, Staged, StateStore, StoreError, StoredPlan};

/// The layout of the tables below. A file with a higher number was written by a newer version of the program.
const FORMAT: u64 = 1;
/// The state is small; redb's own default would let the cache grow to a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

/// What concerns the whole file, by the keys below.
const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const IDENTITY_KEY: &str = "identity";
const PLAN_FINGERPRINT_KEY: &str = "plan fingerprint";
const PLAN_TEXT_KEY: &str = "plan text";

type SplitKey<'a> = (&'a str, &'a str);
type SplitRow<'a> = (u64, u64, Option<u64>, &'a str);
/// What stands between the names of several owners.
const OWNERS: &str = "\n";

/// (sink, split) → (epoch, sequence, low, owners).
const SPLITS: TableDefinition<SplitKey, SplitRow> = TableDefinition::new("splits");
/// (sink, split, lane) → the position up to which the lane is ahead.
const AHEAD: TableDefinition<(&str, &str, &str), u64> = TableDefinition::new("ahead");
/// (sink, id) → detail.
const STAGED: TableDefinition<(&str, &str), &str> = TableDefinition::new("staged");
const NOTES: TableDefinition<&str, &str> = TableDefinition::new("notes");

/// The state of one pipeline in a redb file.
pub struct EmbeddedStore {
    path: PathBuf,
    /// `None` after an I/O error, which leaves redb's handle useless; the next call opens the file again.
    database: Mutex<Option<Database>>,
}

impl EmbeddedStore {
    /// Opens `<dir>/<pipeline>.redb`, which is made when it is missing, and keeps it from every other process.
    pub fn open(dir: &Path, pipeline: &str) -> Result<EmbeddedStore, StoreError> {
        let path = dir.join(file_name(pipeline));
        prepare_dir(dir).map_err(|error| StoreError::Failed(format!("cannot keep state in {}: {error}", dir.display())))?;
        let database = open_file(&path).map_err(|error| StoreError::Failed(error.to_string()))?;
        // The file's name has to survive a crash as its content does.
        sync_dir(dir).map_err(|error| StoreError::Failed(format!("cannot keep state in {}: {error}", dir.display())))?;
        Ok(EmbeddedStore { path, database: Mutex::new(Some(database)) })
    }

    /// Runs one operation. An I/O error may pass (a full disk), so the file is opened anew for the next one.
    fn with<T>(&self, operation: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut slot = self.database.lock();
        if slot.is_none() {
            *slot = Some(open_file(&self.path)?);
        }
        let Some(database) = slot.as_ref() else { return Err(StoreError::Unavailable("the state file is closed".into())) };
        operation(database).map_err(|error| {
            *slot = None;
            self.describe(error)
        })
    }

    fn read<T>(&self, operation: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(|database| operation(&database.begin_read()?))
    }

    /// Runs one transaction. It is on disk when this returns `Ok`.
    fn write<T>(&self, operation: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let outcome = operation(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        })
    }

    fn describe(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(_) | redb::Error::PreviousIo => StoreError::Unavailable(format!("{}: {error}", self.path.display())),
            other => damaged(&self.path, &other),
        }
    }
}

impl StateStore for EmbeddedStore {
    fn identity(&self) -> Result<String, StoreError> {
        let known = self.read(|transaction| value(transaction, META, IDENTITY_KEY))?;
        if let Some(known) = known {
            return Ok(known);
        }
        let made = new_identity()?;
        self.write(|transaction| {
            transaction.open_table(META)?.insert(IDENTITY_KEY, made.as_str())?;
            Ok(())
        })?;
        Ok(made)
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn take(&self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, StoreError> {
        self.write(|transaction| {
            let mut rows = transaction.open_table(SPLITS)?;
            let ahead = transaction.open_table(AHEAD)?;
            splits.iter().map(|split| take_split(&mut rows, &ahead, sink, split, owner)).collect()
        })
    }

    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut rows = transaction.open_table(SPLITS)?;
            for (split, epoch) in splits {
                let key = (sink.as_str(), split.as_str());
                let held = rows.get(key)?.map(|row| record_of(row.value())).filter(|record| record.epoch == *epoch);
                if let Some(record) = held {
                    rows.insert(key, (record.epoch, record.sequence, record.low, owner.unwrap_or_default()))?;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let refused = self.with(|database| {
            let transaction = database.begin_write()?;
            let refused = apply(&transaction, sink, commit)?;
            match refused {
                None => transaction.commit()?,
                Some(_) => transaction.abort()?,
            }
            Ok(refused)
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError> {
        self.read(|transaction| {
            let Some(table) = existing(transaction.open_table(STAGED))? else { return Ok(Vec::new()) };
            let mut staged = Vec::new();
            for row in table.range((sink.as_str(), "")..)? {
                let (key, detail) = row?;
                let (of, id) = key.value();
                if of != sink.as_str() {
                    break;
                }
                staged.push(Staged { id: id.to_owned(), detail: detail.value().to_owned() });
            }
            Ok(staged)
        })
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        self.write(|transaction| forget_staged(transaction, sink, ids))
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(SPLITS))? else { return Ok(Vec::new()) };
            let ahead = existing(transaction.open_table(AHEAD))?;
            let mut records = Vec::new();
            for row in rows.range((sink.as_str(), "")..)? {
                let (key, row) = row?;
                let (of, split) = key.value();
                if of != sink.as_str() {
                    break;
                }
                let mut record = record_of(row.value());
                if let Some(ahead) = &ahead {
                    record.ahead = lanes_ahead(ahead, of, split)?;
                }
                records.push((split.into(), record));
            }
            Ok(records)
        })
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(SPLITS))? else { return Ok(Vec::new()) };
            let mut sinks: Vec<SinkId> = Vec::new();
            for row in rows.iter()? {
                let sink = SinkId::from(row?.0.value().0);
                if sinks.last() != Some(&sink) {
                    sinks.push(sink);
                }
            }
            Ok(sinks)
        })
    }

    fn plan(&self) -> Result<Option<StoredPlan>, StoreError> {
        self.read(|transaction| {
            let fingerprint = value(transaction, META, PLAN_FINGERPRINT_KEY)?;
            let text = value(transaction, META, PLAN_TEXT_KEY)?;
            Ok(fingerprint.zip(text).map(|(fingerprint, text)| StoredPlan { fingerprint, text }))
        })
    }

    fn set_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert(PLAN_FINGERPRINT_KEY, plan.fingerprint.as_str())?;
            meta.insert(PLAN_TEXT_KEY, plan.text.as_str())?;
            Ok(())
        })
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.read(|transaction| value(transaction, NOTES, key))
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(NOTES)?.insert(key, value)?;
            Ok(())
        })
    }
}

fn take_split(
    rows: &mut Table<SplitKey, SplitRow>,
    ahead: &impl ReadableTable<(&'static str, &'static str, &'static str), u64>,
    sink: &SinkId,
    split: &SplitId,
    owner: &str,
) -> Result<CommitRecord, redb::Error> {
    let key = (sink.as_str(), split.as_str());
    let mut record = rows.get(key)?.map(|row| record_of(row.value())).unwrap_or_default();
    record.epoch += 1;
    record.ahead = lanes_ahead(ahead, sink.as_str(), split.as_str())?;
    record.owners.retain(|other| other != owner);
    let with_owner = [record.owners.as_slice(), &[owner.to_owned()]].concat().join(OWNERS);
    rows.insert(key, (record.epoch, record.sequence, record.low, with_owner.as_str()))?;
    Ok(record)
}

/// Everything but the lanes that are ahead.
fn record_of((epoch, sequence, low, owners): SplitRow) -> CommitRecord {
    let owners = owners.split(OWNERS).filter(|owner| !owner.is_empty()).map(str::to_owned).collect();
    CommitRecord { epoch, sequence, low, owners, ..CommitRecord::default() }
}

fn lanes_ahead(
    table: &impl ReadableTable<(&'static str, &'static str, &'static str), u64>,
    sink: &str,
    split: &str,
) -> Result<std::collections::HashMap<LaneId, u64>, redb::Error> {
    let mut lanes = std::collections::HashMap::new();
    for row in table.range((sink, split, "")..)? {
        let (key, upto) = row?;
        let (of_sink, of_split, lane) = key.value();
        if (of_sink, of_split) != (sink, split) {
            break;
        }
        lanes.insert(lane.into(), upto.value());
    }
    Ok(lanes)
}

/// Applies a step inside the transaction, or says why it must be aborted.
fn apply(transaction: &WriteTransaction, sink: &SinkId, commit: &Commit) -> Result<Option<CommitError>, redb::Error> {
    let mut rows = transaction.open_table(SPLITS)?;
    let mut owners = Vec::with_capacity(commit.splits.len());
    let mut found = Vec::with_capacity(commit.splits.len());
    for step in &commit.splits {
        let row = rows.get((sink.as_str(), step.split.as_str()))?;
        let record = row.map(|row| record_of(row.value())).unwrap_or_default();
        found.push((record.epoch, record.sequence));
        owners.push(record.owners.join(OWNERS));
    }
    if let Some(refused) = refusal(&commit.splits, &found) {
        return Ok(Some(refused));
    }
    let mut ahead = transaction.open_table(AHEAD)?;
    for (step, owner) in commit.splits.iter().zip(&owners) {
        let (sink, split) = (sink.as_str(), step.split.as_str());
        rows.insert((sink, split), (step.epoch, step.sequence + 1, Some(step.low), owner.as_str()))?;
        for (lane, upto) in &step.ahead {
            ahead.insert((sink, split, lane.as_str()), *upto)?;
        }
        for lane in &step.caught_up {
            ahead.remove((sink, split, lane.as_str()))?;
        }
    }
    forget_staged(transaction, sink, &commit.published)?;
    let mut staged = transaction.open_table(STAGED)?;
    for entry in &commit.staged {
        staged.insert((sink.as_str(), entry.id.as_str()), entry.detail.as_str())?;
    }
    Ok(None)
}

/// Why a step cannot be applied to splits of which the store shows these epochs and sequences; the order is [`StateStore::commit`]'s.
fn refusal(steps: &[SplitCommit], found: &[(u64, u64)]) -> Option<CommitError> {
    let both = || steps.iter().zip(found.iter().copied());
    if let Some((step, (epoch, _))) = both().find(|(step, (epoch, _))| *epoch < step.epoch) {
        return Some(CommitError::Epoch { split: step.split.clone(), expected: step.epoch, found: epoch });
    }
    let wrong_sequence = |(step, (_, found)): (&SplitCommit, (u64, u64))| CommitError::Sequence {
        split: step.split.clone(),
        expected: step.sequence,
        found,
    };
    if let Some(behind) = both().find(|(step, (_, sequence))| *sequence < step.sequence) {
        return Some(wrong_sequence(behind));
    }
    let fenced: Vec<SplitId> = both().filter(|(step, (epoch, _))| *epoch > step.epoch).map(|(step, _)| step.split.clone()).collect();
    if !fenced.is_empty() {
        return Some(CommitError::Fenced(fenced));
    }
    both().find(|(step, (_, sequence))| *sequence > step.sequence).map(wrong_sequence)
}

fn forget_staged(transaction: &WriteTransaction, sink: &SinkId, ids: &[String]) -> Result<(), redb::Error> {
    let mut staged = transaction.open_table(STAGED)?;
    for id in ids {
        staged.remove((sink.as_str(), id.as_str()))?;
    }
    Ok(())
}

fn value(
    transaction: &redb::ReadTransaction,
    table: TableDefinition<&'static str, &'static str>,
    key: &str,
) -> Result<Option<String>, redb::Error> {
    let Some(table) = existing(transaction.open_table(table))? else { return Ok(None) };
    Ok(table.get(key)?.map(|value| value.value().to_owned()))
}

/// A table that nothing was written to yet does not exist.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Any name becomes one file name: what could mean something to a file system is percent-encoded.
fn file_name(pipeline: &str) -> String {
    let mut name = String::with_capacity(pipeline.len() + 5);
    for (at, byte) in pipeline.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(byte.into()),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name + ".redb"
}

/// Makes the folder, with a note to git that nothing in it belongs into a repository.
fn prepare_dir(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    match File::create_new(dir.join(".gitignore")) {
        Ok(mut file) => file.write_all(b"*\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        // Otherwise redb trusts the file after a clean end, and may panic on one that was altered since.
        .set_check_integrity_on_open(true)
        .create(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Failed(format!(
                "{} is in use by another process, which runs the same pipeline: wait for it or stop it, \
                 or set :state to a redis URL so that several processes can share the work",
                path.display()
            )),
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                StoreError::Unavailable(format!("{}: {error}", path.display()))
            }
            other => damaged(path, &other),
        })?;
    check_format(&database).map_err(|error| damaged(path, &error))?.map_err(|found| {
        StoreError::Failed(format!(
            "{} has format {found}, and this version reads up to {FORMAT}: use the newer version that wrote it",
            path.display()
        ))
    })?;
    Ok(database)
}

/// Writes the format into a new file; gives back the format of a file that this version cannot read.
fn check_format(database: &Database) -> Result<Result<(), String>, redb::Error> {
    let found = value(&database.begin_read()?, META, FORMAT_KEY)?;
    match found {
        Some(found) if found.parse::<u64>().is_ok_and(|format| format <= FORMAT) => Ok(Ok(())),
        Some(found) => Ok(Err(found)),
        None => {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT.to_string().as_str())?;
            transaction.commit()?;
            Ok(Ok(()))
        }
    }
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> StoreError {
    StoreError::Failed(format!(
        "cannot read the state in {}: {error}. Bring the file back from a copy; moving it away starts the pipeline anew, \
         and what it wrote already is written again",
        path.display()
    ))
}
