//! The rollover writer: one thread's open files, and the steps by which they become visible.
//!
//! A step takes any number of files, and a test can kill the process at each of these points:
//!
//! 1. `opened`: a hidden file was made; `written`: rows were added to one; `finished`: a file is complete.
//! 2. `synced`: all files of the step and their names are on disk.
//! 3. `committed`: the state store has the step: the records are delivered, come what may.
//! 4. `renamed`: the first file is visible; `published`: all are, lastingly. The next step takes them out of the store.
//!
//! Where files are moved or reported afterwards, they are handed over for that ([`follow_ups`](super::follow_ups)) and stay in the store until
//! it is done.
//!
//! Files that are full wait for the next tick, so that many that fill up at the same time cost one step.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use pseidon_delivery::{LaneId, SplitId, failpoint};
use pseidon_formats::EncodeError;
use pseidon_plugin::Rows;
use pseidon_plugin::budget::LaneUse;
use pseidon_plugin::sink::{Chunk, OpenLane, SinkError, Writer};
use rustix::io::Errno;

use super::Shared;
use super::blocked::Blocked;
use super::follow_ups::MOST_WAITING;
use super::open_file::{ClosedFile, OpenFile, Writing};
use super::place::{Move, Outcome, sync_dir, sync_dirs};
use super::rollover::Alarm;

/// How many full files wait for the next tick, at most.
const MOST_FULL: usize = 16;
/// When too many files are open, this part of them is closed in one step.
const CLOSED_AT_ONCE: usize = 8;

/// Writes the files of one writer thread.
pub(super) struct FileWriter {
    shared: Arc<Shared>,
    open: HashMap<LaneId, OpenFile>,
    /// Full files that are not committed.
    full: Vec<ClosedFile>,
    alarm: Option<Alarm>,
    blocked: Blocked,
    most_open: usize,
    /// What the open files buffer.
    memory: usize,
    /// The same, as all writers of all sinks count it together.
    share: LaneUse,
}

impl FileWriter {
    pub(super) fn new(shared: Arc<Shared>) -> FileWriter {
        let (settings, setup) = (&shared.settings, &shared.setup);
        let writers = setup.writers.max(1);
        let gauge = setup.metrics.sink_blocked.with_label_values(&[&shared.stage]);
        FileWriter {
            open: HashMap::new(),
            full: Vec::new(),
            alarm: settings.rollover.cron.clone().map(|cron| Alarm::new(cron, Utc::now())),
            blocked: Blocked::new(setup.committer.sink().to_string(), gauge, setup.stop.clone()),
            most_open: (settings.max_open_files / writers).max(1),
            memory: 0,
            share: LaneUse::new(&setup.memory),
            shared,
        }
    }

    /// Adds rows to the lane's file, which is opened if need be.
    fn add(&mut self, lane: &LaneId, rows: &Rows) -> Result<(), SinkError> {
        if !self.open.contains_key(lane) {
            self.make_room_for_one()?;
            let file = self.open_file(lane, rows)?;
            self.memory += file.memory();
            self.open.insert(lane.clone(), file);
            self.shared.open_files.inc();
            failpoint::reach("opened");
        }
        let rows = self.shared.settings.router.without_values(rows.clone()).map_err(|error| SinkError::Fatal(error.to_string()))?;
        let Some(file) = self.open.get_mut(lane) else { return Ok(()) };
        self.memory -= file.memory();
        file.write(&rows).map_err(cannot_encode)?;
        while let Some(error) = file.blocked() {
            self.blocked.wait(error)?;
            file.resume();
        }
        self.blocked.over();
        self.memory += file.memory();
        let seen = OpenLane { lane: lane.clone(), bytes: file.bytes(), records: file.records(), opened: file.opened() };
        self.shared.lanes.lock().insert(lane.clone(), seen);
        failpoint::reach("written");
        if self.shared.settings.rollover.is_full(file.bytes(), file.records()) {
            self.close(std::slice::from_ref(lane))?;
        }
        Ok(())
    }

    /// How many of the rows the lane's file still takes, so that it gets no more than `:records`. Rows of one position stay together.
    fn fitting(&self, lane: &LaneId, rows: &Rows) -> usize {
        let Some(most) = self.shared.settings.rollover.records else { return rows.len() };
        let room = most.saturating_sub(self.open.get(lane).map_or(0, OpenFile::records)).max(1);
        let mut fitting = usize::try_from(room).unwrap_or(usize::MAX).min(rows.len());
        while fitting < rows.len() && rows.position(fitting) == rows.position(fitting - 1) {
            fitting += 1;
        }
        fitting
    }

    /// A new file for the lane, whose first record is the first of these rows.
    fn open_file(&mut self, lane: &LaneId, rows: &Rows) -> Result<OpenFile, SinkError> {
        loop {
            match self.shared.staging.create() {
                Ok((file, hidden)) => {
                    self.blocked.over();
                    let destination = self.shared.destination(rows, &hidden)?;
                    return OpenFile::new(lane.clone(), destination, &self.shared.settings.codec, file, hidden).map_err(cannot_encode);
                }
                // Waiting would not help: these are the files that have to be closed.
                Err(error) if is_out_of_files(&error) && !self.open.is_empty() => {
                    self.close_oldest(1)?;
                    self.commit()?;
                }
                Err(error) => self.blocked.wait(&error)?,
            }
        }
    }

    /// Closes those that were used longest ago, if as many files are open as may be.
    fn make_room_for_one(&mut self) -> Result<(), SinkError> {
        if self.open.len() < self.most_open {
            return Ok(());
        }
        self.close_oldest((self.most_open / CLOSED_AT_ONCE).max(1))
    }

    fn close_oldest(&mut self, count: usize) -> Result<(), SinkError> {
        let mut by_use: Vec<(Instant, LaneId)> = self.open.iter().map(|(lane, file)| (file.written(), lane.clone())).collect();
        by_use.sort();
        let oldest: Vec<LaneId> = by_use.into_iter().take(count).map(|(_, lane)| lane).collect();
        self.close(&oldest)
    }

    /// Gets below the memory that may be buffered: the largest buffers are written out first; if that is not enough, files are closed.
    fn free_memory(&mut self) -> Result<(), SinkError> {
        if !self.has_too_much() {
            return Ok(());
        }
        let mut by_size: Vec<(usize, LaneId)> = self.open.iter().map(|(lane, file)| (file.memory(), lane.clone())).collect();
        by_size.sort_by(|one, other| other.cmp(one));
        for (_, lane) in by_size {
            let Some(file) = self.open.get_mut(&lane) else { continue };
            self.memory -= file.memory();
            file.shed().map_err(cannot_encode)?;
            while let Some(error) = file.blocked() {
                self.blocked.wait(error)?;
                file.resume();
            }
            self.blocked.over();
            self.memory += file.memory();
            if !self.has_too_much() {
                return Ok(());
            }
        }
        while self.has_too_much() && self.open.len() > 1 {
            self.close_oldest((self.open.len() / CLOSED_AT_ONCE).max(1))?;
        }
        Ok(())
    }

    fn has_too_much(&mut self) -> bool {
        self.share.set(self.memory);
        self.share.is_too_much()
    }

    /// Completes the files of these lanes; they are full now.
    fn close(&mut self, lanes: &[LaneId]) -> Result<(), SinkError> {
        for lane in lanes {
            let Some(file) = self.open.remove(lane) else { continue };
            self.memory -= file.memory();
            self.shared.open_files.dec();
            self.shared.lanes.lock().remove(lane);
            let shared = &self.shared;
            let writing = Writing {
                pipeline: &shared.setup.pipeline,
                sink: shared.setup.committer.sink().as_str(),
                place: shared.place.as_deref(),
                tells_topic: shared.settings.router.name.as_ref().is_some_and(|name| name.tells_topic),
                extension: &shared.extension,
                has_hook: shared.settings.hook.is_some(),
            };
            let mut closing = file.close(&writing).map_err(cannot_encode)?;
            let closed = loop {
                while let Some(error) = closing.blocked() {
                    self.blocked.wait(error)?;
                    closing.resume();
                }
                match closing.into_closed() {
                    Ok(closed) => break closed,
                    Err(still_closing) => {
                        closing = *still_closing;
                        closing.resume();
                    }
                }
            };
            self.blocked.over();
            failpoint::reach("finished");
            self.full.push(closed);
        }
        Ok(())
    }

    /// Commits and publishes all that is full, in one step.
    fn commit(&mut self) -> Result<(), SinkError> {
        let files = std::mem::take(&mut self.full);
        if files.is_empty() {
            return Ok(());
        }
        make_lasting(&files)?;
        failpoint::reach("synced");
        let bytes: u64 = files.iter().map(ClosedFile::bytes).sum();
        let lanes: Vec<_> = files.iter().map(ClosedFile::lane_commit).collect();
        let staged: Vec<_> = files.iter().map(ClosedFile::staged).collect();
        // Whatever the answer is, or if there is none: only the store can say now whether the files count.
        let (ids, moves): (Vec<String>, Vec<Move>) = files.into_iter().map(ClosedFile::hand_over).unzip();
        self.shared.setup.committer.commit(&lanes, staged)?;
        failpoint::reach("committed");
        self.shared.bytes_out.inc_by(bytes);
        let files: Vec<(String, Move)> = ids.into_iter().zip(moves).collect();
        let not_here = self.publish(&files)?;
        failpoint::reach("published");
        self.shared.files.inc_by((files.len() - not_here.len()) as u64);
        let mut done = Vec::new();
        for (id, moving) in files {
            match moving.follow_up.clone() {
                _ if not_here.contains(&id) => self.shared.follow_ups.publish_later(id, moving),
                Some(follow_up) => self.shared.follow_ups.follow(id, moving, follow_up),
                None => done.push(id),
            }
        }
        self.shared.setup.committer.published(done);
        self.wait_for_follow_ups()
    }

    /// Publishes what can be; then waits for the rest. Returns the ids of those whose disk is gone.
    fn publish(&mut self, files: &[(String, Move)]) -> Result<HashSet<String>, SinkError> {
        let mut changed = BTreeSet::new();
        let mut not_here = HashSet::new();
        let mut left: Vec<&(String, Move)> = files.iter().collect();
        loop {
            let mut failure = None;
            left.retain(|(id, moving)| match moving.apply(&mut changed) {
                Ok(Outcome::NotHere(_)) => {
                    not_here.insert(id.clone());
                    false
                }
                Ok(Outcome::Published | Outcome::Taken) => {
                    failpoint::reach("renamed");
                    false
                }
                Err(error) => {
                    failure = Some(error);
                    true
                }
            });
            if failure.is_none() {
                failure = sync_dirs(&changed).err();
            }
            match failure {
                None => break,
                Some(error) => self.blocked.wait(&error)?,
            }
        }
        self.blocked.over();
        Ok(not_here)
    }

    /// Waits while too many files wait to be published, moved or reported: each of them is an entry in the state store.
    fn wait_for_follow_ups(&mut self) -> Result<(), SinkError> {
        while self.shared.follow_ups.is_full() && !self.shared.setup.stop.reading_stopped() {
            self.blocked.wait(&io::Error::other(format!("{MOST_WAITING} committed files wait to be published, moved or reported")))?;
        }
        self.blocked.over();
        Ok(())
    }
}

impl Writer for FileWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        let mut rows = chunk.rows;
        while !rows.is_empty() {
            let fitting = self.fitting(&chunk.lane, &rows);
            self.add(&chunk.lane, &rows.slice(0, fitting))?;
            rows = rows.slice(fitting, rows.len() - fitting);
            if self.full.len() >= MOST_FULL {
                self.commit()?;
            }
        }
        self.free_memory()
    }

    fn tick_every(&self) -> Duration {
        self.shared.settings.check_freq
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        let rings = self.alarm.as_mut().is_some_and(|alarm| alarm.rings(Utc::now()));
        let (now, rollover) = (Instant::now(), &self.shared.settings.rollover);
        let is_due = |file: &OpenFile| {
            rings || rollover.is_full(file.bytes(), file.records()) || rollover.is_over(file.opened(), file.written(), now)
        };
        let due: Vec<LaneId> = self.open.iter().filter(|(_, file)| is_due(file)).map(|(lane, _)| lane.clone()).collect();
        self.close(&due)?;
        // Others may need what lies idle here.
        self.free_memory()?;
        self.commit()
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let is_meant = |file: &OpenFile| splits.is_none_or(|splits| file.holds(splits));
        let meant: Vec<LaneId> = self.open.iter().filter(|(_, file)| is_meant(file)).map(|(lane, _)| lane.clone()).collect();
        self.close(&meant)?;
        self.commit()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.shared.open_files.sub(self.open.len() as i64);
        self.shared.lanes.lock().retain(|lane, _| !self.open.contains_key(lane));
    }
}

/// Makes files and their hidden names lasting.
fn make_lasting(files: &[ClosedFile]) -> Result<(), SinkError> {
    let mut dirs = BTreeSet::new();
    for file in files {
        // After a failed sync the kernel may have thrown the data away, so it is no use to try again with this file.
        file.sync().map_err(|error| SinkError::Transient(format!("cannot sync a file: {error}")))?;
        dirs.insert(file.hidden().dir());
    }
    for dir in &dirs {
        sync_dir(dir).map_err(|error| SinkError::Transient(format!("cannot sync {}: {error}", dir.display())))?;
    }
    match files.iter().find(|file| !file.hidden().is_there()) {
        None => Ok(()),
        Some(gone) => Err(SinkError::Transient(format!("an open file in {} was deleted by somebody", gone.hidden().dir().display()))),
    }
}

/// Whether the process, or the machine, has as many files open as it may.
fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn cannot_encode(error: EncodeError) -> SinkError {
    SinkError::Fatal(error.to_string())
}
