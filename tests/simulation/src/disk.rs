//! Disks, and the machines that have them mounted.
//!
//! A disk is a folder; every machine sees the disk that it has mounted under the same path. Only
//! one instance runs at a time, so one symbolic link is enough: it points to the disk of the
//! machine whose instance continues. A machine whose disk is not mounted sees the folder of the
//! same name on its root disk. A process that is killed sees nothing at all, so what its
//! destructors would clean up stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::full_disk::{Fullness, set_full};

/// The name under which every machine sees its disk.
pub(crate) const MOUNT_POINT: &str = "out";
/// The folder on every disk to which files are moved.
pub(crate) const LAKE: &str = "lake";
const NEXT: &str = "next";
const NOTHING: &str = "nothing";
/// The folder of all unfinished files, on every disk.
const OPEN: &str = ".pseidon-open";

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disk {
    /// One that can be mounted anywhere.
    Data(usize),
    /// The root disk of a machine.
    Root(usize),
}

/// All disks of a run, in a folder that is removed with it.
pub(crate) struct Disks {
    dir: PathBuf,
    /// The disk that each machine has mounted.
    pub(crate) mounted: Vec<Disk>,
    seen: Option<Disk>,
    /// The full disks.
    full: BTreeMap<Disk, Fullness>,
    /// The number of data disks.
    count: usize,
    /// The files that readers have taken away, with their contents.
    taken: Vec<VisibleFile>,
}

/// A file that readers see.
#[derive(Clone, Debug)]
pub(crate) struct VisibleFile {
    /// The path below the disk's folder.
    pub(crate) folder: String,
    pub(crate) name: String,
    pub(crate) content: String,
}

/// The content of all disks.
#[derive(Default)]
pub(crate) struct DiskContents {
    pub(crate) visible: Vec<VisibleFile>,
    /// The paths of hidden files, except the one that names the disk.
    pub(crate) hidden: Vec<PathBuf>,
}

impl Disks {
    /// Creates data disks for this many machines. `are_equal` assigns all disks the same id.
    pub(crate) fn new(dir: PathBuf, machines: usize, count: usize, are_equal: bool) -> Disks {
        let made = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(NOTHING), ""));
        let disks = Disks {
            dir,
            mounted: (0..machines)
                .map(|machine| Disk::Data(machine % count))
                .collect(),
            seen: None,
            full: BTreeMap::new(),
            count,
            taken: Vec::new(),
        };
        let all: Vec<Disk> = disks.all().collect();
        let made = made.and_then(|()| {
            all.into_iter()
                .try_for_each(|disk| fs::create_dir(disks.folder(disk)))
        });
        let made = made.and_then(|()| {
            if are_equal {
                disks.make_equal()
            } else {
                Ok(())
            }
        });
        made.unwrap_or_else(|error| {
            panic!(
                "the simulation needs a folder {}: {error}",
                disks.dir.display()
            )
        });
        disks
    }

    /// Every disk.
    pub(crate) fn all(&self) -> impl Iterator<Item = Disk> + use<> {
        (0..self.count)
            .map(Disk::Data)
            .chain((0..self.mounted.len()).map(Disk::Root))
    }

    fn make_equal(&self) -> io::Result<()> {
        for disk in self.all() {
            let id = self
                .folder(disk)
                .join(OPEN)
                .join("disk")
                .join("0".repeat(32));
            fs::create_dir_all(id)?;
        }
        Ok(())
    }

    /// A path without the folder of this run.
    pub(crate) fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.dir)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// A sentence without the folder of this run.
    pub(crate) fn without_dir(&self, text: &str) -> String {
        text.replace(&*self.dir.to_string_lossy(), "")
    }

    /// Whether there are unfinished files on a disk.
    pub(crate) fn has_hidden(&self, disk: Disk) -> bool {
        let mut hidden = Vec::new();
        hidden_paths(&self.folder(disk).join(OPEN), &mut hidden);
        !hidden.is_empty()
    }

    /// The folder in which the pipeline file would be.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn folder(&self, disk: Disk) -> PathBuf {
        self.dir.join(match disk {
            Disk::Data(number) => format!("disk{number}"),
            Disk::Root(machine) => format!("root{machine}"),
        })
    }

    /// Points the mount point to the disk of this machine.
    pub(crate) fn mount_for(&mut self, machine: usize) {
        let disk = self.mounted[machine];
        if self.seen != Some(disk) {
            self.point_to(&self.folder(disk));
            self.seen = Some(disk);
        }
        set_full(self.full.get(&disk).copied());
    }

    /// Makes room on the disk if it was full, or fills it in this way. Returns how full it is now.
    pub(crate) fn clear_or_fill(&mut self, disk: Disk, full: Fullness) -> Option<Fullness> {
        if self.full.remove(&disk).is_none() {
            self.full.insert(disk, full);
        }
        self.full.get(&disk).copied()
    }

    /// Makes room on all disks.
    pub(crate) fn clear_all(&mut self) {
        self.full.clear();
    }

    /// Makes the mount point unreachable.
    pub(crate) fn unmount(&mut self) {
        self.point_to(&self.dir.join(NOTHING));
        self.seen = None;
        set_full(None);
    }

    fn point_to(&self, target: &Path) {
        let next = self.dir.join(NEXT);
        let pointed =
            symlink(target, &next).and_then(|()| fs::rename(&next, self.dir.join(MOUNT_POINT)));
        pointed.unwrap_or_else(|error| {
            panic!(
                "cannot point {MOUNT_POINT} to {}: {error}",
                target.display()
            )
        });
    }

    /// A reader takes a visible file away from a disk, if there is any.
    pub(crate) fn read_one(&mut self, choose: impl FnOnce(usize) -> usize) -> Option<String> {
        let mut paths = Vec::new();
        (0..self.count).for_each(|disk| visible_paths(&self.folder(Disk::Data(disk)), &mut paths));
        paths.sort();
        if paths.is_empty() {
            return None;
        }
        let path = paths.swap_remove(choose(paths.len()));
        let file = read(&path);
        fs::remove_file(&path).ok()?;
        let name = format!("{}/{}", file.folder, file.name);
        self.taken.push(file);
        Some(name)
    }

    /// The visible files on all disks that are where they were published.
    pub(crate) fn unmoved(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        self.all()
            .for_each(|disk| visible_paths(&self.folder(disk), &mut paths));
        paths.retain(|path| !path.components().any(|part| part.as_os_str() == LAKE));
        paths
    }

    /// Everything on all disks, and what readers have taken.
    pub(crate) fn find_all(&self) -> DiskContents {
        let mut found = DiskContents {
            visible: self.taken.clone(),
            hidden: Vec::new(),
        };
        for disk in self.all() {
            let mut paths = Vec::new();
            visible_paths(&self.folder(disk), &mut paths);
            found.visible.extend(paths.iter().map(|path| read(path)));
            hidden_paths(&self.folder(disk).join(OPEN), &mut found.hidden);
        }
        found
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // A folder that remains costs nothing but space.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn read(path: &Path) -> VisibleFile {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let folder = path.parent().map(name).unwrap_or_default();
    VisibleFile {
        folder,
        name: name(path),
        content: fs::read_to_string(path).unwrap_or_default(),
    }
}

fn visible_paths(dir: &Path, found: &mut Vec<PathBuf>) {
    walk(dir, &mut |path, is_dir| {
        if is_dir {
            return !path.ends_with(OPEN);
        }
        found.push(path.to_owned());
        false
    });
}

fn hidden_paths(dir: &Path, found: &mut Vec<PathBuf>) {
    walk(dir, &mut |path, is_dir| {
        if !is_dir {
            found.push(path.to_owned());
        }
        true
    });
}

/// Calls `visit` for everything below `dir`; for a folder it returns whether to descend into it.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path, bool) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if visit(&path, is_dir) && is_dir {
            walk(&path, visit);
        }
    }
}

/// The records of a file by split, each with the positions in their order in the file.
pub(crate) fn records(content: &str) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in content.lines() {
        let (split, position) = line.rsplit_once('@').unwrap_or((line, ""));
        found
            .entry(split.to_owned())
            .or_default()
            .push(position.parse().unwrap_or(u64::MAX));
    }
    found
}
