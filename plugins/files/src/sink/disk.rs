//! The identity of the disk on which a base directory is.
//!
//! A committed file whose hidden name is gone has been published, but only on the disk to which it
//! was written: on every other disk its hidden name never existed. Neither a host name nor a path
//! identifies that disk. Containers and machines share both, and an unmounted disk leaves an empty
//! directory at its path. So each base directory holds a random id:
//!
//! ```text
//! <base>/.pseidon-open/disk/ID/    32 hexadecimal digits, made once, never changed or removed
//! ```
//!
//! It is the name of an empty folder, so that a program that reads all files below `<base>`, hidden
//! ones too, finds nothing but records. Earlier versions wrote a file `disk` with the id, which
//! counts too.
//!
//! The id of the disk is part of every staged entry.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pseidon_delivery::store::new_identity;
use rustix::process::geteuid;

use super::access::Access;
use super::file_system::{make_dirs, make_private, sync_dir};

/// The folder in each base directory for its id and for files that are not published yet.
pub(super) const OPEN: &str = ".pseidon-open";
/// The folder in [`OPEN`] that holds the id.
const DISK: &str = "disk";
/// The length of an id in hexadecimal digits.
const DIGITS: usize = 32;
/// The permission of a folder with which every user can create names in it.
const OTHERS_WRITE: u32 = 0o002;

/// The identity of a base directory's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskId(String);

impl DiskId {
    /// The id of the disk at `base`; `None` if it has no id, or if the directory does not exist.
    pub(super) fn of(base: &Path) -> io::Result<Option<DiskId>> {
        let path = base.join(OPEN).join(DISK);
        let Some(text) = name_in(&path)? else {
            return Ok(None);
        };
        match DiskId::from_text(text.trim()) {
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} does not contain a disk id: restore it, or remove it; files that were \
                     committed and are not visible yet then wait for a disk with the old id",
                    path.display()
                ),
            )),
            id => Ok(id),
        }
    }

    /// The id of the disk at `base`; creates one if it is missing, and the base directory with this
    /// access. The id is durable when this returns.
    pub(super) fn of_or_new(base: &Path, access: &Access) -> io::Result<DiskId> {
        make_dirs(base, access)?;
        let root = hidden_folder(base)?;
        loop {
            if let Some(id) = DiskId::of(base)? {
                remove_unused(&root)?;
                // Another process may have created it a moment ago.
                sync_dir(&root)?;
                return Ok(id);
            }
            let id = new_identity().map_err(io::Error::other)?;
            let new = root.join(format!("{DISK}.{id}"));
            let named = make_id(&new, &id).and_then(|()| fs::rename(&new, root.join(DISK)));
            if named.is_err() {
                // On a full disk this may be retried many times.
                let _ = fs::remove_dir_all(&new);
            }
            match named {
                // Another process was faster; it may have removed the unused folder. A folder with
                // an id is not empty, so that nothing is renamed to it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AlreadyExists
                            | io::ErrorKind::DirectoryNotEmpty
                            | io::ErrorKind::NotFound
                    ) => {}
                other => other?,
            }
        }
    }

    /// Parses an id; `None` if the text is not 32 hexadecimal digits.
    pub(super) fn from_text(text: &str) -> Option<DiskId> {
        (text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| DiskId(text.to_owned()))
    }

    /// The id as a string; see [`DiskId::from_text`].
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The folder [`OPEN`] of a base directory; creates it, durably, if it is missing.
fn hidden_folder(base: &Path) -> io::Result<PathBuf> {
    let root = base.join(OPEN);
    let is_new = make_private(&root)?;
    let user = geteuid().as_raw();
    check_owners(base, &root, user).or_else(|error| match own_uid(&root) {
        // A file system can give what a process creates to another user, as NFS and SMB do.
        Ok(own) if own != user => check_owners(base, &root, own),
        _ => Err(error),
    })?;
    if is_new {
        sync_dir(base)?;
    }
    Ok(root)
}

/// Fails if `user` cannot rely on the hidden folder of a base directory, because another user has
/// made it: neither the user nor the owner of the base directory owns it, or the base directory is
/// where any user may create one, such as in `/tmp`.
fn check_owners(base: &Path, root: &Path, user: u32) -> io::Result<()> {
    let (home, hidden) = (fs::metadata(base)?, fs::symlink_metadata(root)?);
    let is_trusted = |owner: u32| owner == user || owner == 0;
    let around = fs::metadata(base.join(".."))?;
    let (foreign, owner, help) = if !is_trusted(home.uid()) && around.mode() & OTHERS_WRITE != 0 {
        (base, home.uid(), "write to a folder of your own")
    } else if !is_trusted(hidden.uid()) && hidden.uid() != home.uid() {
        let help = "run as that user, or change its owner with `chown -R`. Do not remove it: it \
                    may have records that are delivered and not visible yet";
        (root, hidden.uid(), help)
    } else {
        return Ok(());
    };
    let reason = format!(
        "{} belongs to another user (uid {owner}), who could change or read what is written: {help}",
        foreign.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// The owner of what the process creates in a folder: [`remove_unused`] removes it if the process
/// is killed.
fn own_uid(root: &Path) -> io::Result<u32> {
    let id = new_identity().map_err(io::Error::other)?;
    let probe = root.join(format!("{DISK}.{id}"));
    fs::create_dir(&probe)?;
    let found = fs::metadata(&probe);
    fs::remove_dir(&probe)?;
    Ok(found?.uid())
}

/// The name in a folder, or the text of a file; `None` if there is neither. Empty if a folder does
/// not have exactly one name.
fn name_in(path: &Path) -> io::Result<Option<String>> {
    let names = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return match fs::read_to_string(path) {
                // It is the base directory that is no directory.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            };
        }
        other => other?.collect::<io::Result<Vec<_>>>()?,
    };
    Ok(Some(match &names[..] {
        [name] => name.file_name().to_string_lossy().into_owned(),
        _ => String::new(),
    }))
}

/// Removes the ids that did not become the disk's id, because their process was killed before it
/// could rename its folder. The disk must have an id, so that none of them becomes it meanwhile.
fn remove_unused(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !is_unused(&entry.file_name()) {
            continue;
        }
        let removed = match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        match removed {
            // Its process is making it, or removes it too.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether this is the name of an id's folder before it is renamed.
fn is_unused(name: &OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.strip_prefix(DISK)?.strip_prefix('.'))
        .is_some_and(|id| DiskId::from_text(id).is_some())
}

/// Makes a folder with an id, durably.
fn make_id(new: &Path, id: &str) -> io::Result<()> {
    make_private(new)?;
    make_private(&new.join(id))?;
    sync_dir(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn new_disk(base: &Path) -> io::Result<DiskId> {
        DiskId::of_or_new(base, &Access::of_mode("0640"))
    }

    #[test]
    fn the_hidden_folder_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(OPEN);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        new_disk(dir.path()).unwrap();
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join(DISK)), 0o700);
        // That of an earlier version is closed.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        new_disk(dir.path()).unwrap();
        assert_eq!(mode(&root), 0o750, "its group may share it");
    }

    #[test]
    fn what_another_user_made_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        new_disk(&base).unwrap();
        let root = base.join(OPEN);
        // What root has made is trusted.
        let _ = chown(&base, Some(1), None).and_then(|()| chown(&root, Some(1), None));
        let owner = fs::metadata(&base).unwrap().uid();
        let stranger = owner + 1;
        let modes = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode));
        for (user, mode, is_accepted) in [
            (owner, 0o1777, true),
            // It may be a file system without owners.
            (stranger, 0o755, true),
            (stranger, 0o1777, false),
        ] {
            modes(mode).unwrap();
            let checked = check_owners(&base, &root, user);
            assert_eq!(checked.is_ok(), is_accepted, "{user} {mode:o}: {checked:?}");
        }
        modes(0o755).unwrap();

        fs::remove_dir_all(&root).unwrap();
        symlink(other.path(), &root).unwrap();
        let error = new_disk(&base).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn concurrent_callers_see_one_disk_id() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("a/b");
        assert_eq!(DiskId::of(&base).unwrap(), None);
        let ids: Vec<DiskId> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| new_disk(&base).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(DiskId::of(&base).unwrap().as_ref(), ids.first());
        assert_eq!(DiskId::from_text(ids[0].as_str()).as_ref(), ids.first());
        assert_eq!(
            fs::read_dir(base.join(OPEN)).unwrap().count(),
            1,
            "nothing else is left"
        );
        assert_ne!(new_disk(dir.path()).unwrap(), ids[0]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(OPEN);
        fs::create_dir(&root).unwrap();
        let other = "a".repeat(DIGITS);
        let unused = root.join(format!("{DISK}.{other}"));
        let sink = root.join(format!("{DISK}.out.1f2e"));
        fs::create_dir(&sink).unwrap();
        fs::create_dir_all(unused.join(&other)).unwrap();
        let id = new_disk(dir.path()).unwrap();
        assert_ne!(id.as_str(), other);
        assert!(!unused.exists());
        // That of an earlier version.
        fs::write(&unused, "").unwrap();
        assert_eq!(new_disk(dir.path()).unwrap(), id);
        assert!(!unused.exists());
        assert!(sink.exists(), "the folder of a sink is left alone");
    }

    #[test]
    fn the_id_of_an_earlier_version_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(OPEN);
        fs::create_dir(&root).unwrap();
        let id = "a".repeat(DIGITS);
        fs::write(root.join(DISK), &id).unwrap();
        assert_eq!(new_disk(dir.path()).unwrap().as_str(), id);
        assert!(root.join(DISK).is_file());
    }

    #[test]
    fn what_is_in_the_way_of_the_id_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OPEN)).unwrap();
        symlink("nowhere", dir.path().join(OPEN).join(DISK)).unwrap();
        assert!(new_disk(dir.path()).is_err());
    }

    #[test]
    fn a_reader_of_all_files_finds_none() {
        let dir = tempfile::tempdir().unwrap();
        let id = new_disk(dir.path()).unwrap();
        let folder = dir.path().join(OPEN).join(DISK).join(id.as_str());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_a_file_has_no_id() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(DiskId::of(&file).unwrap(), None);
        assert_eq!(DiskId::of(&file.join("a")).unwrap(), None);
    }

    #[test]
    fn a_damaged_id_is_an_error_not_another_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OPEN)).unwrap();
        let path = dir.path().join(OPEN).join(DISK);
        let assert_damaged = || {
            assert_eq!(
                DiskId::of(dir.path()).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
            assert_eq!(
                new_disk(dir.path()).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        };
        for text in ["", "12", &"x".repeat(DIGITS)] {
            fs::write(&path, text).unwrap();
            assert_damaged();
        }
        fs::remove_file(&path).unwrap();
        for name in ["", "12", &"b".repeat(DIGITS)] {
            fs::create_dir_all(path.join(name)).unwrap();
            // The last one makes two.
            assert_damaged();
        }
    }
}
