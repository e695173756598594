//! Reads the files that are there, and ends.
//!
//! One thread finds out which files there are and takes them over in groups, reader threads read them. A file that cannot be read does not
//! keep the others from being read: the run ends with its error when they are.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use pseidon_delivery::Position;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};
use pseidon_plugin::{Batch, Split};

use super::Config;
use super::compression::Compression;
use super::identity::{FileKey, Head, split_id};
use super::lines::{Block, LineReader, ReadError};

/// How many files are taken over at once.
const GROUP: usize = 256;
/// How long to wait for room in memory before looking again whether the run ends.
const PATIENCE: Duration = Duration::from_millis(100);
/// A compressed file that was read to its end is at this position plus its size on disk: that it is done can be seen without decoding it.
const DONE: Position = 1 << 63;

/// The position of a compressed file of this size on disk that has nothing more to read.
pub(super) fn done_at(size: u64) -> Position {
    DONE + size
}

/// The size on disk at which a compressed file had nothing more to read, if that is what the position says.
pub(super) fn done_size(position: Position) -> Option<u64> {
    position.checked_sub(DONE)
}

/// A file that has something to read.
struct Job {
    path: PathBuf,
    split: Arc<Split>,
    from: Position,
}

/// A file as it was found.
struct Found {
    path: PathBuf,
    split: Arc<Split>,
    size: u64,
    compressed: bool,
}

/// What went wrong, file by file.
#[derive(Default)]
struct Failures(Mutex<Vec<(bool, String)>>);

/// Reads every file from where it was left to its end.
pub(super) fn run(config: &Config, setup: &SourceSetup, handle: &SourceHandle) -> Result<(), SourceError> {
    let files = config.find(setup)?;
    if files.is_empty() {
        tracing::warn!(stage = setup.stage, path = config.paths.join(", "), "no file matches");
    }
    let failures = Failures::default();
    let (jobs, waiting) = bounded(GROUP);
    std::thread::scope(|scope| {
        for _ in 0..setup.io_threads.clamp(1, files.len().max(1)) {
            let (waiting, failures) = (waiting.clone(), &failures);
            scope.spawn(move || read_files(config, handle, &waiting, failures));
        }
        // Only the readers hold it now: when all of them have left, sending fails instead of waiting for ever.
        drop(waiting);
        let mut seen = HashSet::new();
        let files: Vec<_> = files.into_iter().collect();
        for group in files.chunks(GROUP) {
            let found: Vec<Found> = group.iter().filter_map(|(path, shown)| find(config, setup, path, shown, &failures)).collect();
            let found = found.into_iter().filter(|file| seen.insert(file.split.id.clone())).collect();
            if take(handle, found, &jobs, &failures).is_err() {
                return;
            }
        }
        drop(jobs);
    });
    failures.outcome()
}

/// The file as it is now; `None` for an empty one, and for one that cannot be read.
fn find(config: &Config, setup: &SourceSetup, path: &Path, shown: &str, failures: &Failures) -> Option<Found> {
    let look = || -> io::Result<Option<Found>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let compression = config.compression_of(&file, path)?;
        let Some(head) = Head::of(&file, compression, true)? else { return Ok(None) };
        let id = split_id(&setup.stage, &FileKey::of(&metadata), head, 0);
        let split = Arc::new(Split { id, topic: shown.to_owned(), partition: 0 });
        let compressed = compression != Compression::None;
        Ok(Some(Found { path: path.to_owned(), split, size: metadata.len(), compressed }))
    };
    look().unwrap_or_else(|error| {
        failures.add(shown, &ReadError::Io(error));
        None
    })
}

/// Takes files over, and hands those on that have something to read.
fn take(handle: &SourceHandle, found: Vec<Found>, jobs: &Sender<Job>, failures: &Failures) -> Result<(), Stopped> {
    let known = handle.take(found.iter().map(|file| file.split.clone()).collect())?;
    let mut begun = Vec::new();
    for (file, known) in found.into_iter().zip(known) {
        match where_to_start(&file, known.map(|known| known.position)) {
            Ok(Some(from)) => begun.push(Job { path: file.path, split: file.split, from }),
            Ok(None) => {}
            Err(reason) => failures.add_text(&file.split.topic, reason),
        }
    }
    handle.begin(begun.iter().map(|job| (job.split.clone(), job.from)).collect())?;
    begun.into_iter().try_for_each(|job| jobs.send(job).map_err(|_| Stopped))
}

/// Where to read on; `None` if there is nothing more.
fn where_to_start(file: &Found, known: Option<Position>) -> Result<Option<Position>, String> {
    let Some(position) = known else { return Ok(Some(0)) };
    if let Some(size) = done_size(position) {
        return match size == file.size {
            true => Ok(None),
            false => Err(
                "it has changed since it was read to its end; compressed files must not be appended to: give what is new a file of its own"
                    .into(),
            ),
        };
    }
    if file.compressed || position < file.size {
        return Ok(Some(position));
    }
    if position == file.size {
        return Ok(None);
    }
    Err(format!("it has {} bytes, but {position} were read of it before: it was truncated; what is new belongs into a new file", file.size))
}

fn read_files(config: &Config, handle: &SourceHandle, jobs: &Receiver<Job>, failures: &Failures) {
    for job in jobs {
        match read_file(config, handle, &job) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.add(&job.split.topic, &error),
            Err(Stopped) => return,
        }
    }
}

fn read_file(config: &Config, handle: &SourceHandle, job: &Job) -> Result<Result<(), ReadError>, Stopped> {
    let opened = File::open(&job.path).and_then(|file| {
        let size = file.metadata()?.len();
        let compression = config.compression_of(&file, &job.path)?;
        Ok((config.open(file, &job.path, job.from)?, size, compression))
    });
    let (mut reader, size, compression) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error.into())),
    };
    loop {
        while !handle.wait_for_room(PATIENCE)? {}
        let block = match next(&mut reader) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        block.batches(&job.split).try_for_each(|batch| handle.emit(batch))?;
    }
    if compression != Compression::None {
        handle.emit(Batch::from_payloads(job.split.clone(), Default::default(), Vec::new(), done_at(size)))?;
    }
    Ok(Ok(()))
}

/// The next lines, and at the file's end the last one.
fn next(reader: &mut LineReader) -> Result<Option<Block>, ReadError> {
    match reader.next_block()? {
        Some(block) => Ok(Some(block)),
        None => reader.rest(),
    }
}

impl Failures {
    fn add(&self, shown: &str, error: &ReadError) {
        let passing = match error {
            ReadError::TooLong { .. } => false,
            ReadError::Io(error) => is_passing(error),
        };
        self.0.lock().push((passing, format!("cannot read {shown}: {}", describe(error))));
    }

    fn add_text(&self, shown: &str, reason: String) {
        self.0.lock().push((false, format!("cannot read {shown}: {reason}")));
    }

    fn outcome(self) -> Result<(), SourceError> {
        let failures = self.0.into_inner();
        let Some((passing, first)) = failures.iter().min_by_key(|(passing, _)| *passing) else { return Ok(()) };
        let more = match failures.len() {
            1 => String::new(),
            all => format!(" (and {} more of the files cannot be read)", all - 1),
        };
        Err(if *passing { SourceError::Transient(format!("{first}{more}")) } else { SourceError::Fatal(format!("{first}{more}")) })
    }
}

/// Whether an error may go away by itself.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, NetworkUnreachable, StaleNetworkFileHandle, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | StaleNetworkFileHandle | NetworkUnreachable | Interrupted | WouldBlock)
        || error
            .raw_os_error()
            .is_some_and(|code| code == rustix::io::Errno::IO.raw_os_error() || code == rustix::io::Errno::MFILE.raw_os_error())
}

/// The error in words that say what to do.
pub(super) fn describe(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("it ends in the middle ({error}); the records before that were read: repair the file or take it out of :path")
        }
        other => other.to_string(),
    }
}
