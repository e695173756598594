//! Looks at the output again and again while instances run and die: a reader must never see a file that is incomplete, and a file that it
//! has seen must stay as it was.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::output;

/// A thread that looks.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Watched>>,
}

#[derive(Default)]
struct Watched {
    files: HashMap<PathBuf, Seen>,
    violations: Vec<String>,
}

/// A file as it was when it was seen first.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    inode: u64,
    modified: (i64, i64),
    size: u64,
    hash: u64,
}

impl Watcher {
    /// Starts to look at the visible files below these folders.
    pub(crate) fn start(folders: &[PathBuf]) -> Watcher {
        let (stop, folders) = (Arc::new(AtomicBool::new(false)), folders.to_vec());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut watched = Watched::default();
            while !stopped.load(Ordering::Relaxed) && watched.violations.is_empty() {
                let began = Instant::now();
                watched.look(&folders);
                std::thread::sleep((began.elapsed() * 2).max(Duration::from_millis(10)));
            }
            watched.look(&folders);
            watched
        });
        Watcher { stop, thread: Some(thread) }
    }

    /// Ends looking; panics if anything was wrong.
    pub(crate) fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self.thread.take().expect("it was started").join().expect("the watcher does not panic");
        assert!(watched.violations.is_empty(), "readers saw:\n{}", watched.violations.join("\n"));
        for (path, seen) in &watched.files {
            let content = fs::read(path).unwrap_or_else(|error| panic!("{} was visible and cannot be read now: {error}", path.display()));
            assert_eq!(seen.hash, hash(&content), "{} has other content than when it was seen first", path.display());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    fn look(&mut self, folders: &[PathBuf]) {
        let mut there = Vec::new();
        folders.iter().for_each(|folder| output::visible_files(folder, &mut there));
        for path in &there {
            if let Err(violation) = self.look_at(path) {
                self.violations.push(format!("{}: {violation}", path.display()));
            }
        }
        if there.len() < self.files.len() {
            let gone = self.files.keys().filter(|path| !there.contains(path));
            self.violations.extend(gone.map(|path| format!("{}: was visible and is gone", path.display())));
        }
    }

    fn look_at(&mut self, path: &Path) -> Result<(), String> {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let now = (metadata.ino(), modified, metadata.len());
        match self.files.get(path) {
            Some(seen) if (seen.inode, seen.modified, seen.size) == now => Ok(()),
            Some(seen) => Err(format!("has changed: it was {seen:?} and is now {now:?}")),
            None => {
                let content = fs::read(path).map_err(|error| error.to_string())?;
                output::must_be_complete(path, &content)?;
                let seen = Seen { inode: now.0, modified, size: now.2, hash: hash(&content) };
                self.files.insert(path.to_owned(), seen);
                Ok(())
            }
        }
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
