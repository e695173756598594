//! Reads the files that are there, and ends.
//!
//! One thread finds out which files there are and takes them over in groups, reader threads read
//! them. A file that cannot be read does not keep the others from being read: the run ends with its
//! error when they are.
//!
//! Instances that read the same files share them through the store: each claims a group at a time.
//! A run ends when every file was read to its end by some instance, so one that has nothing more to
//! read gives back what it has read, and looks at what the others give back.
//!
//! A compressed file is finished when it was read to its end, which is kept with its size on disk:
//! it is not decoded again. A plain file may grow, and is read on from its position. One that was
//! written again, which its bytes before the position tell, is read from its start, as a new split.

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
const GROUP: usize = 256;
/// So many bytes of files are begun at once: many small files cost one step of the state store.
const BEGUN_AT_ONCE: u64 = 64 << 20;
/// How often files are shared out among instances.
const ROUND: Duration = Duration::from_secs(1);
/// How long to wait for room in memory before looking again whether the run ends.
const PATIENCE: Duration = Duration::from_millis(100);

/// A file that has something to read.
struct Job {
    file: Found,
    split: Arc<Split>,
    from: Position,
}

/// A file that is to be claimed.
struct Unclaimed {
    file: Found,
    split: Arc<Split>,
    /// How often the file was written again under the same first line.
    generation: u32,
}

const REPLACED: &str = "another file took its name just now; run again";

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
    fn split(&self, stage: &str, generation: u32) -> Arc<Split> {
        let id = split_id(stage, &self.key, self.head, generation);
        Arc::new(Split {
            id,
            topic: self.shown.clone(),
            partition: 0,
        })
    }

    /// Its size now: another instance may have read it meanwhile.
    fn size_now(&self) -> io::Result<u64> {
        let metadata = fs::metadata(&self.path)?;
        if FileKey::of(&metadata) == self.key {
            Ok(metadata.len())
        } else {
            Err(io::Error::other(REPLACED))
        }
    }

    /// Whether the file has what the mark says.
    fn has(&self, mark: &Mark) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        if FileKey::of(&file.metadata()?) != self.key {
            return Err(io::Error::other(REPLACED));
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
    /// It was written again after this much of it was read: the split is closed, and the file is
    /// read as another one.
    Rewritten(Position),
    /// The same, and the split is closed already.
    Closed,
}

/// What went wrong, file by file.
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
    let (ended, has_ended) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let (waiting, ended, failures) = (waiting.clone(), ended.clone(), &failures);
            scope.spawn(move || read_files(config, handle, &waiting, &ended, failures));
        }
        // Only the readers hold it now: when all of them have left, that is seen.
        drop(ended);
        let mut seen = HashSet::new();
        let mut unclaimed = VecDeque::new();
        for (path, shown) in files {
            if let Some(file) = find(config, &path, &shown, &failures)
                .filter(|file| seen.insert((file.key, file.head)))
            {
                unclaimed.push_back(Unclaimed {
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
            // A run that is stopped forgets nothing.
            let _ = handle.forget_finished(move |split| !existing.contains(file_of(split)));
        }
        let pass = Pass {
            handle,
            stage: &setup.stage,
            failures: &failures,
            readers,
            jobs,
            has_ended,
            unclaimed,
            taken: VecDeque::new(),
            reading: HashMap::new(),
            read: Vec::new(),
        };
        // A run that is stopped ends like one that has read everything.
        let _: Result<(), Stopped> = pass.run();
    });
    failures.outcome()
}

/// The file as it is now; `None` for an empty one, and for one that cannot be read.
fn find(config: &Config, path: &Path, shown: &str, failures: &Failures) -> Option<Found> {
    let look = || -> io::Result<Option<Found>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let compression = config.compression_of(&file, path)?;
        let Some(head) = Head::of(&file, compression, true)? else {
            return Ok(None);
        };
        let (path, shown, key) = (path.to_owned(), shown.to_owned(), FileKey::of(&metadata));
        Ok(Some(Found {
            path,
            shown,
            key,
            head,
            size: metadata.len(),
            compressed: compression != Compression::None,
        }))
    };
    look().unwrap_or_else(|error| {
        failures.add(shown, &ReadError::Io(error));
        None
    })
}

/// The files on their way: to be claimed, taken, read, given back.
struct Pass<'a> {
    handle: &'a SourceHandle,
    stage: &'a str,
    failures: &'a Failures,
    /// How many threads read.
    readers: usize,
    jobs: Sender<Job>,
    has_ended: Receiver<Arc<Split>>,
    unclaimed: VecDeque<Unclaimed>,
    /// Those that have something to read.
    taken: VecDeque<(Job, u32)>,
    /// Their sizes.
    reading: HashMap<SplitId, u64>,
    /// Those that were read to their end, or cannot be.
    read: Vec<Arc<Split>>,
}

impl Pass<'_> {
    fn run(mut self) -> Result<(), Stopped> {
        let mut next_round = Instant::now();
        // Those that were not tried since the last time that all were.
        let mut untried = 0;
        loop {
            while let Ok(split) = self.has_ended.try_recv() {
                self.reading.remove(&split.id);
                self.read.push(split);
            }
            let is_round = Instant::now() >= next_round;
            if is_round {
                next_round = Instant::now() + ROUND;
                untried = self.unclaimed.len();
            }
            let wants_more = self.taken.is_empty() && untried > 0;
            if is_round || wants_more {
                let tried = if wants_more { untried.min(GROUP) } else { 0 };
                untried = match self.share(tried)? {
                    0 => untried - tried,
                    // What was written again comes once more.
                    _ => self.unclaimed.len(),
                };
            }
            self.begin_some()?;
            let is_idle = self.taken.is_empty() && self.reading.is_empty();
            if is_idle && untried == 0 {
                // Another instance may be waiting for them.
                self.release_read()?;
                if self.unclaimed.is_empty() {
                    return Ok(());
                }
                self.handle
                    .sleep(next_round.saturating_duration_since(Instant::now()))?;
            } else if !self.reading.is_empty() {
                match self.has_ended.recv_timeout(PATIENCE) {
                    Ok(split) => {
                        self.reading.remove(&split.id);
                        self.read.push(split);
                    }
                    Err(RecvTimeoutError::Timeout) if !self.handle.is_stopped() => {}
                    // The readers leave when the run ends.
                    Err(_) => return Err(Stopped),
                }
            }
        }
    }

    /// Claims what it can of the next files, and gives back those of which it has more than its
    /// part. Returns how many were claimed.
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
        let excess: Vec<(Job, u32)> = self
            .taken
            .drain(self.taken.len().saturating_sub(share.excess)..)
            .collect();
        if !excess.is_empty() {
            self.handle
                .release(excess.iter().map(|(job, _)| job.split.clone()).collect())?;
            let give_back = |(job, generation): (Job, u32)| Unclaimed {
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

    /// Takes files over. Those that have nothing to read are given back at once.
    fn take(&mut self, claimed: Vec<Unclaimed>) -> Result<(), Stopped> {
        let known = self
            .handle
            .take(claimed.iter().map(|file| file.split.clone()).collect())?;
        let (mut to_end, mut to_release) = (Vec::new(), Vec::new());
        for (
            Unclaimed {
                file,
                split,
                generation,
            },
            known,
        ) in claimed.into_iter().zip(known)
        {
            let next = |file: Found| Unclaimed {
                split: file.split(self.stage, generation + 1),
                file,
                generation: generation + 1,
            };
            match what_is_left(&file, known.map(Progress::of)) {
                Ok(Left::Read(from)) => self
                    .taken
                    .push_back((Job { file, split, from }, generation)),
                Ok(Left::Nothing) => to_release.push(split),
                Ok(Left::Rewritten(position)) => {
                    tracing::warn!(
                        stage = self.stage,
                        file = file.shown,
                        "file was written again since it was read; it is read from its start"
                    );
                    to_end.push((split, position));
                    self.unclaimed.push_front(next(file));
                }
                Ok(Left::Closed) => {
                    to_release.push(split);
                    self.unclaimed.push_front(next(file));
                }
                Err(reason) => {
                    self.failures.add_text(&file.shown, reason);
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

    /// Hands as many files to the readers as keep them at work.
    fn begin_some(&mut self) -> Result<(), Stopped> {
        let mut bytes: u64 = self.reading.values().sum();
        let mut begun = Vec::new();
        while self.reading.len() < self.readers || bytes < BEGUN_AT_ONCE {
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

    /// Gives back what was read: another instance that looks at it finds it done.
    fn release_read(&mut self) -> Result<(), Stopped> {
        let read = std::mem::take(&mut self.read);
        if read.is_empty() {
            Ok(())
        } else {
            self.handle.release(read)
        }
    }
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
        Some(Progress::UpTo { position, mark }) => {
            let size = file.size_now().map_err(|error| error.to_string())?;
            if position > size {
                return Err(format!(
                    "it has {size} bytes, but {position} were read of it before: it was truncated; what is new belongs into a new file"
                ));
            }
            match mark.map_or(Ok(true), |mark| file.has(&mark)).map_err(|error| error.to_string())? {
                false => Ok(Left::Rewritten(position)),
                true if position == size => Ok(Left::Nothing),
                true => Ok(Left::Read(position)),
            }
        }
    }
}

fn read_files(
    config: &Config,
    handle: &SourceHandle,
    jobs: &Receiver<Job>,
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
    job: &Job,
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
        while !handle.wait_for_room(PATIENCE)? {}
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
        // One that grows is read on from there.
        Compression::None => Batch::end_of(job.split.clone(), reader.position()),
        _ => end_of(job.split.clone(), reader.position(), read_to_end(size)),
    })?;
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
    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn add(&self, shown: &str, error: &ReadError) {
        let passing = match error {
            ReadError::TooLong { .. } => false,
            ReadError::Io(error) => is_passing(error),
        };
        self.0
            .lock()
            .push((passing, format!("cannot read {shown}: {}", describe(error))));
    }

    fn add_text(&self, shown: &str, reason: String) {
        self.0
            .lock()
            .push((false, format!("cannot read {shown}: {reason}")));
    }

    fn outcome(self) -> Result<(), SourceError> {
        let failures = self.0.into_inner();
        let Some((passing, first)) = failures.iter().min_by_key(|(passing, _)| *passing) else {
            return Ok(());
        };
        let more = match failures.len() {
            1 => String::new(),
            all => format!(" (and {} more of the files cannot be read)", all - 1),
        };
        Err(if *passing {
            SourceError::Transient(format!("{first}{more}"))
        } else {
            SourceError::Fatal(format!("{first}{more}"))
        })
    }
}

/// Whether an error may go away by itself.
pub(super) fn is_passing(error: &io::Error) -> bool {
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

/// The error in words that say what to do.
pub(super) fn describe(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!(
                "it ends in the middle ({error}); the records before that were read: repair the file or take it out of :path"
            )
        }
        other => other.to_string(),
    }
}
