//! The files as an operator sees them: which split each of them is now, and how much of it was
//! read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::{KnownSplit, Resumption, SourceSetup, SplitStatus};

use super::Config;
use super::compression::InputCompression;
use super::identity::{FileKey, Identity, file_id, file_of, split_id};
use super::progress::FileProgress;

/// A file that exists, as the split that a run would read.
struct ExistingFile {
    split: SplitId,
    /// Its entry in the state; `None` if nothing was read of it.
    progress: Option<FileProgress>,
    /// The id that all splits of the file share.
    id: String,
    name: String,
    size: u64,
    compression: InputCompression,
}

impl ExistingFile {
    /// The position after the last record, if it is known without reading the file.
    fn end(&self) -> Option<Position> {
        match &self.progress {
            Some(FileProgress::ReadToEnd { position, size }) if *size == self.size => {
                Some(*position)
            }
            _ => (self.compression == InputCompression::None).then_some(self.size),
        }
    }
}

/// The files that a run would read now, and the splits in the state whose files do not exist any
/// more. Files that cannot be opened, or that have no record yet, are left out.
pub(super) fn describe(
    config: &Config,
    setup: &SourceSetup,
    known: &[KnownSplit],
) -> Vec<SplitStatus> {
    let files = existing(config, setup, known);
    let ids: HashSet<&str> = files.iter().map(|file| file.id.as_str()).collect();
    let gone = known
        .iter()
        // What is left of a file that was rewritten is not shown.
        .filter(|known| !ids.contains(file_of(&known.split)))
        .map(|known| SplitStatus {
            is_gone: true,
            ..SplitStatus::of_id(&setup.stage, &known.split)
        });
    let there = files.iter().map(|file| SplitStatus {
        split: file.split.clone(),
        name: file.name.clone(),
        end: file.end(),
        is_gone: false,
    });
    there.chain(gone).collect()
}

/// The files that exist, each once.
fn existing(config: &Config, setup: &SourceSetup, known: &[KnownSplit]) -> Vec<ExistingFile> {
    let known: HashMap<&SplitId, &Resumption> = known
        .iter()
        .map(|known| (&known.split, &known.at))
        .collect();
    // A path without a file is not an error here.
    let found = config.find(setup).unwrap_or_default();
    let mut seen = HashSet::new();
    let files = found
        .files
        .into_iter()
        .filter_map(|(path, name)| identify(config, setup, &path, name, &known).ok().flatten());
    files
        .filter(|file| seen.insert(file.split.clone()))
        .collect()
}

/// Identifies a file; `None` if it has no record yet.
fn identify(
    config: &Config,
    setup: &SourceSetup,
    path: &Path,
    name: String,
    known: &HashMap<&SplitId, &Resumption>,
) -> io::Result<Option<ExistingFile>> {
    let file = File::open(path)?;
    let compression = config.compression_of(&file, path)?;
    let Some(identity) = Identity::of(&file, compression)? else {
        return Ok(None);
    };
    let metadata = file.metadata()?;
    let key = FileKey::of(&metadata);
    let (split, progress) = current(&file, &key, &identity, &setup.stage, known)?;
    Ok(Some(ExistingFile {
        split,
        progress,
        id: file_id(&setup.stage, &key),
        name,
        size: metadata.len(),
        compression,
    }))
}

/// The split that a run would read of the file, with its entry in the state.
fn current(
    file: &File,
    key: &FileKey,
    identity: &Identity,
    stage: &str,
    known: &HashMap<&SplitId, &Resumption>,
) -> io::Result<(SplitId, Option<FileProgress>)> {
    let before = identity.before.map(|head| split_id(stage, key, head, 0));
    let generations = (0..).map(|generation| split_id(stage, key, identity.head, generation));
    for (number, split) in before.iter().cloned().chain(generations).enumerate() {
        let progress = known.get(&split).map(|at| FileProgress::of((*at).clone()));
        let is_current = match &progress {
            // The identity from before its first line had an end counts only if it was used.
            None => number > 0 || before.is_none(),
            Some(FileProgress::Rewritten) => false,
            Some(FileProgress::UpTo {
                mark: Some(mark), ..
            }) => mark.is_in(file)? || mark.upto() > file.metadata()?.len(),
            Some(_) => true,
        };
        if is_current {
            return Ok((split, progress));
        }
    }
    Err(io::Error::other("it was rewritten too often"))
}
