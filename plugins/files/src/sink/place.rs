//! Putting finished files where readers look.
//!
//! A finished file lies under a hidden name, on the same file system as the name it is to have. It gets that name by one rename that never
//! replaces anything, so a reader sees all of a file or nothing of it. What has to be done is written down as a [`Move`], which anybody can
//! do, again and again: whoever finds the hidden file gone knows that it was done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::follow_up::FollowUp;

/// How many names are tried when the wanted one is taken.
const MOST_NAMES: u32 = 10_000;

/// The machine that wrote a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    /// Names the time since the machine was started last. Containers have names of their own, but share this.
    boot: String,
}

impl Host {
    /// This machine.
    pub(super) fn this() -> Host {
        let read = |name: &str| fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).unwrap_or_default().trim().to_owned();
        Host { name: read("hostname"), boot: read("random/boot_id") }
    }

    /// Whether it is this machine, whose locks can be trusted and whose disks are ours.
    pub(super) fn is(&self, other: &Host) -> bool {
        (!self.name.is_empty() && self.name == other.name) || (!self.boot.is_empty() && self.boot == other.boot)
    }

    /// As text; see [`Host::from_text`].
    pub(super) fn to_text(&self) -> String {
        format!("{} {}", self.name, self.boot)
    }

    /// From such a text.
    pub(super) fn from_text(text: &str) -> Host {
        let (name, boot) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Host { name: name.to_owned(), boot: boot.to_owned() }
    }
}

/// What has to be done to publish a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// Where it was written.
    pub(super) host: Host,
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

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has its name, or had it already.
    Done,
    /// It is not here: another machine wrote it, or the disk it is on is not there.
    NotHere,
}

impl Move {
    /// As text for the state store.
    pub(super) fn to_detail(&self) -> String {
        let mut detail = json!({
            "host": self.host.to_text(),
            "base": self.base.to_string_lossy(),
            "hidden": self.hidden,
            "visible": self.visible,
            "extension": self.extension,
        });
        if let Some(follow_up) = &self.follow_up {
            detail["then"] = follow_up.to_json();
        }
        detail.to_string()
    }

    /// From what [`Move::to_detail`] gave.
    pub(super) fn from_detail(detail: &str) -> Option<Move> {
        let value: Value = serde_json::from_str(detail).ok()?;
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        Some(Move {
            host: Host::from_text(&text("host")?),
            base: text("base")?.into(),
            hidden: text("hidden")?,
            visible: text("visible")?,
            extension: text("extension")?,
            follow_up: match value.get("then") {
                None => None,
                Some(then) => Some(FollowUp::from_json(then)?),
            },
        })
    }

    /// Does it, or finds it done. The folders that changed are added to `changed`; the move is lasting when they are synced.
    pub(super) fn apply(&self, here: &Host, changed: &mut BTreeSet<PathBuf>) -> io::Result<Outcome> {
        let (hidden, visible) = (self.base.join(&self.hidden), self.base.join(&self.visible));
        if !hidden.try_exists()? {
            return Ok(self.found_gone(here, &hidden, &visible));
        }
        let (Some(from), Some(to)) = (hidden.parent(), visible.parent()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a file", visible.display())));
        };
        make_dirs(to)?;
        changed.extend([from.to_owned(), to.to_owned()]);
        for number in 0..MOST_NAMES {
            let name = self.name(number);
            match rename_to_new(&hidden, &name) {
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !hidden.try_exists()? => return Ok(Outcome::Done),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| Outcome::Done),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists, and so do all names like it", visible.display())))
    }

    /// A hidden file that is gone has got its name, unless we look at the wrong disk. The file itself may have been taken away by its reader.
    fn found_gone(&self, here: &Host, hidden: &Path, visible: &Path) -> Outcome {
        let is_dir = |path: Option<&Path>| path.is_some_and(Path::is_dir);
        let is_right_disk = is_dir(hidden.parent()) || is_dir(visible.parent());
        if visible.exists() || (self.host.is(here) && is_right_disk) { Outcome::Done } else { Outcome::NotHere }
    }

    /// The name with which the file was published, if it is still there. A file has its inode for life, and nothing else of its name.
    pub(super) fn find_published(&self, inode: u64) -> io::Result<Option<PathBuf>> {
        let visible = self.base.join(&self.visible);
        if has_inode(&visible, inode)? {
            return Ok(Some(visible));
        }
        let entries = match visible.parent().map(fs::read_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Some(Ok(entries)) => entries,
            _ => return Ok(None),
        };
        let (stem, ending) = self.stem_and_ending();
        let begin = format!("{stem}~");
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let is_like_it = name.to_str().is_some_and(|name| name.starts_with(&begin) && name.ends_with(&ending));
            if is_like_it && has_inode(&entry.path(), inode)? {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// The visible name in its folder.
    pub(super) fn file_name(&self) -> &str {
        self.visible.rsplit_once('/').map_or(self.visible.as_str(), |(_, name)| name)
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

fn has_inode(path: &Path, inode: u64) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.ino() == inode),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renames without replacing anything.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system (NFS, for one) cannot do it; a second name and then the removal of the first is the same, unless we die between.
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

    fn a_move(base: &Path) -> Move {
        Move {
            host: Host::this(),
            base: base.to_owned(),
            hidden: ".open/1.open".into(),
            visible: "a=1/clicks-3-000.json.gz".into(),
            extension: "json.gz".into(),
            follow_up: None,
        }
    }

    fn content(base: &Path, name: &str) -> Option<String> {
        fs::read_to_string(base.join(name)).ok()
    }

    #[test]
    fn a_move_is_done_once_however_often_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (base, here) = (dir.path(), Host::this());
        let moving = Move::from_detail(&a_move(base).to_detail()).unwrap();
        assert_eq!(moving, a_move(base));
        fs::create_dir(base.join(".open")).unwrap();
        fs::write(base.join(".open/1.open"), "one").unwrap();
        for _ in 0..3 {
            assert_eq!(moving.apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::Done);
            assert_eq!(content(base, "a=1/clicks-3-000.json.gz").unwrap(), "one");
        }
        fs::remove_file(base.join("a=1/clicks-3-000.json.gz")).unwrap();
        assert_eq!(moving.apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::Done, "its reader took it away");
    }

    #[test]
    fn what_follows_is_kept_and_may_be_missing() {
        let base = Path::new("/data");
        let positions = serde_json::Map::new();
        let follow_up = FollowUp { inode: 7, bytes: 100, records: 10, positions, destination: None };
        let moving = Move { follow_up: Some(follow_up), ..a_move(base) };
        assert_eq!(Move::from_detail(&moving.to_detail()).unwrap(), moving);
        let before_there_was_any = r#"{"host":"a b","base":"/data","hidden":".open/1.open","visible":"a=1/x.json","extension":"json"}"#;
        assert_eq!(Move::from_detail(before_there_was_any).unwrap().follow_up, None);
    }

    #[test]
    fn nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        fs::create_dir(base.join(".open")).unwrap();
        for number in 0..3 {
            fs::write(base.join(".open/1.open"), number.to_string()).unwrap();
            assert_eq!(a_move(base).apply(&Host::this(), &mut BTreeSet::new()).unwrap(), Outcome::Done);
        }
        let names = ["a=1/clicks-3-000.json.gz", "a=1/clicks-3-000~1.json.gz", "a=1/clicks-3-000~2.json.gz"];
        assert_eq!(names.map(|name| content(base, name).unwrap()), ["0", "1", "2"]);
    }

    #[test]
    fn what_is_elsewhere_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let here = Host::this();
        assert_eq!(a_move(dir.path()).apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::NotHere, "nothing of it is here");
        fs::create_dir(dir.path().join("a=1")).unwrap();
        assert_eq!(a_move(dir.path()).apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::Done);
        let mut other = a_move(dir.path());
        other.host = Host::from_text("elsewhere 1234");
        assert_eq!(other.apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::NotHere, "another machine's file");
        fs::write(dir.path().join("a=1/clicks-3-000.json.gz"), "one").unwrap();
        assert_eq!(other.apply(&here, &mut BTreeSet::new()).unwrap(), Outcome::Done);
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
        assert_eq!(link_and_remove(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&to).unwrap(), "one");
    }

    #[test]
    fn a_machine_is_known_by_its_name_or_by_its_start() {
        let this = Host::this();
        assert!(this.is(&Host::from_text(&this.to_text())));
        assert!(Host::from_text("a 1").is(&Host::from_text("a 2")));
        assert!(Host::from_text("a 1").is(&Host::from_text("b 1")));
        assert!(!Host::from_text("a 1").is(&Host::from_text("b 2")));
        assert!(!Host::from_text("").is(&Host::from_text("")));
    }
}
