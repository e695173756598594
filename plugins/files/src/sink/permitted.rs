//! What a staged entry may do if other programs can write to the state.
//!
//! An entry says which file gets which name, and where it is moved then. With the entries of a state
//! that is neither private nor signed, another program could have any file renamed. So such an entry
//! is applied only inside the folders that the pipeline file has for the sink now. Any other entry
//! waits in the state, as that of a disk that is not mounted: if the pipeline wrote it before its
//! folders were changed, a run with the earlier folders publishes it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use pseidon_plugin::sink::SinkError;

use super::absolute;
use super::disk::{DiskId, OPEN};
use super::entry::Move;
use super::follow_up::{BROKEN, Destination};
use super::host::Host;
use super::settings::{MoveSettings, Settings};

/// The end of a hidden file's name.
pub(super) const HIDDEN_ENDING: &str = ".open";

/// The places of a sink as its pipeline file has them now. The paths are absolute.
#[derive(Debug)]
pub(super) struct PermittedPlaces {
    /// The base directories.
    bases: Vec<PathBuf>,
    /// The sink's hidden folder, relative to the base directory.
    hidden: String,
    /// Where files are moved.
    move_to: Option<MoveSettings>,
}

impl PermittedPlaces {
    /// The places of a sink with these settings, in a pipeline whose file is in the folder `base`.
    /// `hidden` is the [`sink_folder`].
    pub(super) fn new(
        settings: &Settings,
        base: &Path,
        hidden: String,
    ) -> Result<PermittedPlaces, SinkError> {
        let bases = settings.base_dirs.iter().map(|dir| absolute(base, dir));
        let move_to = settings.move_to.as_ref();
        Ok(PermittedPlaces {
            bases: bases.collect::<Result<_, _>>()?,
            hidden,
            move_to: move_to.map(|move_to| move_to.below(base)).transpose()?,
        })
    }

    /// Why the entry must not be applied; `None` if it may.
    pub(super) fn refusal(&self, moving: &Move) -> Option<String> {
        if !self.bases.contains(&moving.base) {
            let base = moving.base.display();
            return Some(format!("{base} is not a base directory of this sink"));
        }
        if !self.is_hidden_file(&moving.hidden) {
            let hidden = &moving.hidden;
            return Some(format!("`{hidden}` is not a hidden file of this sink"));
        }
        if !is_visible_name(&moving.visible) || moving.extension.contains('/') {
            let (visible, extension) = (&moving.visible, &moving.extension);
            return Some(format!(
                "`{visible}` with the extension `{extension}` is not a file below the base directory"
            ));
        }
        let destination = moving.follow_up.as_ref()?.destination.as_ref()?;
        self.refused_destination(destination)
    }

    /// The same, if the base directory on the file's disk may have another path now. `None` if the
    /// file is not here: another machine, which has other folders, may have written the entry.
    pub(super) fn refusal_on_disks(&self, moving: &Move) -> Option<String> {
        if !self.is_here(moving) {
            return None;
        }
        let is_on = |base: &&PathBuf| DiskId::of(base).ok().flatten() == moving.disk;
        let base = moving.disk.as_ref().and(self.bases.iter().find(is_on));
        match base {
            Some(base) if !self.bases.contains(&moving.base) => {
                self.refusal(&moving.with_base(base))
            }
            _ => self.refusal(moving),
        }
    }

    /// Whether the disk of the file is mounted here; without a disk, whether this machine has written
    /// the file, or sees it.
    fn is_here(&self, moving: &Move) -> bool {
        let Some(disk) = &moving.disk else {
            return moving.host.shares_locks_with(&Host::this())
                || moving.base.join(&moving.hidden).exists();
        };
        let mut bases = self.bases.iter().chain([&moving.base]);
        bases.any(|base| DiskId::of(base).ok().flatten().as_ref() == Some(disk))
    }

    /// Whether this is the name of a file in the hidden folder of one of the sink's runs.
    fn is_hidden_file(&self, hidden: &str) -> bool {
        let below = hidden.strip_prefix(&self.hidden);
        let below = below.and_then(|below| below.strip_prefix('/'));
        below
            .and_then(|below| below.split_once('/'))
            .is_some_and(|(run, name)| {
                is_name(run) && is_name(name) && name.ends_with(HIDDEN_ENDING)
            })
    }

    fn refused_destination(&self, destination: &Destination) -> Option<String> {
        let Destination {
            folder,
            prefix,
            quarantine,
        } = destination;
        let Some(move_to) = &self.move_to else {
            let folder = folder.display();
            return Some(format!(
                "it is to be moved to {folder}, but this sink has no `:move-to`"
            ));
        };
        if !is_below(folder, &move_to.folder) {
            let (folder, expected) = (folder.display(), move_to.folder.display());
            return Some(format!(
                "it is to be moved to {folder}, which is not below {expected}"
            ));
        }
        if prefix.contains('/') {
            return Some(format!("`{prefix}` is not the beginning of a name"));
        }
        let quarantine = quarantine.as_ref()?;
        let mut permitted = self.bases.iter().map(|base| base.join(BROKEN));
        let is_permitted = permitted.any(|permitted| is_same(quarantine, &permitted))
            || move_to
                .quarantine
                .as_ref()
                .is_some_and(|permitted| is_same(quarantine, permitted));
        let quarantine = quarantine.display();
        (!is_permitted)
            .then(|| format!("{quarantine} is not the folder of this sink's broken files"))
    }
}

/// The hidden folder of a sink below a base directory.
pub(super) fn sink_folder(pipeline: &str, sink: &str, store: &str) -> String {
    let store: String = safe_name(store).chars().take(8).collect();
    format!("{OPEN}/{}.{}.{store}", safe_name(pipeline), safe_name(sink))
}

/// The text as a part of a file's name.
pub(super) fn safe_name(text: &str) -> String {
    let is_safe = |char: char| char.is_ascii_alphanumeric() || "-_#".contains(char);
    text.chars()
        .map(|char| if is_safe(char) { char } else { '_' })
        .collect()
}

/// Whether this is the relative path of a file outside of the hidden folders.
fn is_visible_name(visible: &str) -> bool {
    visible.split('/').all(|name| is_name(name) && name != OPEN)
}

fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains('/')
}

/// Whether a folder is another one or below it.
fn is_below(folder: &Path, other: &Path) -> bool {
    let is_lexically = |folder: &Path, other: &Path| {
        let below = folder.strip_prefix(other);
        below.is_ok_and(|below| below.components().all(is_normal))
    };
    is_lexically(folder, other)
        || matches!(
            (resolved(folder), resolved(other)),
            (Some(folder), Some(other)) if is_lexically(&folder, &other)
        )
}

fn is_same(folder: &Path, other: &Path) -> bool {
    folder == other || resolved(folder).is_some_and(|folder| Some(folder) == resolved(other))
}

fn is_normal(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(_))
}

/// The path without links and `..`, which another way to the pipeline file may have. Its end may not
/// exist yet.
fn resolved(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|existing| {
        let below = path.strip_prefix(existing).ok()?;
        let resolved = fs::canonicalize(existing).ok()?;
        below
            .components()
            .all(is_normal)
            .then(|| resolved.join(below))
    })
}

#[cfg(test)]
mod tests;
