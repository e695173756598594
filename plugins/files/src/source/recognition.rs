//! Files that the state knows under another identity.
//!
//! - A line that was read without its end has become longer. Its file has another first line, and
//!   the same bytes before the position.
//! - A log was compressed. Its compressed copy is another file on disk with the same content, so
//!   its beginning is what was read of the log. Positions are those of the content, so the copy is
//!   continued where the log was left. One entry is continued by one file at most ([`assign`]): it
//!   becomes the entry of that file, or, if the log needs it, loses its mark ([`remove_marks`]).
//!
//! - With `:on-replaced-file :continue`: a log was replaced by a file with the same beginning. That
//!   file is recognized like a copy.
//!
//! A file that is wrongly taken for a copy loses records, and one that is not recognized is
//! delivered twice. So in doubt a file is a file of its own.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::Split;
use pseidon_plugin::source::{KnownSplit, SourceHandle, Stopped};

use super::compression::{DECODE_BYTES, InputCompression, Stream};
use super::damage::is_damage;
use super::identity::{Head, file_of};
use super::progress::{FileProgress, rewritten};
use super::snapshot::Comparison;
use super::tail::Mark;

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
    /// As the split of the log, which no other file needs. The entry then belongs to this file.
    As(SplitId),
    /// As a split of its own, from this position, at which the split of the log has ended.
    From(Position, SplitId),
    /// From where the split of the log ends: the log needs it to end it.
    After(SplitId),
}

impl Continuation {
    /// The split of the log.
    pub(super) fn split(&self) -> &SplitId {
        match self {
            Continuation::As(split) | Continuation::From(_, split) | Continuation::After(split) => {
                split
            }
        }
    }
}

/// A compressed file that begins with everything that was read as an entry.
#[derive(Clone, Debug)]
pub(super) struct ContentMatch {
    continuation: Continuation,
    /// How many bytes are equal.
    upto: Position,
    /// Whether the file has no more than that.
    is_whole: bool,
}

/// Chooses one entry for each file and one file for each entry. Each match comes with the number of
/// its file in the order of their names. The match of the most bytes comes first, then a file
/// that has no more than them, then the first one by name.
pub(super) fn assign(mut matches: Vec<(usize, ContentMatch)>) -> HashMap<usize, Continuation> {
    matches.sort_by_key(|(file, it)| (Reverse(it.upto), !it.is_whole, *file));
    let (mut assigned, mut used) = (HashMap::new(), HashSet::new());
    for (file, ContentMatch { continuation, .. }) in matches {
        if !assigned.contains_key(&file) && used.insert(continuation.split().clone()) {
            assigned.insert(file, continuation);
        }
    }
    assigned
}

/// Removes from the entries of ended splits what was read as them, after a file has continued it:
/// no other file does. `found` are the other splits of this instance. What another instance has
/// claimed stays in `entries`.
pub(super) fn remove_marks(
    handle: &SourceHandle,
    entries: &mut Vec<SplitId>,
    mut found: Vec<SplitId>,
) -> Result<(), Stopped> {
    if entries.is_empty() {
        return Ok(());
    }
    found.extend(entries.iter().cloned());
    let granted = handle.share_splits(found)?.granted;
    let mine: Vec<Arc<Split>> = entries
        .extract_if(.., |split| granted.contains(split))
        .map(|id| {
            Arc::new(Split {
                id,
                topic: String::new(),
                partition: 0,
            })
        })
        .collect();
    if mine.is_empty() {
        return Ok(());
    }
    let known = handle.take(mine.clone())?;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for (split, known) in mine.iter().zip(known) {
        let Some(known) = known else { continue };
        let position = known.position;
        if let FileProgress::Rewritten { mark: Some(_) } = FileProgress::of(known) {
            starts.push((split.clone(), position));
            ends.push(rewritten(split.clone(), position, None));
        }
    }
    handle.begin(starts)?;
    ends.into_iter().try_for_each(|end| handle.emit(end))?;
    handle.release(mine)
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

    /// How a file with the same first line continues this split, whose own file is gone
    /// or has other content; `None` if its content begins with other bytes. `is_needed` says that
    /// the split may be that of a file that exists.
    pub(super) fn continued_by(
        &self,
        file: &File,
        compression: InputCompression,
        is_needed: bool,
    ) -> io::Result<Option<ContentMatch>> {
        let split = self.split.clone();
        let (mark, continuation) = match &self.progress {
            FileProgress::UpTo {
                mark: Some(mark), ..
            } if is_needed => (mark, Continuation::After(split)),
            FileProgress::UpTo {
                mark: Some(mark), ..
            } => (mark, Continuation::As(split)),
            // It ended at the position of its mark.
            FileProgress::Rewritten { mark: Some(mark) } => {
                (mark, Continuation::From(mark.upto(), split))
            }
            FileProgress::ReadToEnd { snapshot, .. } if !is_needed => {
                let is_same = snapshot.compare(file)? == Comparison::Same;
                return Ok(is_same.then_some(ContentMatch {
                    continuation: Continuation::As(split),
                    upto: Position::MAX,
                    is_whole: true,
                }));
            }
            _ => return Ok(None),
        };
        if mark.upto() == 0 || !mark.covers_all() {
            return Ok(None);
        }
        let found = match compression {
            InputCompression::None => begins_with(file, mark)?,
            _ => mark.compare_content(file, compression)?,
        };
        Ok(found.map(|is_whole| ContentMatch {
            continuation,
            upto: mark.upto(),
            is_whole,
        }))
    }

    /// How a compressed file continues the split after the log has ended it; `None` if it has other
    /// content, or if it is not known what was read.
    pub(super) fn continued_after_end(
        &self,
        file: &File,
        compression: InputCompression,
    ) -> io::Result<Option<Continuation>> {
        let found = self.continued_by(file, compression, true)?;
        let continuation = found.map(|it| it.continuation);
        Ok(continuation.filter(|it| matches!(it, Continuation::From(..))))
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

/// Whether a plain file has no more than the bytes of the mark; `None` if it has others.
fn begins_with(file: &File, mark: &Mark) -> io::Result<Option<bool>> {
    Ok(match mark.is_in(file)? {
        true => Some(file.metadata()?.len() == mark.upto()),
        false => None,
    })
}

/// The head in a split's id.
pub(super) fn head_of(split: &SplitId) -> &str {
    let head = &split.as_str()[file_of(split).len()..];
    let head = head.strip_prefix('.').unwrap_or(head);
    head.split('+').next().unwrap_or(head)
}

/// The head that the content of a compressed file would have as a plain file; `None` if it has no
/// content. Fails with `UnexpectedEof` if it ends before its first line is complete.
pub(super) fn head_of_content(
    file: &File,
    compression: InputCompression,
) -> io::Result<Option<Head>> {
    let mut beginning = Vec::with_capacity(Head::BYTES);
    let mut stream = open_content(file, compression)?;
    loop {
        match stream.read(&mut beginning) {
            Ok(0) => return Ok(Head::of_beginning(&beginning)),
            Ok(_) => {}
            Err(_) if beginning.contains(&b'\n') => return Ok(Head::of_beginning(&beginning)),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the names are those of a log and of its compressed copy: `app.log.1` and `app.log.1.gz`,
/// `app.log` and `app.log-20240131.gz`. `app.log.10.gz` is not that of `app.log.1`.
pub(super) fn are_names_of_copies(plain: &Path, compressed: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.as_encoded_bytes().to_vec())
    };
    let (Some(one), Some(other)) = (name(plain), name(compressed)) else {
        return false;
    };
    let rest = other.strip_prefix(one.as_slice());
    let is_suffix = matches!(rest, Some([b'.' | b'-' | b'_', ..]));
    plain.parent() == compressed.parent() && is_suffix
}

/// A compressed file compared with a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyCheck {
    /// The plain file begins with all of its content, which has this length.
    Copy(Position),
    /// It ends early, and the plain file begins with its content up to there: it may still be being
    /// written.
    Incomplete,
    /// It has other content.
    Other,
}

/// Compares the content of a compressed file with the beginning of a plain one.
pub(super) fn compare_copy(
    file: &File,
    compression: InputCompression,
    plain: &File,
) -> io::Result<CopyCheck> {
    let mut stream = match open_content(file, compression) {
        Err(error) if is_early_end(&error) => return Ok(CopyCheck::Incomplete),
        other => other?,
    };
    let (mut content, mut same, mut at) = (Vec::with_capacity(DECODE_BYTES), Vec::new(), 0);
    loop {
        content.clear();
        match stream.read(&mut content) {
            Ok(0) => return Ok(CopyCheck::Copy(at)),
            Ok(_) => {}
            Err(error) if is_early_end(&error) => return Ok(CopyCheck::Incomplete),
            Err(error) => return Err(error),
        }
        same.resize(content.len(), 0);
        match plain.read_exact_at(&mut same, at) {
            Err(error) if is_early_end(&error) => return Ok(CopyCheck::Other),
            other => other?,
        }
        if same != content {
            return Ok(CopyCheck::Other);
        }
        at += content.len() as u64;
    }
}

fn is_early_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

fn open_content(mut file: &File, compression: InputCompression) -> io::Result<Stream> {
    io::Seek::rewind(&mut file)?;
    Stream::open(file.try_clone()?, compression, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_copy_has_a_suffix() {
        let cases = [
            ("app.log.1", "app.log.1.gz", true),
            ("app.log", "app.log-20260101.gz", true),
            ("app.log", "app.log.1.gz", true),
            ("app.log", "app.log_1.gz", true),
            ("app.log.1", "app.log.10.gz", false),
            ("app.log", "app.log", false),
            ("app.log", "d/app.log.gz", false),
        ];
        for (plain, compressed, expected) in cases {
            let found = are_names_of_copies(Path::new(plain), Path::new(compressed));
            assert_eq!(found, expected, "{plain} {compressed}");
        }
    }
}
