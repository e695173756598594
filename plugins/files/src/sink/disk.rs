//! The identity of the disk on which a base directory is.
//!
//! A committed file whose hidden name is gone has been published, but only on the disk to which it
//! was written: on every other disk its hidden name never existed. Neither a host name nor a path
//! identifies that disk. Containers and machines share both, and an unmounted disk leaves an empty
//! directory at its path. So each base directory holds a random id:
//!
//! ```text
//! <base>/.pseidon-open/disk    32 hexadecimal digits, written once, never changed or removed
//! ```
//!
//! The id of the disk is part of every staged entry.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use pseidon_delivery::store::new_identity;

use super::file_system::{make_dirs, rename_to_new, sync_dir};

/// The folder in each base directory for its id and for files that are not published yet.
pub(super) const OPEN: &str = ".pseidon-open";
/// The file in [`OPEN`] that holds the id.
const DISK: &str = "disk";
/// The length of an id in hexadecimal digits.
const DIGITS: usize = 32;

/// The identity of a base directory's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskId(String);

impl DiskId {
    /// The id of the disk at `base`; `None` if it has no id, or if the directory does not exist.
    pub(super) fn of(base: &Path) -> io::Result<Option<DiskId>> {
        let path = base.join(OPEN).join(DISK);
        let text = match fs::read_to_string(&path) {
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
        match DiskId::from_text(text.trim()) {
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} does not contain a disk id", path.display()),
            )),
            id => Ok(id),
        }
    }

    /// The id of the disk at `base`; creates one if it is missing. The id is durable when this
    /// returns.
    pub(super) fn of_or_new(base: &Path) -> io::Result<DiskId> {
        let root = base.join(OPEN);
        make_dirs(&root)?;
        loop {
            if let Some(id) = DiskId::of(base)? {
                remove_unused(&root)?;
                // Another process may have created it a moment ago.
                sync_dir(&root)?;
                return Ok(id);
            }
            let id = new_identity().map_err(io::Error::other)?;
            let new = root.join(format!("{DISK}.{id}"));
            let named = create_file(&new, &id).and_then(|()| rename_to_new(&new, &root.join(DISK)));
            if named.is_err() {
                // On a full disk this may be retried many times.
                let _ = fs::remove_file(&new);
            }
            match named {
                // Another process was faster; it may have removed the unused file.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
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

/// Removes the ids that did not become the disk's id, because their process was killed before it
/// could rename its file.
fn remove_unused(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if !is_unused(&entry.file_name()) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Whether this is the name of an id's file before it is renamed.
fn is_unused(name: &OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.strip_prefix(DISK)?.strip_prefix('.'))
        .is_some_and(|id| DiskId::from_text(id).is_some())
}

fn create_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_callers_see_one_disk_id() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("a/b");
        assert_eq!(DiskId::of(&base).unwrap(), None);
        let ids: Vec<DiskId> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| DiskId::of_or_new(&base).unwrap()))
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
        assert_ne!(DiskId::of_or_new(dir.path()).unwrap(), ids[0]);
    }

    #[test]
    fn the_file_of_a_killed_process_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(OPEN);
        fs::create_dir(&root).unwrap();
        let unused = root.join(format!("{DISK}.{}", "a".repeat(DIGITS)));
        let sink = root.join(format!("{DISK}.out.1f2e"));
        fs::create_dir(&sink).unwrap();
        fs::write(&unused, "a".repeat(DIGITS)).unwrap();
        let id = DiskId::of_or_new(dir.path()).unwrap();
        assert_ne!(id.as_str(), "a".repeat(DIGITS));
        fs::write(&unused, "").unwrap();
        assert_eq!(DiskId::of_or_new(dir.path()).unwrap(), id);
        assert!(!unused.exists());
        assert!(sink.exists(), "the folder of a sink is left alone");
    }

    #[test]
    fn a_damaged_id_is_an_error_not_another_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OPEN)).unwrap();
        for text in ["", "12", &"x".repeat(DIGITS)] {
            fs::write(dir.path().join(OPEN).join(DISK), text).unwrap();
            assert_eq!(
                DiskId::of(dir.path()).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
            assert_eq!(
                DiskId::of_or_new(dir.path()).unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
    }
}
