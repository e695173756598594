//! Gives finished files the names that readers look at.
//!
//! A finished file lies under a hidden name, on the same file system as the name it is to have. It
//! gets that name by one rename that never replaces anything, so a reader sees all of a file or
//! nothing of it. What has to be done is written down as a [`Move`], which every process can do,
//! again and again. [`decide`] says what is left to do from what is found on the disk.

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

/// How many names are tried when the wanted one is taken.
const MOST_NAMES: u32 = 10_000;

/// What has to be done to publish a file: a staged entry of the state store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The machine of the process that wrote it.
    pub(super) host: Host,
    /// The disk it is on; `None` in an entry of an earlier version, which did not say.
    pub(super) disk: Option<DiskId>,
    /// Its inode, which it keeps under every name; an earlier version wrote it down only where
    /// something follows.
    pub(super) inode: Option<u64>,
    /// Its size; as the inode.
    pub(super) bytes: Option<u64>,
    /// The base directory, an absolute path.
    pub(super) base: PathBuf,
    /// The hidden name below the base directory.
    pub(super) hidden: String,
    /// The name it gets below the base directory.
    pub(super) visible: String,
    /// The ending of that name; what makes another name unique goes before it.
    pub(super) extension: String,
    /// What has to be done afterwards, if anything.
    pub(super) follow_up: Option<FollowUp>,
}

/// What is found of a committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Traces {
    /// Its hidden name is there, with this many bytes.
    Hidden(u64),
    /// Its hidden name is not there.
    Gone {
        /// Whether this is the disk it was written to.
        disk: WhichDisk,
        /// Whether it is there under its visible name, or one like it.
        is_visible: bool,
    },
}

/// The disk that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WhichDisk {
    /// The one that the file was written to.
    Same,
    /// Another one, with this id if it has one.
    Other(Option<DiskId>),
    /// One or the other: the entry does not say which disk the file was written to.
    Unknown,
}

/// What has to be done with a committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has to get its name.
    Publish,
    /// It got its name; `is_visible` says whether it is still there.
    Published { is_visible: bool },
    /// It cannot be published here.
    NotHere(Obstacle),
}

/// Why a committed file cannot be published here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// This is another disk, with this id if it has one.
    OtherDisk(Option<DiskId>),
    /// Nothing of it is here, and the entry does not say which disk it is on.
    UnknownDisk,
    /// Its hidden file has another size than was committed.
    OtherSize { found: u64, committed: u64 },
}

/// Whether a file of `bytes` bytes, of which this was found, is published, has to be, or cannot be.
pub(super) fn decide(traces: Traces, bytes: Option<u64>) -> Verdict {
    match traces {
        Traces::Hidden(found) => match bytes.filter(|bytes| *bytes != found) {
            None => Verdict::Publish,
            Some(committed) => Verdict::NotHere(Obstacle::OtherSize { found, committed }),
        },
        // Only where the file was written does a hidden name that is gone mean that the file got
        // its visible one.
        Traces::Gone {
            disk: WhichDisk::Same,
            is_visible,
        } => Verdict::Published { is_visible },
        Traces::Gone {
            disk: WhichDisk::Other(found),
            ..
        } => Verdict::NotHere(Obstacle::OtherDisk(found)),
        Traces::Gone {
            disk: WhichDisk::Unknown,
            is_visible: true,
        } => Verdict::Published { is_visible: true },
        Traces::Gone {
            disk: WhichDisk::Unknown,
            is_visible: false,
        } => Verdict::NotHere(Obstacle::UnknownDisk),
    }
}

/// The result of publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has its name, or had it already.
    Published,
    /// It had its name, and is no longer there: a reader has taken it.
    Taken,
    /// It cannot be published here.
    NotHere(Obstacle),
}

impl Move {
    /// The entry as text for the state store.
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

    /// The entry that [`Move::to_detail`] wrote, in this version or an earlier one.
    pub(super) fn from_detail(detail: &str) -> Option<Move> {
        let value: Value = serde_json::from_str(detail).ok()?;
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let then = value.get("then");
        // An earlier version kept them with what follows.
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

    /// Publishes the file, or finds it published. The folders that changed are added to `changed`;
    /// the move survives a crash when they are synced.
    pub(super) fn apply(&self, changed: &mut BTreeSet<PathBuf>) -> io::Result<Outcome> {
        match decide(self.look()?, self.bytes) {
            Verdict::Publish => self.publish(changed),
            Verdict::Published { is_visible: true } => Ok(Outcome::Published),
            Verdict::Published { is_visible: false } => Ok(Outcome::Taken),
            Verdict::NotHere(obstacle) => Ok(Outcome::NotHere(obstacle)),
        }
    }

    /// Looks for the file.
    fn look(&self) -> io::Result<Traces> {
        let hidden = self.base.join(&self.hidden);
        if let Some(found) = metadata(&hidden)? {
            return Ok(Traces::Hidden(found.len()));
        }
        let disk = match &self.disk {
            Some(written) => match DiskId::of(&self.base)? {
                Some(found) if found == *written => WhichDisk::Same,
                found => WhichDisk::Other(found),
            },
            // The folder's name is that of one run of one process, so it is nowhere but on the disk
            // that the process wrote to.
            None if hidden.parent().is_some_and(Path::is_dir) => WhichDisk::Same,
            None => WhichDisk::Unknown,
        };
        Ok(Traces::Gone {
            disk,
            is_visible: self.find_published()?.is_some(),
        })
    }

    fn publish(&self, changed: &mut BTreeSet<PathBuf>) -> io::Result<Outcome> {
        let (hidden, visible) = (self.base.join(&self.hidden), self.base.join(&self.visible));
        let Some(to) = visible.parent() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is not a file", visible.display()),
            ));
        };
        make_dirs(to)?;
        changed.extend(self.dirs());
        for number in 0..MOST_NAMES {
            let name = self.name(number);
            match rename_to_new(&hidden, &name) {
                // Another process was faster.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && !hidden.try_exists()? =>
                {
                    return Ok(Outcome::Published);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| Outcome::Published),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} exists, and so do all names like it", visible.display()),
        ))
    }

    /// The folders of its two names.
    pub(super) fn dirs(&self) -> impl Iterator<Item = PathBuf> + use<> {
        [&self.hidden, &self.visible]
            .map(|name| self.base.join(name).parent().map(Path::to_owned))
            .into_iter()
            .flatten()
    }

    /// The name with which the file was published, if it is still there. A file has its inode for
    /// life, and nothing else of its name.
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

    /// Says why the file cannot be published here, and what to do.
    pub(super) fn explain<'a>(&'a self, obstacle: &'a Obstacle) -> impl fmt::Display + 'a {
        Explained {
            moving: self,
            obstacle,
        }
    }

    /// The visible name in its folder.
    pub(super) fn file_name(&self) -> &str {
        self.visible
            .rsplit_once('/')
            .map_or(self.visible.as_str(), |(_, name)| name)
    }

    /// The file's name, parted before its ending.
    fn stem_and_ending(&self) -> (&str, String) {
        let (name, ending) = (self.file_name(), format!(".{}", self.extension));
        (name.strip_suffix(&ending).unwrap_or(name), ending)
    }

    /// The name, and if that is taken `name~1`, `name~2` …
    fn name(&self, number: u32) -> PathBuf {
        let visible = self.base.join(&self.visible);
        if number == 0 {
            return visible;
        }
        let (stem, ending) = self.stem_and_ending();
        visible.with_file_name(format!("{stem}~{number}{ending}"))
    }
}

/// An obstacle in words.
struct Explained<'a> {
    moving: &'a Move,
    obstacle: &'a Obstacle,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.moving.base.display();
        match self.obstacle {
            Obstacle::OtherDisk(found) => {
                let wanted = self.moving.disk.as_ref().map_or("unknown", DiskId::as_str);
                write!(out, "it was written to the disk {wanted}, but {base} ")?;
                match found {
                    Some(found) => write!(out, "is on the disk {}", found.as_str())?,
                    None => write!(out, "has no disk id")?,
                }
                write!(
                    out,
                    ". help: mount the disk; if this is the disk and its id was removed, `echo {wanted} > {base}/{OPEN}/disk`"
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
                    "an earlier version wrote it, without the id of the disk, and nothing of it is in {base}. help: mount the disk; if this is the                      disk and a reader has taken the file, `mkdir -p {base}/{folder}`"
                )
            }
            Obstacle::OtherSize { found, committed } => write!(
                out,
                "{base}/{} has {found} bytes, but {committed} were committed. help: restore it from the disk that it was written to",
                self.moving.hidden
            ),
        }
    }
}

/// What a name leads to, if anything.
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

/// Renames without replacing anything.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system (NFS, for one) cannot do it; a second name and then the removal of the
        // first is the same, unless we die between.
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

/// Makes a folder and what is missing above it, lastingly.
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

/// Makes the names in a folder lasting.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        // Some file systems cannot, and need not, sync a folder.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// Makes the names in folders lasting; a folder that is gone has none.
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

    /// How the hidden file is published.
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

    /// The entry that an earlier version would have written.
    fn without_disk(moving: &Move) -> Move {
        Move {
            disk: None,
            inode: None,
            bytes: None,
            ..moving.clone()
        }
    }

    fn apply(moving: &Move) -> Outcome {
        moving.apply(&mut BTreeSet::new()).unwrap()
    }

    fn content(base: &Path, name: &str) -> Option<String> {
        fs::read_to_string(base.join(name)).ok()
    }

    #[test]
    fn a_move_is_done_once_however_often_it_is_asked_for() {
        let dir = a_disk();
        let moving = Move::from_detail(&a_move(dir.path()).to_detail()).unwrap();
        assert_eq!(moving, a_move(dir.path()));
        for moving in [moving.clone(), moving.clone(), without_disk(&moving)] {
            assert_eq!(apply(&moving), Outcome::Published);
            assert_eq!(
                content(dir.path(), "a=1/clicks-3-000.json.gz").unwrap(),
                "one"
            );
        }
        fs::remove_file(dir.path().join("a=1/clicks-3-000.json.gz")).unwrap();
        assert_eq!(apply(&moving), Outcome::Taken);
    }

    #[test]
    fn the_entry_holds_all_of_it_and_those_of_earlier_versions_are_understood() {
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
        let plain = r#"{"host":"a b","base":"/data","hidden":".open/1.open","visible":"a=1/x.json","extension":"json"}"#;
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
    fn nothing_is_replaced() {
        let dir = a_disk();
        for number in 0..3 {
            hide(dir.path(), &number.to_string());
            assert_eq!(apply(&a_move(dir.path())), Outcome::Published);
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
    fn only_on_its_disk_is_a_file_without_a_hidden_name_published() {
        let traces = |disk: WhichDisk, is_visible: bool| Traces::Gone { disk, is_visible };
        let published = |is_visible: bool| Verdict::Published { is_visible };
        let other = DiskId::from_text(&"0".repeat(32));
        let elsewhere = |disk: &Option<DiskId>| Verdict::NotHere(Obstacle::OtherDisk(disk.clone()));
        let cases = [
            (Traces::Hidden(3), Verdict::Publish),
            (
                Traces::Hidden(2),
                Verdict::NotHere(Obstacle::OtherSize {
                    found: 2,
                    committed: 3,
                }),
            ),
            (traces(WhichDisk::Same, true), published(true)),
            (traces(WhichDisk::Same, false), published(false)),
            (
                traces(WhichDisk::Other(other.clone()), false),
                elsewhere(&other),
            ),
            (
                traces(WhichDisk::Other(other.clone()), true),
                elsewhere(&other),
            ),
            (traces(WhichDisk::Other(None), true), elsewhere(&None)),
            (traces(WhichDisk::Unknown, true), published(true)),
            (
                traces(WhichDisk::Unknown, false),
                Verdict::NotHere(Obstacle::UnknownDisk),
            ),
        ];
        for (traces, expected) in cases {
            assert_eq!(decide(traces.clone(), Some(3)), expected, "{traces:?}");
        }
        assert_eq!(
            decide(Traces::Hidden(2), None),
            Verdict::Publish,
            "an earlier version did not write the size down"
        );
    }

    #[test]
    fn a_file_of_another_disk_is_never_taken_for_published() {
        let (dir, other) = (a_disk(), a_disk());
        let moving = a_move(dir.path());
        // The same machine, the same path, the bucket's folder there, and even a file of that name:
        // only the disk is another one.
        let elsewhere = Move {
            base: other.path().to_owned(),
            ..moving.clone()
        };
        fs::remove_dir_all(other.path().join(".open")).unwrap();
        fs::create_dir(other.path().join("a=1")).unwrap();
        fs::write(other.path().join("a=1/clicks-3-000.json.gz"), "another").unwrap();
        let Outcome::NotHere(obstacle) = apply(&elsewhere) else {
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
            Outcome::NotHere(Obstacle::OtherDisk(None)),
            "a mount point without its disk"
        );
        assert_eq!(apply(&moving), Outcome::Published, "its own disk");
    }

    #[test]
    fn without_the_id_of_a_disk_the_folder_of_the_writing_run_tells_it() {
        let dir = a_disk();
        let moving = without_disk(&a_move(dir.path()));
        fs::remove_dir_all(dir.path().join(".open")).unwrap();
        fs::create_dir(dir.path().join("a=1")).unwrap();
        let Outcome::NotHere(obstacle) = apply(&moving) else {
            panic!("nothing of it is here")
        };
        let reason = moving.explain(&obstacle).to_string();
        let help = format!("mkdir -p {}/.open", dir.path().display());
        assert!(
            obstacle == Obstacle::UnknownDisk && reason.contains(&help),
            "{reason}"
        );
        fs::create_dir(dir.path().join(".open")).unwrap();
        assert_eq!(apply(&moving), Outcome::Taken, "as the help says");
    }

    #[test]
    fn a_file_that_was_cut_off_is_not_published() {
        let dir = a_disk();
        let moving = a_move(dir.path());
        hide(dir.path(), "on");
        assert_eq!(
            apply(&moving),
            Outcome::NotHere(Obstacle::OtherSize {
                found: 2,
                committed: 3
            })
        );
        assert_eq!(content(dir.path(), ".open/1.open").unwrap(), "on");
        hide(dir.path(), "one");
        assert_eq!(apply(&moving), Outcome::Published);
    }

    #[test]
    fn without_a_careful_rename_a_second_name_does() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "one").unwrap();
        link_and_remove(&from, &to).unwrap();
        assert!(!from.exists());
        fs::hard_link(&to, &from).unwrap();
        link_and_remove(&from, &to).unwrap();
        assert!(!from.exists(), "it had died between the two steps");
        fs::write(&from, "two").unwrap();
        assert_eq!(
            link_and_remove(&from, &to).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read_to_string(&to).unwrap(), "one");
    }
}
