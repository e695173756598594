//! The files as an operator sees them: which split each of them is now, and how much of it was
//! read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::{
    KnownSplit, MoveTo, NewPlace, Resumption, SourceSetup, SplitStatus, SplitTarget,
};

use super::Config;
use super::compression::InputCompression;
use super::damage::is_damage;
use super::identity::{FileKey, Identity, file_id, file_of, split_id};
use super::lines::record_start;
use super::progress::{FileProgress, read_to_end};
use super::snapshot::{Comparison, Snapshot};
use super::tail::{Mark, Tail};

/// The files of a source, for an operator.
pub(super) struct OperatorView<'a> {
    pub(super) config: &'a Config,
    pub(super) setup: &'a SourceSetup,
    /// Whether the first run begins at the ends of the files.
    pub(super) from_latest: bool,
}

/// A file that exists, as the split that a run would read.
struct ExistingFile {
    file: File,
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
    /// The position in the state; `None` if nothing was read of the file.
    fn position(&self) -> Option<Position> {
        match &self.progress {
            Some(FileProgress::UpTo { position, .. })
            | Some(FileProgress::ReadToEnd { position, .. }) => Some(*position),
            Some(FileProgress::Rewritten { .. }) | None => None,
        }
    }

    /// The file as it is now: as in its entry, if that is the same.
    fn snapshot(&self) -> io::Result<Snapshot> {
        match &self.progress {
            Some(FileProgress::ReadToEnd { snapshot, .. })
                if snapshot.compare(&self.file)? == Comparison::Same =>
            {
                Ok(*snapshot)
            }
            _ => Snapshot::of(&self.file, self.compression),
        }
    }

    /// The position after the last record, if it is known without reading the file.
    fn end(&self) -> Option<Position> {
        match &self.progress {
            Some(FileProgress::ReadToEnd { position, snapshot }) if snapshot.size == self.size => {
                Some(*position)
            }
            _ => (self.compression == InputCompression::None).then_some(self.size),
        }
    }
}

impl OperatorView<'_> {
    /// The files that a run would read now, and the splits in the state whose files do not exist
    /// any more. Files that cannot be opened, or that have no record yet, are left out.
    pub(super) fn describe(&self, known: &[KnownSplit]) -> Vec<SplitStatus> {
        let files = self.existing(known);
        let ids: HashSet<&str> = files.iter().map(|file| file.id.as_str()).collect();
        let gone = known
            .iter()
            // What is left of a file that was rewritten is not shown.
            .filter(|known| !ids.contains(file_of(&known.split)) && !is_damage(&known.split))
            .map(|known| SplitStatus {
                is_gone: true,
                ..SplitStatus::of_id(&self.setup.stage, &known.split)
            });
        let there = files.iter().map(|file| SplitStatus {
            split: file.split.clone(),
            name: file.name.clone(),
            end: file.end(),
            is_gone: false,
        });
        there.chain(gone).collect()
    }

    /// The place in each file to which an operator moves it. A file of which nothing was read
    /// begins at the earliest place anyway, unless the source begins at the latest.
    pub(super) fn find_places(&self, known: &[KnownSplit], to: MoveTo) -> Vec<SplitTarget> {
        self.existing(known)
            .into_iter()
            .filter(|file| to != MoveTo::Earliest || file.progress.is_some() || self.from_latest)
            .map(|file| SplitTarget {
                place: place(self.config, &file, to),
                split: file.split,
                name: file.name,
            })
            .collect()
    }

    /// The files that exist, each once.
    fn existing(&self, known: &[KnownSplit]) -> Vec<ExistingFile> {
        let known: HashMap<&SplitId, &Resumption> = known
            .iter()
            .map(|known| (&known.split, &known.at))
            .collect();
        // A path without a file is not an error here.
        let found = self.config.find(self.setup).unwrap_or_default();
        let mut seen = HashSet::new();
        let files = found
            .files
            .into_iter()
            .filter_map(|(path, name)| self.identify(&path, name, &known).ok().flatten());
        files
            .filter(|file| seen.insert(file.split.clone()))
            .collect()
    }

    /// Identifies a file; `None` if it has no record yet.
    fn identify(
        &self,
        path: &Path,
        name: String,
        known: &HashMap<&SplitId, &Resumption>,
    ) -> io::Result<Option<ExistingFile>> {
        let (file, stage) = (File::open(path)?, &self.setup.stage);
        let compression = self.config.compression_of(&file, path)?;
        let Some(identity) = Identity::of(&file, compression)? else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        let (key, size) = (FileKey::of(&metadata), metadata.len());
        let is_current = |progress: &FileProgress| match progress {
            FileProgress::UpTo { position, mark } if compression == InputCompression::None => {
                let is_in = |mark: &Mark| mark.is_in(&file);
                Ok(*position <= size && mark.as_ref().map_or(Ok(true), is_in)?)
            }
            FileProgress::UpTo { mark, .. } => {
                let is_in = |mark: &Mark| mark.find_in_content(&file, compression);
                mark.as_ref()
                    .map_or(Ok(true), |mark| Ok(is_in(mark)?.is_some()))
            }
            FileProgress::ReadToEnd { snapshot, .. } => {
                Ok(snapshot.compare(&file)? != Comparison::Rewritten)
            }
            FileProgress::Rewritten { .. } => Ok::<bool, io::Error>(false),
        };
        let (split, progress) = current(&key, &identity, stage, known, is_current)?;
        let id = file_id(stage, &key);
        Ok(Some(ExistingFile {
            file,
            split,
            progress,
            id,
            name,
            size,
            compression,
        }))
    }
}

/// The split that a run would read of the file, with its entry in the state. `is_current` says
/// whether the file is still the one of an entry.
fn current(
    key: &FileKey,
    identity: &Identity,
    stage: &str,
    known: &HashMap<&SplitId, &Resumption>,
    is_current: impl Fn(&FileProgress) -> io::Result<bool>,
) -> io::Result<(SplitId, Option<FileProgress>)> {
    let before = identity.before.map(|head| split_id(stage, key, head, 0));
    let generations = (0..).map(|generation| split_id(stage, key, identity.head, generation));
    for (number, split) in before.iter().cloned().chain(generations).enumerate() {
        let is_before = number == 0 && before.is_some();
        let progress = known.get(&split).map(|at| FileProgress::of((*at).clone()));
        let is_current = match &progress {
            // The identity from before its first line had an end counts only if it was used.
            None => !is_before,
            Some(progress) => is_current(progress)?,
        };
        if is_current {
            return Ok((split, progress));
        }
    }
    Err(io::Error::other("it was rewritten too often"))
}

/// How many bytes are searched at once for the last line end.
const SEARCH_BYTES: u64 = 64 << 10;

fn place(config: &Config, file: &ExistingFile, to: MoveTo) -> Result<NewPlace, String> {
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let is_plain = file.compression == InputCompression::None;
    let has_quotes = config.framing.has_quotes();
    match to {
        MoveTo::Latest | MoveTo::Position(_) if is_plain && has_quotes => Err(
            "a field in quotes may contain line ends, so where a record begins is not known before \
             the file is read: only earliest is a place in a file of CSV"
                .to_owned(),
        ),
        MoveTo::Earliest => Ok(NewPlace {
            position: 0,
            resume: None,
            is_finished: false,
        }),
        MoveTo::Latest if is_plain => {
            let end = last_line_end(&file.file, file.size).map_err(unreadable)?;
            // A last record without a line end may have been read.
            let read = file.position().filter(|read| *read <= file.size);
            plain_place(file, end.max(read.unwrap_or(0))).map_err(unreadable)
        }
        MoveTo::Latest if file.compression.may_grow() => Err(
            "the number of its rows is not known before they are read, so what is appended could \
             not be told from them: only earliest is a place in an Avro file"
                .to_owned(),
        ),
        MoveTo::Latest => Ok(NewPlace {
            position: file.position().unwrap_or(0),
            resume: Some(read_to_end(file.snapshot().map_err(unreadable)?)),
            is_finished: true,
        }),
        MoveTo::Time(_) => Err("the records of a file have no times of their own".to_owned()),
        MoveTo::Position(_) if !is_plain => {
            Err("only earliest and latest are places in a compressed file, or one of columns".to_owned())
        }
        MoveTo::Position(position) if position > file.size => Err(format!(
            "byte {position} is behind its end; it has {} bytes",
            file.size
        )),
        MoveTo::Position(position) => {
            let copy = file.file.try_clone().map_err(unreadable)?;
            let start = record_start(copy, file.compression, &config.framing, position, None);
            match start.map_err(unreadable)? {
                start if start == position => plain_place(file, position).map_err(unreadable),
                start => Err(format!(
                    "byte {position} is not the start of a record; the next one starts at {start}"
                )),
            }
        }
    }
}

/// A place in a plain file, with the mark of the bytes before it.
fn plain_place(file: &ExistingFile, position: Position) -> io::Result<NewPlace> {
    let before = Tail::of(&file.file, position)?;
    Ok(NewPlace {
        position,
        resume: (position > 0).then(|| before.mark().to_resume()),
        is_finished: false,
    })
}

/// The position after the last line end of a plain file; 0 if it has none.
fn last_line_end(file: &File, size: u64) -> io::Result<Position> {
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(SEARCH_BYTES);
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        if let Some(at) = memchr::memrchr(b'\n', &bytes) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
