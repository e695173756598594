//! Hidden folders for files that are being written, and what becomes of them when their process dies.
//!
//! ```text
//! <base>/.pseidon-open/lock                                 held while folders are made or cleaned up
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/<instance>/lock     held for the life of the process; says which machine it runs on
//! <base>/.pseidon-open/<pipeline>.<sink>.<store>/<instance>/1.open   a file that is being written
//! ```
//!
//! A folder whose lock can be had belongs to a process that is dead. Of such a folder the files that the state store names as staged are
//! published, since their records count as delivered; all others are deleted, since theirs do not and will be read again. The store is asked
//! after the lock was had: before, the process might still have committed. Folders of other machines on a shared disk are left alone.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::{Committer, Staged, failpoint};
use pseidon_plugin::sink::{SinkError, SinkSetup};
use rustix::fs::{FlockOperation, flock};

use super::follow_up::FollowUp;
use super::place::{Host, Move, Outcome, make_dirs, sync_dir, sync_dirs};

/// The folder of everything that is not finished, in each base directory.
pub(super) const OPEN: &str = ".pseidon-open";
const LOCK: &str = "lock";

/// The hidden folders of one run of one sink. Dropping it removes what is empty of them.
pub(super) struct Staging {
    folders: Vec<Folder>,
    host: Host,
    committer: Arc<Committer>,
    /// Names the files in the folders.
    files: AtomicU64,
    /// Which base directory is next.
    turn: AtomicUsize,
    /// What cleaning up has published, by id, with the base directory's name of today.
    published: Mutex<HashMap<String, Move>>,
}

/// What was staged and is published now.
#[derive(Default)]
pub(super) struct Published {
    /// The ids of those with which nothing more has to be done.
    pub(super) done: Vec<String>,
    /// The others, with their ids.
    pub(super) to_follow: Vec<(String, FollowUp, Move)>,
}

/// The hidden folder in one base directory.
struct Folder {
    base: PathBuf,
    /// Below the base directory.
    sink: String,
    instance: String,
    /// The lock file; replaced when the folder has vanished and is made again.
    lock: Mutex<File>,
}

/// A hidden file. Dropping it deletes it, unless the store may know of it.
pub(super) struct Hidden {
    staging: Arc<Staging>,
    folder: usize,
    name: String,
    inode: (u64, u64),
    kept: bool,
}

impl Staging {
    /// Makes the folders, and cleans up after the dead.
    pub(super) fn open(bases: &[PathBuf], setup: &SinkSetup) -> Result<Staging, SinkError> {
        let safe = |text: &str| -> String {
            text.chars().map(|char| if char.is_ascii_alphanumeric() || "-_#".contains(char) { char } else { '_' }).collect()
        };
        let store: String = safe(&setup.store).chars().take(8).collect();
        let sink = format!("{OPEN}/{}.{}.{store}", safe(&setup.pipeline), safe(setup.committer.sink().as_str()));
        let instance = safe(&setup.instance);
        let mut staging = Staging {
            folders: Vec::new(),
            host: Host::this(),
            committer: setup.committer.clone(),
            files: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            published: Mutex::default(),
        };
        for base in bases {
            let at = |error: io::Error| cannot_open(base, &error);
            let registry = Registry::lock(base).map_err(at)?;
            staging.clean_up(base, &sink, cannot_open)?;
            let lock = make_folder(&base.join(&sink).join(&instance), &staging.host).map_err(at)?;
            drop(registry);
            staging.folders.push(Folder { base: base.clone(), sink: sink.clone(), instance: instance.clone(), lock: Mutex::new(lock) });
        }
        Ok(staging)
    }

    /// Cleans up after processes that have died since.
    pub(super) fn clean_up_all(&self) -> Result<(), SinkError> {
        for folder in &self.folders {
            let _registry = Registry::lock(&folder.base).map_err(|error| cannot_use(&folder.base, &error))?;
            self.clean_up(&folder.base, &folder.sink, cannot_use)?;
        }
        Ok(())
    }

    /// Publishes what is staged, as far as it is here. Gives what is published now, and what has to follow.
    pub(super) fn publish(&self, staged: &[Staged]) -> Result<Published, SinkError> {
        let mut changed = BTreeSet::new();
        let mut published = Published::default();
        for entry in staged {
            let published_before = self.published.lock().get(&entry.id).cloned();
            let moving = match published_before {
                Some(moving) => moving,
                None => {
                    let moving = read_move(entry)?;
                    match moving.apply(&self.host, &mut changed) {
                        Ok(Outcome::Done) => moving,
                        Ok(Outcome::NotHere) => {
                            tracing::warn!(file = moving.visible, "file is committed, but not here to be published");
                            continue;
                        }
                        Err(error) => return Err(cannot_publish(&moving, &error)),
                    }
                }
            };
            match &moving.follow_up {
                None => published.done.push(entry.id.clone()),
                // It does what follows by itself. If it dies over that, the next take-over finds the entry again.
                Some(_) if self.is_of_another_living(&moving) => {}
                Some(follow_up) => published.to_follow.push((entry.id.clone(), follow_up.clone(), moving)),
            }
        }
        sync_dirs(&changed).map_err(|error| SinkError::Transient(format!("cannot sync folders: {error}")))?;
        Ok(published)
    }

    /// Whether another run of this sink wrote the file, and still runs on this machine.
    fn is_of_another_living(&self, moving: &Move) -> bool {
        let hidden = moving.base.join(&moving.hidden);
        let Some(dir) = hidden.parent().filter(|dir| self.folders.iter().all(|folder| folder.dir() != **dir)) else { return false };
        let Ok(lock) = File::open(dir.join(LOCK)) else { return false };
        moving.host.is(&self.host) && flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// A new hidden file in the next of the base directories. A folder that has vanished is made again.
    pub(super) fn create(self: &Arc<Self>) -> io::Result<(File, Hidden)> {
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % self.folders.len();
        let name = format!("{}.open", self.files.fetch_add(1, Ordering::Relaxed) + 1);
        let folder = &self.folders[number];
        let path = folder.dir().join(&name);
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.make_again(&self.host)?;
                File::create_new(&path)?
            }
            other => other?,
        };
        let metadata = file.metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        Ok((file, Hidden { staging: self.clone(), folder: number, name, inode, kept: false }))
    }

    /// Cleans up after the dead of this sink in one base directory, whose registry is locked.
    fn clean_up(&self, base: &Path, sink: &str, trouble: Trouble) -> Result<(), SinkError> {
        let sink_dir = base.join(sink);
        let entries = match fs::read_dir(&sink_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| trouble(base, &error))?,
        };
        for entry in entries {
            let dir = entry.map_err(|error| trouble(base, &error))?.path();
            let Some(_lock) = lock_of_dead(&dir, &self.host).map_err(|error| trouble(base, &error))? else { continue };
            self.bury(base, sink, &dir, trouble)?;
        }
        Ok(())
    }

    /// Publishes what is committed of a dead process's folder, and deletes the folder.
    fn bury(&self, base: &Path, sink: &str, dir: &Path, trouble: Trouble) -> Result<(), SinkError> {
        let Some(instance) = dir.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
        let prefix = format!("{sink}/{instance}/");
        let mut changed = BTreeSet::new();
        let mut published = Vec::new();
        for entry in self.committer.staged()? {
            let written = read_move(&entry)?;
            // The base directory may have another name today; what is below it has not.
            let moving = Move { base: base.to_owned(), ..written.clone() };
            let is_of_this_folder = moving.hidden.starts_with(&prefix) && (written.base == base || base.join(&moving.hidden).exists());
            if !is_of_this_folder {
                continue;
            }
            if moving.apply(&self.host, &mut changed).map_err(|error| cannot_publish(&moving, &error))? == Outcome::Done {
                published.push((entry.id, moving));
            }
        }
        sync_dirs(&changed).map_err(|error| trouble(base, &error))?;
        failpoint::reach("republished");
        fs::remove_dir_all(dir).map_err(|error| trouble(base, &error))?;
        failpoint::reach("buried");
        tracing::info!(folder = %dir.display(), published = published.len(), "cleaned up after a run that did not end well");
        self.published.lock().extend(published);
        Ok(())
    }
}

impl Folder {
    fn dir(&self) -> PathBuf {
        self.base.join(&self.sink).join(&self.instance)
    }

    fn make_again(&self, host: &Host) -> io::Result<()> {
        let _registry = Registry::lock(&self.base)?;
        let mut lock = self.lock.lock();
        if !leads_to(&self.dir().join(LOCK), &lock) {
            *lock = make_folder(&self.dir(), host)?;
        }
        Ok(())
    }

    /// Removes the folder and those above it, as far as nothing is in them.
    fn remove(&self) -> io::Result<()> {
        let registry = Registry::lock(&self.base)?;
        let dir = self.dir();
        let is_lock = |entry: &io::Result<fs::DirEntry>| entry.as_ref().is_ok_and(|entry| entry.file_name() == LOCK);
        // What the store may name stays here, and the lock with it: the next run cleans up.
        if fs::read_dir(&dir)?.all(|entry| is_lock(&entry)) {
            fs::remove_dir_all(&dir)?;
            // Fails when other runs have folders there.
            let _ = fs::remove_dir(self.base.join(&self.sink));
        }
        registry.remove_if_last()
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
        format!("{}/{}", self.folder().instance, self.name)
    }

    /// What publishing it under this name means.
    pub(super) fn to_move(&self, visible: String, extension: &str, follow_up: Option<FollowUp>) -> Move {
        let folder = self.folder();
        Move {
            host: self.staging.host.clone(),
            base: folder.base.clone(),
            hidden: format!("{}/{}/{}", folder.sink, folder.instance, self.name),
            visible,
            extension: extension.to_owned(),
            follow_up,
        }
    }

    /// The file's inode, which it keeps under any name.
    pub(super) fn inode(&self) -> u64 {
        self.inode.1
    }

    /// The base directory.
    pub(super) fn base(&self) -> &Path {
        &self.folder().base
    }

    /// The folder it lies in.
    pub(super) fn dir(&self) -> PathBuf {
        self.folder().dir()
    }

    /// Whether the file is still there under its name: otherwise what was written is lost.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
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

/// The lock under which folders are made and cleaned up.
struct Registry {
    root: PathBuf,
    file: File,
}

impl Registry {
    fn lock(base: &Path) -> io::Result<Registry> {
        let root = base.join(OPEN);
        loop {
            make_dirs(&root)?;
            let file = match open_lock(&root.join(LOCK)) {
                // The last run that used the folder has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            flock(&file, FlockOperation::LockExclusive)?;
            if leads_to(&root.join(LOCK), &file) {
                return Ok(Registry { root, file });
            }
        }
    }

    /// Removes the root if it holds nothing but the lock.
    fn remove_if_last(self) -> io::Result<()> {
        if fs::read_dir(&self.root)?.count() == 1 && leads_to(&self.root.join(LOCK), &self.file) {
            fs::remove_file(self.root.join(LOCK))?;
            // Somebody may be about to make the lock again.
            let _ = fs::remove_dir(&self.root);
        }
        Ok(())
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// Whether the name is this file's.
fn leads_to(path: &Path, file: &File) -> bool {
    let (Ok(found), Ok(ours)) = (fs::symlink_metadata(path), file.metadata()) else { return false };
    (found.dev(), found.ino()) == (ours.dev(), ours.ino())
}

/// Makes a folder for this process. Gives its lock.
fn make_folder(dir: &Path, host: &Host) -> io::Result<File> {
    make_dirs(dir)?;
    let mut file = open_lock(&dir.join(LOCK))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    io::Write::write_all(&mut file, host.to_text().as_bytes())?;
    file.sync_all()?;
    sync_dir(dir)?;
    Ok(file)
}

/// The lock of a folder whose process is dead, held; `None` if it may be alive.
fn lock_of_dead(dir: &Path, here: &Host) -> io::Result<Option<File>> {
    let path = dir.join(LOCK);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        // It died while it made the folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => open_lock(&path)?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        other => other?,
    };
    let text = io::read_to_string(&file)?;
    if !text.is_empty() && !Host::from_text(&text).is(here) {
        return Ok(None);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_move(entry: &Staged) -> Result<Move, SinkError> {
    Move::from_detail(&entry.detail)
        .ok_or_else(|| SinkError::Fatal(format!("the state store holds a staged file `{}` that this version cannot read", entry.id)))
}

fn cannot_publish(moving: &Move, error: &io::Error) -> SinkError {
    SinkError::Transient(format!("cannot publish {}: {error}", moving.base.join(&moving.visible).display()))
}

/// What an error in a base directory means for the run.
type Trouble = fn(&Path, &io::Error) -> SinkError;

/// Before anything was written there: what the user has to put right ends the run.
fn cannot_open(base: &Path, error: &io::Error) -> SinkError {
    match (error.kind(), cannot_use(base, error)) {
        (io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory | io::ErrorKind::Unsupported, SinkError::Transient(message)) => {
            SinkError::Fatal(message)
        }
        (_, error) => error,
    }
}

/// In a run that could write there once: it waits until it can again.
fn cannot_use(base: &Path, error: &io::Error) -> SinkError {
    SinkError::Transient(format!("cannot write in {}: {error}", base.display()))
}
