//! The hidden folders of runs, and the locks that show whether a run is alive.
//!
//! A folder appears under its name with its lock held, because it is created under another name
//! and then renamed. So a folder whose lock is free belongs to a dead process, and no process ever
//! waits for a lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::InstanceId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::access::Access;
use super::disk::DiskId;
use super::file_system::{make_private, names_file, open_own, sync_dir};
use super::host::Host;

const LOCK: &str = "lock";
/// The prefix of a folder's name until the folder is complete.
const NEW: &str = ".new-";

/// The hidden folder of a run in one base directory.
pub(super) struct Folder {
    base: PathBuf,
    /// The folder's parent, relative to the base directory.
    sink: String,
    /// The name of the instance that created the folder, as a file name.
    name: String,
    /// The first lines of its lock file.
    label: Label,
    /// With which the base directory is created.
    access: Access,
    current: Mutex<FolderLock>,
    /// How many names were created in it.
    names: AtomicU64,
    /// How many of them are certainly on disk.
    durable_names: AtomicU64,
}

/// The part of a [`Folder`] that changes when the folder has vanished and is created again.
struct FolderLock {
    lock: File,
    disk: DiskId,
}

/// The content of a lock file: the run that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// The machine that it runs on.
    pub(super) host: Host,
    /// The owner's name in the state store; `None` in the label of an earlier version, where the
    /// owner had the name of its folder.
    pub(super) owner: Option<InstanceId>,
}

impl Label {
    fn to_text(&self) -> String {
        format!(
            "{}\n{}\n",
            self.host.to_text(),
            self.owner.as_ref().map_or("", InstanceId::as_str)
        )
    }

    /// Parses a label. `None` if the text ends inside the machine's name, because the run died or
    /// the disk became full while it was written.
    fn from_text(text: &str) -> Option<Label> {
        let mut lines = text.split_inclusive('\n');
        let host = lines.next().filter(|host| host.contains(' '))?;
        // A truncated name may be the name of another owner.
        let owner = lines
            .next()
            .and_then(|owner| owner.strip_suffix('\n'))
            .filter(|owner| !owner.is_empty());
        Some(Label {
            host: Host::from_text(host),
            owner: owner.map(InstanceId::from),
        })
    }
}

impl Folder {
    /// Creates the folder `<base>/<sink>/<name>` and locks it. If the base directory does not
    /// exist, it is created with this access.
    pub(super) fn create(
        base: &Path,
        sink: &str,
        name: &str,
        label: Label,
        access: Access,
    ) -> io::Result<Folder> {
        let current = create(base, sink, name, &label, &access)?;
        let (base, sink, name) = (base.to_owned(), sink.to_owned(), name.to_owned());
        Ok(Folder {
            base,
            sink,
            name,
            label,
            access,
            current: Mutex::new(current),
            names: AtomicU64::new(0),
            durable_names: AtomicU64::new(0),
        })
    }

    /// The base directory, below which the files are published.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The folder's parent, relative to the base directory.
    pub(super) fn sink(&self) -> &str {
        &self.sink
    }

    /// The folder's name, with which the ids of its files begin.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The folder's path: the base directory, the parent and the name.
    pub(super) fn dir(&self) -> PathBuf {
        self.base.join(&self.sink).join(&self.name)
    }

    /// The disk that the folder is on.
    pub(super) fn disk(&self) -> DiskId {
        self.current.lock().disk.clone()
    }

    /// Creates the folder again if it has vanished.
    pub(super) fn recreate(&self) -> io::Result<()> {
        let mut current = self.current.lock();
        if !names_file(&self.dir().join(LOCK), &current.lock) {
            *current = create(
                &self.base,
                &self.sink,
                &self.name,
                &self.label,
                &self.access,
            )?;
        }
        Ok(())
    }

    /// Counts a name that was created in the folder. Returns its number, for [`Folder::sync_name`].
    pub(super) fn count_name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Makes the name with this number durable, and all names that were created before it. Does
    /// nothing if the sync of another name has done so.
    pub(super) fn sync_name(&self, number: u64) -> io::Result<()> {
        if self.durable_names.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        let made = self.names.load(Ordering::Acquire);
        sync_dir(&self.dir())?;
        self.durable_names.fetch_max(made, Ordering::AcqRel);
        Ok(())
    }

    /// Removes the folder and its parent, if they are empty.
    pub(super) fn remove(&self) -> io::Result<()> {
        let dir = self.dir();
        // Files that the store may name stay here, and the lock with them: the next run cleans up.
        if fs::read_dir(&dir)?.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)) {
            fs::remove_file(dir.join(LOCK))?;
            fs::remove_dir(&dir)?;
            // Fails when other runs have folders there.
            let _ = fs::remove_dir(self.base.join(&self.sink));
        }
        Ok(())
    }
}

/// The locked folder of a dead run.
pub(super) struct DeadFolder {
    dir: PathBuf,
    name: String,
    owner: InstanceId,
    /// Its run was on another machine, so the free lock does not prove that the run is dead.
    is_foreign: bool,
    _lock: File,
}

impl DeadFolder {
    /// Locks the folder at `dir`; `None` if its run is alive. A run on another machine may be alive
    /// although its folder can be locked.
    pub(super) fn claim(dir: PathBuf, here: &Host) -> io::Result<Option<DeadFolder>> {
        let Some(name) = dir
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
        else {
            return Ok(None);
        };
        if dir.is_symlink() {
            let reason = format!("{} is a link: remove it", dir.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let path = dir.join(LOCK);
        // A run that died before it had written its lock file left none.
        let lock = match open_own(&path, true) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let text = io::read_to_string(&lock)?;
        let label = Label::from_text(&text);
        let is_foreign = label
            .as_ref()
            .is_some_and(|label| !label.host.shares_locks_with(here));
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        // Another process may have removed the folder before this one had the lock.
        if !names_file(&path, &lock) {
            return Ok(None);
        }
        let owner = label
            .and_then(|label| label.owner)
            .unwrap_or_else(|| name.strip_prefix(NEW).unwrap_or(&name).into());
        Ok(Some(DeadFolder {
            dir,
            name,
            owner,
            is_foreign,
            _lock: lock,
        }))
    }

    /// Whether its run was on another machine, such as a container before a reboot.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Whether it contains files besides the lock.
    pub(super) fn has_files(&self) -> bool {
        fs::read_dir(&self.dir).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK))
        })
    }

    /// The folder's path.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder's name, with which the ids of its files begin.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name in the state store of the run that created it.
    pub(super) fn owner(&self) -> &InstanceId {
        &self.owner
    }

    /// Removes it with its content.
    pub(super) fn remove(self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Whether the run of this hidden folder is certainly alive: it holds the lock, on a machine whose
/// locks are visible here.
pub(super) fn is_alive(dir: &Path, host: &Host, here: &Host) -> bool {
    let is_locked = match open_own(&dir.join(LOCK), false) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK),
        // It is of another user, whose process may be alive.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    host.shares_locks_with(here) && is_locked
}

fn create(
    base: &Path,
    sink: &str,
    name: &str,
    label: &Label,
    access: &Access,
) -> io::Result<FolderLock> {
    let parent = base.join(sink);
    let dir = parent.join(name);
    loop {
        let disk = DiskId::of_or_new(base, access)?;
        match try_create(&parent, &dir, name, label) {
            // A run that exited or cleaned up has removed an empty folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return Ok(FolderLock { lock: other?, disk }),
        }
    }
}

fn try_create(parent: &Path, dir: &Path, name: &str, label: &Label) -> io::Result<File> {
    if make_private(parent)? {
        parent.parent().map_or(Ok(()), sync_dir)?;
    }
    if dir.is_dir() {
        // Only the lock has vanished.
        let lock = open_own(&dir.join(LOCK), true)?;
        lock_and_label(&lock, label)?;
        sync_dir(dir)?;
        return Ok(lock);
    }
    let new = parent.join(format!("{NEW}{name}"));
    make_private(&new)?;
    let lock = open_own(&new.join(LOCK), true)?;
    lock_and_label(&lock, label)?;
    sync_dir(&new)?;
    fs::rename(&new, dir)?;
    sync_dir(parent)?;
    // Another run may have mistaken the new folder for a dead run's, and removed it before it was
    // locked.
    if names_file(&dir.join(LOCK), &lock) {
        Ok(lock)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn lock_and_label(mut lock: &File, label: &Label) -> io::Result<()> {
    flock(lock, FlockOperation::NonBlockingLockExclusive)?;
    lock.set_len(0)?;
    lock.write_all(label.to_text().as_bytes())?;
    lock.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_round_trip_and_a_truncated_one_names_no_other_owner(
            host in "[a-zé]{0,5} [0-9a-f-]{0,5}",
            owner in prop::option::of("[^\n]{1,8}"),
            cut in any::<prop::sample::Index>(),
        ) {
            let label = Label {
                host: Host::from_text(&host),
                owner: owner.as_deref().map(InstanceId::from),
            };
            let text = label.to_text();
            prop_assert_eq!(Label::from_text(&text), Some(label));
            let truncated = text.get(..cut.index(text.len())).and_then(Label::from_text);
            prop_assert_eq!(truncated.and_then(|label| label.owner), None);
        }
    }

    #[test]
    fn a_truncated_label_is_parsed() {
        let whole = Label {
            host: Host::from_text("box 1"),
            owner: Some("box-1-2".into()),
        };
        assert_eq!(whole.to_text(), "box 1\nbox-1-2\n");
        let without_owner = Label {
            owner: None,
            ..whole.clone()
        };
        for (text, label) in [
            ("box 1\nbox-1-2\n", Some(&whole)),
            ("box 1\nbox-1-", Some(&without_owner)),
            ("box 1\n", Some(&without_owner)),
            ("box 1", Some(&without_owner)),
            ("bo", None),
            ("\0\0\0\0\0\0\0\0", None),
            ("", None),
        ] {
            assert_eq!(Label::from_text(text).as_ref(), label, "{text:?}");
        }
    }
}
