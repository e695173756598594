//! One-shot mode: reads the files that exist, and exits.
//!
//! One thread finds the files and takes them over in groups, and reader threads read them. A file
//! that cannot be read does not stop the others: the run fails with its error after they are read.
//!
//! Instances that read the same files share them through the state store: each claims a group at a
//! time. A run exits when every file was read to its end by some instance, so an instance that has
//! nothing more to read releases the files that it has read, and checks those that the others
//! release.
//!
//! A compressed file is finished when it was read to its end, which is stored with its size on
//! disk: it is not decoded again. A plain file may grow, and reading resumes at its position. A
//! file that was rewritten, which its bytes before the position show, is read from its start, as a
//! new split.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};
use pseidon_plugin::{Batch, Split};

use super::Config;
use super::compression::Compression;
use super::identity::{FileKey, Head, file_id, file_of, split_id};
use super::lines::{Block, LineReader, ReadError};
use super::progress::{Mark, Progress, end_of, read_to_end, rewritten};

/// How many files are taken over at once.
const GROUP_SIZE: usize = 256;
/// How many bytes of files are started at once: many small files cost one step of the state store.
const BYTES_IN_FLIGHT: u64 = 64 << 20;
/// How often files are redistributed among instances.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for room in memory before checking again whether the run stops.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// A file that has content to read.
struct ReadJob {
    file: FoundFile,
    split: Arc<Split>,
    from: Position,
}

/// A file that is not claimed yet.
struct UnclaimedFile {
    file: FoundFile,
    split: Arc<Split>,
    /// How often the file was rewritten with the same first line.
    generation: u32,
}

const REPLACED: &str = "it was just replaced by another file; run again";

/// A file as it was found.
struct FoundFile {
    path: PathBuf,
    display_path: String,
    key: FileKey,
    head: Head,
    size: u64,
    compressed: bool,
}

impl FoundFile {
    fn split(&self, stage: &str, generation: u32) -> Arc<Split> {
        let id = split_id(stage, &self.key, self.head, generation);
        Arc::new(Split {
            id,
            topic: self.display_path.clone(),
            partition: 0,
        })
    }

    /// Its current size: another instance may have read it meanwhile.
    fn size_now(&self) -> io::Result<u64> {
        let metadata = fs::metadata(&self.path)?;
        if FileKey::of(&metadata) == self.key {
            Ok(metadata.len())
        } else {
            Err(io::Error::other(REPLACED))
        }
    }

    /// Whether the file still has the bytes that the mark describes.
    fn has(&self, mark: &Mark) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        if FileKey::of(&file.metadata()?) != self.key {
            return Err(io::Error::other(REPLACED));
        }
        mark.is_in(&file)
    }
}

/// What is left to do with a file.
enum Remaining {
    /// Read it from this position.
    Read(Position),
    /// Nothing.
    Nothing,
    /// It was rewritten after it had been read up to this position: the split is ended, and the
    /// file is read as a new split.
    Rewritten(Position),
    /// It was rewritten, and the split is ended already.
    Closed,
}

/// The errors by file, each with whether it is transient.
#[derive(Default)]
struct Failures(Mutex<Vec<(bool, String)>>);

/// Reads every file from where it was left to its end.
pub(super) fn run(
    config: &Config,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceError> {
    let files = config.find(setup)?;
    if files.is_empty() {
        tracing::warn!(
            stage = setup.stage,
            path = config.paths.join(", "),
            "no file matches"
        );
    }
    let failures = Failures::default();
    let readers = setup.io_threads.clamp(1, files.len().max(1));
    let (jobs, waiting) = unbounded();
    let (ended, ended_splits) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let (waiting, ended, failures) = (waiting.clone(), ended.clone(), &failures);
            scope.spawn(move || read_files(config, handle, &waiting, &ended, failures));
        }
        // Only the readers hold a sender now, so the channel closes when all of them have exited.
        drop(ended);
        let mut seen = HashSet::new();
        let mut unclaimed = VecDeque::new();
        for (path, display_path) in files {
            if let Some(file) = find(config, &path, &display_path, &failures)
                .filter(|file| seen.insert((file.key, file.head)))
            {
                unclaimed.push_back(UnclaimedFile {
                    split: file.split(&setup.stage, 0),
                    file,
                    generation: 0,
                });
            }
        }
        if failures.is_empty() {
            let existing: HashSet<String> = unclaimed
                .iter()
                .map(|file| file_id(&setup.stage, &file.file.key))
                .collect();
            // A stopped run forgets nothing.
            let _ = handle.forget_finished(move |split| !existing.contains(file_of(split)));
        }
        let queue = FileQueue {
            handle,
            stage: &setup.stage,
            failures: &failures,
            readers,
            jobs,
            ended_splits,
            unclaimed,
            taken: VecDeque::new(),
            reading: HashMap::new(),
            read: Vec::new(),
        };
        // A stopped run exits like one that has read everything.
        let _: Result<(), Stopped> = queue.run();
    });
    failures.outcome()
}

/// Identifies a file; `None` if it is empty or cannot be read.
fn find(
    config: &Config,
    path: &Path,
    display_path: &str,
    failures: &Failures,
) -> Option<FoundFile> {
    let look = || -> io::Result<Option<FoundFile>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let compression = config.compression_of(&file, path)?;
        let Some(head) = Head::of(&file, compression, true)? else {
            return Ok(None);
        };
        let (path, display_path, key) = (
            path.to_owned(),
            display_path.to_owned(),
            FileKey::of(&metadata),
        );
        Ok(Some(FoundFile {
            path,
            display_path,
            key,
            head,
            size: metadata.len(),
            compressed: compression != Compression::None,
        }))
    };
    look().unwrap_or_else(|error| {
        failures.add(display_path, &ReadError::Io(error));
        None
    })
}

/// The files of a run by state: unclaimed, taken, being read, read.
struct FileQueue<'a> {
    handle: &'a SourceHandle,
    stage: &'a str,
    failures: &'a Failures,
    /// How many threads read.
    readers: usize,
    jobs: Sender<ReadJob>,
    ended_splits: Receiver<Arc<Split>>,
    unclaimed: VecDeque<UnclaimedFile>,
    /// Taken files that have content to read, each with its generation.
    taken: VecDeque<(ReadJob, u32)>,
    /// The sizes of the files that are being read.
    reading: HashMap<SplitId, u64>,
    /// Files that were read to their end, or cannot be read.
    read: Vec<Arc<Split>>,
}

impl FileQueue<'_> {
    fn run(mut self) -> Result<(), Stopped> {
        let mut next_round = Instant::now();
        // How many unclaimed files were not tried in this round.
        let mut untried = 0;
        loop {
            while let Ok(split) = self.ended_splits.try_recv() {
                self.reading.remove(&split.id);
                self.read.push(split);
            }
            let is_round = Instant::now() >= next_round;
            if is_round {
                next_round = Instant::now() + ROUND_INTERVAL;
                untried = self.unclaimed.len();
            }
            let wants_more = self.taken.is_empty() && untried > 0;
            if is_round || wants_more {
                let tried = if wants_more {
                    untried.min(GROUP_SIZE)
                } else {
                    0
                };
                untried = match self.share(tried)? {
                    0 => untried - tried,
                    // Rewritten files are tried once more.
                    _ => self.unclaimed.len(),
                };
            }
            self.begin_next()?;
            let is_idle = self.taken.is_empty() && self.reading.is_empty();
            if is_idle && untried == 0 {
                // Another instance may be waiting for these files.
                self.release_read()?;
                if self.unclaimed.is_empty() {
                    return Ok(());
                }
                self.handle
                    .sleep(next_round.saturating_duration_since(Instant::now()))?;
            } else if !self.reading.is_empty() {
                match self.ended_splits.recv_timeout(ROOM_POLL) {
                    Ok(split) => {
                        self.reading.remove(&split.id);
                        self.read.push(split);
                    }
                    Err(RecvTimeoutError::Timeout) if !self.handle.is_stopped() => {}
                    // The readers exit when the run is stopped.
                    Err(_) => return Err(Stopped),
                }
            }
        }
    }

    /// Claims as many of the next `tried` files as possible, and releases files if it has more than
    /// its part. Returns how many were claimed.
    fn share(&mut self, tried: usize) -> Result<usize, Stopped> {
        let mut found: Vec<SplitId> = self.reading.keys().cloned().collect();
        found.extend(self.read.iter().map(|split| split.id.clone()));
        found.extend(self.taken.iter().map(|(job, _)| job.split.id.clone()));
        found.extend(
            self.unclaimed
                .iter()
                .take(tried)
                .map(|unclaimed| unclaimed.split.id.clone()),
        );
        let share = self.handle.share_splits(found)?;
        let granted: HashSet<SplitId> = share.granted.into_iter().collect();
        let (mine, others): (Vec<_>, Vec<_>) = self
            .unclaimed
            .drain(..tried)
            .partition(|file| granted.contains(&file.split.id));
        self.unclaimed.extend(others);
        let excess: Vec<(ReadJob, u32)> = self
            .taken
            .drain(self.taken.len().saturating_sub(share.excess)..)
            .collect();
        if !excess.is_empty() {
            self.handle
                .release(excess.iter().map(|(job, _)| job.split.clone()).collect())?;
            let give_back = |(job, generation): (ReadJob, u32)| UnclaimedFile {
                file: job.file,
                split: job.split,
                generation,
            };
            self.unclaimed.extend(excess.into_iter().map(give_back));
        }
        let claimed = mine.len();
        if claimed > 0 {
            self.take(mine)?;
        }
        Ok(claimed)
    }

    /// Takes files over. Files without content to read are released at once.
    fn take(&mut self, claimed: Vec<UnclaimedFile>) -> Result<(), Stopped> {
        let known = self
            .handle
            .take(claimed.iter().map(|file| file.split.clone()).collect())?;
        let (mut to_end, mut to_release) = (Vec::new(), Vec::new());
        for (
            UnclaimedFile {
                file,
                split,
                generation,
            },
            known,
        ) in claimed.into_iter().zip(known)
        {
            let next = |file: FoundFile| UnclaimedFile {
                split: file.split(self.stage, generation + 1),
                file,
                generation: generation + 1,
            };
            match remaining(&file, known.map(Progress::of)) {
                Ok(Remaining::Read(from)) => self
                    .taken
                    .push_back((ReadJob { file, split, from }, generation)),
                Ok(Remaining::Nothing) => to_release.push(split),
                Ok(Remaining::Rewritten(position)) => {
                    tracing::warn!(
                        stage = self.stage,
                        file = file.display_path,
                        "file was rewritten after it was read; it is read from its start"
                    );
                    to_end.push((split, position));
                    self.unclaimed.push_front(next(file));
                }
                Ok(Remaining::Closed) => {
                    to_release.push(split);
                    self.unclaimed.push_front(next(file));
                }
                Err(reason) => {
                    self.failures.add_message(&file.display_path, reason);
                    to_release.push(split);
                }
            }
        }
        if !to_end.is_empty() {
            self.handle.begin(to_end.clone())?;
        }
        for (split, position) in to_end {
            self.handle
                .emit(end_of(split.clone(), position, rewritten()))?;
            to_release.push(split);
        }
        if to_release.is_empty() {
            Ok(())
        } else {
            self.handle.release(to_release)
        }
    }

    /// Passes as many files to the readers as keep them busy.
    fn begin_next(&mut self) -> Result<(), Stopped> {
        let mut bytes: u64 = self.reading.values().sum();
        let mut begun = Vec::new();
        while self.reading.len() < self.readers || bytes < BYTES_IN_FLIGHT {
            let Some((job, _)) = self.taken.pop_front() else {
                break;
            };
            bytes += job.file.size;
            self.reading.insert(job.split.id.clone(), job.file.size);
            begun.push(job);
        }
        if begun.is_empty() {
            return Ok(());
        }
        self.handle.begin(
            begun
                .iter()
                .map(|job| (job.split.clone(), job.from))
                .collect(),
        )?;
        begun
            .into_iter()
            .try_for_each(|job| self.jobs.send(job).map_err(|_| Stopped))
    }

    /// Releases the files that were read: another instance that checks them finds them done.
    fn release_read(&mut self) -> Result<(), Stopped> {
        let read = std::mem::take(&mut self.read);
        if read.is_empty() {
            Ok(())
        } else {
            self.handle.release(read)
        }
    }
}

/// Decides what is left to do with a file, given its entry in the store. An error says why the file
/// cannot be read.
fn remaining(file: &FoundFile, known: Option<Progress>) -> Result<Remaining, String> {
    match known {
        None => Ok(Remaining::Read(0)),
        Some(Progress::Rewritten) => Ok(Remaining::Closed),
        Some(Progress::ReadToEnd { size, .. }) if size == file.size => Ok(Remaining::Nothing),
        Some(Progress::ReadToEnd { .. }) => Err(
            "it has changed since it was read to its end; compressed files must not be \
                 appended to: write new records to a new file"
                .into(),
        ),
        Some(Progress::UpTo { position, .. }) if file.compressed => Ok(Remaining::Read(position)),
        Some(Progress::UpTo { position, mark }) => {
            let size = file.size_now().map_err(|error| error.to_string())?;
            if position > size {
                return Err(format!(
                    "it has {size} bytes, but {position} were read of it before: it was truncated; \
                     write new records to a new file"
                ));
            }
            let is_as_read = mark.map_or(Ok(true), |mark| file.has(&mark));
            match is_as_read.map_err(|error| error.to_string())? {
                false => Ok(Remaining::Rewritten(position)),
                true if position == size => Ok(Remaining::Nothing),
                true => Ok(Remaining::Read(position)),
            }
        }
    }
}

fn read_files(
    config: &Config,
    handle: &SourceHandle,
    jobs: &Receiver<ReadJob>,
    ended: &Sender<Arc<Split>>,
    failures: &Failures,
) {
    for job in jobs {
        match read_file(config, handle, &job) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.add(&job.split.topic, &error),
            Err(Stopped) => return,
        }
        if ended.send(job.split).is_err() {
            return;
        }
    }
}

fn read_file(
    config: &Config,
    handle: &SourceHandle,
    job: &ReadJob,
) -> Result<Result<(), ReadError>, Stopped> {
    let opened = File::open(&job.file.path).and_then(|file| {
        let size = file.metadata()?.len();
        let compression = config.compression_of(&file, &job.file.path)?;
        Ok((
            config.open(file, &job.file.path, job.from)?,
            size,
            compression,
        ))
    });
    let (mut reader, size, compression) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error.into())),
    };
    loop {
        while !handle.wait_for_room(ROOM_POLL)? {}
        let block = match next(&mut reader) {
            Ok(Some(block)) => block,
            Ok(None) => break,
            Err(error) => return Ok(Err(error)),
        };
        block
            .batches(&job.split)
            .try_for_each(|batch| handle.emit(batch))?;
    }
    handle.emit(match compression {
        // A file that grows is read from there later.
        Compression::None => Batch::end_of(job.split.clone(), reader.position()),
        _ => end_of(job.split.clone(), reader.position(), read_to_end(size)),
    })?;
    Ok(Ok(()))
}

/// The next lines, and at the end of the file a last line without a line end.
fn next(reader: &mut LineReader) -> Result<Option<Block>, ReadError> {
    match reader.next_block()? {
        Some(block) => Ok(Some(block)),
        None => reader.last_line(),
    }
}

impl Failures {
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn add(&self, display_path: &str, error: &ReadError) {
        let is_transient = match error {
            ReadError::TooLong { .. } => false,
            ReadError::Io(error) => is_transient(error),
        };
        self.0.lock().push((
            is_transient,
            format!("cannot read {display_path}: {}", describe(error)),
        ));
    }

    fn add_message(&self, display_path: &str, reason: String) {
        self.0
            .lock()
            .push((false, format!("cannot read {display_path}: {reason}")));
    }

    fn outcome(self) -> Result<(), SourceError> {
        let failures = self.0.into_inner();
        let Some((is_transient, first)) = failures
            .iter()
            .min_by_key(|(is_transient, _)| *is_transient)
        else {
            return Ok(());
        };
        let more = match failures.len() {
            1 => String::new(),
            all => format!(" (and {} more files cannot be read)", all - 1),
        };
        Err(if *is_transient {
            SourceError::Transient(format!("{first}{more}"))
        } else {
            SourceError::Fatal(format!("{first}{more}"))
        })
    }
}

/// Whether an error may disappear without intervention.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, NetworkUnreachable, StaleNetworkFileHandle, TimedOut, WouldBlock,
    };
    matches!(
        error.kind(),
        TimedOut | StaleNetworkFileHandle | NetworkUnreachable | Interrupted | WouldBlock
    ) || error.raw_os_error().is_some_and(|code| {
        code == rustix::io::Errno::IO.raw_os_error()
            || code == rustix::io::Errno::MFILE.raw_os_error()
    })
}

/// The error message, with what to do about it.
pub(super) fn describe(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!(
                "it is truncated ({error}); the records before that were read: \
                 repair the file or remove it from :path"
            )
        }
        other => other.to_string(),
    }
}
