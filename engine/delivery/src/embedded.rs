//! The state store that needs no server: a redb file.
//!
//! The file is in a folder of its own beside the pipeline file and belongs to one process at a
//! time. A commit is one redb transaction, on disk when it returns, and writes only the rows that
//! change: lanes that are ahead have rows of their own.

mod file;
mod format;
mod operator;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;
mod snapshot;
mod steps;
mod tables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use self::file::{
    damaged, groups_beside, open_file, open_or_create, open_other, state_name, unavailable,
};
pub use self::snapshot::StateSnapshot;
use self::steps::{apply, is_fenced, take_split};
use self::tables::{
    AHEAD, FENCED, IDENTITY_KEY, META, NOTES, PLANS, RECORDS, STAGED, existing, forget_staged,
    lanes_ahead, record_of, records_of, value,
};
use crate::store::new_identity;
use crate::{
    Claimant, Commit, CommitError, CommitRecord, InstanceId, Reason, SinkId, SplitId, StagedEntry,
    StagedId, StateStore, StoreError, StoredPlan,
};

/// The folder for state, in the folder of a pipeline file.
pub const STATE_FOLDER: &str = ".pseidon";

/// Opens the database file of a sink that keeps its content beside the state:
/// `<dir>/<pipeline>~<sink>.groups.redb`. Creates it if it is missing, and locks it against every
/// other process. `cache` is the memory for its pages, in bytes. Returns the file with its path.
///
/// # Errors
/// The file cannot be used, or not now.
pub fn open_database(
    dir: &Path,
    pipeline: &str,
    sink: &SinkId,
    cache: usize,
) -> Result<(PathBuf, Database), StoreError> {
    let path = groups_beside(&dir.join(state_name(pipeline)), sink);
    let database = open_or_create(dir, &path, |path| open_other(path, cache))?;
    Ok((path, database))
}

/// The state of one pipeline in a redb file.
pub struct EmbeddedStore {
    path: PathBuf,
    /// `None` after an I/O error, which makes redb's handle unusable; the next call opens the file
    /// again.
    database: Mutex<Option<Database>>,
}

impl EmbeddedStore {
    /// Opens `<dir>/<pipeline>.redb`, creates it if it is missing, and locks it against every other
    /// process.
    pub fn open(dir: &Path, pipeline: &str) -> Result<EmbeddedStore, StoreError> {
        let path = dir.join(state_name(pipeline));
        let database = open_or_create(dir, &path, open_file).map_err(permanent)?;
        let store = EmbeddedStore {
            path,
            database: Mutex::new(Some(database)),
        };
        store.finish_clearing().map_err(permanent)?;
        Ok(store)
    }

    /// The path of the state file of a pipeline: `<dir>/<pipeline>.redb`.
    pub fn path(dir: &Path, pipeline: &str) -> PathBuf {
        dir.join(state_name(pipeline))
    }

    /// Whether the state file of a pipeline exists.
    pub fn exists(dir: &Path, pipeline: &str) -> bool {
        EmbeddedStore::path(dir, pipeline).exists()
    }

    /// Runs one operation. An I/O error may be temporary (a full disk), so the file is reopened for
    /// the next operation.
    fn with<T>(
        &self,
        operation: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut slot = self.database.lock();
        if slot.is_none() {
            *slot = Some(open_file(&self.path)?);
        }
        let Some(database) = slot.as_ref() else {
            return Err(StoreError::Unavailable("the state file is closed".into()));
        };
        operation(database).map_err(|error| {
            *slot = None;
            self.describe(error)
        })
    }

    fn read<T>(
        &self,
        operation: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| operation(&database.begin_read()?))
    }

    /// Runs one transaction. It is on disk when this returns `Ok`.
    fn write<T>(
        &self,
        operation: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let outcome = operation(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        })
    }

    /// Replaces the records of splits that are still held under these epochs, in one transaction.
    /// Returns the other splits.
    fn change_held(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        change: impl Fn(CommitRecord) -> CommitRecord,
    ) -> Result<Vec<SplitId>, StoreError> {
        if splits.is_empty() {
            return Ok(Vec::new());
        }
        self.write(|transaction| {
            let mut rows = transaction.open_table(RECORDS)?;
            let mut others = Vec::new();
            for (split, epoch) in splits {
                let key = (sink.as_str(), split.as_str());
                let record = rows.get(key)?.map(|row| record_of(row.value()));
                match record.filter(|record| record.epoch == *epoch) {
                    Some(record) => tables::insert(&mut rows, key, &change(record))?,
                    None => others.push(split.clone()),
                }
            }
            Ok(others)
        })
    }

    fn describe(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(error) => {
                unavailable(&self.path, Reason::caused_by("I/O error", error))
            }
            redb::Error::PreviousIo => unavailable(&self.path, error),
            other => damaged(&self.path, other),
        }
    }
}

/// The error for a store that cannot be opened, for which no retry follows.
fn permanent(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(_) => StoreError::Failed(Reason::of(error)),
        StoreError::Failed(_) => error,
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
            transaction
                .open_table(META)?
                .insert(IDENTITY_KEY, made.as_str())?;
            Ok(())
        })?;
        Ok(made)
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
        let taken = self.write(|transaction| {
            if is_fenced(transaction, sink, owner)? {
                return Ok(None);
            }
            splits
                .iter()
                .map(|split| take_split(transaction, sink, split, owner))
                .collect::<Result<_, _>>()
                .map(Some)
        })?;
        taken.ok_or_else(|| CommitError::OwnerFenced(owner.clone()))
    }

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        let taken_since = self.change_held(sink, splits, |record| CommitRecord {
            owners: vec![claimant.owner.clone()],
            plan: Some(claimant.plan.clone()),
            ..record
        })?;
        if taken_since.is_empty() {
            Ok(())
        } else {
            Err(CommitError::Fenced(taken_since))
        }
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        let without_owners = |record| CommitRecord {
            owners: Vec::new(),
            ..record
        };
        self.change_held(sink, splits, without_owners).map(drop)
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut owners = BTreeSet::new();
            records_of(&transaction.open_table(RECORDS)?, sink, |_, record| {
                owners.extend(record.owners);
                Ok(())
            })?;
            let mut fenced = transaction.open_table(FENCED)?;
            // An owner without a record has lost all its epochs, so its mark is no longer needed.
            fenced.retain_in((sink.as_str(), "").., |(of, other), ()| {
                of != sink.as_str() || owners.contains(&InstanceId::from(other))
            })?;
            fenced.insert((sink.as_str(), owner.as_str()), ())?;
            Ok(())
        })
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(RECORDS))? else {
                return Ok(BTreeSet::new());
            };
            let mut owners = BTreeSet::new();
            records_of(&rows, sink, |_, record| {
                owners.extend(record.owners);
                Ok(())
            })?;
            Ok(owners)
        })
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let applied = self.with(|database| {
            let transaction = database.begin_write()?;
            let refused = steps
                .iter()
                .map(|(sink, commit)| apply(&transaction, sink, commit))
                .collect::<Result<Vec<_>, _>>()?;
            if refused.iter().all(Option::is_some) {
                transaction.abort()?;
            } else {
                transaction.commit()?;
            }
            Ok(refused)
        });
        match applied {
            Ok(refused) => refused
                .into_iter()
                .map(|refused| refused.map_or(Ok(()), Err))
                .collect(),
            Err(error) => steps.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        self.read(|transaction| {
            let Some(table) = existing(transaction.open_table(STAGED))? else {
                return Ok(Vec::new());
            };
            let mut staged = Vec::new();
            for row in table.range((sink.as_str(), "")..)? {
                let (key, detail) = row?;
                let (of, id) = key.value();
                if of != sink.as_str() {
                    break;
                }
                staged.push(StagedEntry {
                    id: id.into(),
                    detail: detail.value().to_owned(),
                });
            }
            Ok(staged)
        })
    }

    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError> {
        self.write(|transaction| forget_staged(transaction, sink, ids))
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(RECORDS))? else {
                return Ok(Vec::new());
            };
            let ahead = existing(transaction.open_table(AHEAD))?;
            let mut records = Vec::new();
            records_of(&rows, sink, |split, mut record| {
                if let Some(ahead) = &ahead {
                    record.ahead = lanes_ahead(ahead, sink, &split)?;
                }
                records.push((split, record));
                Ok(())
            })?;
            Ok(records)
        })
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(RECORDS))? else {
                return Ok(vec![CommitRecord::default(); splits.len()]);
            };
            let ahead = existing(transaction.open_table(AHEAD))?;
            let read = |split: &SplitId| {
                let row = rows.get((sink.as_str(), split.as_str()))?;
                let mut record = row.map(|row| record_of(row.value())).unwrap_or_default();
                if let Some(ahead) = &ahead {
                    record.ahead = lanes_ahead(ahead, sink, split)?;
                }
                Ok(record)
            };
            splits.iter().map(read).collect()
        })
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        if splits.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut rows = transaction.open_table(RECORDS)?;
            let ahead = transaction.open_table(AHEAD)?;
            for split in splits {
                let key = (sink.as_str(), split.as_str());
                let record = rows.get(key)?.map(|row| record_of(row.value()));
                let is_over = record
                    .is_some_and(|record| record.finished.is_some() && record.owners.is_empty());
                if is_over && lanes_ahead(&ahead, sink, split)?.is_empty() {
                    rows.remove(key)?;
                }
            }
            Ok(())
        })
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        self.read(|transaction| {
            let Some(rows) = existing(transaction.open_table(RECORDS))? else {
                return Ok(Vec::new());
            };
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

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| {
            let Some(plans) = existing(transaction.open_table(PLANS))? else {
                return Ok(Vec::new());
            };
            plans
                .iter()?
                .map(|row| Ok(row?.0.value().to_owned()))
                .collect()
        })
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        self.read(|transaction| value(transaction, PLANS, fingerprint))
    }

    fn has_plan(&self, fingerprint: &str) -> Result<bool, StoreError> {
        self.read(|transaction| {
            let plans = existing(transaction.open_table(PLANS))?;
            Ok(match plans {
                Some(plans) => plans.get(fingerprint)?.is_some(),
                None => false,
            })
        })
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction
                .open_table(PLANS)?
                .insert(plan.fingerprint.as_str(), plan.text.as_str())?;
            Ok(())
        })
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut plans = transaction.open_table(PLANS)?;
            for fingerprint in fingerprints {
                plans.remove(fingerprint.as_str())?;
            }
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
