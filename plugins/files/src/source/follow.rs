//! Follow mode: reads files and waits for more content, until the source is stopped.
//!
//! The source polls with `stat` every `:poll` to detect new names, growth, renaming and truncation.
//! A file stays open after it was read, so that lines that are appended after it was renamed or
//! deleted are still read. One thread reads all files, one block of each in turn.
//!
//! A file may be:
//!
//! - *renamed*: the same file under another name, see [`super::identity`];
//! - *no longer matched by a glob*: it is read to its end, and closed when nothing was appended
//!   for [`DRAINED_AFTER`];
//! - *shared with other instances*: each claims its part of the files in the state store, and
//!   releases files when it has more than that;
//! - *truncated or rewritten*: it is shorter than the part that was read, or its first line or the
//!   bytes before the position have changed ([`super::progress`]). Positions of one split only
//!   increase, so the old split is ended and committed; then the file is found again, as a new
//!   split. Its first line distinguishes the two; if that is the same, a generation number does,
//!   and the entry of the ended split says that the next generation follows.
//!
//! A file that cannot be read further keeps no others from being read: it is left alone until it
//! changes ([`broken`]).
//!
//! [`candidate`] identifies a file that was found, [`recognition`] finds out whether the state
//! knows it under another identity, or [`replaced`] another one, [`takeover`] takes it over, and
//! [`tracked`] is a file that is followed.

mod broken;
mod candidate;
mod recognition;
mod replaced;
mod start_point;
mod takeover;
mod tracked;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use pseidon_delivery::{Position, Reason, SplitId};
use pseidon_plugin::Batch;
use pseidon_plugin::source::{SourceError, SourceExit, SourceHandle, SourceSetup, Stopped};

use self::broken::BrokenFiles;
use self::recognition::LeftOutCopy;
use self::start_point::StartPoint;
use self::tracked::{ReadResult, TrackedFile};
use super::Config;
use super::glob::Glob;
use super::identity::{FileKey, Head, file_id, file_of};
use super::progress::rewritten;
use super::skipped::report_skipped;
use super::stat::Stat;

/// How long a file that no glob matches is kept open after its last growth.
pub(super) const DRAINED_AFTER: Duration = Duration::from_secs(300);
/// What is noted when the files that exist at the first start have been begun at their end.
const STARTED: &str = "started at the end of the files that existed";
/// How long to wait for room in memory before checking again whether the run stops.
const ROOM_POLL: Duration = Duration::from_millis(100);
/// How often files are redistributed among instances.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How often the state store forgets files that no longer exist.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// The maximum number of open files; beyond it, those that have not grown for the longest time are
/// closed.
const MAX_OPEN_FILES: usize = 256;

/// The settings of follow mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) poll: Duration,
    /// Whether to begin at the end of files that exist at the first start.
    pub(super) from_latest: bool,
    pub(super) drained_after: Duration,
}

/// Follows the files until the handle is stopped.
pub(super) fn run(
    config: &Config,
    settings: &Settings,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceExit> {
    let mut follower = Follower {
        config,
        settings,
        setup,
        stage: &setup.stage,
        handle,
        globs: config.globs(setup)?,
        tracked: HashMap::new(),
        unidentified: HashMap::new(),
        durable: HashMap::new(),
        broken: BrokenFiles::default(),
        copies: HashMap::new(),
        continued: Vec::new(),
        waits_for_copies: false,
        owned_elsewhere: HashSet::new(),
        generations: HashMap::new(),
        latest: HashMap::new(),
        next_round: Instant::now(),
        next_forgetting: None,
        scans: 0,
        is_first_start: settings.from_latest && handle.note()?.is_none() && !handle.has_splits()?,
    };
    follower.run()
}

struct Follower<'a> {
    config: &'a Config,
    settings: &'a Settings,
    setup: &'a SourceSetup,
    stage: &'a str,
    handle: &'a SourceHandle,
    globs: Vec<Glob>,
    tracked: HashMap<FileKey, TrackedFile>,
    /// Files without a complete first line, and what the last scan saw of them.
    unidentified: HashMap<FileKey, LastLook>,
    /// The position up to which each of our splits is durable in every sink.
    durable: HashMap<SplitId, Position>,
    broken: BrokenFiles,
    /// Compressed copies of files that are read instead.
    copies: HashMap<FileKey, LeftOutCopy>,
    /// The ended splits that are continued by followed files, until their entries say so.
    continued: Vec<SplitId>,
    /// Whether the next scan decides about a compressed file.
    waits_for_copies: bool,
    /// Files that other instances own, until the next round.
    owned_elsewhere: HashSet<FileKey>,
    /// How often a file was rewritten with the same first line; 0 if it is missing.
    generations: HashMap<(FileKey, Head), u32>,
    /// Where to begin in files that existed at the first start and that other instances own.
    latest: HashMap<FileKey, StartPoint>,
    next_round: Instant,
    /// When the state store has to forget files that no longer exist; `None` at first.
    next_forgetting: Option<Instant>,
    scans: u64,
    /// Whether no earlier start has decided which files existed when reading began at their end.
    /// (The state of an earlier version has no note, but records of its files.)
    is_first_start: bool,
}

/// What a scan saw of a file without a complete first line.
struct LastLook {
    size: u64,
    compressed: bool,
    scan: u64,
    /// The first scan that saw this size.
    since: u64,
}

impl Follower<'_> {
    fn run(&mut self) -> Result<(), SourceExit> {
        loop {
            self.scan()?;
            let scanned = Instant::now();
            loop {
                if !self.read_round()? {
                    self.report_lag();
                    self.handle.sleep(self.settings.poll)?;
                    break;
                }
                if scanned.elapsed() >= self.settings.poll {
                    break;
                }
            }
        }
    }

    /// Finds the files that exist now, and their sizes.
    fn scan(&mut self) -> Result<(), SourceExit> {
        self.scans += 1;
        let mut new = BTreeMap::new();
        let (mut refused, mut is_complete) = (Vec::new(), true);
        for glob in &self.globs {
            let found = glob
                .find()
                .map_err(|error| SourceError::Transient(Reason::of(error)))?;
            let named = |(path, error): (PathBuf, io::Error)| {
                let name = glob.display_path(&path);
                (path, name, error)
            };
            refused.extend(found.refused.into_iter().map(named));
            // The folder may be on a disk that is not mounted.
            is_complete &= !found.files.is_empty();
            for path in found.files {
                let now = SystemTime::now();
                let metadata = match fs::metadata(&path) {
                    Ok(metadata) => metadata,
                    // It has been removed by now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => {
                        refused.push(named((path, error)));
                        continue;
                    }
                };
                let key = FileKey::of(&metadata);
                match self.tracked.get_mut(&key) {
                    Some(tracked) => tracked.seen(path, Stat::of(&metadata, now), self.scans),
                    None => drop(new.insert(path.clone(), (key, glob.display_path(&path)))),
                }
            }
        }
        is_complete &= refused.is_empty();
        self.note_refused(refused)?;
        self.check_unseen();
        self.give_up_incomplete()?;
        self.end_rewritten()?;
        let is_round = Instant::now() >= self.next_round;
        if is_round {
            self.next_round = Instant::now() + ROUND_INTERVAL;
            self.owned_elsewhere.clear();
            // Files in a folder that cannot be read now may still exist.
            if is_complete {
                let present: HashSet<FileKey> = new.values().map(|(key, _)| *key).collect();
                self.generations
                    .retain(|(key, _), _| present.contains(key) || self.tracked.contains_key(key));
                self.latest.retain(|key, _| present.contains(key));
            }
        }
        let present: HashSet<FileKey> = new.values().map(|(key, _)| *key).collect();
        self.take_new(new, is_round)?;
        if is_complete {
            self.forget_finished(&present)?;
        }
        self.note_first_start()?;
        self.hold_idle();
        if is_round {
            self.quarantine_unidentified()?;
        }
        self.report_broken();
        self.report_lag();
        self.release_drained()
    }

    fn report_lag(&self) {
        let unread: u64 = self.tracked.values().map(TrackedFile::unread).sum();
        let lag = self.setup.metrics.lag.with_label_values(&[self.stage]);
        lag.set(i64::try_from(unread).unwrap_or(i64::MAX));
    }

    /// Makes the state store forget files that were read to their end and no longer exist.
    fn forget_finished(&mut self, untracked: &HashSet<FileKey>) -> Result<(), Stopped> {
        let is_due = self.next_forgetting.is_none_or(|at| Instant::now() >= at);
        if !is_due || self.waits_for_copies || self.is_any_unidentified() {
            return Ok(());
        }
        self.next_forgetting = Some(Instant::now() + FORGET_EVERY);
        let mut existing: HashSet<String> = untracked
            .iter()
            .chain(self.tracked.keys())
            .map(|key| file_id(self.stage, key))
            .collect();
        // A compressed file may be known as the split of its log.
        let tracked = self.tracked.values();
        existing.extend(tracked.map(|file| file_of(&file.split().id).to_owned()));
        self.handle
            .forget_finished(move |split| !existing.contains(file_of(split)))
    }

    /// Whether a compressed file was found so recently that it may continue what was read of a log.
    fn is_any_unidentified(&self) -> bool {
        let mut looks = self.unidentified.values();
        looks.any(|look| look.compressed && look.since + 1 >= self.scans)
    }

    /// Checks files that no glob matches through their open handles.
    fn check_unseen(&mut self) {
        let (scan, patience) = (self.scans, self.settings.drained_after);
        for tracked in self.tracked.values_mut() {
            tracked.check_if_unseen(scan, patience);
        }
        self.unidentified
            .retain(|_, glimpse| glimpse.scan + 1 >= scan);
    }

    /// Ends the splits of files that were truncated or rewritten; the next scan finds the files as
    /// new ones.
    fn end_rewritten(&mut self) -> Result<(), SourceExit> {
        let is_rewritten = |(key, file): &(&FileKey, &TrackedFile)| file.is_rewritten(key);
        let ended: Vec<FileKey> = self
            .tracked
            .iter()
            .filter(is_rewritten)
            .map(|(key, _)| *key)
            .collect();
        for key in ended {
            let Some(mut file) = self.tracked.remove(&key) else {
                continue;
            };
            tracing::info!(
                stage = self.stage,
                file = %file.path().display(),
                "file was truncated or rewritten; it is read from its start"
            );
            if let Some(block) = file.last_line() {
                block
                    .batches(file.split())
                    .try_for_each(|batch| self.handle.emit(batch))?;
            }
            let mark = file.mark();
            self.end(vec![rewritten(
                file.split().clone(),
                file.position(),
                mark.as_ref(),
            )])?;
        }
        Ok(())
    }

    /// Ends splits by these last batches. The store has recorded it when this returns.
    fn end(&mut self, ends: Vec<Batch>) -> Result<(), Stopped> {
        let splits = ends.iter().map(|end| end.split.clone()).collect();
        for end in ends {
            self.durable.remove(&end.split.id);
            self.handle.emit(end)?;
        }
        self.handle.release(splits)
    }

    /// Releases the splits of files that are gone, as soon as all their records are durable: then
    /// no flush is needed.
    fn release_drained(&mut self) -> Result<(), SourceExit> {
        self.durable.extend(self.handle.durable());
        let durable = &self.durable;
        let is_durable = |file: &TrackedFile| {
            file.is_untouched()
                || durable
                    .get(&file.split().id)
                    .is_some_and(|upto| *upto >= file.position())
        };
        let is_done =
            |file: &TrackedFile| file.is_drained() && !file.has_more() && is_durable(file);
        let done: Vec<FileKey> = self
            .tracked
            .iter()
            .filter(|(_, file)| is_done(file))
            .map(|(key, _)| *key)
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        let files: Vec<TrackedFile> = done
            .iter()
            .filter_map(|key| self.tracked.remove(key))
            .collect();
        for file in &files {
            self.handle
                .emit(Batch::end_of(file.split().clone(), file.position()))?;
        }
        let splits: Vec<_> = files.into_iter().map(|file| file.split().clone()).collect();
        self.durable
            .retain(|id, _| splits.iter().all(|split| split.id != *id));
        Ok(self.handle.release(splits)?)
    }

    /// Reads one block of every file that has more. Opens files up to the limit of open files.
    /// Returns whether any block was read.
    fn read_round(&mut self) -> Result<bool, SourceExit> {
        let mut ready: Vec<FileKey> = self
            .tracked
            .iter()
            .filter(|(_, file)| file.has_more())
            .map(|(key, _)| *key)
            .collect();
        ready.sort_by_key(|key| self.tracked.get(key).is_some_and(|file| !file.is_open()));
        let mut open = self.tracked.values().filter(|file| file.is_open()).count();
        let mut progress = false;
        for key in ready {
            if open >= MAX_OPEN_FILES && self.tracked.get(&key).is_some_and(|file| !file.is_open())
            {
                if !self.close_one() {
                    break;
                }
                open -= 1;
            }
            while !self.handle.wait_for_room(ROOM_POLL)? {}
            let Some(file) = self.tracked.get_mut(&key) else {
                continue;
            };
            let (was_open, mut broken) = (file.is_open(), None);
            match file.read(self.config, &key)? {
                ReadResult::Records(records) => {
                    progress = true;
                    records
                        .batches(file.split())
                        .try_for_each(|batch| self.handle.emit(batch))?;
                }
                ReadResult::Nothing => {}
                ReadResult::Broken(reason) => broken = Some(reason),
            }
            let skipped = file.take_skipped();
            report_skipped(self.setup, &file.path().display().to_string(), &skipped);
            open = open + usize::from(file.is_open()) - usize::from(was_open);
            if let Some(reason) = broken {
                self.note_broken(&key, reason)?;
            }
        }
        Ok(progress)
    }

    /// Opens files that have no more, those that have changed last first, up to the limit of open
    /// files: when they are renamed or deleted, no path may lead to what is appended afterwards.
    fn hold_idle(&mut self) {
        let open = self.tracked.values().filter(|file| file.is_open()).count();
        let mut room = MAX_OPEN_FILES.saturating_sub(open);
        let mut idle: Vec<_> = self
            .tracked
            .iter_mut()
            .filter(|(_, file)| file.is_to_be_held())
            .collect();
        idle.sort_by_key(|(_, file)| Reverse(file.changed()));
        for (key, file) in idle {
            if room == 0 {
                return;
            }
            file.hold(self.config, key);
            room -= usize::from(file.is_open());
        }
    }

    /// Closes the file that has not grown for the longest time, if one can be closed.
    fn close_one(&mut self) -> bool {
        let idle = self
            .tracked
            .values_mut()
            .filter(|file| file.is_open() && !file.has_more())
            .min_by_key(|file| file.last_growth());
        idle.map(TrackedFile::close).is_some()
    }
}
