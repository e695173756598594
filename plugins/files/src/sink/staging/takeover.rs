//! The publishing of staged files when splits are taken over.

use std::collections::BTreeSet;
use std::path::Path;

use pseidon_delivery::{StagedEntry, StagedId};
use pseidon_plugin::sink::SinkError;

use super::super::entry::{Move, read_moves};
use super::super::file_system::sync_dirs;
use super::super::folder::{Folder, is_alive};
use super::{Publication, Staging};

/// The result of publishing staged files.
#[derive(Default)]
pub(in crate::sink) struct PublishResult {
    /// The ids of files that need no follow-up.
    pub(in crate::sink) done: Vec<StagedId>,
    /// Published files that have to be moved or reported.
    pub(in crate::sink) to_follow: Vec<(StagedId, Move)>,
    /// Files that could not be published yet.
    pub(in crate::sink) failed: Vec<(StagedId, Move)>,
}

impl Staging {
    /// Publishes the staged files that are on this machine's disks.
    pub(in crate::sink) fn publish(
        &self,
        staged: Vec<StagedEntry>,
    ) -> Result<PublishResult, SinkError> {
        self.published
            .lock()
            .retain(|id, _| staged.iter().any(|entry| entry.id == *id));
        let mut changed = BTreeSet::new();
        let (mut settled, mut failed) = (Vec::new(), Vec::new());
        for (id, moving) in read_moves(staged)? {
            let published_before = self.published.lock().get(&id).cloned();
            if let Some(moving) = published_before {
                settled.push((id, moving));
                continue;
            }
            let moving = self.with_current_base(moving);
            match self.publish_one(&id, &moving, &mut changed) {
                Publication::Done => settled.push((id, moving)),
                Publication::NotHere => {}
                Publication::Failed => failed.push((id, moving)),
            }
        }
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(
                %error,
                "cannot sync the folders of published files; retrying in the background"
            );
            failed.append(&mut settled);
        }
        let mut published = PublishResult {
            failed,
            ..PublishResult::default()
        };
        for (id, moving) in settled {
            match &moving.follow_up {
                None => published.done.push(id),
                // The other run does the follow-up itself. If it dies before that is done, the next
                // take-over finds the entry again.
                Some(_) if self.is_of_other_live_run(&moving) => {}
                Some(_) => published.to_follow.push((id, moving)),
            }
        }
        Ok(published)
    }

    /// The same entry with the path that the base directory on the file's disk has in this run.
    fn with_current_base(&self, moving: Move) -> Move {
        let bases: Vec<&Path> = self
            .folders
            .iter()
            .filter(|folder| moving.disk == Some(folder.disk()))
            .map(Folder::base)
            .collect();
        match bases.first() {
            Some(base) if !bases.contains(&moving.base.as_path()) => moving.with_base(base),
            _ => moving,
        }
    }

    /// Whether the file was written by another run of this sink that is still alive on this
    /// machine.
    fn is_of_other_live_run(&self, moving: &Move) -> bool {
        let hidden = moving.base.join(&moving.hidden);
        let dir = hidden
            .parent()
            .filter(|dir| self.folders.iter().all(|folder| folder.dir() != **dir));
        dir.is_some_and(|dir| is_alive(dir, &moving.host, &self.host))
    }
}
