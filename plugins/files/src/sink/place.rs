//! Publishing: renames finished files to their visible names.
//!
//! A finished file has a hidden name, on the same file system as its visible name. One rename to
//! the visible name, which never replaces a file, publishes it, so a reader sees the complete file
//! or nothing. The rename is described by a [`Move`], which every process can apply, any number of
//! times. [`decide`] derives from the state of the disk what is left to do.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::disk::DiskId;
use super::follow_up::FollowUp;
use super::host::Host;
use super::staging::OPEN;

/// How many names are tried when the preferred name is taken.
const MAX_NAMES: u32 = 10_000;

/// A staged entry of the state store: how a file is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The machine of the process that wrote it.
    pub(super) host: Host,
    /// The disk it is on; `None` in an entry of an earlier version.
    pub(super) disk: Option<DiskId>,
    /// Its inode, which it keeps under every name; an earlier version recorded it only together
    /// with a follow-up.
    pub(super) inode: Option<u64>,
    /// Its size; an earlier version recorded it only together with a follow-up.
    pub(super) bytes: Option<u64>,
    /// The base directory, an absolute path.
    pub(super) base: PathBuf,
    /// The hidden name, relative to the base directory.
    pub(super) hidden: String,
    /// The visible name, relative to the base directory.
    pub(super) visible: String,
    /// The extension of that name, without the first dot; a suffix that makes a name unique goes
    /// before it.
    pub(super) extension: String,
    /// The follow-up after publishing, if there is one.
    pub(super) follow_up: Option<FollowUp>,
}

/// The state of a committed file on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskState {
    /// Its hidden name exists, with this many bytes.
    Hidden(u64),
    /// Its hidden name does not exist.
    Gone {
        /// Whether this is the disk to which it was written.
        disk: DiskMatch,
        /// Whether it exists under its visible name, or a numbered variant of it.
        is_visible: bool,
    },
}

/// How the disk of a base directory relates to the disk to which a file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskMatch {
    /// It is the same disk.
    Same,
    /// It is another disk, with this id if it has one.
    Other(Option<DiskId>),
    /// It may be either: the entry does not identify the disk to which the file was written.
    Unknown,
}

/// What is left to do with a committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has to be renamed to its visible name.
    Publish,
    /// It was published; `is_visible` says whether it still exists.
    Published { is_visible: bool },
    /// It cannot be published here.
    NotHere(Obstacle),
}

/// Why a committed file cannot be published here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// This is another disk, with this id if it has one.
    OtherDisk(Option<DiskId>),
    /// The file is not here, and the entry does not identify its disk.
    UnknownDisk,
    /// The hidden file's size differs from the committed size.
    OtherSize { found: u64, committed: u64 },
}

/// Decides whether a file of `bytes` bytes in this state is published, has to be published, or
/// cannot be published here.
pub(super) fn decide(state: DiskState, bytes: Option<u64>) -> Verdict {
    match state {
        DiskState::Hidden(found) => match bytes.filter(|bytes| *bytes != found) {
            None => Verdict::Publish,
            Some(committed) => Verdict::NotHere(Obstacle::OtherSize { found, committed }),
        },
        // A missing hidden name means that the file got its visible name only on the disk to which
        // it was written.
        DiskState::Gone {
            disk: DiskMatch::Same,
            is_visible,
        } => Verdict::Published { is_visible },
        DiskState::Gone {
            disk: DiskMatch::Other(found),
            ..
        } => Verdict::NotHere(Obstacle::OtherDisk(found)),
        DiskState::Gone {
            disk: DiskMatch::Unknown,
            is_visible: true,
        } => Verdict::Published { is_visible: true },
        DiskState::Gone {
            disk: DiskMatch::Unknown,
            is_visible: false,
        } => Verdict::NotHere(Obstacle::UnknownDisk),
    }
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
    /// Serializes the entry for the state store.
    pub(super) fn to_detail(&self) -> String {
        let mut detail = json!({
            "host": self.host.to_text(),
            "base": self.base.to_string_lossy(),
            "hidden": self.hidden,
            "visible": self.visible,
            "extension": self.extension,
        });
        if let Some(disk) = &self.disk {
            detail["disk"] = disk.as_str().into();
        }
        if let Some(inode) = self.inode {
            detail["inode"] = inode.into();
        }
        if let Some(bytes) = self.bytes {
            detail["bytes"] = bytes.into();
        }
        if let Some(follow_up) = &self.follow_up {
            detail["then"] = follow_up.to_json();
        }
        detail.to_string()
    }

    /// Parses an entry that [`Move::to_detail`] of this version or an earlier one wrote.
    pub(super) fn from_detail(detail: &str) -> Option<Move> {
        let value: Value = serde_json::from_str(detail).ok()?;
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let then = value.get("then");
        // An earlier version kept them inside the follow-up.
        let number = |key: &str| value.get(key).or_else(|| then?.get(key))?.as_u64();
        Some(Move {
            host: Host::from_text(&text("host")?),
            disk: match value.get("disk") {
                None => None,
                Some(disk) => Some(DiskId::from_text(disk.as_str()?)?),
            },
            inode: number("inode"),
            bytes: number("bytes"),
            base: text("base")?.into(),
            hidden: text("hidden")?,
            visible: text("visible")?,
            extension: text("extension")?,
            follow_up: match then {
                None => None,
                Some(then) => Some(FollowUp::from_json(then)?),
            },
        })
    }

    /// Publishes the file, or finds it published. Adds the changed folders to `changed`; the move
    /// is durable when they are synced.
    pub(super) fn apply(&self, changed: &mut BTreeSet<PathBuf>) -> io::Result<PublishOutcome> {
        match decide(self.inspect()?, self.bytes) {
            Verdict::Publish => self.publish(changed),
            Verdict::Published { is_visible: true } => Ok(PublishOutcome::Published),
            Verdict::Published { is_visible: false } => Ok(PublishOutcome::Taken),
            Verdict::NotHere(obstacle) => Ok(PublishOutcome::NotHere(obstacle)),
        }
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

    fn publish(&self, changed: &mut BTreeSet<PathBuf>) -> io::Result<PublishOutcome> {
        let (hidden, visible) = (self.base.join(&self.hidden), self.base.join(&self.visible));
        let Some(to) = visible.parent() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a file", visible.display()),
            ));
        };
        make_dirs(to)?;
        changed.extend(self.dirs());
        for number in 0..MAX_NAMES {
            let name = self.name(number);
            match rename_to_new(&hidden, &name) {
                // Another process was faster.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && !hidden.try_exists()? =>
                {
                    return Ok(PublishOutcome::Published);
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

    /// The folders of its hidden and its visible name.
    pub(super) fn dirs(&self) -> impl Iterator<Item = PathBuf> + use<> {
        [&self.hidden, &self.visible]
            .map(|name| self.base.join(name).parent().map(Path::to_owned))
            .into_iter()
            .flatten()
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

    /// The visible name without its folder.
    pub(super) fn file_name(&self) -> &str {
        self.visible
            .rsplit_once('/')
            .map_or(self.visible.as_str(), |(_, name)| name)
    }

    /// The file's name without its extension, and the extension with its dot.
    fn stem_and_ending(&self) -> (&str, String) {
        let (name, ending) = (self.file_name(), format!(".{}", self.extension));
        (name.strip_suffix(&ending).unwrap_or(name), ending)
    }

    /// The candidate name with this number: the visible name, then `name~1`, `name~2` …
    fn name(&self, number: u32) -> PathBuf {
        let visible = self.base.join(&self.visible);
        if number == 0 {
            return visible;
        }
        let (stem, ending) = self.stem_and_ending();
        visible.with_file_name(format!("{stem}~{number}{ending}"))
    }
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
        }
    }
}

/// The metadata of the file with this name; `None` if it does not exist.
fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
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

fn has_inode(path: &Path, inode: u64) -> io::Result<bool> {
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
        other => other?,
    }
    parent.map_or(Ok(()), sync_dir)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A base directory on a disk with an id, with a hidden file.
    fn a_disk() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        DiskId::of_or_new(dir.path()).unwrap();
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
        moving.apply(&mut BTreeSet::new()).unwrap()
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
    fn entries_round_trip_and_those_of_earlier_versions_are_parsed() {
        let dir = a_disk();
        let follow_up = FollowUp {
            records: 10,
            positions: serde_json::Map::new(),
            destination: None,
        };
        let moving = Move {
            follow_up: Some(follow_up.clone()),
            ..a_move(dir.path())
        };
        assert_eq!(Move::from_detail(&moving.to_detail()).unwrap(), moving);
        let plain = concat!(
            r#"{"host":"a b","base":"/data","hidden":".open/1.open","#,
            r#""visible":"a=1/x.json","extension":"json"}"#
        );
        let moving = Move::from_detail(plain).unwrap();
        assert_eq!(
            (moving.disk, moving.inode, moving.bytes, moving.follow_up),
            (None, None, None, None)
        );
        let then = r#","then":{"inode":7,"bytes":100,"records":10,"positions":{}}}"#;
        let moving = Move::from_detail(&plain.replace('}', then)).unwrap();
        assert_eq!(
            (moving.disk, moving.inode, moving.bytes, moving.follow_up),
            (None, Some(7), Some(100), Some(follow_up))
        );
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
    fn a_missing_hidden_name_means_published_only_on_the_same_disk() {
        let state = |disk: DiskMatch, is_visible: bool| DiskState::Gone { disk, is_visible };
        let published = |is_visible: bool| Verdict::Published { is_visible };
        let other = DiskId::from_text(&"0".repeat(32));
        let elsewhere = |disk: &Option<DiskId>| Verdict::NotHere(Obstacle::OtherDisk(disk.clone()));
        let cases = [
            (DiskState::Hidden(3), Verdict::Publish),
            (
                DiskState::Hidden(2),
                Verdict::NotHere(Obstacle::OtherSize {
                    found: 2,
                    committed: 3,
                }),
            ),
            (state(DiskMatch::Same, true), published(true)),
            (state(DiskMatch::Same, false), published(false)),
            (
                state(DiskMatch::Other(other.clone()), false),
                elsewhere(&other),
            ),
            (
                state(DiskMatch::Other(other.clone()), true),
                elsewhere(&other),
            ),
            (state(DiskMatch::Other(None), true), elsewhere(&None)),
            (state(DiskMatch::Unknown, true), published(true)),
            (
                state(DiskMatch::Unknown, false),
                Verdict::NotHere(Obstacle::UnknownDisk),
            ),
        ];
        for (state, expected) in cases {
            assert_eq!(decide(state.clone(), Some(3)), expected, "{state:?}");
        }
        assert_eq!(
            decide(DiskState::Hidden(2), None),
            Verdict::Publish,
            "an earlier version did not record the size"
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
