//! A run of the source: takes files, reads one after another, and releases them.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::SplitId;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::source::{SourceExit, SourceHandle};
use pseidon_plugin::{Batch, Split};

use super::lines::LineReader;

/// How often files are shared among instances.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for room in memory before checking again whether it is time to share.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// The files of a run and their progress.
pub(super) struct Reading<'a> {
    handle: &'a SourceHandle,
    wanted: WantedMetadata,
    /// The files that no instance is known to have finished, including those of this instance.
    unfinished: Vec<Arc<Split>>,
    /// The files that this instance has taken and not yet read to their end.
    taken: VecDeque<LineReader>,
    /// The files that this instance has read to their end and not yet released.
    read: Vec<Arc<Split>>,
}

impl<'a> Reading<'a> {
    /// Creates a run that has taken none of these files.
    pub(super) fn new(
        handle: &'a SourceHandle,
        wanted: WantedMetadata,
        files: Vec<Arc<Split>>,
    ) -> Reading<'a> {
        Reading {
            handle,
            wanted,
            unfinished: files,
            taken: VecDeque::new(),
            read: Vec::new(),
        }
    }

    /// Reads until every file is finished, by whichever instance.
    pub(super) fn read_all(mut self, path_of: &dyn Fn(&str) -> PathBuf) -> Result<(), SourceExit> {
        let existing: HashSet<SplitId> = self.ids().into_iter().collect();
        self.handle
            .forget_finished(move |split| !existing.contains(split))?;
        let mut next_round = Instant::now();
        while !self.unfinished.is_empty() {
            if Instant::now() >= next_round {
                self.share(path_of)?;
                next_round = Instant::now() + SHARE_INTERVAL;
            }
            if !self.taken.is_empty() {
                self.read_next()?;
            } else if !self.read.is_empty() {
                let read = std::mem::take(&mut self.read);
                self.finish(read)?;
            } else if !self.unfinished.is_empty() {
                // Other instances have the remaining files. This instance stays, in case one of
                // them dies.
                self.handle
                    .sleep(next_round.saturating_duration_since(Instant::now()))?;
            }
        }
        Ok(())
    }

    fn ids(&self) -> Vec<SplitId> {
        let ids = self.unfinished.iter().map(|split| split.id.clone());
        ids.collect()
    }

    /// Runs a round of sharing: gives back files beyond the fair share, and takes those that are
    /// granted.
    fn share(&mut self, path_of: &dyn Fn(&str) -> PathBuf) -> Result<(), SourceExit> {
        let share = self.handle.share_splits(self.ids())?;
        let excess = share.excess.min(self.taken.len());
        let given_back = self.taken.split_off(self.taken.len() - excess);
        if !given_back.is_empty() {
            let given_back = given_back.iter().map(|lines| lines.split().clone());
            self.handle.release(given_back.collect())?;
        }
        let is_granted = |split: &&Arc<Split>| share.granted.contains(&split.id);
        let granted: Vec<_> = self.unfinished.iter().filter(is_granted).cloned().collect();
        if granted.is_empty() {
            return Ok(());
        }
        let resumptions = self.handle.take(granted.clone())?;
        let (mut begun, mut finished) = (Vec::new(), Vec::new());
        for (split, known) in granted.into_iter().zip(resumptions) {
            if known.as_ref().is_some_and(|known| known.is_finished) {
                finished.push(split);
                continue;
            }
            let position = known.map_or(0, |known| known.position);
            let path = path_of(&split.topic);
            begun.push((split.clone(), position));
            self.taken.push_back(LineReader::new(path, split, position));
        }
        self.handle.begin(begun)?;
        self.finish(finished)
    }

    /// Emits the next lines of the first file, or its end.
    fn read_next(&mut self) -> Result<(), SourceExit> {
        if !self.handle.wait_for_room(ROOM_POLL)? {
            return Ok(());
        }
        let Some(lines) = self.taken.front_mut() else {
            return Ok(());
        };
        if let Some(batch) = lines.next_batch(self.wanted)? {
            self.handle.emit(batch)?;
            return Ok(());
        }
        let split = lines.split().clone();
        let end = Batch::end_of(split.clone(), lines.position());
        self.handle.emit(end)?;
        self.taken.pop_front();
        self.read.push(split);
        Ok(())
    }

    /// Releases files that are read to their end. Returns when all of their records are delivered.
    fn finish(&mut self, files: Vec<Arc<Split>>) -> Result<(), SourceExit> {
        if files.is_empty() {
            return Ok(());
        }
        self.unfinished.retain(|split| !files.contains(split));
        self.handle.release(files)?;
        Ok(())
    }
}
