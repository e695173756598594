//! Reads the files that are there, and ends.
//!
//! One thread finds out which files there are and takes them over in groups, reader threads read them. A file that cannot be read does not
//! keep the others from being read: the run ends with its error when they are.
//!
//! A compressed file is finished when it was read to its end, which is kept with its size on disk: it is not decoded again. A plain file may grow, and
//! is read on from its position. One that was written again, which its bytes before the position tell, is read from its start, as a new split.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use pseidon_delivery::Position;
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};

use super::Config;
use super::compression::Compression;
use super::identity::{FileKey, Head, split_id};
use super::lines::{Block, LineReader, ReadError};
use super::progress::{Mark, Progress, end_of, read_to_end, rewritten};

/// How many files are taken over at once.
const GROUP: usize = 256;
/// How long to wait for room in memory before looking again whether the run ends.
const PATIENCE: Duration = Duration::from_millis(100);
/// A file that has something to read.
struct Job {
    path: PathBuf,
    split: Arc<Split>,
    from: Position,
}

/// A file as it was found.
struct Found {
    path: PathBuf,
    shown: String,
    key: FileKey,
    head: Head,
    size: u64,
    compressed: bool,
}

impl Found {
    /// Whether the file has what the mark says.
    fn has(&self, mark: &Mark) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        if FileKey::of(&file.metadata()?) != self.key {
            return Err(io::Error::other("another file took its name just now; run again"));
        }
        mark.is_in(&file)
    }
}

/// What is left to do with a file.
enum Left {
    /// It is read from here.
    Read(Position),
    /// Nothing.
    Nothing,
    /// It was written again after this much of it was read: the split is closed, and the file is read as another one.
    Rewritten(Position),
    /// The same, and the split is closed already.
    Closed,
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
            let found: Vec<Found> = group.iter().filter_map(|(path, shown)| find(config, path, shown, &failures)).collect();
            let found = found.into_iter().filter(|file| seen.insert((file.key, file.head))).collect();
            if take(handle, &setup.stage, found, &jobs, &failures).is_err() {
                return;
            }
        }
        drop(jobs);
    });
    failures.outcome()
}

/// The file as it is now; `None` for an empty one, and for one that cannot be read.
fn find(config: &Config, path: &Path, shown: &str, failures: &Failures) -> Option<Found> {
    let look = || -> io::Result<Option<Found>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let compression = config.compression_of(&file, path)?;
        let Some(head) = Head::of(&file, compression, true)? else { return Ok(None) };
        let (path, shown, key) = (path.to_owned(), shown.to_owned(), FileKey::of(&metadata));
        Ok(Some(Found { path, shown, key, head, size: metadata.len(), compressed: compression != Compression::None }))
    };
    look().unwrap_or_else(|error| {
        failures.add(shown, &ReadError::Io(error));
        None
    })
}

/// Takes files over, and hands those on that have something to read. Those that have not are given back at once.
fn take(handle: &SourceHandle, stage: &str, found: Vec<Found>, jobs: &Sender<Job>, failures: &Failures) -> Result<(), Stopped> {
    let (mut files, mut generation) = (found, 0);
    while !files.is_empty() {
        let split = |file: &Found| {
            let id = split_id(stage, &file.key, file.head, generation);
            Arc::new(Split { id, topic: file.shown.clone(), partition: 0 })
        };
        let splits: Vec<Arc<Split>> = files.iter().map(split).collect();
        let known = handle.take(splits.clone())?;
        let (mut to_read, mut to_close, mut to_release, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((file, split), known) in files.into_iter().zip(splits).zip(known) {
            match what_is_left(&file, known.map(Progress::of)) {
                Ok(Left::Read(from)) => to_read.push(Job { path: file.path, split, from }),
                Ok(Left::Nothing) => to_release.push(split),
                Ok(Left::Rewritten(position)) => {
                    tracing::warn!(stage, file = file.shown, "file was written again since it was read; it is read from its start");
                    to_close.push((split, position));
                    again.push(file);
                }
                Ok(Left::Closed) => {
                    to_release.push(split);
                    again.push(file);
                }
                Err(reason) => {
                    failures.add_text(&file.shown, reason);
                    to_release.push(split);
                }
            }
        }
        let starts = to_read.iter().map(|job| (job.split.clone(), job.from));
        handle.begin(starts.chain(to_close.iter().cloned()).collect())?;
        for (split, position) in to_close {
            handle.emit(end_of(split.clone(), position, rewritten()))?;
            to_release.push(split);
        }
        if !to_release.is_empty() {
            handle.release(to_release)?;
        }
        to_read.into_iter().try_for_each(|job| jobs.send(job).map_err(|_| Stopped))?;
        (files, generation) = (again, generation + 1);
    }
    Ok(())
}

/// What is left to do with a file of which this is known. An error says why it cannot be read.
fn what_is_left(file: &Found, known: Option<Progress>) -> Result<Left, String> {
    match known {
        None => Ok(Left::Read(0)),
        Some(Progress::Rewritten) => Ok(Left::Closed),
        Some(Progress::ReadToEnd { size, .. }) if size == file.size => Ok(Left::Nothing),
        Some(Progress::ReadToEnd { .. }) => {
            Err("it has changed since it was read to its end; compressed files must not be appended to: give what is new a file of its own"
                .into())
        }
        Some(Progress::UpTo { position, .. }) if file.compressed => Ok(Left::Read(position)),
        Some(Progress::UpTo { position, .. }) if position > file.size => Err(format!(
            "it has {} bytes, but {position} were read of it before: it was truncated; what is new belongs into a new file",
            file.size
        )),
        Some(Progress::UpTo { position, mark }) => {
            match mark.map_or(Ok(true), |mark| file.has(&mark)).map_err(|error| error.to_string())? {
                false => Ok(Left::Rewritten(position)),
                true if position == file.size => Ok(Left::Nothing),
                true => Ok(Left::Read(position)),
            }
        }
    }
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
        handle.emit(end_of(job.split.clone(), reader.position(), read_to_end(size)))?;
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
