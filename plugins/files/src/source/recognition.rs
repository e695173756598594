//! Files that the state knows under another identity.
//!
//! - A line that was read without its end has become longer. Its file has another first line, and
//!   the same bytes before the position.
//! - A log was compressed. Its compressed copy is another file on disk with the same content, so
//!   its beginning is what was read of the log. Positions are those of the content, so the copy is
//!   continued where the log was left.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::KnownSplit;

use super::compression::{DECODE_BYTES, InputCompression, Stream};
use super::damage::is_damage;
use super::identity::{Head, file_of};
use super::progress::FileProgress;
use super::snapshot::Comparison;

/// An entry of the state, by which a file may be known.
#[derive(Clone, Debug)]
pub(super) struct KnownFile {
    pub(super) split: SplitId,
    /// Whether every sink has all that was read.
    is_finished: bool,
    progress: FileProgress,
}

/// How a compressed file continues what was read of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Continuation {
    /// As a split of its own, from this position.
    From(Position),
    /// As the split of the log, of which not every sink has all that was read.
    As(SplitId),
}

impl KnownFile {
    /// The entry; `None` if it is not that of a file.
    pub(super) fn of(known: KnownSplit) -> Option<KnownFile> {
        let KnownSplit { split, at } = known;
        (!is_damage(&split)).then(|| KnownFile {
            split,
            is_finished: at.is_finished,
            progress: FileProgress::of(at),
        })
    }

    /// The head in the split's id.
    pub(super) fn head(&self) -> &str {
        head_of(&self.split)
    }

    /// The part of the split's id that does not depend on the head.
    pub(super) fn file_id(&self) -> &str {
        file_of(&self.split)
    }

    /// Whether a plain file begins with everything that was read as this split.
    pub(super) fn is_beginning_of(&self, file: &File) -> io::Result<bool> {
        match &self.progress {
            FileProgress::UpTo {
                mark: Some(mark), ..
            } if mark.covers_all() => mark.is_in(file),
            _ => Ok(false),
        }
    }

    /// How a compressed file with the same first line continues this split, whose own file is gone
    /// or has other content; `None` if its content begins with other bytes.
    pub(super) fn continued_by(
        &self,
        file: &File,
        compression: InputCompression,
    ) -> io::Result<Option<Continuation>> {
        let adopted = Continuation::As(self.split.clone());
        match &self.progress {
            FileProgress::UpTo {
                position,
                mark: Some(mark),
            } if mark.upto() > 0 && mark.covers_all() => {
                let is_alike = mark.is_in_content(file, compression)?;
                Ok(is_alike.then_some(match self.is_finished {
                    true => Continuation::From(*position),
                    false => adopted,
                }))
            }
            // It ended at the position of its mark.
            FileProgress::Rewritten { mark: Some(mark) }
                if mark.upto() > 0 && mark.covers_all() =>
            {
                let is_alike = mark.is_in_content(file, compression)?;
                Ok(is_alike.then(|| Continuation::From(mark.upto())))
            }
            FileProgress::ReadToEnd { snapshot, .. } => {
                let is_same = snapshot.compare(file)? == Comparison::Same;
                Ok(is_same.then_some(adopted))
            }
            _ => Ok(None),
        }
    }

    /// Whether everything before this position was read, and every sink has it.
    pub(super) fn has_all_before(&self, end: Position) -> bool {
        let position = match &self.progress {
            FileProgress::UpTo { position, .. } => *position,
            FileProgress::ReadToEnd { .. } | FileProgress::Rewritten { .. } => 0,
        };
        self.is_finished && position >= end
    }
}

/// The head in a split's id.
pub(super) fn head_of(split: &SplitId) -> &str {
    let head = &split.as_str()[file_of(split).len()..];
    let head = head.strip_prefix('.').unwrap_or(head);
    head.split('+').next().unwrap_or(head)
}

/// The head that the content of a compressed file would have as a plain file; `None` if it has no
/// content that can be read.
pub(super) fn head_of_content(file: &File, compression: InputCompression) -> Option<Head> {
    let mut beginning = Vec::with_capacity(Head::BYTES);
    let mut stream = open_content(file, compression).ok()?;
    while stream.read(&mut beginning).ok()? > 0 {}
    Head::of_beginning(&beginning)
}

/// Whether the names are those of a log and of its compressed copy: `app.log.1` and `app.log.1.gz`,
/// `app.log` and `app.log-20240131.gz`.
pub(super) fn are_names_of_copies(plain: &Path, compressed: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.as_encoded_bytes().to_vec())
    };
    let (Some(one), Some(other)) = (name(plain), name(compressed)) else {
        return false;
    };
    plain.parent() == compressed.parent() && other.starts_with(&one)
}

/// The length of a compressed file's content, if a plain file begins with all of it.
pub(super) fn length_of_copy(
    file: &File,
    compression: InputCompression,
    plain: &File,
) -> io::Result<Option<Position>> {
    let mut stream = open_content(file, compression)?;
    let (mut content, mut same, mut at) = (Vec::with_capacity(DECODE_BYTES), Vec::new(), 0);
    loop {
        content.clear();
        if stream.read(&mut content)? == 0 {
            return Ok(Some(at));
        }
        same.resize(content.len(), 0);
        match plain.read_exact_at(&mut same, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if same != content {
            return Ok(None);
        }
        at += content.len() as u64;
    }
}

fn open_content(mut file: &File, compression: InputCompression) -> io::Result<Stream> {
    io::Seek::rewind(&mut file)?;
    Stream::open(file.try_clone()?, compression, 0)
}
