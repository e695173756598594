//! Files that are being written, and the cleanup after their process has died.
//!
//! ```text
//! <base>/.pseidon-open/disk                           the disk id, see [`disk`](super::disk)
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/
//!     <run>/lock                                      locked during the run; names its machine
//!     <run>/1.open                                    a file that is being written
//! ```
//!
//! A folder whose lock is free belongs to a dead run ([`folder`](super::folder)). The run is
//! fenced: a commit of it that is still in flight is never applied. Then the files that the state
//! store names as staged are published, since their records count as delivered; all other files are
//! deleted, since their records are uncommitted and are re-read. Only the dead folder is locked
//! during the requests to the state store, so a store that does not answer blocks no other
//! pipeline. A file that cannot be published stays, with its folder and its entry, and is retried
//! in the background ([`follow_ups`](super::follow_ups)).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::{Committer, StagedEntry, failpoint};
use pseidon_plugin::sink::{SinkError, SinkSetup};

use super::disk::DiskId;
use super::folder::{DeadFolder, Folder, Label, is_alive};
use super::follow_up::FollowUp;
use super::host::Host;
use super::place::{Move, PublishOutcome, sync_dirs};

/// The folder in each base directory for files that are not published yet.
pub(super) const OPEN: &str = ".pseidon-open";

/// The hidden folders of one run of one sink. Dropping it removes those that are empty.
pub(super) struct Staging {
    folders: Vec<Folder>,
    host: Host,
    committer: Arc<Committer>,
    /// Numbers the files in the folders.
    files: AtomicU64,
    /// Selects the next base directory.
    turn: AtomicUsize,
    /// The files that the cleanup has published and the state store may still name, by id.
    published: Mutex<HashMap<String, Move>>,
    /// The ids of files that cannot be published here, which is logged once for each.
    not_here: Mutex<HashSet<String>>,
}

/// The result of publishing staged files.
#[derive(Default)]
pub(super) struct PublishResult {
    /// The ids of files that need no follow-up.
    pub(super) done: Vec<String>,
    /// Published files that have to be moved or reported.
    pub(super) to_follow: Vec<(String, Move)>,
    /// Files that could not be published yet.
    pub(super) failed: Vec<(String, Move)>,
}

/// A hidden file. Dropping it deletes the file, unless the state store may name it.
pub(super) struct HiddenFile {
    staging: Arc<Staging>,
    folder: usize,
    name: String,
    /// The name's number in the folder.
    number: u64,
    disk: DiskId,
    inode: (u64, u64),
    is_kept: bool,
}

impl Staging {
    /// Creates the folders, and cleans up after dead runs. Returns those of their files that could
    /// not be published yet.
    pub(super) fn open(
        bases: &[PathBuf],
        setup: &SinkSetup,
    ) -> Result<(Staging, Vec<(String, Move)>), SinkError> {
        let safe = |text: &str| -> String {
            text.chars()
                .map(|char| {
                    if char.is_ascii_alphanumeric() || "-_#".contains(char) {
                        char
                    } else {
                        '_'
                    }
                })
                .collect()
        };
        let store: String = safe(&setup.store).chars().take(8).collect();
        let sink = format!(
            "{OPEN}/{}.{}.{store}",
            safe(&setup.pipeline),
            safe(setup.committer.sink().as_str())
        );
        let label = Label {
            host: Host::this(),
            owner: Some(setup.instance.clone()),
        };
        let mut staging = Staging {
            folders: Vec::new(),
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
            let folder = Folder::create(base, &sink, &safe(&setup.instance), label.clone());
            staging
                .folders
                .push(folder.map_err(|error| cannot_open(base, &error))?);
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
                .map_err(|error| cannot_open(base, &error))?
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
                return Err(SinkError::Fatal(format!(
                    "the directory {base} does not exist, but the state store names {committed} \
                     committed files in it that may not be published yet. help: mount its disk; \
                     or, to write to another disk and leave these files to a run on their own \
                     disk, `mkdir -p {base}`"
                )));
            }
        }
        Ok(())
    }

    /// Cleans up after runs that have died since. Returns those of their files that could not be
    /// published yet.
    pub(super) fn clean_up_all(&self) -> Result<Vec<(String, Move)>, SinkError> {
        self.clean_up(
            self.folders
                .iter()
                .map(|folder| (folder.base(), folder.sink())),
            cannot_write,
        )
    }

    /// Publishes the staged files that are on this machine's disks.
    pub(super) fn publish(&self, staged: Vec<StagedEntry>) -> Result<PublishResult, SinkError> {
        self.published
            .lock()
            .retain(|id, _| staged.iter().any(|entry| entry.id == *id));
        let mut changed = BTreeSet::new();
        let (mut settled, mut failed) = (Vec::new(), Vec::new());
        for (id, moving) in read_moves(staged)? {
            let published_before = self.published.lock().get(&id).cloned();
            if let Some(moving) = published_before {
                settled.push((id, moving));
                continue;
            }
            let moving = self.with_current_base(moving);
            match moving.apply(&mut changed) {
                Ok(outcome) if self.is_published(&id, &moving, &outcome) => {
                    settled.push((id, moving))
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        file = %shown(&moving),
                        %error,
                        "cannot publish a committed file; retrying in the background"
                    );
                    failed.push((id, moving));
                }
            }
        }
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(
                %error,
                "cannot sync the folders of published files; retrying in the background"
            );
            failed.append(&mut settled);
        }
        let mut published = PublishResult {
            failed,
            ..PublishResult::default()
        };
        for (id, moving) in settled {
            match &moving.follow_up {
                None => published.done.push(id),
                // The other run does the follow-up itself. If it dies before that is done, the next
                // take-over finds the entry again.
                Some(_) if self.is_of_other_live_run(&moving) => {}
                Some(_) => published.to_follow.push((id, moving)),
            }
        }
        Ok(published)
    }

    /// Whether the file is published. Logs a warning if it is not, or if it is published and gone.
    fn is_published(&self, id: &str, moving: &Move, outcome: &PublishOutcome) -> bool {
        match outcome {
            PublishOutcome::Published => true,
            PublishOutcome::Taken => {
                // A file that is moved after it was published is not expected to be there.
                if moving
                    .follow_up
                    .as_ref()
                    .is_none_or(|follow_up| follow_up.destination.is_none())
                {
                    let file = shown(moving);
                    tracing::warn!(
                        %file,
                        "committed file is neither hidden nor visible on its disk; \
                         a reader has taken it, or it was deleted"
                    );
                }
                true
            }
            PublishOutcome::NotHere(obstacle) => {
                if self.not_here.lock().insert(id.to_owned()) {
                    let reason = moving.explain(obstacle);
                    tracing::warn!(
                        file = %shown(moving),
                        %reason,
                        "committed file cannot be published here"
                    );
                }
                false
            }
        }
    }

    /// The same entry with the path that the base directory on the file's disk has in this run.
    fn with_current_base(&self, moving: Move) -> Move {
        let bases: Vec<&Path> = self
            .folders
            .iter()
            .filter(|folder| moving.disk == Some(folder.disk()))
            .map(Folder::base)
            .collect();
        match bases.first() {
            Some(base) if !bases.contains(&moving.base.as_path()) => Move {
                base: (*base).to_owned(),
                ..moving
            },
            _ => moving,
        }
    }

    /// Whether the file was written by another run of this sink that is still alive on this
    /// machine.
    fn is_of_other_live_run(&self, moving: &Move) -> bool {
        let hidden = moving.base.join(&moving.hidden);
        let dir = hidden
            .parent()
            .filter(|dir| self.folders.iter().all(|folder| folder.dir() != **dir));
        dir.is_some_and(|dir| is_alive(dir, &moving.host, &self.host))
    }

    /// Creates a hidden file in the next base directory. A folder that has vanished is created
    /// again.
    pub(super) fn create(self: &Arc<Self>) -> io::Result<(File, HiddenFile)> {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.folders.len();
        let name = format!("{}.open", self.files.fetch_add(1, Ordering::Relaxed) + 1);
        let folder = &self.folders[number];
        let path = folder.dir().join(&name);
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.recreate()?;
                File::create_new(&path)?
            }
            other => other?,
        };
        let made = folder.count_name();
        let metadata = file.metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        Ok((
            file,
            HiddenFile {
                staging: self.clone(),
                folder: number,
                name,
                number: made,
                disk: folder.disk(),
                inode,
                is_kept: false,
            },
        ))
    }

    /// Cleans up after dead runs of this sink. `sinks` holds the base directories, each with the
    /// path of the sink's folder below it.
    fn clean_up<'a>(
        &self,
        sinks: impl Iterator<Item = (&'a Path, &'a str)>,
        map_error: ErrorMapper,
    ) -> Result<Vec<(String, Move)>, SinkError> {
        let mut dead = Vec::new();
        for (base, sink) in sinks {
            let entries = match fs::read_dir(base.join(sink)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| map_error(base, &error))?,
            };
            for entry in entries {
                let dir = entry.map_err(|error| map_error(base, &error))?.path();
                let folder =
                    DeadFolder::claim(dir, &self.host).map_err(|error| map_error(base, &error))?;
                dead.extend(folder.map(|folder| (base, sink, folder)));
            }
        }
        // A run on another machine may hold a lock that is not visible here. While it owns splits
        // it is left alone; without splits it has no files, unless it was cut off.
        if dead.iter().any(|(_, _, folder)| folder.is_foreign()) {
            let owners = self.committer.owners()?;
            dead.retain(|(_, _, folder)| {
                !folder.is_foreign() || (folder.has_files() && !owners.contains(folder.owner()))
            });
        }
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        // A dead run's last commit may still be in flight to the state store: it must be applied
        // before the staged entries are read, or never.
        let owners: BTreeSet<&str> = dead.iter().map(|(_, _, folder)| folder.owner()).collect();
        owners
            .into_iter()
            .try_for_each(|owner| self.committer.fence(owner))?;
        let staged = read_moves(self.committer.staged()?)?;
        let mut failed = Vec::new();
        for (base, sink, folder) in dead {
            failed.extend(self.clean_up_folder(base, sink, folder, &staged));
        }
        Ok(failed)
    }

    /// Publishes the committed files in a dead run's folder, and deletes the folder. The folder
    /// stays while it may contain committed files; those that could not be published are returned.
    fn clean_up_folder(
        &self,
        base: &Path,
        sink: &str,
        folder: DeadFolder,
        staged: &[(String, Move)],
    ) -> Vec<(String, Move)> {
        let disk = DiskId::of(base).ok().flatten();
        let prefix = format!("{sink}/{}/", folder.name());
        let mut changed = BTreeSet::new();
        let (mut published, mut failed) = (Vec::new(), Vec::new());
        let mut is_clear = true;
        for (id, written) in staged {
            // The base directory may have another path today; the paths below it are the same.
            let moving = Move {
                base: base.to_owned(),
                ..written.clone()
            };
            let is_on_this_disk = match &written.disk {
                Some(wanted) => disk.as_ref() == Some(wanted),
                None => written.base == base || base.join(&moving.hidden).exists(),
            };
            if !is_on_this_disk || !moving.hidden.starts_with(&prefix) {
                continue;
            }
            match moving.apply(&mut changed) {
                Ok(outcome) if self.is_published(id, &moving, &outcome) => {
                    published.push((id.clone(), moving))
                }
                Ok(_) => is_clear = false,
                Err(error) => {
                    tracing::warn!(
                        file = %shown(&moving),
                        %error,
                        "cannot publish a committed file; retrying in the background"
                    );
                    failed.push((id.clone(), moving));
                }
            }
        }
        let (dir, owner) = (folder.dir().to_owned(), folder.owner().to_owned());
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(
                folder = %dir.display(),
                %error,
                "cannot sync published files; retrying in the background"
            );
            failed.append(&mut published);
        }
        failpoint::reach("republished");
        let count = published.len();
        self.published.lock().extend(published);
        if is_clear && failed.is_empty() {
            match folder.remove() {
                Ok(()) => {
                    failpoint::reach("buried");
                    tracing::info!(
                        folder = %dir.display(),
                        owner,
                        published = count,
                        "cleaned up after a run that did not exit cleanly"
                    );
                }
                Err(error) => {
                    tracing::warn!(
                        folder = %dir.display(),
                        %error,
                        "cannot remove the hidden folder of a dead run"
                    )
                }
            }
        }
        failed
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

impl HiddenFile {
    /// The file's id, unique in its sink: `<run>/<name>`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.folder().name(), self.name)
    }

    /// The staged entry that publishes the file under this name. Its size is not set yet.
    pub(super) fn to_move(
        &self,
        visible: String,
        extension: &str,
        follow_up: Option<FollowUp>,
    ) -> Move {
        let folder = self.folder();
        Move {
            host: self.staging.host.clone(),
            disk: Some(self.disk.clone()),
            inode: Some(self.inode.1),
            bytes: None,
            base: folder.base().to_owned(),
            hidden: format!("{}/{}/{}", folder.sink(), folder.name(), self.name),
            visible,
            extension: extension.to_owned(),
            follow_up,
        }
    }

    /// The base directory.
    pub(super) fn base(&self) -> &Path {
        self.folder().base()
    }

    /// The folder that contains the file.
    pub(super) fn dir(&self) -> PathBuf {
        self.folder().dir()
    }

    /// Makes the file's name durable.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        self.folder().sync_name(self.number)
    }

    /// Whether the file still exists under its name: otherwise its records are lost.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(self.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }

    /// Keeps the file when this value is dropped: from now on the state store decides about it.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    fn folder(&self) -> &Folder {
        &self.staging.folders[self.folder]
    }

    fn path(&self) -> PathBuf {
        self.dir().join(&self.name)
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // If the file cannot be deleted now, the next run deletes it.
            let _ = fs::remove_file(self.path());
        }
    }
}

/// Parses staged entries. Returns the move of each, with its id.
pub(super) fn read_moves(staged: Vec<StagedEntry>) -> Result<Vec<(String, Move)>, SinkError> {
    let read = |entry: StagedEntry| match Move::from_detail(&entry.detail) {
        Some(moving) => Ok((entry.id, moving)),
        None => Err(SinkError::Fatal(format!(
            "the state store holds a staged file `{}` in a format that this version cannot read",
            entry.id
        ))),
    };
    staged.into_iter().map(read).collect()
}

/// The path that the file has after publishing, for messages.
pub(super) fn shown(moving: &Move) -> impl std::fmt::Display + use<> {
    moving.base.join(&moving.visible).display().to_string()
}

/// Converts an I/O error in a base directory to the sink's error.
type ErrorMapper = fn(&Path, &io::Error) -> SinkError;

/// For errors before the first write: those that the user has to fix stop the run.
fn cannot_open(base: &Path, error: &io::Error) -> SinkError {
    use io::ErrorKind::{InvalidData, NotADirectory, PermissionDenied, Unsupported};
    match (error.kind(), cannot_write(base, error)) {
        (
            PermissionDenied | NotADirectory | Unsupported | InvalidData,
            SinkError::Transient(message),
        ) => SinkError::Fatal(message),
        (_, error) => error,
    }
}

/// For errors in a running sink: it waits until it can write again.
fn cannot_write(base: &Path, error: &io::Error) -> SinkError {
    SinkError::Transient(format!("cannot write in {}: {error}", base.display()))
}
