//! The hidden folder of a sink: files that are being written or are not published yet.
//!
//! ```text
//! <spool>/.open/<pipeline>.<sink>.<store>/lock                  locked during a run
//! <spool>/.open/<pipeline>.<sink>.<store>/<instance>-000001     a file that is not published
//! <spool>/<queue>/<instance>-000001                             the same file when it is published
//! ```
//!
//! The id of a staged entry is the name of the file, and its detail is the queue. A published file
//! keeps its name, so no file ever replaces another one.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pseidon_delivery::{InstanceId, Reason, StagedEntry};
use pseidon_plugin::sink::{SinkError, SinkSetup};

const OPEN: &str = ".open";
const LOCK: &str = "lock";

/// The hidden folder of a run.
pub(super) struct HiddenFolder {
    spool: PathBuf,
    dir: PathBuf,
    instance: InstanceId,
    /// How many files were created.
    count: AtomicU64,
    /// Locked as long as it is open.
    _lock: File,
}

impl HiddenFolder {
    /// Locks the folder, and deletes the uncommitted files of earlier runs.
    ///
    /// # Errors
    /// Another instance has the folder, or files that are committed are gone.
    pub(super) fn open(spool: &Path, setup: &SinkSetup) -> Result<HiddenFolder, SinkError> {
        let parts = [
            &setup.pipeline,
            setup.committer.sink().as_str(),
            &setup.store,
        ];
        let dir = spool.join(OPEN).join(parts.map(as_file_name).join("."));
        let failed = |error: io::Error| {
            let what = format!("cannot open {}", dir.display());
            SinkError::Transient(Reason::caused_by(what, error))
        };
        if !dir.exists() && !setup.committer.staged()?.is_empty() {
            let what = format!(
                "{} is missing, and committed files are in it; is the disk mounted?",
                dir.display()
            );
            return Err(SinkError::Fatal(what.into()));
        }
        fs::create_dir_all(&dir).map_err(failed)?;
        let lock = File::create(dir.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let what = format!("another instance writes to {}", spool.display());
                SinkError::Transient(what.into())
            }
            TryLockError::Error(error) => failed(error),
        })?;
        delete_uncommitted(&dir, setup)?;
        Ok(HiddenFolder {
            spool: spool.to_owned(),
            dir,
            instance: setup.instance.clone(),
            count: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Creates a file under the next name, which is durable only after [`HiddenFolder::sync`].
    pub(super) fn create(&self) -> io::Result<(HiddenFile, File)> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{}-{number:06}", self.instance);
        let path = self.dir.join(&name);
        let file = File::create_new(&path)?;
        Ok((HiddenFile { path, name }, file))
    }

    /// Makes the names of the files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    /// Moves committed files into the subfolders of their queues. Can be repeated.
    pub(super) fn publish(&self, staged: &[StagedEntry]) -> io::Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        let mut changed = BTreeSet::new();
        for entry in staged {
            let queue = self.spool.join(&entry.detail);
            fs::create_dir_all(&queue)?;
            match fs::rename(
                self.dir.join(entry.id.as_str()),
                queue.join(entry.id.as_str()),
            ) {
                Ok(()) => {}
                // An earlier call has moved it, and its consumer may have deleted it since.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            changed.insert(queue);
        }
        changed.iter().try_for_each(|queue| sync_dir(queue))?;
        sync_dir(&self.spool)?;
        self.sync()
    }
}

/// A file that is not committed. Dropping it deletes the file.
pub(super) struct HiddenFile {
    path: PathBuf,
    /// Empty after it was handed over.
    name: String,
}

impl HiddenFile {
    /// Hands the file over to the state store, which decides from now on whether it counts. Returns
    /// the file's name.
    pub(super) fn hand_over(mut self) -> String {
        mem::take(&mut self.name)
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // The next run deletes it too.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Deletes the files of dead runs that are not committed: their records are re-read. A dead run's
/// last commit may still be on its way to the state store, so the run is fenced first.
fn delete_uncommitted(dir: &Path, setup: &SinkSetup) -> Result<(), SinkError> {
    let failed = |error: io::Error| {
        let what = format!("cannot clean up {}", dir.display());
        SinkError::Transient(Reason::caused_by(what, error))
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.retain(|name| name != LOCK);
    let owners: BTreeSet<&str> = names
        .iter()
        .filter_map(|name| name.rsplit_once('-').map(|(owner, _)| owner))
        .collect();
    for owner in owners {
        setup.committer.fence(&owner.into())?;
    }
    let staged = setup.committer.staged()?;
    let committed: HashSet<&str> = staged.iter().map(|entry| entry.id.as_str()).collect();
    for name in names
        .iter()
        .filter(|name| !committed.contains(name.as_str()))
    {
        fs::remove_file(dir.join(name)).map_err(failed)?;
    }
    Ok(())
}

/// The text with `_` in place of each character that a file name may not contain.
fn as_file_name(text: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "-_#".contains(c);
    text.chars()
        .map(|c| if safe(c) { c } else { '_' })
        .collect()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
