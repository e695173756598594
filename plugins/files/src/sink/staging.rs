//! The hidden folders of a run: files that are being written, and files that are not published yet.
//!
//! ```text
//! <base>/.pseidon-open/disk/                          the disk id, see [`disk`](super::disk)
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/
//!     <run>/lock                                      locked during the run; names its machine
//!     <run>/1.open                                    a file that is being written
//! ```
//!
//! The run creates each file as a [`HiddenFile`]. When it starts, and when it takes splits over, it
//! does what earlier runs have left: [`cleanup`] publishes or deletes the files of dead runs, and
//! [`takeover`] publishes the files that the state store names. A file that cannot be published
//! stays, with its folder and its entry, and is retried in the background
//! ([`follow_ups`](super::follow_ups)).

mod cleanup;
mod hidden_file;
mod takeover;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::Mutex;
use pseidon_delivery::{Committer, Reason, StagedId};
use pseidon_plugin::sink::{SinkError, SinkSetup};

pub(super) use self::hidden_file::HiddenFile;
use super::access::Access;
use super::entry::{Move, read_moves};
use super::folder::{Folder, Label};
use super::host::Host;
use super::permitted::{PermittedPlaces, safe_name};
use super::place::PublishOutcome;
use super::verdict::Obstacle;

/// The hidden folders of one run of one sink. Dropping it removes those that are empty.
pub(super) struct Staging {
    folders: Vec<Folder>,
    access: Access,
    /// What entries of the state may do; `None` if no other program can have written them.
    permitted: Option<PermittedPlaces>,
    host: Host,
    committer: Arc<Committer>,
    /// Numbers the files in the folders.
    files: AtomicU64,
    /// Selects the next base directory.
    turn: AtomicUsize,
    /// The files that the cleanup has published and the state store may still name, by id.
    published: Mutex<HashMap<StagedId, Move>>,
    /// The ids of files that cannot be published here, which is logged once for each.
    not_here: Mutex<HashSet<StagedId>>,
}

/// Where a sink stages its files.
pub(super) struct StagingPlaces<'a> {
    /// The base directories.
    pub(super) bases: &'a [PathBuf],
    /// The sink's hidden folder below each of them.
    pub(super) hidden: String,
    /// What entries of the state may do; `None` if no other program can have written them.
    pub(super) permitted: Option<PermittedPlaces>,
}

/// The result of publishing one committed file.
enum Publication {
    /// It is published; the changed folders are not synced yet.
    Done,
    /// It cannot be published here.
    NotHere,
    /// An error, so it has to be tried again.
    Failed,
}

impl Staging {
    /// Creates the folders, and cleans up after dead runs. Returns those of their files that could
    /// not be published yet.
    pub(super) fn open(
        places: StagingPlaces<'_>,
        access: Access,
        setup: &SinkSetup,
    ) -> Result<(Staging, Vec<(StagedId, Move)>), SinkError> {
        let StagingPlaces {
            bases,
            hidden: sink,
            permitted,
        } = places;
        let label = Label {
            host: Host::this(),
            owner: Some(setup.instance.clone()),
        };
        let mut staging = Staging {
            folders: Vec::new(),
            access,
            permitted,
            host: label.host.clone(),
            committer: setup.committer.clone(),
            files: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            published: Mutex::default(),
            not_here: Mutex::default(),
        };
        staging.refuse_missing(bases)?;
        let failed = staging.clean_up(
            bases.iter().map(|base| (base.as_path(), sink.as_str())),
            cannot_open,
        )?;
        for base in bases {
            let name = safe_name(setup.instance.as_str());
            let folder = Folder::create(base, &sink, &name, label.clone(), staging.access.clone());
            staging
                .folders
                .push(folder.map_err(|error| cannot_open(base, error))?);
        }
        Ok((staging, failed))
    }

    /// Fails if a base directory is missing in which this machine has written committed files: it
    /// is on a disk that is not mounted.
    fn refuse_missing(&self, bases: &[PathBuf]) -> Result<(), SinkError> {
        let mut missing = Vec::new();
        for base in bases {
            if !base
                .try_exists()
                .map_err(|error| cannot_open(base, error))?
            {
                missing.push(base);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let staged = read_moves(self.committer.staged()?)?;
        for base in missing {
            let committed = staged
                .iter()
                .filter(|(_, moving)| {
                    moving.base == *base && moving.host.shares_locks_with(&self.host)
                })
                .count();
            if committed > 0 {
                let base = base.display();
                let what = format!(
                    "the directory {base} does not exist, but the state store names {committed} \
                     committed files in it that may not be published yet. help: mount its disk; \
                     or, to write to another disk and leave these files to a run on their own \
                     disk, `mkdir -p {base}`"
                );
                return Err(SinkError::Fatal(what.into()));
            }
        }
        Ok(())
    }

    /// Publishes a committed file, or finds it published. Logs a warning about everything that is
    /// not as expected. Adds the changed folders to `changed`.
    fn publish_one(
        &self,
        id: &StagedId,
        moving: &Move,
        changed: &mut BTreeSet<PathBuf>,
    ) -> Publication {
        let permitted = self.permitted.as_ref();
        if let Some(reason) = permitted.and_then(|permitted| permitted.refusal(moving)) {
            let refused = PublishOutcome::NotHere(Obstacle::Refused(reason));
            self.is_published(id, moving, &refused);
            return Publication::NotHere;
        }
        match moving.apply(&self.access, changed) {
            Ok(outcome) if self.is_published(id, moving, &outcome) => {
                // Another process may have renamed it, and not have synced its folders.
                changed.extend(moving.dirs());
                Publication::Done
            }
            Ok(_) => Publication::NotHere,
            Err(error) => {
                tracing::warn!(
                    file = %moving.shown(),
                    %error,
                    "cannot publish a committed file; retrying in the background"
                );
                Publication::Failed
            }
        }
    }

    /// Whether the file is published. Logs a warning if it is not, or if it is published and gone.
    fn is_published(&self, id: &StagedId, moving: &Move, outcome: &PublishOutcome) -> bool {
        match outcome {
            PublishOutcome::Published => true,
            PublishOutcome::Taken => {
                // A file that is moved after it was published is not expected to be there.
                if moving
                    .follow_up
                    .as_ref()
                    .is_none_or(|follow_up| follow_up.destination.is_none())
                {
                    let file = moving.shown();
                    tracing::warn!(
                        %file,
                        "committed file is neither hidden nor visible on its disk; \
                         a reader has taken it, or it was deleted"
                    );
                }
                true
            }
            PublishOutcome::NotHere(obstacle) => {
                if self.not_here.lock().insert(id.clone()) {
                    let reason = moving.explain(obstacle);
                    tracing::warn!(
                        file = %moving.shown(),
                        %reason,
                        "committed file cannot be published here"
                    );
                }
                false
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for folder in &self.folders {
            if let Err(error) = folder.remove() {
                tracing::debug!(
                    folder = %folder.dir().display(),
                    %error,
                    "cannot remove the hidden folder"
                );
            }
        }
    }
}

/// Converts an I/O error in a base directory to the sink's error.
type ErrorMapper = fn(&Path, io::Error) -> SinkError;

/// For errors before the first write: those that the user has to fix stop the run.
fn cannot_open(base: &Path, error: io::Error) -> SinkError {
    use io::ErrorKind::{InvalidData, NotADirectory, PermissionDenied, Unsupported};
    match (error.kind(), cannot_write(base, error)) {
        (
            PermissionDenied | NotADirectory | Unsupported | InvalidData,
            SinkError::Transient(reason),
        ) => SinkError::Fatal(reason),
        (_, error) => error,
    }
}

/// For errors in a running sink: it waits until it can write again.
fn cannot_write(base: &Path, error: io::Error) -> SinkError {
    SinkError::Transient(Reason::caused_by(
        format!("cannot write in {}", base.display()),
        error,
    ))
}
