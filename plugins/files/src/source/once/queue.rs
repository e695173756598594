//! The files of a run on their way from unclaimed to read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceHandle, SplitStart, Stopped};

use super::super::progress::{FileProgress, rewritten};
use super::super::recognition::remove_marks;
use super::ROOM_POLL;
use super::failures::FileFailures;
use super::found_file::{FoundFile, Remaining, remaining};
use super::recognition::WaitingCopy;

/// How many files are taken over at once.
const GROUP_SIZE: usize = 256;
/// How many bytes of files are started at once: many small files cost one step of the state store.
const BYTES_IN_FLIGHT: u64 = 64 << 20;
/// How often files are redistributed among instances.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);

/// A file that has content to read.
pub(super) struct ReadJob {
    pub(super) file: FoundFile,
    pub(super) split: Arc<Split>,
    pub(super) from: Position,
}

/// A file that is not claimed yet.
pub(super) struct UnclaimedFile {
    pub(super) file: FoundFile,
    pub(super) split: Arc<Split>,
    /// How often the file was rewritten with the same first line; see [`FoundFile::split`].
    pub(super) generation: Option<u32>,
}

impl UnclaimedFile {
    /// A file with the split that is tried first.
    pub(super) fn first(file: FoundFile, stage: &str) -> UnclaimedFile {
        let generation = file.first_generation();
        UnclaimedFile {
            split: file.split(stage, generation),
            file,
            generation,
        }
    }
}

/// The files of a run by state: unclaimed, taken, being read, read.
pub(super) struct FileQueue<'a> {
    pub(super) handle: &'a SourceHandle,
    pub(super) stage: &'a str,
    pub(super) failures: &'a FileFailures<'a>,
    /// How many threads read.
    pub(super) readers: usize,
    pub(super) jobs: Sender<ReadJob>,
    pub(super) ended_splits: Receiver<Arc<Split>>,
    pub(super) unclaimed: VecDeque<UnclaimedFile>,
    /// Copies that wait for the end of a split: until all other files are read.
    pub(super) waiting: Vec<WaitingCopy>,
    /// The ended splits that are continued by files of this run.
    pub(super) continued: Vec<SplitId>,
    /// Taken files that have content to read, each with its generation.
    pub(super) taken: VecDeque<(ReadJob, Option<u32>)>,
    /// The sizes of the files that are being read.
    pub(super) reading: HashMap<SplitId, u64>,
    /// Files that were read to their end, or cannot be read.
    pub(super) read: Vec<Arc<Split>>,
}

impl FileQueue<'_> {
    /// Reads the files until every file was read to its end by some instance.
    pub(super) fn run(mut self) -> Result<(), Stopped> {
        let mut next_round = Instant::now();
        // How many unclaimed files were not tried in this round.
        let mut untried = 0;
        loop {
            while let Ok(split) = self.ended_splits.try_recv() {
                self.reading.remove(&split.id);
                self.read.push(split);
            }
            if self.failures.stops() {
                return self.stop();
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
                    remove_marks(self.handle, &mut self.continued, Vec::new())?;
                    if self.waiting.is_empty() {
                        return Ok(());
                    }
                    self.end_waiting()?;
                    untried = self.unclaimed.len();
                    continue;
                }
                self.handle
                    .sleep(next_round.saturating_duration_since(Instant::now()))?;
            } else if !self.reading.is_empty() {
                self.wait_for_reader()?;
            }
        }
    }

    /// Makes the copies that wait for the end of a split unclaimed.
    fn end_waiting(&mut self) -> Result<(), Stopped> {
        for copy in std::mem::take(&mut self.waiting) {
            let file = copy.after_end(self.handle)?;
            self.unclaimed
                .push_back(UnclaimedFile::first(file, self.stage));
        }
        Ok(())
    }

    /// Waits a moment for a file that is read to its end.
    fn wait_for_reader(&mut self) -> Result<(), Stopped> {
        match self.ended_splits.recv_timeout(ROOM_POLL) {
            Ok(split) => {
                self.reading.remove(&split.id);
                self.read.push(split);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) if !self.handle.is_stopped() => Ok(()),
            // The readers exit when the run is stopped.
            Err(_) => Err(Stopped),
        }
    }

    /// Ends the run before everything is read. What was read is committed.
    fn stop(mut self) -> Result<(), Stopped> {
        while !self.reading.is_empty() {
            self.wait_for_reader()?;
        }
        self.read
            .extend(self.taken.drain(..).map(|(job, _)| job.split));
        self.release_read()
    }

    /// The splits that are claimed.
    fn held(&self) -> Vec<SplitId> {
        let mut held: Vec<SplitId> = self.reading.keys().cloned().collect();
        held.extend(self.read.iter().map(|split| split.id.clone()));
        held.extend(self.taken.iter().map(|(job, _)| job.split.id.clone()));
        held
    }

    /// Claims as many of the next `tried` files as possible, and releases files if it has more than
    /// its part. Returns how many were claimed.
    fn share(&mut self, tried: usize) -> Result<usize, Stopped> {
        let mut found = self.held();
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
        let excess: Vec<(ReadJob, Option<u32>)> = self
            .taken
            .drain(self.taken.len().saturating_sub(share.excess)..)
            .collect();
        if !excess.is_empty() {
            self.handle
                .release(excess.iter().map(|(job, _)| job.split.clone()).collect())?;
            let give_back = |(job, generation): (ReadJob, Option<u32>)| UnclaimedFile {
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
        let (mut starts, mut ends, mut to_release) = (Vec::new(), Vec::new(), Vec::new());
        for (
            UnclaimedFile {
                file,
                split,
                generation,
            },
            known,
        ) in claimed.into_iter().zip(known)
        {
            let next = |file: FoundFile| {
                let generation = Some(generation.map_or(0, |generation| generation + 1));
                UnclaimedFile {
                    split: file.split(self.stage, generation),
                    file,
                    generation,
                }
            };
            let position = known.as_ref().map_or(0, |known| known.position);
            match remaining(&file, generation, known.map(FileProgress::of)) {
                Ok(Remaining::Read(from)) => self
                    .taken
                    .push_back((ReadJob { file, split, from }, generation)),
                Ok(Remaining::Nothing) => to_release.push(split),
                Ok(Remaining::Rewritten(position, mark)) => {
                    tracing::warn!(
                        stage = self.stage,
                        file = file.display_path,
                        "file was rewritten after it was read; it is read from its start"
                    );
                    starts.push((split.clone(), position));
                    // The mark may belong to a lower position.
                    let mark = mark.filter(|mark| mark.upto() == position);
                    ends.push(rewritten(split, position, mark.as_ref()));
                    self.unclaimed.push_front(next(file));
                }
                Ok(Remaining::NextGeneration) => {
                    to_release.push(split);
                    self.unclaimed.push_front(next(file));
                }
                Err(reason) => {
                    if let Some(reason) = self.failures.add_unusable(&file.display_path, reason) {
                        self.failures
                            .quarantine(self.handle, &split, position, &reason)?;
                    }
                    to_release.push(split);
                }
            }
        }
        if !starts.is_empty() {
            self.handle.begin(starts)?;
        }
        for end in ends {
            to_release.push(end.split.clone());
            self.handle.emit(end)?;
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
                .map(|job| {
                    let (split, position) = (job.split.clone(), job.from);
                    SplitStart {
                        split,
                        position,
                        resume: job.file.start_mark(position),
                    }
                })
                .collect(),
        )?;
        let ended = begun.iter().filter_map(|job| job.file.ended.clone());
        self.continued.extend(ended);
        let held = self.held();
        remove_marks(self.handle, &mut self.continued, held)?;
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
