//! A file as it was found, and what is left to do with it.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::Position;
use pseidon_plugin::Split;
use pseidon_plugin::framing::Framing;

use super::super::Config;
use super::super::compression::InputCompression;
use super::super::identity::{FileKey, Head, split_id};
use super::super::lines::record_start;
use super::super::progress::{FileProgress, Mark};
use super::super::read_error::ReadError;
use super::failures::FileFailures;

const REPLACED: &str = "it was just replaced by another file; run again";

/// A file as it was found.
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    pub(super) display_path: String,
    pub(super) key: FileKey,
    pub(super) head: Head,
    pub(super) size: u64,
    compression: InputCompression,
    framing: Framing,
}

impl FoundFile {
    /// Its split in this generation: how often it was rewritten with the same first line.
    pub(super) fn split(&self, stage: &str, generation: u32) -> Arc<Split> {
        let id = split_id(stage, &self.key, self.head, generation);
        Arc::new(Split {
            id,
            topic: self.display_path.clone(),
            partition: 0,
        })
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
        mark.is_in(&self.open()?)
    }

    /// To read the file from a position in the store.
    fn resumed(&self, position: Position, mark: Option<&Mark>) -> io::Result<Remaining> {
        let start = record_start(self.open()?, self.compression, self.framing, position, mark);
        start.map(Remaining::Read)
    }

    fn open(&self) -> io::Result<File> {
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
    Rewritten(Position),
    /// It was rewritten, and the split is ended already.
    Closed,
}

/// Identifies a file; `None` if it is empty or cannot be read.
pub(super) fn find(
    config: &Config,
    path: &Path,
    display_path: &str,
    failures: &FileFailures,
) -> Option<FoundFile> {
    let look = || -> io::Result<Option<FoundFile>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let compression = config.compression_of(&file, path)?;
        let Some(head) = Head::of(&file, compression, true)? else {
            return Ok(None);
        };
        let (path, display_path, key) = (
            path.to_owned(),
            display_path.to_owned(),
            FileKey::of(&metadata),
        );
        Ok(Some(FoundFile {
            path,
            display_path,
            key,
            head,
            size: metadata.len(),
            compression,
            framing: config.framing,
        }))
    };
    look().unwrap_or_else(|error| {
        failures.add(display_path, ReadError::Io(error));
        None
    })
}

/// Decides what is left to do with a file, given its entry in the store. An error says why the file
/// cannot be read.
pub(super) fn remaining(
    file: &FoundFile,
    known: Option<FileProgress>,
) -> Result<Remaining, Box<dyn Error + Send + Sync>> {
    match known {
        None => Ok(Remaining::Read(0)),
        Some(FileProgress::Rewritten) => Ok(Remaining::Closed),
        Some(FileProgress::ReadToEnd { size, .. }) if size == file.size => Ok(Remaining::Nothing),
        Some(FileProgress::ReadToEnd { .. }) => Err(
            "it has changed since it was read to its end; compressed files must not be \
                 appended to: write new records to a new file"
                .into(),
        ),
        Some(FileProgress::UpTo { position, mark })
            if file.compression != InputCompression::None =>
        {
            Ok(file.resumed(position, mark.as_ref())?)
        }
        Some(FileProgress::UpTo { position, mark }) => {
            let size = file.size_now()?;
            if position > size {
                let reason = format!(
                    "it has {size} bytes, but {position} were read of it before: it was truncated; \
                     write new records to a new file"
                );
                return Err(reason.into());
            }
            let is_as_read = mark.as_ref().map_or(Ok(true), |mark| file.has(mark));
            match is_as_read? {
                false => Ok(Remaining::Rewritten(position)),
                true if position == size => Ok(Remaining::Nothing),
                true => Ok(file.resumed(position, mark.as_ref())?),
            }
        }
    }
}
