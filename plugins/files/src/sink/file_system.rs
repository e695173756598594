//! The operations on names that publishing is built from: renames that replace no file, and names
//! that survive a crash.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

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

/// Renames a file. Fails with `AlreadyExists` instead of replacing another file.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems, such as NFS, do not support it. A second link and then the removal of
        // the first has the same effect, unless the process dies in between.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_and_remove(from, to),
        other => Ok(other?),
    }
}

fn link_and_remove(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same_file(from, to)? => {}
        other => other?,
    }
    fs::remove_file(from)
}

fn is_same_file(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Creates a folder and its missing parents, durably.
pub(super) fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(not_a_folder(dir));
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let shown = dir.display();
            let reason = format!(
                "cannot create the folder {shown}: {error}; allow it, or write to another folder"
            );
            return Err(io::Error::new(error.kind(), reason));
        }
        other => other?,
    }
    parent.map_or(Ok(()), sync_dir)
}

/// The error for a name that is needed for a folder.
fn not_a_folder(path: &Path) -> io::Error {
    let what = match path.is_symlink() {
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
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        // Some file systems cannot, and need not, sync a folder.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other,
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
            let error = make_dirs(&dir.path().join(name)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(needs_repair(&error), "{error:?}");
        }
    }

    #[test]
    fn linking_and_removing_replaces_a_no_replace_rename() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "one").unwrap();
        link_and_remove(&from, &to).unwrap();
        assert!(!from.exists());
        fs::hard_link(&to, &from).unwrap();
        link_and_remove(&from, &to).unwrap();
        assert!(!from.exists(), "a crash between the two steps is recovered");
        fs::write(&from, "two").unwrap();
        assert_eq!(
            link_and_remove(&from, &to).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read_to_string(&to).unwrap(), "one");
    }
}
