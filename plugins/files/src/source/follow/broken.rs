//! Files that cannot be read further, and what `:on-broken-file` does with them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::{Reason, SplitId, WithCauses};
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceError, SourceExit, Stopped};

use super::super::damage::Damage;
use super::super::glob::printable;
use super::super::identity::FileKey;
use super::super::options::OnBrokenFile;
use super::super::read_error::is_transient;
use super::Follower;
use super::tracked::TrackedFile;

/// The files that cannot be read, as far as they have been reported.
#[derive(Default)]
pub(super) struct BrokenFiles {
    /// Tracked files that cannot be read further.
    tracked: BTreeSet<PathBuf>,
    /// Files that could not be opened at the last scan.
    unopened: BTreeSet<PathBuf>,
    /// Folders that could not be read at the last scan.
    refused: BTreeSet<PathBuf>,
    /// Files and folders that cannot be identified and are to be quarantined.
    to_quarantine: Vec<Damage>,
}

impl Follower<'_> {
    /// Handles files that could not be opened in this scan.
    pub(super) fn note_unopened(
        &mut self,
        errors: Vec<(PathBuf, String, io::Error)>,
    ) -> Result<(), SourceExit> {
        let paths = errors.iter().map(|(path, _, _)| path.clone()).collect();
        let before = std::mem::replace(&mut self.broken.unopened, paths);
        for (path, name, error) in errors {
            if before.contains(&path) {
                continue;
            }
            tracing::warn!(
                stage = self.stage,
                file = %path.display(),
                %error,
                "cannot open file; retrying"
            );
            self.note_unidentified(&path, name, error)?;
        }
        Ok(())
    }

    /// Handles folders that this process may not read.
    pub(super) fn note_refused(
        &mut self,
        errors: Vec<(PathBuf, String, io::Error)>,
    ) -> Result<(), SourceExit> {
        let paths = errors.iter().map(|(path, _, _)| path.clone()).collect();
        let before = std::mem::replace(&mut self.broken.refused, paths);
        let mut seen = BTreeSet::new();
        for (path, name, error) in errors {
            if before.contains(&path) || !seen.insert(path.clone()) {
                continue;
            }
            tracing::warn!(
                stage = self.stage,
                path = %path.display(),
                %error,
                "cannot look for files; retrying"
            );
            self.note_unidentified(&path, name, error)?;
        }
        Ok(())
    }

    fn note_unidentified(
        &mut self,
        path: &Path,
        name: String,
        error: io::Error,
    ) -> Result<(), SourceExit> {
        if is_transient(&error) {
            return Ok(());
        }
        let reason = Reason::caused_by(format!("cannot read {name}"), error);
        match self.config.on_broken {
            OnBrokenFile::Report | OnBrokenFile::Skip => Ok(()),
            OnBrokenFile::Stop => Err(self.stop_for(reason)),
            OnBrokenFile::Quarantine => {
                let damage = Damage::of_path(self.stage, path, name, &reason);
                self.broken.to_quarantine.push(damage);
                Ok(())
            }
        }
    }

    /// Quarantines what cannot be identified: all instances find it, so it is claimed first.
    pub(super) fn quarantine_unidentified(&mut self) -> Result<(), Stopped> {
        if self.broken.to_quarantine.is_empty() {
            return Ok(());
        }
        let damages = std::mem::take(&mut self.broken.to_quarantine);
        let tracked = self.tracked.values().map(|file| file.split().id.clone());
        let mut found: Vec<SplitId> = tracked.collect();
        found.extend(damages.iter().map(|damage| damage.split().clone()));
        let granted = self.handle.share_splits(found)?.granted;
        let is_mine = |damage: &Damage| granted.contains(damage.split());
        let (mine, others): (Vec<_>, Vec<_>) = damages.into_iter().partition(is_mine);
        self.broken.to_quarantine = others;
        mine.iter()
            .try_for_each(|damage| damage.quarantine(self.handle))
    }

    /// Handles a tracked file that cannot be read further.
    pub(super) fn note_broken(&mut self, key: &FileKey, reason: Reason) -> Result<(), SourceExit> {
        let shown = WithCauses(&reason).to_string();
        match self.config.on_broken {
            OnBrokenFile::Report => tracing::error!(
                stage = self.stage,
                reason = shown,
                "a file is not read further; the others are"
            ),
            OnBrokenFile::Stop => return Err(self.stop_for(reason)),
            OnBrokenFile::Skip | OnBrokenFile::Quarantine => tracing::warn!(
                stage = self.stage,
                reason = shown,
                "a file is not read further; it is left behind"
            ),
        }
        self.report_broken();
        if self.config.on_broken == OnBrokenFile::Quarantine
            && let Some(file) = self.tracked.get(key)
        {
            Damage::of_split(file.split(), file.position(), &reason).quarantine(self.handle)?;
        }
        Ok(())
    }

    /// Handles files that end early and have not grown for a long time.
    pub(super) fn give_up_incomplete(&mut self) -> Result<(), SourceExit> {
        let patience = self.settings.drained_after;
        let give_up = |(key, file): (&FileKey, &mut TrackedFile)| {
            file.give_up_incomplete(patience)
                .map(|reason| (*key, reason))
        };
        let broken: Vec<_> = self.tracked.iter_mut().filter_map(give_up).collect();
        broken
            .into_iter()
            .try_for_each(|(key, reason)| self.note_broken(&key, reason))
    }

    /// The error that stops the run because of a file. What was read is committed before.
    fn stop_for(&mut self, reason: Reason) -> SourceExit {
        self.report_broken();
        let files = self.tracked.drain();
        let splits: Vec<Arc<Split>> = files.map(|(_, file)| file.split().clone()).collect();
        match self.handle.release(splits) {
            Ok(()) => SourceExit::Failed(SourceError::Fatal(reason)),
            Err(Stopped) => SourceExit::Stopped,
        }
    }

    /// Names the files that cannot be read in the metrics, and among the troubles of the run.
    pub(super) fn report_broken(&mut self) {
        let is_broken = |file: &&TrackedFile| file.is_broken();
        let files = self.tracked.values().filter(is_broken);
        self.broken.tracked = files.map(|file| file.path().to_owned()).collect();
        let broken = &self.broken;
        let all = broken.tracked.iter();
        let all = all.chain(&broken.unopened).chain(&broken.refused);
        let names: BTreeSet<String> = all.map(|path| self.name_of(path)).collect();
        let metrics = &self.setup.metrics;
        metrics.change_broken_files(self.stage, |reported| *reported = names);
        let reported = match self.config.on_broken {
            OnBrokenFile::Report => broken.tracked.first(),
            _ => None,
        };
        let trouble = reported.map(|first| {
            let others = match broken.tracked.len() {
                1 => String::new(),
                all => format!(" and {} more", all - 1),
            };
            let (stage, first) = (self.stage, first.display());
            format!("the source `{stage}` cannot read {first}{others} further; see the log")
        });
        metrics.set_source_trouble(self.stage, trouble);
    }

    /// The path for messages.
    fn name_of(&self, path: &Path) -> String {
        let base = &self.setup.base;
        let below = path.strip_prefix(base).unwrap_or(path);
        printable(below)
    }
}
