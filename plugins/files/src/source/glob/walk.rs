//! Walks the folders of a glob.
//!
//! Behind `**` each folder is read once, however many symbolic links lead to it, so a link to a
//! folder above is not followed in a circle. Folders that are reached without links come
//! first. Names need not be UTF-8: for a wildcard, a byte that is not UTF-8 is some character.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use super::is_hidden;

/// A component of a glob.
enum Part {
    /// A name without wildcards.
    Name(PathBuf),
    Wildcards(Pattern),
    /// `**`: any folders.
    AnyFolders,
}

/// An entry of a folder.
struct Entry {
    name: String,
    path: PathBuf,
    /// `None` if it is not known.
    kind: Option<FileType>,
}

/// A walk, with what it has found so far.
pub(super) struct Walk {
    parts: Vec<Part>,
    /// Whether a part from the first wildcard on is a name with a leading dot. Otherwise hidden
    /// names are left out: a folder behind one may be linked to by a name that is not hidden.
    takes_hidden: bool,
    /// Folders that are still to be read, each with the number of the part that is next.
    folders: VecDeque<(PathBuf, usize)>,
    /// The folders that were read for each `**`: device, inode and the number of the part.
    seen: HashSet<(u64, u64, usize)>,
    /// The paths that match.
    pub(super) paths: Vec<PathBuf>,
    /// The folders that cannot be read.
    pub(super) refused: Vec<(PathBuf, io::Error)>,
}

impl Walk {
    /// Walks from `base`, or from the root if the glob is absolute.
    pub(super) fn of(glob: &Path, base: &Path) -> io::Result<Walk> {
        let mut start = base.to_owned();
        let mut parts = Vec::new();
        let mut takes_hidden = false;
        for component in glob.components() {
            let name = component.as_os_str();
            let text = name.to_string_lossy();
            let is_behind = parts.iter().any(|part| !matches!(part, Part::Name(_)));
            let is_wildcard = Pattern::escape(&text) != text;
            takes_hidden |= (is_behind || is_wildcard) && is_hidden(component);
            match component {
                Component::RootDir => start = PathBuf::from("/"),
                Component::Normal(_) if text == "**" => parts.push(Part::AnyFolders),
                Component::Normal(_) if is_wildcard => {
                    let pattern = Pattern::new(&text)
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                    parts.push(Part::Wildcards(pattern));
                }
                Component::CurDir => {}
                _ => parts.push(Part::Name(name.into())),
            }
        }
        let mut walk = Walk {
            parts,
            takes_hidden,
            folders: VecDeque::from([(start, 0)]),
            seen: HashSet::new(),
            paths: Vec::new(),
            refused: Vec::new(),
        };
        while let Some((folder, part)) = walk.folders.pop_front() {
            walk.read(folder, part)?;
        }
        Ok(walk)
    }

    /// Adds what is in a folder, given the number of the part that is next.
    fn read(&mut self, folder: PathBuf, part: usize) -> io::Result<()> {
        match self.parts.get(part) {
            // `**` is the last part.
            None => {
                self.paths.push(folder);
                Ok(())
            }
            Some(Part::Name(name)) => {
                let path = folder.join(name);
                if path.symlink_metadata().is_ok() {
                    self.add(path, part + 1, None);
                }
                Ok(())
            }
            Some(Part::Wildcards(_)) => {
                for Entry { name, path, kind } in self.entries(&folder)? {
                    if matches!(&self.parts[part], Part::Wildcards(it) if it.matches(&name)) {
                        self.add(path, part + 1, kind);
                    }
                }
                Ok(())
            }
            Some(Part::AnyFolders) => {
                let Ok(metadata) = folder.metadata() else {
                    return Ok(());
                };
                if !self.seen.insert((metadata.dev(), metadata.ino(), part)) {
                    return Ok(());
                }
                for Entry { path, kind, .. } in self.entries(&folder)? {
                    let is_link = kind.is_none_or(|kind| kind.is_symlink());
                    if kind.is_some_and(|kind| kind.is_dir()) {
                        self.folders.push_front((path, part));
                    } else if is_link && path.is_dir() {
                        self.folders.push_back((path, part));
                    }
                }
                self.read(folder, part + 1)
            }
        }
    }

    /// Adds a path that matches all parts before this one.
    fn add(&mut self, path: PathBuf, part: usize, kind: Option<FileType>) {
        if part == self.parts.len() {
            self.paths.push(path);
            return;
        }
        let may_be_folder = kind.is_none_or(|kind| kind.is_dir() || kind.is_symlink());
        if may_be_folder && path.is_dir() {
            self.folders.push_front((path, part));
        }
    }

    /// The entries of a folder.
    fn entries(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let entries =
            fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        match entries {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter(|entry| {
                    let name = entry.file_name();
                    self.takes_hidden || !name.as_encoded_bytes().starts_with(b".")
                })
                .map(|entry| Entry {
                    name: entry.file_name().to_string_lossy().into_owned(),
                    path: entry.path(),
                    kind: entry.file_type().ok(),
                })
                .collect()),
            // It was removed meanwhile.
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
            Err(error) if error.kind() == PermissionDenied => {
                self.refused.push((folder.to_owned(), error));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}
