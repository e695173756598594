//! Publishing: renames finished files to their visible names.
//!
//! A finished file has a hidden name, on the same file system as its visible name. One rename to
//! the visible name, which never replaces a file, publishes it, so a reader sees the complete file
//! or nothing. The rename is described by a [`Move`], which every process can apply, any number of
//! times. [`decide`] derives from the state of the disk what is left to do.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::access::Access;
use super::below::open_below;
use super::disk::{DiskId, OPEN};
use super::entry::Move;
use super::file_system::{NameIn, has_inode, metadata, rename_to_new, sync_open_dir};
use super::verdict::{DiskMatch, DiskState, Obstacle, Verdict, decide};

/// How many names are tried when the preferred name is taken.
const MAX_NAMES: u32 = 10_000;

/// Why no file can get its name in this folder below a base directory; `None` if nothing prevents
/// it.
pub(super) fn unusable(base: &Path, folder: &Path) -> Option<String> {
    let home = fs::metadata(base).ok()?;
    let mut path = base.to_owned();
    for part in folder.components() {
        path.push(part);
        // A folder that does not exist yet is created, and so are those below it.
        let found = fs::metadata(&path).ok()?;
        let (shown, base) = (path.display(), base.display());
        if found.dev() != home.dev() {
            return Some(format!(
                "{shown} is on another file system than {base}, so files cannot appear in it \
                 complete: remove the mount or the link, or let :move-to bring files there"
            ));
        }
    }
    None
}

/// The result of applying a [`Move`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublishOutcome {
    /// It has its visible name now, or had it already.
    Published,
    /// It was published and no longer exists: a reader has taken it.
    Taken,
    /// It cannot be published here.
    NotHere(Obstacle),
}

impl Move {
    /// Publishes the file, or finds it published. Missing folders are created with `access`. Adds
    /// the changed folders to `changed`; the move is durable when they are synced.
    pub(super) fn apply(
        &self,
        access: &Access,
        changed: &mut BTreeSet<PathBuf>,
    ) -> io::Result<PublishOutcome> {
        match self.outcome()? {
            None => self.publish(access, changed),
            Some(outcome) => Ok(outcome),
        }
    }

    /// What has become of the file. `None` if it is to be published.
    fn outcome(&self) -> io::Result<Option<PublishOutcome>> {
        Ok(match decide(self.inspect()?, self.bytes) {
            Verdict::Publish => None,
            Verdict::Published { is_visible: true } => Some(PublishOutcome::Published),
            Verdict::Published { is_visible: false } => Some(PublishOutcome::Taken),
            Verdict::NotHere(obstacle) => Some(PublishOutcome::NotHere(obstacle)),
        })
    }

    /// Finds the state of the file on the disk.
    fn inspect(&self) -> io::Result<DiskState> {
        let hidden = self.base.join(&self.hidden);
        if let Some(found) = metadata(&hidden)? {
            return Ok(DiskState::Hidden(found.len()));
        }
        let disk = match &self.disk {
            Some(written) => match DiskId::of(&self.base)? {
                Some(found) if found == *written => DiskMatch::Same,
                found => DiskMatch::Other(found),
            },
            // The folder is named after one run of one process, so it exists only on the disk to
            // which the process wrote.
            None if hidden.parent().is_some_and(Path::is_dir) => DiskMatch::Same,
            None => DiskMatch::Unknown,
        };
        Ok(DiskState::Gone {
            disk,
            is_visible: self.find_published()?.is_some(),
        })
    }

    fn publish(
        &self,
        access: &Access,
        changed: &mut BTreeSet<PathBuf>,
    ) -> io::Result<PublishOutcome> {
        let (from, hidden) = folder_and_name_of(&self.hidden);
        let (to, _) = folder_and_name_of(&self.visible);
        let visible = self.base.join(&self.visible);
        let from = match open_below(&self.base, from, None) {
            // Another process was faster and has removed the folder, or the disk is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.outcome()?.ok_or(error);
            }
            other => other?,
        };
        let hidden = NameIn::new(from.as_fd(), hidden);
        let to = open_below(&self.base, to, Some(access))?;
        changed.extend(self.dirs());
        for number in 0..MAX_NAMES {
            let name = self.name(number);
            match rename_to_new(hidden, NameIn::new(to.as_fd(), name.as_ref())) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !hidden.exists()? => {
                    return self.outcome()?.ok_or(error);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| PublishOutcome::Published),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} exists, and so do all numbered variants of it",
                visible.display()
            ),
        ))
    }

    /// Publishes the file under its visible name, durably, unless there is a file of that name.
    pub(super) fn publish_once(&self, access: &Access) -> io::Result<()> {
        let (from, hidden) = folder_and_name_of(&self.hidden);
        let (to, visible) = folder_and_name_of(&self.visible);
        let from = open_below(&self.base, from, None)?;
        let to = open_below(&self.base, to, Some(access))?;
        let (hidden, visible) = (
            NameIn::new(from.as_fd(), hidden),
            NameIn::new(to.as_fd(), visible),
        );
        match rename_to_new(hidden, visible) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        // Another process may have renamed it, and not have synced the folder.
        sync_open_dir(&to)
    }

    /// The path under which the file was published, if it still exists there. The inode identifies
    /// the file; without one, any file of that name counts.
    pub(super) fn find_published(&self) -> io::Result<Option<PathBuf>> {
        let visible = self.base.join(&self.visible);
        let Some(inode) = self.inode else {
            return Ok(metadata(&visible)?.map(|_| visible));
        };
        if has_inode(&visible, inode)? {
            return Ok(Some(visible));
        }
        let entries = match visible.parent().map(fs::read_dir) {
            Some(Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(error);
            }
            Some(Ok(entries)) => entries,
            _ => return Ok(None),
        };
        let (stem, ending) = self.stem_and_ending();
        let begin = format!("{stem}~");
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_like_it = name
                .to_str()
                .is_some_and(|name| name.starts_with(&begin) && name.ends_with(&ending));
            if is_like_it && has_inode(&entry.path(), inode)? {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// A message that says why the file cannot be published here, with a `help:` part.
    pub(super) fn explain<'a>(&'a self, obstacle: &'a Obstacle) -> impl fmt::Display + 'a {
        ObstacleMessage {
            moving: self,
            obstacle,
        }
    }
}

/// The folder of a path below a base directory, and the name in it.
fn folder_and_name_of(path: &str) -> (&Path, &Path) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    (Path::new(folder), Path::new(name))
}

/// An [`Obstacle`] as a message.
struct ObstacleMessage<'a> {
    moving: &'a Move,
    obstacle: &'a Obstacle,
}

impl fmt::Display for ObstacleMessage<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.moving.base.display();
        match self.obstacle {
            Obstacle::OtherDisk(found) => {
                let wanted = self.moving.disk.as_ref().map_or("unknown", DiskId::as_str);
                write!(out, "it was written to disk {wanted}, but {base} ")?;
                match found {
                    Some(found) => write!(out, "is on disk {}", found.as_str())?,
                    None => write!(out, "has no disk id")?,
                }
                write!(
                    out,
                    ". help: mount the disk; if this is the disk and its id was removed, \
                     `echo {wanted} > {base}/{OPEN}/disk`"
                )
            }
            Obstacle::UnknownDisk => {
                let folder = self
                    .moving
                    .hidden
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder);
                write!(
                    out,
                    "an earlier version wrote it without a disk id, and it is not in {base}. \
                     help: mount the disk; if this is the disk and a reader has taken the file, \
                     `mkdir -p {base}/{folder}`"
                )
            }
            Obstacle::OtherSize { found, committed } => write!(
                out,
                "{base}/{} has {found} bytes, but {committed} were committed. \
                 help: restore it from the disk to which it was written",
                self.moving.hidden
            ),
            Obstacle::Refused(reason) => write!(
                out,
                "{reason}, and other programs may have written this entry of the state. help: if \
                 another machine wrote it, that machine publishes it; if the pipeline wrote it \
                 before its folders were changed, run it once with the earlier folders; `pseidon \
                 staged` lists it"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::host::Host;
    use super::*;

    /// A base directory on a disk with an id, with a hidden file.
    fn a_disk() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        DiskId::of_or_new(dir.path(), &Access::of_mode("0640")).unwrap();
        fs::create_dir(dir.path().join(".open")).unwrap();
        hide(dir.path(), "one");
        dir
    }

    fn hide(base: &Path, content: &str) {
        fs::write(base.join(".open/1.open"), content).unwrap();
    }

    /// The entry that publishes the hidden file.
    fn a_move(base: &Path) -> Move {
        let found = fs::metadata(base.join(".open/1.open")).unwrap();
        Move {
            host: Host::this(),
            disk: DiskId::of(base).unwrap(),
            inode: Some(found.ino()),
            bytes: Some(found.len()),
            base: base.to_owned(),
            hidden: ".open/1.open".into(),
            visible: "a=1/clicks-3-000.json.gz".into(),
            extension: "json.gz".into(),
            follow_up: None,
        }
    }

    /// The entry as an earlier version would have written it.
    fn without_disk(moving: &Move) -> Move {
        Move {
            disk: None,
            inode: None,
            bytes: None,
            ..moving.clone()
        }
    }

    fn apply(moving: &Move) -> PublishOutcome {
        moving
            .apply(&Access::of_mode("0640"), &mut BTreeSet::new())
            .unwrap()
    }

    fn content(base: &Path, name: &str) -> Option<String> {
        fs::read_to_string(base.join(name)).ok()
    }

    #[test]
    fn a_move_applied_repeatedly_publishes_once() {
        let dir = a_disk();
        let moving = Move::from_detail(&a_move(dir.path()).to_detail()).unwrap();
        assert_eq!(moving, a_move(dir.path()));
        for moving in [moving.clone(), moving.clone(), without_disk(&moving)] {
            assert_eq!(apply(&moving), PublishOutcome::Published);
            assert_eq!(
                content(dir.path(), "a=1/clicks-3-000.json.gz").unwrap(),
                "one"
            );
        }
        fs::remove_file(dir.path().join("a=1/clicks-3-000.json.gz")).unwrap();
        assert_eq!(apply(&moving), PublishOutcome::Taken);
    }

    #[test]
    fn no_file_is_replaced() {
        let dir = a_disk();
        for number in 0..3 {
            hide(dir.path(), &number.to_string());
            assert_eq!(apply(&a_move(dir.path())), PublishOutcome::Published);
        }
        let names = [
            "a=1/clicks-3-000.json.gz",
            "a=1/clicks-3-000~1.json.gz",
            "a=1/clicks-3-000~2.json.gz",
        ];
        assert_eq!(
            names.map(|name| content(dir.path(), name).unwrap()),
            ["0", "1", "2"]
        );
    }

    #[test]
    fn a_file_of_another_disk_is_never_reported_as_published() {
        let (dir, other) = (a_disk(), a_disk());
        let moving = a_move(dir.path());
        // The same machine, the same path, the bucket's folder, and even a file of that name: only
        // the disk differs.
        let elsewhere = Move {
            base: other.path().to_owned(),
            ..moving.clone()
        };
        fs::remove_dir_all(other.path().join(".open")).unwrap();
        fs::create_dir(other.path().join("a=1")).unwrap();
        fs::write(other.path().join("a=1/clicks-3-000.json.gz"), "another").unwrap();
        let PublishOutcome::NotHere(obstacle) = apply(&elsewhere) else {
            panic!("it is on another disk")
        };
        assert_eq!(
            obstacle,
            Obstacle::OtherDisk(DiskId::of(other.path()).unwrap())
        );
        let reason = elsewhere.explain(&obstacle).to_string();
        assert!(
            reason.contains(moving.disk.as_ref().unwrap().as_str())
                && reason.contains("help: mount the disk"),
            "{reason}"
        );

        fs::remove_dir_all(other.path().join(OPEN)).unwrap();
        assert_eq!(
            apply(&elsewhere),
            PublishOutcome::NotHere(Obstacle::OtherDisk(None)),
            "a mount point without its disk"
        );
        assert_eq!(apply(&moving), PublishOutcome::Published, "its own disk");
    }

    /// Between the look at the disk and the rename.
    #[test]
    fn a_disk_that_is_unmounted_meanwhile_has_not_published_the_file() {
        for gone in [".open", ".open/1.open"] {
            let dir = a_disk();
            let moving = a_move(dir.path());
            let gone = dir.path().join(gone);
            let _ = fs::remove_dir_all(&gone).or_else(|_| fs::remove_file(&gone));
            fs::remove_dir_all(dir.path().join(OPEN)).unwrap();
            let access = Access::of_mode("0640");
            let outcome = moving.publish(&access, &mut BTreeSet::new()).unwrap();
            let expected = PublishOutcome::NotHere(Obstacle::OtherDisk(None));
            assert_eq!(outcome, expected, "{}", gone.display());
        }
    }

    #[test]
    fn without_a_disk_id_the_folder_of_the_run_identifies_the_disk() {
        let dir = a_disk();
        let moving = without_disk(&a_move(dir.path()));
        fs::remove_dir_all(dir.path().join(".open")).unwrap();
        fs::create_dir(dir.path().join("a=1")).unwrap();
        let PublishOutcome::NotHere(obstacle) = apply(&moving) else {
            panic!("it is not here")
        };
        let reason = moving.explain(&obstacle).to_string();
        let help = format!("mkdir -p {}/.open", dir.path().display());
        assert!(
            obstacle == Obstacle::UnknownDisk && reason.contains(&help),
            "{reason}"
        );
        fs::create_dir(dir.path().join(".open")).unwrap();
        assert_eq!(
            apply(&moving),
            PublishOutcome::Taken,
            "after following the help"
        );
    }

    #[test]
    fn a_truncated_file_is_not_published() {
        let dir = a_disk();
        let moving = a_move(dir.path());
        hide(dir.path(), "on");
        assert_eq!(
            apply(&moving),
            PublishOutcome::NotHere(Obstacle::OtherSize {
                found: 2,
                committed: 3
            })
        );
        assert_eq!(content(dir.path(), ".open/1.open").unwrap(), "on");
        hide(dir.path(), "one");
        assert_eq!(apply(&moving), PublishOutcome::Published);
    }
}
