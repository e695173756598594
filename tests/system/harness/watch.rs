//! Looks at the output again and again while instances run and die: a reader must never see a file
//! that is incomplete, and a file that it has seen must stay as it was.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{output, wait_until};

/// A thread that looks.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    records: Arc<AtomicU64>,
    thread: Option<JoinHandle<Watched>>,
}

#[derive(Default)]
struct Watched {
    files: HashMap<PathBuf, Seen>,
    records: Arc<AtomicU64>,
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
        let (stop, records, folders) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
            folders.to_vec(),
        );
        let (stopped, counted) = (stop.clone(), records.clone());
        let thread = std::thread::spawn(move || {
            let mut watched = Watched {
                records: counted,
                ..Watched::default()
            };
            while !stopped.load(Ordering::Relaxed) && watched.violations.is_empty() {
                let began = Instant::now();
                watched.look(&folders);
                std::thread::sleep((began.elapsed() * 2).max(Duration::from_millis(10)));
            }
            watched.look(&folders);
            watched
        });
        Watcher {
            stop,
            records,
            thread: Some(thread),
        }
    }

    /// How many records were visible when it looked last.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Waits until so many records are visible.
    pub(crate) fn wait_for(&self, records: u64, seconds: u64) {
        wait_until(&format!("{records} records are visible"), seconds, || {
            let ended = self
                .thread
                .as_ref()
                .is_some_and(|thread| thread.is_finished());
            self.records() >= records || ended
        });
    }

    /// Ends looking; panics if anything was wrong.
    pub(crate) fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self
            .thread
            .take()
            .expect("it was started")
            .join()
            .expect("the watcher does not panic");
        assert!(
            watched.violations.is_empty(),
            "readers saw:\n{}",
            watched.violations.join("\n")
        );
        for (path, seen) in &watched.files {
            let content = fs::read(path).unwrap_or_else(|error| {
                panic!(
                    "{} was visible and cannot be read now: {error}",
                    path.display()
                )
            });
            assert_eq!(
                seen.hash,
                hash(&content),
                "{} has other content than when it was seen first",
                path.display()
            );
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
        folders
            .iter()
            .for_each(|folder| output::visible_files(folder, &mut there));
        for path in &there {
            if let Err(violation) = self.look_at(path) {
                self.violations
                    .push(format!("{}: {violation}", path.display()));
            }
        }
        if there.len() < self.files.len() {
            let gone = self.files.keys().filter(|path| !there.contains(path));
            self.violations
                .extend(gone.map(|path| format!("{}: was visible and is gone", path.display())));
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
                let records = output::must_be_complete(path, &content)?;
                self.records.fetch_add(records, Ordering::Relaxed);
                let seen = Seen {
                    inode: now.0,
                    modified,
                    size: now.2,
                    hash: hash(&content),
                };
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
