//! An operator's changes of the state file. The file is locked, so that no instance uses it: the
//! owners in it are dead, and stay there until the next instance has cleaned up after them.
//!
//! The groups of a `group` are in files of their own, which one transaction cannot change together
//! with the state. So the names of these files are first written into the state; from then on every
//! process that opens the state removes them, and then empties the state.

use std::fs;
use std::io;

use redb::{ReadableTable, WriteTransaction};

use super::EmbeddedStore;
use super::file::{groups_beside, sync_dir, unavailable};
use super::tables::{
    self, AHEAD, CLEARING_KEY, FENCED, META, NOTES, PLANS, RECORDS, STAGED, lanes_ahead, record_of,
    value,
};
use crate::failpoint::reach;
use crate::operator::{OperatorError, OperatorStore, SplitMove};
use crate::store::SplitVersion;
use crate::{SinkId, StateStore, StoreError};

/// Separates the names of files.
const NAMES: &str = "\n";

impl OperatorStore for EmbeddedStore {
    fn move_splits(&self, moves: &[SplitMove]) -> Result<(), OperatorError> {
        let refused = self.write(|transaction| {
            // Everything is checked before anything is written.
            if let Some(refused) = refusal(transaction, moves)? {
                return Ok(Some(refused));
            }
            let mut rows = transaction.open_table(RECORDS)?;
            for one in moves {
                let key = (one.sink.as_str(), one.split.as_str());
                let record = rows.get(key)?.map(|row| record_of(row.value()));
                tables::insert(&mut rows, key, &one.apply(record.unwrap_or_default()))?;
            }
            Ok(None)
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn clear(&self) -> Result<(), OperatorError> {
        // Only a `group` has such a file.
        let groups = |sink: &SinkId| {
            let path = groups_beside(&self.path, sink);
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let files: Vec<String> = self.sinks()?.iter().map(groups).collect();
        let staged = self.write(|transaction| {
            let staged = transaction.open_table(STAGED)?;
            if let Some(row) = staged.iter()?.next() {
                return Ok(Some(SinkId::from(row?.0.value().0)));
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(CLEARING_KEY, files.join(NAMES).as_str())?;
            Ok(None)
        })?;
        if let Some(sink) = staged {
            return Err(OperatorError::Staged(sink));
        }
        reach("reset-decided");
        Ok(self.finish_clearing()?)
    }
}

impl EmbeddedStore {
    /// The names of the files to remove, if clearing the state was begun.
    fn clearing(&self) -> Result<Option<String>, StoreError> {
        self.read(|transaction| value(transaction, META, CLEARING_KEY))
    }

    /// Empties a copy of the state if clearing the state was begun: the next run does it.
    pub(super) fn show_cleared(&self) -> Result<(), StoreError> {
        match self.clearing()? {
            Some(_) => self.empty(),
            None => Ok(()),
        }
    }

    /// Empties the state if that was begun.
    pub(super) fn finish_clearing(&self) -> Result<(), StoreError> {
        let Some(files) = self.clearing()? else {
            return Ok(());
        };
        let Some(dir) = self.path.parent() else {
            return Ok(());
        };
        for name in files.split(NAMES).filter(|name| !name.is_empty()) {
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unavailable(&path, error));
                }
                _ => {}
            }
        }
        sync_dir(dir).map_err(|error| unavailable(dir, error))?;
        reach("reset-groups-removed");
        self.empty()
    }

    fn empty(&self) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.delete_table(RECORDS)?;
            transaction.delete_table(AHEAD)?;
            transaction.delete_table(FENCED)?;
            transaction.delete_table(PLANS)?;
            transaction.delete_table(NOTES)?;
            transaction.open_table(META)?.remove(CLEARING_KEY)?;
            Ok(())
        })
    }
}

/// Why the splits cannot be moved.
fn refusal(
    transaction: &WriteTransaction,
    moves: &[SplitMove],
) -> Result<Option<OperatorError>, redb::Error> {
    let rows = transaction.open_table(RECORDS)?;
    let ahead = transaction.open_table(AHEAD)?;
    let staged = transaction.open_table(STAGED)?;
    for SplitMove {
        sink, split, seen, ..
    } in moves
    {
        let row = rows.get((sink.as_str(), split.as_str()))?;
        let record = row.map(|row| record_of(row.value())).unwrap_or_default();
        let shown = SplitVersion {
            epoch: record.epoch,
            sequence: record.sequence,
        };
        if shown != *seen {
            return Ok(Some(OperatorError::Changed));
        }
        let of_sink = staged.range((sink.as_str(), "")..)?.next().transpose()?;
        if of_sink.is_some_and(|(key, _)| key.value().0 == sink.as_str()) {
            return Ok(Some(OperatorError::Staged(sink.clone())));
        }
        if !lanes_ahead(&ahead, sink, split)?.is_empty() {
            return Ok(Some(OperatorError::Ahead(split.clone())));
        }
    }
    Ok(None)
}
