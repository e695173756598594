//! The takeover of newly found files: claims, the entries of the state store, and generations.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::{Position, Reason, SplitId};
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceError, SourceExit, SplitStart, Stopped};

use super::super::compression::InputCompression;
use super::super::identity::{FileKey, split_id};
use super::super::progress::{FileProgress, rewritten as end_of_rewritten};
use super::super::recognition::remove_marks;
use super::super::tail::{Mark, Tail};
use super::candidate::{Candidate, ContentCheck};
use super::start_point::StartPoint;
use super::tracked::TrackedFile;
use super::{Follower, STARTED};

/// What is done with a file that was taken over.
enum TakeoverStep {
    /// It is followed from here.
    Follow(StartPoint),
    /// It was rewritten after it had been read up to this position: its split is ended, and its
    /// next generation is taken over.
    End(Position, Option<Mark>),
    /// It was rewritten, and its split is ended already: its next generation is taken over.
    NextGeneration,
    /// It no longer exists under this path.
    Release,
}

impl Follower<'_> {
    /// Takes over those of the newly found files that no other instance owns. In a round it also
    /// releases files if it has more than its part.
    pub(super) fn take_new(
        &mut self,
        new: BTreeMap<PathBuf, (FileKey, String)>,
        is_round: bool,
    ) -> Result<(), SourceExit> {
        let candidates = self.identify_all(new)?;
        let mut candidates = self.recognize(candidates)?;
        let mut is_round = is_round;
        while is_round || !candidates.is_empty() {
            (candidates, is_round) = (self.share(candidates, is_round)?, false);
            if candidates.is_empty() {
                break;
            }
            candidates = self.take_over(candidates)?;
        }
        let tracked = self.tracked.values();
        let held = tracked.map(|file| file.split().id.clone()).collect();
        Ok(remove_marks(self.handle, &mut self.continued, held)?)
    }

    /// Whether reading begins at the end of files that exist now. Then [`Self::note_first_start`]
    /// must follow.
    pub(super) fn is_first_scan_from_latest(&self) -> bool {
        self.scans == 1 && self.is_first_start
    }

    /// Notes that files which are found from now on are new, also for another start or instance.
    /// Files of the first scan that were not begun by now are read from their beginning if this
    /// instance stops before it has begun them.
    pub(super) fn note_first_start(&self) -> Result<(), Stopped> {
        match self.is_first_scan_from_latest() {
            true => self.handle.set_note(STARTED.to_owned()),
            false => Ok(()),
        }
    }

    fn identify_all(
        &mut self,
        new: BTreeMap<PathBuf, (FileKey, String)>,
    ) -> Result<Vec<Candidate>, SourceExit> {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut errors = Vec::new();
        for (path, (key, display_path)) in new {
            // Two paths may name one file.
            if self.owned_elsewhere.contains(&key)
                || self.is_copy_of_followed(&key, &path)
                || candidates.iter().any(|candidate| candidate.key == key)
            {
                continue;
            }
            match self.identify(&path, display_path.clone()) {
                Ok(Some(candidate)) => candidates.push(candidate),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => errors.push((path, display_path, error)),
            }
        }
        self.note_unopened(errors)?;
        Ok(candidates)
    }

    /// Takes over claimed files, and follows those that are as the state store describes them.
    /// Returns the files that were rewritten: their splits are ended, and they are taken over in
    /// their next generation.
    fn take_over(&mut self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, SourceExit> {
        let splits: Vec<Arc<Split>> = candidates
            .iter()
            .map(|candidate| self.split_of(candidate))
            .collect();
        let known = self.handle.take(splits.clone())?;
        let (mut taken, mut starts, mut to_end, mut to_release, mut rewritten) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((mut candidate, split), known) in candidates.into_iter().zip(splits).zip(known) {
            candidate.look_again();
            match self.next_step(&candidate, known.map(FileProgress::of))? {
                TakeoverStep::Follow(begin) => {
                    starts.push(begin.to_start(split.clone()));
                    self.unidentified.remove(&candidate.key);
                    taken.push((candidate, split, begin));
                }
                TakeoverStep::End(position, mark) => {
                    starts.push(SplitStart::from((split.clone(), position)));
                    let mark = mark.filter(|mark| mark.upto() == position);
                    to_end.push(end_of_rewritten(split, position, mark.as_ref()));
                    rewritten.push(candidate);
                }
                TakeoverStep::NextGeneration => {
                    to_release.push(split);
                    rewritten.push(candidate);
                }
                TakeoverStep::Release => to_release.push(split),
            }
        }
        self.handle.begin(starts)?;
        if !to_release.is_empty() {
            self.handle.release(to_release)?;
        }
        if !to_end.is_empty() {
            self.end(to_end)?;
        }
        for (mut candidate, split, begin) in taken {
            self.continued.extend(candidate.ended.take());
            self.tracked.insert(
                candidate.key,
                candidate.into_tracked(split, begin, self.scans),
            );
        }
        for candidate in &mut rewritten {
            if candidate.known_as.take().is_none() {
                *self
                    .generations
                    .entry((candidate.key, candidate.head))
                    .or_default() += 1;
            }
        }
        Ok(rewritten)
    }

    /// Decides what to do with a file that was taken over, given its entry in the store.
    fn next_step(
        &mut self,
        candidate: &Candidate,
        known: Option<FileProgress>,
    ) -> Result<TakeoverStep, SourceError> {
        let (position, mark, check) = match known {
            Some(FileProgress::Rewritten { .. }) => return Ok(TakeoverStep::NextGeneration),
            Some(FileProgress::UpTo { position, mark }) => {
                let check = match candidate.compression {
                    InputCompression::None => candidate.check_before(position, mark.as_ref()),
                    _ => candidate.check_content(position, mark.as_ref()),
                };
                (position, mark, check)
            }
            Some(FileProgress::ReadToEnd { position, snapshot }) => {
                (position, None, candidate.check_snapshot(position, snapshot))
            }
            None if self.is_first_scan_from_latest() => {
                return Ok(TakeoverStep::Follow(candidate.latest.clone()));
            }
            None => {
                let latest = self.latest.remove(&candidate.key);
                let start = StartPoint::After(Tail::unknown(candidate.starts_at));
                let start = latest.unwrap_or(start);
                return Ok(TakeoverStep::Follow(start));
            }
        };
        Ok(
            match check.map_err(|error| cannot_read(&candidate.path, error))? {
                ContentCheck::AsRead(start) => TakeoverStep::Follow(start),
                ContentCheck::Rewritten => TakeoverStep::End(position, mark),
                ContentCheck::Gone => TakeoverStep::Release,
            },
        )
    }

    /// The split of a file in its current generation.
    fn split_of(&self, candidate: &Candidate) -> Arc<Split> {
        let generation = self
            .generations
            .get(&(candidate.key, candidate.head))
            .copied()
            .unwrap_or(0);
        let own = || split_id(self.stage, &candidate.key, candidate.head, generation);
        let id = candidate.known_as.clone().unwrap_or_else(own);
        Arc::new(Split {
            id,
            topic: candidate.display_path.clone(),
            partition: 0,
        })
    }

    /// Claims as many of these files as possible, and returns them. In a round it also releases
    /// files if it has more than its part.
    fn share(
        &mut self,
        candidates: Vec<Candidate>,
        is_round: bool,
    ) -> Result<Vec<Candidate>, Stopped> {
        let mut found: Vec<SplitId> = self
            .tracked
            .values()
            .map(|file| file.split().id.clone())
            .collect();
        found.extend(
            candidates
                .iter()
                .map(|candidate| self.split_of(candidate).id.clone()),
        );
        let share = self.handle.share_splits(found)?;
        let granted: HashSet<SplitId> = share.granted.into_iter().collect();
        let (mine, others): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .partition(|candidate| granted.contains(&self.split_of(candidate).id));
        for candidate in others {
            if self.is_first_scan_from_latest() {
                self.latest.insert(candidate.key, candidate.latest.clone());
            }
            self.owned_elsewhere.insert(candidate.key);
        }
        if is_round && share.excess > 0 {
            self.release_excess(share.excess)?;
        }
        Ok(mine)
    }

    /// Releases this many files to other instances.
    fn release_excess(&mut self, excess: usize) -> Result<(), Stopped> {
        // Other instances have to find them, so a glob has to match them.
        let named = self
            .tracked
            .iter()
            .filter(|(_, file)| file.was_seen_in(self.scans))
            .map(|(key, _)| *key);
        let given_back: Vec<FileKey> = named.take(excess).collect();
        let files: Vec<TrackedFile> = given_back
            .iter()
            .filter_map(|key| self.tracked.remove(key))
            .collect();
        for file in &files {
            self.durable.remove(&file.split().id);
        }
        self.owned_elsewhere.extend(given_back);
        if !files.is_empty() {
            self.handle
                .release(files.iter().map(|file| file.split().clone()).collect())?;
        }
        Ok(())
    }
}

fn cannot_read(path: &Path, error: io::Error) -> SourceError {
    SourceError::Transient(Reason::caused_by(
        format!("cannot read {}", path.display()),
        error,
    ))
}
