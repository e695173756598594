//! A file as it was found, and what is left to do with it.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::{Position, ResumeToken, SplitId};
use pseidon_plugin::Split;

use super::super::Config;
use super::super::compression::InputCompression;
use super::super::identity::{FileKey, Identity, split_id};
use super::super::lines::{RecordFraming, record_start};
use super::super::progress::FileProgress;
use super::super::read_error::ReadError;
use super::super::snapshot::Comparison;
use super::super::tail::{Mark, Tail};
use super::failures::FileFailures;
use super::last_line::WaitingLines;

const REPLACED: &str = "it was just replaced by another file; run again";

/// A file as it was found.
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) display_path: String,
    pub(super) key: FileKey,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) compression: InputCompression,
    framing: RecordFraming,
    /// A split that is not named after it, by which it is known.
    pub(super) known_as: Option<SplitId>,
    /// Where it is read from as a new split.
    pub(super) starts_at: Position,
    /// The split of a log, which has ended there.
    pub(super) ended: Option<SplitId>,
}

impl FoundFile {
    /// Its split in this generation: how often it was rewritten with the same first line. `None` is
    /// the split by which it is known under another identity, or may be known from the time before
    /// its first line had a line end.
    pub(super) fn split(&self, stage: &str, generation: Option<u32>) -> Arc<Split> {
        let own = |head, generation| split_id(stage, &self.key, head, generation);
        let id = match (generation, &self.known_as) {
            (Some(generation), _) => own(self.identity.head, generation),
            (None, Some(split)) => split.clone(),
            (None, None) => own(self.identity.before.unwrap_or(self.identity.head), 0),
        };
        Arc::new(Split {
            id,
            topic: self.display_path.clone(),
            partition: 0,
        })
    }

    /// The generation that is tried first.
    pub(super) fn first_generation(&self) -> Option<u32> {
        (self.identity.before.is_none() && self.known_as.is_none()).then_some(0)
    }

    pub(super) fn is_plain(&self) -> bool {
        self.compression == InputCompression::None
    }

    /// Whether it is compressed, and its content is lines.
    pub(super) fn has_stream(&self) -> bool {
        !self.is_plain() && !matches!(self.compression, InputCompression::Columns(_))
    }

    /// What is known of the bytes before the position at which it is begun as the continuation of
    /// another one: a record begins there, whatever it looks like.
    pub(super) fn start_mark(&self, position: Position) -> Option<ResumeToken> {
        let is_continuation = position > 0 && position == self.starts_at;
        is_continuation.then(|| Tail::unknown(position).mark().to_resume())
    }

    /// Its head, as in the id of its split.
    pub(super) fn head(&self) -> String {
        self.identity.head.to_string()
    }

    /// Whether this is its head.
    pub(super) fn has_head(&self, head: &str) -> bool {
        let heads = [Some(self.identity.head), self.identity.before];
        heads.iter().flatten().any(|own| own.to_string() == head)
    }

    /// Its current size: another instance may have read it meanwhile.
    fn size_now(&self) -> io::Result<u64> {
        let metadata = fs::metadata(&self.path)?;
        if FileKey::of(&metadata) == self.key {
            Ok(metadata.len())
        } else {
            Err(io::Error::other(REPLACED))
        }
    }

    /// Whether the file still has the bytes that the mark describes.
    fn has(&self, mark: &Mark) -> io::Result<bool> {
        match self.compression {
            InputCompression::None => mark.is_in(&self.open()?),
            compression => Ok(mark.find_in_content(&self.open()?, compression)?.is_some()),
        }
    }

    /// To read the file from a position in the store.
    fn resumed(&self, position: Position, mark: Option<&Mark>) -> io::Result<Remaining> {
        let start = record_start(
            self.open()?,
            self.compression,
            &self.framing,
            position,
            mark,
        );
        start.map(Remaining::Read)
    }

    /// Opens the file again: `None` if its path names another file by now, or if it was rewritten
    /// with another first line.
    pub(super) fn open_as_found(&self) -> io::Result<Option<File>> {
        let file = File::open(&self.path)?;
        if FileKey::of(&file.metadata()?) != self.key {
            return Ok(None);
        }
        let head = self.identity.head;
        let is_same = Identity::of(&file, self.compression)?
            .is_some_and(|now| now.head == head || now.before == Some(head));
        Ok(is_same.then_some(file))
    }

    pub(super) fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if FileKey::of(&file.metadata()?) != self.key {
            return Err(io::Error::other(REPLACED));
        }
        Ok(file)
    }
}

/// What is left to do with a file.
pub(super) enum Remaining {
    /// Read it from this position.
    Read(Position),
    /// It was read to its end, and has no more content.
    Nothing,
    /// It was rewritten after it had been read up to this position: the split is ended, and the
    /// file is read as a new split.
    Rewritten(Position, Option<Mark>),
    /// Nothing as this split: it was rewritten, and the split is ended already, or it is not known
    /// by this split.
    NextGeneration,
}

/// Identifies a file; `None` if it is empty, cannot be read, or has only a line that waits.
pub(super) fn find(
    config: &Config,
    path: &Path,
    display_path: &str,
    failures: &FileFailures<'_>,
    waiting: &WaitingLines,
) -> Option<FoundFile> {
    let look = || -> io::Result<Option<FoundFile>> {
        let file = File::open(path)?;
        let compression = config.compression_of(&file, path)?;
        let Some(identity) = Identity::of(&file, compression)? else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        if let Some(line) = &identity.unended
            && !config.last_line.takes(line, &config.framing, &metadata)
        {
            waiting.add(display_path, line.len() as u64);
            return Ok(None);
        }
        let (path, display_path, key) = (
            path.to_owned(),
            display_path.to_owned(),
            FileKey::of(&metadata),
        );
        Ok(Some(FoundFile {
            path,
            display_path,
            key,
            identity,
            size: metadata.len(),
            compression,
            framing: config.framing.clone(),
            known_as: None,
            starts_at: 0,
            ended: None,
        }))
    };
    look().unwrap_or_else(|error| {
        failures.add_unidentified(path, display_path, ReadError::Io(error));
        None
    })
}

/// Decides what is left to do with a file as the split of this generation, given its entry in the
/// store. An error says why the file cannot be read.
pub(super) fn remaining(
    file: &FoundFile,
    generation: Option<u32>,
    known: Option<FileProgress>,
) -> Result<Remaining, Box<dyn Error + Send + Sync>> {
    match known {
        None if generation.is_none() => Ok(Remaining::NextGeneration),
        None => Ok(Remaining::Read(file.starts_at)),
        Some(FileProgress::Rewritten { .. }) => Ok(Remaining::NextGeneration),
        Some(FileProgress::ReadToEnd { position, snapshot }) => {
            match snapshot.compare(&file.open()?)? {
                Comparison::Same => Ok(Remaining::Nothing),
                Comparison::Rewritten if file.compression.may_grow() => {
                    Err("it is shorter than when it was read to its end".into())
                }
                Comparison::Rewritten => Ok(Remaining::Rewritten(position, None)),
                Comparison::Longer if file.compression.may_grow() => Ok(Remaining::Read(position)),
                Comparison::Longer => Err(
                    "it was appended to after it was read to its end; compressed files must not \
                     be appended to: write new records to a new file"
                        .into(),
                ),
            }
        }
        Some(FileProgress::UpTo { position, mark })
            if file.compression != InputCompression::None =>
        {
            let is_as_read = mark.as_ref().map_or(Ok(true), |mark| file.has(mark));
            match is_as_read? {
                false => Ok(Remaining::Rewritten(position, mark)),
                true => Ok(file.resumed(position, mark.as_ref())?),
            }
        }
        Some(FileProgress::UpTo { position, mark }) => {
            let size = file.size_now()?;
            if position > size && generation.is_none() {
                // Another file had this first line with another line end.
                return Ok(Remaining::NextGeneration);
            }
            let is_as_read =
                position <= size && mark.as_ref().map_or(Ok(true), |mark| file.has(mark))?;
            match is_as_read {
                false => Ok(Remaining::Rewritten(position, mark)),
                true if position == size => Ok(Remaining::Nothing),
                true => Ok(file.resumed(position, mark.as_ref())?),
            }
        }
    }
}
