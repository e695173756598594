//! Moves a published file to its destination folder, also onto another disk.
//!
//! Every step can be repeated by a process that finds it undone; the files on the disk show which
//! steps are done. On one file system the move is one rename. Onto another file system it is a
//! copy, and the file still has to be visible exactly once:
//!
//! ```text
//! <folder>/.pseidon-ID.part    the incomplete copy, locked by the process that writes it
//! <folder>/.pseidon-ID.copy    the complete, synced copy; the published file is removed now, and
//!                              then the copy gets its final name
//! ```
//!
//! While the published file exists, no reader sees the copy. Once it is gone, there is a `.copy`
//! until the file has its final name. No file is replaced: if the name is taken, a digest of the
//! file's id is added, which no other file has. The file `.pseidon-ID.own` records this until the
//! file is done ([`remove_note`]), since a reader may take the file, and its report has to name the
//! right path.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pseidon_delivery::StagedId;
use rustix::fs::{FlockOperation, flock};

use super::access::Access;
use super::damage::find_damage;
use super::entry::Move;
use super::file_system::{
    NameIn, make_dirs, names_file, open_own, remove_if_exists, rename_to_new, sync_dir,
};
use super::follow_up::FollowUp;
use super::lane_name::digest;

/// How many bytes are copied between two checks whether to stop.
const COPY_CHUNK: u64 = 8 << 20;

/// Where a file is after the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Relocation {
    /// In its destination folder.
    Final(PathBuf),
    /// In the quarantine folder, for this reason.
    Broken(PathBuf, String),
}

/// Moves the published file `id`, or finds it moved. Fails with an error of the kind `Interrupted`
/// as soon as `is_over` returns true.
pub(super) fn relocate(
    id: &StagedId,
    moving: &Move,
    follow_up: &FollowUp,
    access: &Access,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Relocation> {
    let published = moving.find_published()?;
    let Some(destination) = &follow_up.destination else {
        return Ok(Relocation::Final(
            published.unwrap_or_else(|| moving.base.join(&moving.visible)),
        ));
    };
    let name = format!("{}{}", destination.prefix, moving.file_name());
    let target = MoveTarget::new(id, destination.folder.clone(), &name, &moving.extension);
    let quarantine = destination
        .quarantine
        .as_ref()
        .filter(|_| moving.extension == "parquet")
        .map(|folder| {
            let below = moving
                .visible
                .strip_suffix(moving.file_name())
                .unwrap_or_default();
            // Only under its own unique name, so that the next attempt sees that the file was found
            // broken.
            MoveTarget::new(
                id,
                folder.join(below),
                moving.file_name(),
                &moving.extension,
            )
            .with_own_name_only()
        });
    let Some(published) = published else {
        // Another attempt has moved it, and may have died before the last step.
        if let Some(quarantine) = quarantine
            && let Some(name) = quarantine.finish()?
        {
            return Ok(Relocation::Broken(
                name,
                "an earlier attempt found it broken".to_owned(),
            ));
        }
        return Ok(Relocation::Final(
            target.finish()?.unwrap_or(target.names.preferred),
        ));
    };
    if let Some(quarantine) = quarantine
        && let Some(reason) = find_damage(&published, follow_up.records)?
    {
        return Ok(Relocation::Broken(
            quarantine.take(&published, access, is_over)?,
            reason,
        ));
    }
    target
        .take(&published, access, is_over)
        .map(Relocation::Final)
}

/// Removes the note beside the file `id`, which is done.
pub(super) fn remove_note(id: &StagedId, moving: &Move, follow_up: &FollowUp) -> io::Result<()> {
    match &follow_up.destination {
        None => Ok(()),
        Some(destination) => remove_if_exists(
            &MoveTarget::new(
                id,
                destination.folder.clone(),
                moving.file_name(),
                &moving.extension,
            )
            .note,
        ),
    }
}

/// The names that a file can get in its target folder.
struct TargetNames {
    /// The name that the file was published with. Another file in the folder may have it.
    preferred: PathBuf,
    /// A name that no other file has.
    own: PathBuf,
}

/// The folder to which a file is moved, with all paths that the move uses.
struct MoveTarget {
    folder: PathBuf,
    names: TargetNames,
    part: PathBuf,
    copy: PathBuf,
    /// Exists if the file has the name `names.own`.
    note: PathBuf,
}

impl MoveTarget {
    fn new(id: &StagedId, folder: PathBuf, name: &str, extension: &str) -> MoveTarget {
        let stem = name.strip_suffix(&format!(".{extension}")).unwrap_or(name);
        let own = folder.join(format!("{stem}~{}.{extension}", digest(id.as_str(), 4)));
        MoveTarget {
            names: TargetNames {
                preferred: folder.join(name),
                own,
            },
            part: folder.join(format!(".pseidon-{}.part", digest(id.as_str(), 8))),
            copy: folder.join(format!(".pseidon-{}.copy", digest(id.as_str(), 8))),
            note: folder.join(format!(".pseidon-{}.own", digest(id.as_str(), 8))),
            folder,
        }
    }

    fn with_own_name_only(mut self) -> MoveTarget {
        self.names.preferred.clone_from(&self.names.own);
        self
    }

    /// Moves the published file to this folder. Returns its path.
    fn take(
        &self,
        published: &Path,
        access: &Access,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<PathBuf> {
        make_dirs(&self.folder, access)?;
        match self.rename_here(published) {
            Ok(name) => {
                published.parent().map_or(Ok(()), sync_dir)?;
                Ok(name)
            }
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_here(published, access, is_over)
            }
            Err(error) => Err(error),
        }
    }

    /// The same across file systems.
    fn copy_here(
        &self,
        published: &Path,
        access: &Access,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<PathBuf> {
        let _copy = match lock(&self.copy, false)? {
            Some(copy) => copy,
            None => self.make_copy(published, access, is_over)?,
        };
        fs::remove_file(published)?;
        published.parent().map_or(Ok(()), sync_dir)?;
        self.rename_here(&self.copy)
    }

    /// Renames a file on this file system to the first of its names that is free.
    fn rename_here(&self, file: &Path) -> io::Result<PathBuf> {
        if file == self.names.preferred {
            return Ok(file.to_owned());
        }
        let name = match rename_to_new(NameIn::path(file), NameIn::path(&self.names.preferred)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_own(&self.note, true)?.sync_all()?;
                sync_dir(&self.folder)?;
                rename_to_new(NameIn::path(file), NameIn::path(&self.names.own))?;
                &self.names.own
            }
            other => {
                other?;
                &self.names.preferred
            }
        };
        sync_dir(&self.folder)?;
        Ok(name.clone())
    }

    /// Makes the complete copy. Returns it, locked.
    fn make_copy(
        &self,
        published: &Path,
        access: &Access,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<File> {
        let mut source = File::open(published)?;
        let Some(mut part) = lock(&self.part, true)? else {
            return Err(busy(&self.part));
        };
        // Checked under the lock: a faster process has either completed the copy or removed the
        // published file by now.
        if self.copy.try_exists()? || !names_file(published, &source) {
            remove_if_exists(&self.part)?;
            return Err(busy(&self.copy));
        }
        part.set_len(0)?;
        loop {
            if is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if io::copy(&mut (&mut source).take(COPY_CHUNK), &mut part)? == 0 {
                break;
            }
        }
        access.hand_over_copy(&part, &source)?;
        part.sync_all()?;
        fs::rename(&self.part, &self.copy)?;
        sync_dir(&self.folder)?;
        Ok(part)
    }

    /// The last step for a file whose published name is gone. Returns its path if it was certainly
    /// moved to this folder.
    fn finish(&self) -> io::Result<Option<PathBuf>> {
        // An incomplete copy is of a file that another process has moved.
        if let Some(_part) = lock(&self.part, false)? {
            remove_if_exists(&self.part)?;
        }
        if let Some(_copy) = lock(&self.copy, false)? {
            return self.rename_here(&self.copy).map(Some);
        }
        let has_own_name = self.note.try_exists()? || self.names.own.try_exists()?;
        Ok(has_own_name.then(|| self.names.own.clone()))
    }
}

/// Opens and locks a file that other processes may be working on. `None` if it does not exist and
/// `create` is false.
fn lock(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = match open_own(path, create) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
        other => other?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy(path)),
        other => other?,
    }
    if names_file(path, &file) {
        Ok(Some(file))
    } else {
        Err(busy(path))
    }
}

fn busy(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("another process is working on {}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::follow_up::Destination;
    use super::super::host::Host;
    use super::*;

    const ID: &str = "host/1.open";
    const CONTENT: &str = "one\ntwo\n";

    /// A published file and the folder on another file system to which it is moved.
    struct Case {
        base: tempfile::TempDir,
        other: tempfile::TempDir,
        moving: Move,
        follow_up: FollowUp,
    }

    impl Case {
        fn new() -> Case {
            let base = tempfile::tempdir().unwrap();
            let other = tempfile::tempdir_in("/dev/shm")
                .expect("the test needs a second file system at /dev/shm");
            let device = |dir: &tempfile::TempDir| fs::metadata(dir.path()).unwrap().dev();
            assert_ne!(
                device(&base),
                device(&other),
                "the test needs a folder for temporary files that is not in /dev/shm"
            );
            fs::create_dir(base.path().join("a")).unwrap();
            fs::write(base.path().join("a/x-1.json"), CONTENT).unwrap();
            let inode = fs::metadata(base.path().join("a/x-1.json")).unwrap().ino();
            let destination = Destination {
                folder: other.path().join("lake"),
                prefix: "h-".into(),
                quarantine: None,
            };
            let moving = Move {
                host: Host::this(),
                disk: None,
                inode: Some(inode),
                bytes: Some(CONTENT.len() as u64),
                base: base.path().into(),
                hidden: ".open/1.open".into(),
                visible: "a/x-1.json".into(),
                extension: "json".into(),
                follow_up: None,
            };
            let positions = serde_json::Map::new();
            let follow_up = FollowUp {
                records: 2,
                positions,
                destination: Some(destination),
            };
            fs::create_dir(other.path().join("lake")).unwrap();
            Case {
                base,
                other,
                moving,
                follow_up,
            }
        }

        fn target(&self) -> MoveTarget {
            MoveTarget::new(
                &ID.into(),
                self.other.path().join("lake"),
                "h-x-1.json",
                "json",
            )
        }

        fn published(&self) -> PathBuf {
            self.base.path().join("a/x-1.json")
        }

        fn relocate(&self) -> io::Result<Relocation> {
            let access = Access::of_mode("0640");
            relocate(&ID.into(), &self.moving, &self.follow_up, &access, &|| {
                false
            })
        }

        /// Moves it repeatedly, and panics unless it is at its destination and nowhere else.
        fn assert_moved_once(&self) {
            for _ in 0..2 {
                assert_eq!(
                    self.relocate().unwrap(),
                    Relocation::Final(self.target().names.preferred)
                );
            }
            assert!(!self.published().exists());
            let left: Vec<_> = fs::read_dir(self.target().folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["h-x-1.json"]);
            assert_eq!(
                fs::read_to_string(self.target().names.preferred).unwrap(),
                CONTENT
            );
        }
    }

    #[test]
    fn a_move_onto_another_disk_resumes_from_every_step() {
        let steps_before_crash: [fn(&Case); 5] = [
            |_| {},
            |case| fs::write(case.target().part, "on").unwrap(),
            |case| fs::write(case.target().copy, CONTENT).unwrap(),
            |case| {
                fs::write(case.target().copy, CONTENT).unwrap();
                fs::remove_file(case.published()).unwrap();
            },
            |case| {
                fs::write(case.target().names.preferred, CONTENT).unwrap();
                fs::remove_file(case.published()).unwrap();
            },
        ];
        for steps_before_crash in steps_before_crash {
            let case = Case::new();
            steps_before_crash(&case);
            case.assert_moved_once();
        }
    }

    #[test]
    fn a_copy_that_another_process_makes_is_left_alone() {
        for pick in [
            |target: MoveTarget| target.part,
            |target: MoveTarget| target.copy,
        ] {
            let case = Case::new();
            let busy = lock(&pick(case.target()), true).unwrap().unwrap();
            assert_eq!(
                case.relocate().unwrap_err().kind(),
                io::ErrorKind::ResourceBusy
            );
            assert!(case.published().exists());
            fs::remove_file(pick(case.target())).unwrap();
            drop(busy);
            case.assert_moved_once();
        }
    }

    #[test]
    fn an_interrupted_move_keeps_the_published_file() {
        let case = Case::new();
        let access = Access::of_mode("0640");
        let error =
            relocate(&ID.into(), &case.moving, &case.follow_up, &access, &|| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert!(case.published().exists() && !case.target().names.preferred.exists());
        case.assert_moved_once();
    }

    #[test]
    fn no_file_is_replaced() {
        let case = Case::new();
        fs::write(case.target().names.preferred, "other").unwrap();
        for _ in 0..2 {
            assert_eq!(
                case.relocate().unwrap(),
                Relocation::Final(case.target().names.own)
            );
        }
        let content = fs::read_to_string(case.target().names.own).unwrap();
        fs::remove_file(case.target().names.own).unwrap();
        assert_eq!(
            case.relocate().unwrap(),
            Relocation::Final(case.target().names.own),
            "also after a reader has taken it"
        );
        remove_note(&ID.into(), &case.moving, &case.follow_up).unwrap();
        assert!(!case.target().note.exists());
        fs::write(case.target().names.own, content).unwrap();
        assert_eq!(
            fs::read_to_string(case.target().names.preferred).unwrap(),
            "other"
        );
        assert_eq!(
            fs::read_to_string(case.target().names.own).unwrap(),
            CONTENT
        );
    }
}
