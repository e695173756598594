//! Folders below a base directory, which are opened without following links.
//!
//! Another user who can create a name below the base directory could otherwise lead a file to any
//! folder that the process may write to. The base directory itself, which the pipeline file names,
//! may be a link.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fsync, openat, unlinkat};
use rustix::io::Errno;

use super::access::Access;
use super::file_system::{cannot_create, not_a_folder};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens the folder `below` a base directory. With `access`, missing folders are created, durably.
/// Without, a missing folder is an error of the kind `NotFound`.
pub(super) fn open_below(
    base: &Path,
    below: &Path,
    access: Option<&Access>,
) -> io::Result<OwnedFd> {
    let mut folder = openat(CWD, base, FOLDER, Mode::empty())?;
    let mut path = base.to_owned();
    for part in below.components() {
        let Component::Normal(name) = part else {
            let (below, base) = (below.display(), base.display());
            let reason = format!("{below} leads out of {base}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        };
        path.push(name);
        let open = || openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let opened = match (open(), access) {
            (Err(Errno::NOENT), Some(access)) => {
                let made = access.create_folder_at(&folder, name.as_ref());
                let is_new = made.map_err(|error| cannot_create(&path, error))?;
                let opened = open();
                if let (true, Ok(opened)) = (is_new, &opened) {
                    access.hand_over_folder(opened).inspect_err(|_| {
                        // The next attempt makes it again.
                        let _ = unlinkat(&folder, name, AtFlags::REMOVEDIR);
                    })?;
                }
                // Another process that has made it may not have synced its name yet.
                fsync(&folder)?;
                opened
            }
            (opened, _) => opened,
        };
        folder = opened.map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => not_a_folder(&path),
            other => other.into(),
        })?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::sink::file_system::needs_repair;

    #[test]
    fn missing_folders_are_created() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::of_mode("0644");
        assert!(open_below(dir.path(), Path::new("a/b"), Some(&access)).is_ok());
        assert!(open_below(dir.path(), Path::new("a/b"), None).is_ok());
        for folder in ["a", "a/b"] {
            let found = fs::metadata(dir.path().join(folder)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o755, "{folder}");
        }
        let missing = open_below(dir.path(), Path::new("c"), None).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_leads_out_of_the_base_directory() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let access = Access::of_mode("0640");
        for below in ["link", "link/a", "file", "file/a"] {
            let error = open_below(dir.path(), Path::new(below), Some(&access)).unwrap_err();
            assert!(needs_repair(&error), "{below}: {error:?}");
        }
        for below in ["..", "a/../b", "/etc"] {
            let error = open_below(dir.path(), Path::new(below), Some(&access)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{below}");
        }
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        let linked = dir.path().join("base");
        symlink(other.path(), &linked).unwrap();
        assert!(open_below(&linked, Path::new("a"), Some(&access)).is_ok());
        assert!(
            other.path().join("a").is_dir(),
            "the base itself may be a link"
        );
    }
}
