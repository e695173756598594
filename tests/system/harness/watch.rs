//! Watches the output while instances run and die: a reader must never see an incomplete file, and
//! a visible file must never change.

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

/// A thread that watches the output.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    records: Arc<AtomicU64>,
    thread: Option<JoinHandle<Observations>>,
}

#[derive(Default)]
struct Observations {
    files: HashMap<PathBuf, FileSnapshot>,
    records: Arc<AtomicU64>,
    violations: Vec<String>,
}

/// A file as it was when it was first seen.
#[derive(PartialEq, Eq, Debug)]
struct FileSnapshot {
    inode: u64,
    modified: (i64, i64),
    size: u64,
    hash: u64,
}

impl Watcher {
    /// Starts to watch the visible files below these folders.
    pub(crate) fn start(folders: &[PathBuf]) -> Watcher {
        let (stop, records, folders) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
            folders.to_vec(),
        );
        let (stopped, counted) = (stop.clone(), records.clone());
        let thread = std::thread::spawn(move || {
            let mut observations = Observations {
                records: counted,
                ..Observations::default()
            };
            while !stopped.load(Ordering::Relaxed) && observations.violations.is_empty() {
                let began = Instant::now();
                observations.scan(&folders);
                std::thread::sleep((began.elapsed() * 2).max(Duration::from_millis(10)));
            }
            observations.scan(&folders);
            observations
        });
        Watcher {
            stop,
            records,
            thread: Some(thread),
        }
    }

    /// The number of records that were visible at the last scan.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Waits until this number of records is visible, as long as more of them become visible within
    /// the limit.
    pub(crate) fn wait_for(&self, records: u64, seconds: u64) {
        let thread = self.thread.as_ref();
        let has_ended = || thread.is_some_and(|thread| thread.is_finished());
        loop {
            let before = self.records();
            if before >= records || has_ended() {
                return;
            }
            let what = format!("more than {before} of {records} records are visible");
            wait_until(&what, seconds, || self.records() > before || has_ended());
        }
    }

    /// Stops watching; panics if there was a violation.
    pub(crate) fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let observations = self
            .thread
            .take()
            .expect("it was started")
            .join()
            .expect("the watcher does not panic");
        assert!(
            observations.violations.is_empty(),
            "readers saw:\n{}",
            observations.violations.join("\n")
        );
        for (path, snapshot) in &observations.files {
            let content = fs::read(path).unwrap_or_else(|error| {
                panic!(
                    "{} was visible and cannot be read now: {error}",
                    path.display()
                )
            });
            assert_eq!(
                snapshot.hash,
                hash(&content),
                "{} has changed since it was first seen",
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

impl Observations {
    fn scan(&mut self, folders: &[PathBuf]) {
        let mut there = Vec::new();
        folders
            .iter()
            .for_each(|folder| output::visible_files(folder, &mut there));
        for path in &there {
            if let Err(violation) = self.scan_file(path) {
                self.violations
                    .push(format!("{}: {violation}", path.display()));
            }
        }
        if there.len() < self.files.len() {
            let gone = self.files.keys().filter(|path| !there.contains(path));
            self.violations.extend(
                gone.map(|path| format!("{}: was visible and has disappeared", path.display())),
            );
        }
    }

    fn scan_file(&mut self, path: &Path) -> Result<(), String> {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let now = (metadata.ino(), modified, metadata.len());
        match self.files.get(path) {
            Some(snapshot) if (snapshot.inode, snapshot.modified, snapshot.size) == now => Ok(()),
            Some(snapshot) => Err(format!(
                "has changed: it was {snapshot:?} and is now {now:?}"
            )),
            None => {
                let content = fs::read(path).map_err(|error| error.to_string())?;
                let records = output::must_be_complete(path, &content)?;
                self.records.fetch_add(records, Ordering::Relaxed);
                let snapshot = FileSnapshot {
                    inode: now.0,
                    modified,
                    size: now.2,
                    hash: hash(&content),
                };
                self.files.insert(path.to_owned(), snapshot);
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
