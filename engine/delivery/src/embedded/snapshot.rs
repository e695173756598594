//! A copy of a state file, to look at the state while a run has the file open.
//!
//! The lock of a state file keeps every other process out, so the file is copied into memory
//! without being opened as a database. redb writes a commit to pages that the last commit does not
//! use, and then the header. So a copy is complete if the header did not change meanwhile; the
//! digests of all pages are checked when the copy is opened, and otherwise it is copied again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::EmbeddedStore;
use super::file::{
    builder, check_tables, checked_format, damaged, is_locked, state_name, unavailable,
};
use crate::{Reason, StoreError};

/// How many bytes at the beginning of the file are compared; redb's header is in them.
const HEADER_BYTES: usize = 4096;
/// How often the file is copied before the copy counts as damaged, and the pause between two tries.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// The state of a pipeline as it was at one moment.
pub struct StateSnapshot {
    /// The copy. What is written to it is not kept.
    pub store: EmbeddedStore,
    /// Whether a process has the state file open.
    pub is_in_use: bool,
    /// When the file was last written; `None` where the file system does not keep it.
    pub written: Option<SystemTime>,
}

impl EmbeddedStore {
    /// Copies `<dir>/<pipeline>.redb`, also while another process has it open. `None` if the file
    /// does not exist.
    pub fn snapshot(dir: &Path, pipeline: &str) -> Result<Option<StateSnapshot>, StoreError> {
        let path = dir.join(state_name(pipeline));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(&path, error)),
        };
        let is_in_use = is_locked(&file).map_err(|error| unavailable(&path, error))?;
        let written = file.metadata().and_then(|metadata| metadata.modified());
        let mut last: Option<StoreError> = None;
        for _ in 0..TRIES {
            let copied = copy(&file).map_err(|error| unavailable(&path, error))?;
            match copied.map(|bytes| open(&path, &bytes)) {
                Some(Ok(store)) => {
                    return Ok(Some(StateSnapshot {
                        store,
                        is_in_use,
                        written: written.ok(),
                    }));
                }
                // A file that no process writes will not change.
                Some(Err(error)) if !is_in_use => return Err(error),
                Some(Err(error)) => last = Some(error),
                None => {}
            }
            thread::sleep(PAUSE);
        }
        Err(last.unwrap_or_else(|| {
            StoreError::Unavailable(
                format!("{} is being written all the time", path.display()).into(),
            )
        }))
    }
}

/// The bytes of the file; `None` if its header changed meanwhile.
fn copy(file: &File) -> io::Result<Option<Vec<u8>>> {
    let header = read_up_to(file, HEADER_BYTES)?;
    let bytes = read_up_to(file, usize::MAX)?;
    let is_complete = bytes.starts_with(&header) && read_up_to(file, HEADER_BYTES)? == header;
    Ok(is_complete.then_some(bytes))
}

/// The first `limit` bytes of the file, or all if there are fewer.
fn read_up_to(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size.min(limit)];
    match file.read_exact_at(&mut bytes, 0) {
        // It was shortened meanwhile, and its header has changed too.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        read => read.map(|()| bytes),
    }
}

fn open(path: &Path, bytes: &[u8]) -> Result<EmbeddedStore, StoreError> {
    if bytes.is_empty() {
        // redb would make an empty database of it.
        return Err(damaged(path, io::Error::from(io::ErrorKind::UnexpectedEof)));
    }
    let memory = InMemoryBackend::new();
    let filled = memory
        .set_len(bytes.len() as u64)
        .and_then(|()| memory.write(0, bytes));
    filled.map_err(|error| StoreError::Failed(Reason::of(error)))?;
    let database = builder()
        .create_with_backend(memory)
        .map_err(|error| damaged(path, error))?;
    check_tables(path, &database)?;
    checked_format(path, &database)?;
    let store = EmbeddedStore {
        path: path.to_owned(),
        database: Mutex::new(Some(database)),
    };
    store.show_cleared()?;
    Ok(store)
}
