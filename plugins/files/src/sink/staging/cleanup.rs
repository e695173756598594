//! The cleanup after dead runs.
//!
//! A folder whose lock is free belongs to a dead run ([`folder`](super::super::folder)). The run is
//! fenced: a commit of it that is still in flight is never applied. Then the files that the state
//! store names as staged are published, since their records count as delivered; all other files are
//! deleted, since their records are uncommitted and are re-read. Only the dead folder is locked
//! during the requests to the state store, so a store that does not answer blocks no other
//! pipeline.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use pseidon_delivery::{InstanceId, StagedId, failpoint};
use pseidon_plugin::sink::SinkError;

use super::super::disk::DiskId;
use super::super::entry::{Move, read_moves};
use super::super::file_system::{metadata, sync_dirs};
use super::super::folder::DeadFolder;
use super::{ErrorMapper, Publication, Staging, cannot_write};

impl Staging {
    /// Cleans up after runs that have died since. Returns those of their files that could not be
    /// published yet.
    pub(in crate::sink) fn clean_up_all(&self) -> Result<Vec<(StagedId, Move)>, SinkError> {
        self.clean_up(
            self.folders
                .iter()
                .map(|folder| (folder.base(), folder.sink())),
            cannot_write,
        )
    }

    /// Cleans up after dead runs of this sink. `sinks` holds the base directories, each with the
    /// path of the sink's folder below it.
    pub(super) fn clean_up<'a>(
        &self,
        sinks: impl Iterator<Item = (&'a Path, &'a str)>,
        map_error: ErrorMapper,
    ) -> Result<Vec<(StagedId, Move)>, SinkError> {
        let mut dead = self.claim_dead_folders(sinks, map_error)?;
        // A run on another machine may hold a lock that is not visible here. While it owns splits
        // it is left alone; without splits it has no files, unless it was cut off.
        if dead.iter().any(|(_, _, folder)| folder.is_foreign()) {
            let owners = self.committer.owners()?;
            dead.retain(|(_, _, folder)| {
                !folder.is_foreign() || (folder.has_files() && !owners.contains(folder.owner()))
            });
        }
        if dead.is_empty() {
            return Ok(Vec::new());
        }
        // A dead run's last commit may still be in flight to the state store: it must be applied
        // before the staged entries are read, or never.
        let owners: BTreeSet<&InstanceId> =
            dead.iter().map(|(_, _, folder)| folder.owner()).collect();
        owners
            .into_iter()
            .try_for_each(|owner| self.committer.fence(owner))?;
        let staged = read_moves(self.committer.staged()?)?;
        let mut failed = Vec::new();
        for (base, sink, folder) in dead {
            let prefix = format!("{sink}/{}/", folder.name());
            let disk = DiskId::of(base).map_err(|error| map_error(base, error))?;
            let staged = staged_on_disk(&staged, base, disk.as_ref(), &prefix)
                .map_err(|error| map_error(base, error))?;
            failed.extend(self.clean_up_folder(folder, staged));
        }
        Ok(failed)
    }

    /// Locks the folders of dead runs below these base directories.
    fn claim_dead_folders<'a>(
        &self,
        sinks: impl Iterator<Item = (&'a Path, &'a str)>,
        map_error: ErrorMapper,
    ) -> Result<Vec<(&'a Path, &'a str, DeadFolder)>, SinkError> {
        let mut dead = Vec::new();
        for (base, sink) in sinks {
            let entries = match fs::read_dir(base.join(sink)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|error| map_error(base, error))?,
            };
            for entry in entries {
                let dir = entry.map_err(|error| map_error(base, error))?.path();
                let folder =
                    DeadFolder::claim(dir, &self.host).map_err(|error| map_error(base, error))?;
                dead.extend(folder.map(|folder| (base, sink, folder)));
            }
        }
        Ok(dead)
    }

    /// Publishes the committed files in a dead run's folder, which are `staged`, and deletes the
    /// folder. The folder stays while it may contain committed files; those that could not be
    /// published are returned.
    fn clean_up_folder(
        &self,
        folder: DeadFolder,
        staged: Vec<(StagedId, Move)>,
    ) -> Vec<(StagedId, Move)> {
        let mut changed = BTreeSet::new();
        let (mut published, mut failed) = (Vec::new(), Vec::new());
        let mut is_clear = true;
        for (id, moving) in staged {
            match self.publish_one(&id, &moving, &mut changed) {
                Publication::Done => published.push((id, moving)),
                Publication::NotHere => is_clear = false,
                Publication::Failed => failed.push((id, moving)),
            }
        }
        if let Err(error) = sync_dirs(&changed) {
            tracing::warn!(
                folder = %folder.dir().display(),
                %error,
                "cannot sync published files; retrying in the background"
            );
            failed.append(&mut published);
        }
        failpoint::reach("republished");
        let count = published.len();
        self.published.lock().extend(published);
        if is_clear && failed.is_empty() {
            remove(folder, count);
        }
        failed
    }
}

/// The staged files that are in the folder `prefix` below this base directory, which is on this disk.
/// Their base directory may have had another path when they were written; the paths below it are the
/// same. The folder is named after one run of one process, so what is there now was written by it,
/// whatever the id of the disk has become.
fn staged_on_disk(
    staged: &[(StagedId, Move)],
    base: &Path,
    disk: Option<&DiskId>,
    prefix: &str,
) -> io::Result<Vec<(StagedId, Move)>> {
    let mut found = Vec::new();
    for (id, written) in staged {
        if !written.hidden.starts_with(prefix) {
            continue;
        }
        let is_on_this_disk = match &written.disk {
            Some(wanted) => disk == Some(wanted),
            None => written.base == base,
        };
        if is_on_this_disk || metadata(&base.join(&written.hidden))?.is_some() {
            found.push((id.clone(), written.with_base(base)));
        }
    }
    Ok(found)
}

/// Removes the folder of a dead run, `published` of whose files were published.
fn remove(folder: DeadFolder, published: usize) {
    let (dir, owner) = (folder.dir().to_owned(), folder.owner().clone());
    match folder.remove() {
        Ok(()) => {
            failpoint::reach("buried");
            tracing::info!(
                folder = %dir.display(),
                owner = owner.as_str(),
                published,
                "cleaned up after a run that did not exit cleanly"
            );
        }
        Err(error) => {
            tracing::warn!(
                folder = %dir.display(),
                %error,
                "cannot remove the hidden folder of a dead run"
            )
        }
    }
}
