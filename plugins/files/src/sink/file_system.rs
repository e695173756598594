//! The operations on names that publishing is built from: renames that replace no file, and names
//! that survive a crash.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, OFlags, RenameFlags, Stat, fsync, linkat, renameat_with, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use super::access::{Access, OTHERS, PRIVATE_FILE, PRIVATE_FOLDER};

/// The metadata of the file with this name; `None` if it does not exist.
pub(super) fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Whether this name exists and has the inode.
pub(super) fn has_inode(path: &Path, inode: u64) -> io::Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.ino() == inode))
}

/// A name in an open folder.
#[derive(Clone, Copy)]
pub(super) struct NameIn<'a> {
    folder: BorrowedFd<'a>,
    name: &'a Path,
}

impl<'a> NameIn<'a> {
    /// A name in this folder.
    pub(super) fn new(folder: BorrowedFd<'a>, name: &'a Path) -> NameIn<'a> {
        NameIn { folder, name }
    }

    /// A path of any folder, whose links are followed.
    pub(super) fn path(path: &'a Path) -> NameIn<'a> {
        NameIn {
            folder: CWD,
            name: path,
        }
    }

    fn stat(self) -> Result<Stat, Errno> {
        statat(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether the name exists.
    pub(super) fn exists(self) -> io::Result<bool> {
        match self.stat() {
            Err(Errno::NOENT) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }
}

/// Renames a file. Fails with `AlreadyExists` instead of replacing another file.
pub(super) fn rename_to_new(from: NameIn<'_>, to: NameIn<'_>) -> io::Result<()> {
    match renameat_with(
        from.folder,
        from.name,
        to.folder,
        to.name,
        RenameFlags::NOREPLACE,
    ) {
        // Some file systems, such as NFS, do not support it. A second link and then the removal of
        // the first has the same effect, unless the process dies in between.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(link_and_remove(from, to)?),
        other => Ok(other?),
    }
}

fn link_and_remove(from: NameIn<'_>, to: NameIn<'_>) -> Result<(), Errno> {
    match linkat(from.folder, from.name, to.folder, to.name, AtFlags::empty()) {
        Err(Errno::EXIST) if is_same_file(from, to)? => {}
        other => other?,
    }
    unlinkat(from.folder, from.name, AtFlags::empty())
}

fn is_same_file(one: NameIn<'_>, other: NameIn<'_>) -> Result<bool, Errno> {
    let (one, other) = (one.stat()?, other.stat()?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Opens a file that only the process uses, such as a lock, to read and write it. With `create`, a
/// missing file is created. A link is not followed, and a pipe or a device is an error: another
/// user who can write to the folder may have put it there.
pub(super) fn open_own(path: &Path, create: bool) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .custom_flags(flags)
        .open(path);
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Err(error) if error.raw_os_error() != Some(Errno::LOOP.raw_os_error()) => Err(error),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is not a regular file: remove it", path.display()),
        )),
    }
}

/// Creates a folder for published files, and its missing parents, durably.
pub(super) fn make_dirs(dir: &Path, access: &Access) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(parent, access)?;
    }
    match access.create_folder(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(not_a_folder(dir));
        }
        other => other.map_err(|error| cannot_create(dir, error))?,
    }
    parent.map_or(Ok(()), sync_dir)
}

/// Creates a folder that only the process can enter. If the process has it already, because an
/// earlier version made it, only users outside of its group are kept out. Returns whether it is
/// new.
pub(super) fn make_private(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(PRIVATE_FOLDER).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(|()| true),
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return Err(not_a_folder(path));
    }
    // Users of one group may share a folder that an earlier version made.
    if found.uid() == geteuid().as_raw() && found.mode() & OTHERS != 0 {
        let mode = found.mode() & 0o7777 & !OTHERS;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(false)
}

/// The error for a folder that is needed, with its path if a person has to allow it.
pub(super) fn cannot_create(folder: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let shown = folder.display();
    let reason =
        format!("cannot create the folder {shown}: {error}; allow it, or write to another folder");
    io::Error::new(error.kind(), reason)
}

/// The error for a name that is needed for a folder.
pub(super) fn not_a_folder(path: &Path) -> io::Error {
    let what = match path.is_symlink() {
        true if path.is_dir() => "a link, which could lead files anywhere",
        true => "a link to a folder that does not exist",
        false => "not a folder",
    };
    let shown = path.display();
    let reason = format!("{shown} is {what}: remove it, or write to another folder");
    io::Error::new(io::ErrorKind::NotADirectory, reason)
}

/// Whether a finished file cannot get its place before a person repairs its folder, in which
/// something is in the way or may not be written. The file itself could be written beside it, so
/// other files need not wait.
pub(super) fn needs_repair(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied};
    matches!(error.kind(), NotADirectory | PermissionDenied)
}

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    sync_open_dir(&File::open(dir)?)
}

/// Makes the names in an open folder durable.
pub(super) fn sync_open_dir(dir: impl AsFd) -> io::Result<()> {
    match retry_on_intr(|| fsync(&dir)) {
        // Some file systems cannot, and need not, sync a folder.
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Makes the names in folders durable; a folder that no longer exists is skipped.
pub(super) fn sync_dirs<'a>(dirs: impl IntoIterator<Item = &'a PathBuf>) -> io::Result<()> {
    dirs.into_iter().try_for_each(|dir| match sync_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
}

/// Whether `path` names this file.
pub(super) fn names_file(path: &Path, file: &File) -> bool {
    let (Ok(found), Ok(ours)) = (fs::symlink_metadata(path), file.metadata()) else {
        return false;
    };
    (found.dev(), found.ino()) == (ours.dev(), ours.ino())
}

/// Removes a file, unless it does not exist.
pub(super) fn remove_if_exists(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, mkfifoat};

    use super::*;

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("none", dir.path().join("link")).unwrap();
        for (name, expected) in [
            ("file", "file is not a folder"),
            ("file/below", "file is not a folder"),
            ("link", "link is a link to a folder that does not exist"),
        ] {
            let access = Access::of_mode("0640");
            let error = make_dirs(&dir.path().join(name), &access).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(needs_repair(&error), "{error:?}");
        }
    }

    #[test]
    fn only_a_regular_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let missing = open_own(&path("lock"), false).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let made = open_own(&path("lock"), true).unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o777, PRIVATE_FILE);
        assert!(open_own(&path("lock"), true).is_ok());
        // Opening a pipe, or reading from it, could take forever.
        mkfifoat(CWD, path("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("victim", path("link")).unwrap();
        std::os::unix::fs::symlink("lock", path("link to a file")).unwrap();
        for name in ["pipe", "link", "link to a file"] {
            let error = open_own(&path(name), true).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("is not a regular file: remove it"),
                "{error}"
            );
        }
        assert!(!path("victim").exists());
    }

    #[test]
    fn linking_and_removing_replaces_a_no_replace_rename() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "one").unwrap();
        let link_and_remove = || link_and_remove(NameIn::path(&from), NameIn::path(&to));
        link_and_remove().unwrap();
        assert!(!from.exists());
        fs::hard_link(&to, &from).unwrap();
        link_and_remove().unwrap();
        assert!(!from.exists(), "a crash between the two steps is recovered");
        fs::write(&from, "two").unwrap();
        assert_eq!(link_and_remove().unwrap_err(), Errno::EXIST);
        assert_eq!(fs::read_to_string(&to).unwrap(), "one");
    }
}
