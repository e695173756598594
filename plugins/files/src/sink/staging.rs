//! Files that are being written, and what becomes of them when their process dies.
//!
//! ```text
//! <base>/.pseidon-open/disk                                          names the disk, see [`disk`](super::disk)
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/<run>/lock     held for the life of the run; says which machine it runs on
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/<run>/1.open   a file that is being written
//! ```
//!
//! A folder whose lock is free belongs to a run that is dead ([`folder`](super::folder)). The run
//! is fenced: a commit of it that is still under way is never applied. Then the files that the
//! state store names as staged are published, since their records count as delivered; all others
//! are deleted, since theirs do not and are re-read. Only the dead folder is locked while the state
//! store is asked, so a store that does not answer holds up no other pipeline. A file that cannot
//! be published stays, with its folder and its entry, and is tried again in the background
//! ([`follow_ups`](super::follow_ups)).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::{Committer, Staged, failpoint};
use pseidon_plugin::sink::{SinkError, SinkSetup};

use super::disk::DiskId;
use super::folder::{DeadFolder, Folder, Label, is_alive};
use super::follow_up::FollowUp;
use super::host::Host;
use super::place::{Move, Outcome, sync_dirs};

/// The folder of everything that is not finished, in each base directory.
pub(super) const OPEN: &str = ".pseidon-open";

/// The hidden folders of one run of one sink. Dropping it removes what is empty of them.
pub(super) struct Staging {
    folders: Vec<Folder>,
    host: Host,
    committer: Arc<Committer>,
    /// Names the files in the folders.
    files: AtomicU64,
    /// Which base directory is next.
    turn: AtomicUsize,
    /// What cleaning up has published and the state store may still name, by id.
    published: Mutex<HashMap<String, Move>>,
    /// The ids of those that are not here, which is logged once.
    not_here: Mutex<HashSet<String>>,
}

/// What became of what is staged.
#[derive(Default)]
pub(super) struct Published {
    /// The ids of those with which nothing more has to be done.
    pub(super) done: Vec<String>,
    /// Those that are published, and have to be moved or reported.
    pub(super) to_follow: Vec<(String, Move)>,
    /// Those that could not be published yet.
    pub(super) failed: Vec<(String, Move)>,
}

/// A hidden file. Dropping it deletes it, unless the store may know of it.
pub(super) struct Hidden {
    staging: Arc<Staging>,
    folder: usize,
    name: String,
    /// The name's number in the folder.
    number: u64,
    disk: DiskId,
    inode: (u64, u64),
    kept: bool,
}

impl Staging {
    /// Makes the folders, and cleans up after dead runs. Returns what of theirs could not be
    /// published yet.
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
            let folder = Folder::make(base, &sink, &safe(&setup.instance), label.clone());
            staging
                .folders
                .push(folder.map_err(|error| cannot_open(base, &error))?);
        }
        Ok((staging, failed))
    }

    /// Refuses a base directory that is missing where this machine has written committed files: it
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
                    "the directory {base} does not exist, but the state store names {committed} committed files in it that may not be published yet. \
                     help: mount its disk; or, to write to another disk and leave these files to a run that has theirs, `mkdir -p {base}`"
                )));
            }
        }
        Ok(())
    }

    /// Cleans up after runs that have died since. Returns what of theirs could not be published
    /// yet.
    pub(super) fn clean_up_all(&self) -> Result<Vec<(String, Move)>, SinkError> {
        self.clean_up(
            self.folders
                .iter()
                .map(|folder| (folder.base(), folder.sink())),
            cannot_use,
        )
    }

    /// Publishes what is staged, as far as it is here.
    pub(super) fn publish(&self, staged: Vec<Staged>) -> Result<Published, SinkError> {
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
            let moving = self.with_base_of_today(moving);
            match moving.apply(&mut changed) {
                Ok(outcome) if self.is_published(&id, &moving, &outcome) => {
                    settled.push((id, moving))
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(file = %shown(&moving), %error, "cannot publish a committed file; trying again in the background");
                    failed.push((id, moving));
                }
            }
        }
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(%error, "cannot sync the folders of published files; trying again in the background");
            failed.append(&mut settled);
        }
        let mut published = Published {
            failed,
            ..Published::default()
        };
        for (id, moving) in settled {
            match &moving.follow_up {
                None => published.done.push(id),
                // It does what follows by itself. If it dies over that, the next take-over finds
                // the entry again.
                Some(_) if self.is_of_another_living(&moving) => {}
                Some(_) => published.to_follow.push((id, moving)),
            }
        }
        Ok(published)
    }

    /// Whether the file is published. Says so if not, and if it is published and gone.
    fn is_published(&self, id: &str, moving: &Move, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Published => true,
            Outcome::Taken => {
                // A file that is moved after it was published is not expected to be there.
                if moving
                    .follow_up
                    .as_ref()
                    .is_none_or(|follow_up| follow_up.destination.is_none())
                {
                    let file = shown(moving);
                    tracing::warn!(%file, "committed file is neither hidden nor visible on its disk; a reader has taken it, or it was deleted");
                }
                true
            }
            Outcome::NotHere(obstacle) => {
                if self.not_here.lock().insert(id.to_owned()) {
                    let reason = moving.explain(obstacle);
                    tracing::warn!(file = %shown(moving), %reason, "committed file cannot be published here");
                }
                false
            }
        }
    }

    /// The same with the path that the base directory on the file's disk has in this run.
    fn with_base_of_today(&self, moving: Move) -> Move {
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

    /// Whether another run of this sink wrote the file, and still runs on this machine.
    fn is_of_another_living(&self, moving: &Move) -> bool {
        let hidden = moving.base.join(&moving.hidden);
        let dir = hidden
            .parent()
            .filter(|dir| self.folders.iter().all(|folder| folder.dir() != **dir));
        dir.is_some_and(|dir| is_alive(dir, &moving.host, &self.host))
    }

    /// A new hidden file in the next of the base directories. A folder that has vanished is made
    /// again.
    pub(super) fn create(self: &Arc<Self>) -> io::Result<(File, Hidden)> {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.folders.len();
        let name = format!("{}.open", self.files.fetch_add(1, Ordering::Relaxed) + 1);
        let folder = &self.folders[number];
        let path = folder.dir().join(&name);
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.make_again()?;
                File::create_new(&path)?
            }
            other => other?,
        };
        let made = folder.count_name();
        let metadata = file.metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        Ok((
            file,
            Hidden {
                staging: self.clone(),
                folder: number,
                name,
                number: made,
                disk: folder.disk(),
                inode,
                kept: false,
            },
        ))
    }

    /// Cleans up after dead runs of this sink in these folders: base directories, each with the
    /// path of the sink's folder below it.
    fn clean_up<'a>(
        &self,
        sinks: impl Iterator<Item = (&'a Path, &'a str)>,
        trouble: Trouble,
    ) -> Result<Vec<(String, Move)>, SinkError> {
        let mut dead = Vec::new();
        for (base, sink) in sinks {
            let entries = match fs::read_dir(base.join(sink)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| trouble(base, &error))?,
            };
            for entry in entries {
                let dir = entry.map_err(|error| trouble(base, &error))?.path();
                let folder =
                    DeadFolder::claim(dir, &self.host).map_err(|error| trouble(base, &error))?;
                dead.extend(folder.map(|folder| (base, sink, folder)));
            }
        }
        // A run on another machine may hold a lock that cannot be seen here. While it has splits it
        // is left alone; without splits it has no files, unless it was cut off.
        if dead.iter().any(|(_, _, folder)| folder.is_foreign()) {
            let owners = self.committer.owners()?;
            dead.retain(|(_, _, folder)| {
                !folder.is_foreign() || (folder.has_files() && !owners.contains(folder.owner()))
            });
        }
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        // A dead run's last commit may still be under way to the state store: it must be applied
        // before what is staged is read, or never.
        let owners: BTreeSet<&str> = dead.iter().map(|(_, _, folder)| folder.owner()).collect();
        owners
            .into_iter()
            .try_for_each(|owner| self.committer.fence(owner))?;
        let staged = read_moves(self.committer.staged()?)?;
        let mut failed = Vec::new();
        for (base, sink, folder) in dead {
            failed.extend(self.bury(base, sink, folder, &staged));
        }
        Ok(failed)
    }

    /// Publishes what is committed of a dead run's folder, and deletes the folder. It stays as long
    /// as something committed may be in it; that is returned.
    fn bury(
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
            // The base directory may have another path today; what is below it has not.
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
                    tracing::warn!(file = %shown(&moving), %error, "cannot publish a committed file; trying again in the background");
                    failed.push((id.clone(), moving));
                }
            }
        }
        let (dir, owner) = (folder.dir().to_owned(), folder.owner().to_owned());
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(folder = %dir.display(), %error, "cannot sync what was published; trying again in the background");
            failed.append(&mut published);
        }
        failpoint::reach("republished");
        let count = published.len();
        self.published.lock().extend(published);
        if is_clear && failed.is_empty() {
            match folder.remove() {
                Ok(()) => {
                    failpoint::reach("buried");
                    tracing::info!(folder = %dir.display(), owner, published = count, "cleaned up after a run that did not end well");
                }
                Err(error) => {
                    tracing::warn!(folder = %dir.display(), %error, "cannot remove the hidden folder of a dead run")
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
                tracing::debug!(folder = %folder.dir().display(), %error, "hidden folder stays");
            }
        }
    }
}

impl Hidden {
    /// Names the file within its sink.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.folder().name(), self.name)
    }

    /// What publishing it under this name means, once its size is known.
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

    /// The folder it lies in.
    pub(super) fn dir(&self) -> PathBuf {
        self.folder().dir()
    }

    /// Makes its name lasting.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        self.folder().sync_name(self.number)
    }

    /// Whether the file is still there under its name: otherwise what was written is lost.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(self.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }

    /// From now on the store says what becomes of the file.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    fn folder(&self) -> &Folder {
        &self.staging.folders[self.folder]
    }

    fn path(&self) -> PathBuf {
        self.dir().join(&self.name)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if !self.kept {
            // If it cannot be deleted now, the next run does it.
            let _ = fs::remove_file(self.path());
        }
    }
}

/// The moves that staged entries stand for, each with its id.
pub(super) fn read_moves(staged: Vec<Staged>) -> Result<Vec<(String, Move)>, SinkError> {
    let read = |entry: Staged| match Move::from_detail(&entry.detail) {
        Some(moving) => Ok((entry.id, moving)),
        None => Err(SinkError::Fatal(format!(
            "the state store holds a staged file `{}` that this version cannot read",
            entry.id
        ))),
    };
    staged.into_iter().map(read).collect()
}

/// The visible name of a file.
pub(super) fn shown(moving: &Move) -> impl std::fmt::Display + use<> {
    moving.base.join(&moving.visible).display().to_string()
}

/// What an error in a base directory means for the run.
type Trouble = fn(&Path, &io::Error) -> SinkError;

/// Before anything was written there: what the user has to put right ends the run.
fn cannot_open(base: &Path, error: &io::Error) -> SinkError {
    use io::ErrorKind::{InvalidData, NotADirectory, PermissionDenied, Unsupported};
    match (error.kind(), cannot_use(base, error)) {
        (
            PermissionDenied | NotADirectory | Unsupported | InvalidData,
            SinkError::Transient(message),
        ) => SinkError::Fatal(message),
        (_, error) => error,
    }
}

/// In a run that could write there once: it waits until it can again.
fn cannot_use(base: &Path, error: &io::Error) -> SinkError {
    SinkError::Transient(format!("cannot write in {}: {error}", base.display()))
}
