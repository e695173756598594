//! Progress: how far a file was read, and whether it is still the file that was read.
//!
//! A log that is truncated and rewritten keeps its inode, and often its first line and its size. It
//! does not keep the bytes before the position up to which it was read. So the source remembers the
//! last 64 of them and a digest of all ([`super::content`]): in memory ([`super::tail::Tail`]), and
//! with the position in the state store ([`Mark`]). The store keeps a string with each position, in one of
//! three forms:
//!
//! ```text
//! mark 1234 64 0123456789abcdef 89abcdef01234567 1700000000.5
//!     The 64 bytes before byte 1234 of the content have the first digest, and all bytes before it
//!     the second one. The file ended there, and had last changed at this time.
//! size 5678 89abcdef01234567 1700000000.5
//!     A compressed file of 5678 bytes on disk was read to its end. All its bytes have this digest,
//!     and it had last changed at this time ([`super::snapshot`]).
//! rewritten mark 1234 64 0123456789abcdef 89abcdef01234567
//!     The file was rewritten: no records of this split follow. What was read is in its copies.
//! ```
//!
//! The time is left out if another change could have the same one, and the second digest if it is
//! not known. Earlier versions have neither, and before that the last two forms were encoded in the
//! position itself, which [`FileProgress::of`] still parses.

use std::sync::Arc;

use pseidon_delivery::{Position, ResumePoint, ResumeToken};
use pseidon_plugin::batch::SplitEnd;
use pseidon_plugin::source::Resumption;
use pseidon_plugin::{Batch, Split};

use super::snapshot::Snapshot;
use super::tail::Mark;

/// In an earlier version: the position of a compressed file that was read to its end, minus its
/// size on disk.
const OLD_READ_TO_END: Position = 1 << 63;
/// What is stored with the last position of a file that was rewritten.
const REWRITTEN: &str = "rewritten";
/// In an earlier version: the position of a file that was rewritten.
const OLD_REWRITTEN: Position = Position::MAX - 1;

/// The state store's entry for a file's split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileProgress {
    /// The file was read up to this position.
    UpTo {
        /// Every record below it is durable; it may be a byte inside a line.
        position: Position,
        /// The digest of the bytes before it, or before a lower position; `None` in entries of
        /// earlier versions.
        mark: Option<Mark>,
    },
    /// The file is compressed, and was read to its end.
    ReadToEnd {
        /// The position in the store.
        position: Position,
        /// What it was on disk.
        snapshot: Snapshot,
    },
    /// The file was rewritten. The new content is another split.
    Rewritten {
        /// The digest of the bytes that were read, if it is known.
        mark: Option<Mark>,
    },
}

impl FileProgress {
    /// Parses the store's entry. An unknown string counts as no string.
    pub(super) fn of(known: Resumption) -> FileProgress {
        let Resumption {
            position, resume, ..
        } = known;
        let text = resume.as_ref().map_or("", ResumeToken::as_str);
        match text.split_once(' ') {
            None if text == REWRITTEN => return FileProgress::Rewritten { mark: None },
            Some((REWRITTEN, mark)) => {
                let mark = Mark::from_text(mark);
                return FileProgress::Rewritten { mark };
            }
            Some(("size", text)) => {
                if let Some(snapshot) = Snapshot::from_text(text) {
                    return FileProgress::ReadToEnd { position, snapshot };
                }
            }
            _ => {}
        }
        match position {
            OLD_REWRITTEN => FileProgress::Rewritten { mark: None },
            OLD_READ_TO_END.. => FileProgress::ReadToEnd {
                position,
                snapshot: Snapshot::of_size(position - OLD_READ_TO_END),
            },
            _ => FileProgress::UpTo {
                position,
                mark: Mark::from_text(text),
            },
        }
    }
}

/// The string that is stored with the last position of a compressed file.
pub(super) fn read_to_end(snapshot: Snapshot) -> ResumeToken {
    format!("size {}", snapshot.to_text()).into()
}

/// The end of a split whose file was rewritten after these bytes had been read: its new content is
/// another split.
pub(super) fn rewritten(split: Arc<Split>, position: Position, mark: Option<&Mark>) -> Batch {
    let text = mark.map(|mark| format!("{REWRITTEN} {}", mark.to_resume().as_str()));
    let text = text.unwrap_or_else(|| REWRITTEN.to_owned());
    let mut end = end_of(split, position, text.as_str().into());
    end.end = Some(SplitEnd::Gone);
    end
}

/// The end of a split, with the string that is stored with its last position.
pub(super) fn end_of(split: Arc<Split>, position: Position, resume: ResumeToken) -> Batch {
    let mut end = Batch::end_of(split, position);
    end.resume = Some(ResumePoint { position, resume });
    end
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    use super::super::compression::InputCompression;
    use super::super::stat::Stat;
    use super::super::tail::Tail;
    use super::*;

    fn known(position: Position, resume: Option<ResumeToken>) -> FileProgress {
        FileProgress::of(Resumption {
            position,
            resume,
            is_finished: false,
        })
    }

    fn tail() -> Tail {
        let mut tail = Tail::unknown(0);
        tail.push(b"one\n");
        tail
    }

    #[test]
    fn entries_round_trip() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\n").unwrap();
        let snapshot = Snapshot::of(&file, InputCompression::Gzip).unwrap();
        let later = SystemTime::now() + Duration::from_secs(1);
        let stat = Stat::of(&file.metadata().unwrap(), later);
        let (mark, at_end) = (tail().mark(), tail().mark().at_end(&stat));
        assert!(at_end.to_resume().as_str().contains('.'));
        let split = Arc::new(Split {
            id: "in:1.2.3".into(),
            topic: String::new(),
            partition: 0,
        });
        let of_rewritten = |mark| {
            let end = rewritten(split.clone(), 4, mark);
            end.resume.unwrap().resume
        };
        let up_to = |position, mark| FileProgress::UpTo {
            position,
            mark: Some(mark),
        };
        let read_to_end_at_4 = FileProgress::ReadToEnd {
            position: 4,
            snapshot,
        };
        let is_rewritten = |mark| FileProgress::Rewritten { mark };
        let cases = [
            (4, mark.to_resume(), up_to(4, mark.clone())),
            (9, mark.to_resume(), up_to(9, mark.clone())),
            (4, at_end.to_resume(), up_to(4, at_end)),
            (4, read_to_end(snapshot), read_to_end_at_4),
            (4, of_rewritten(None), is_rewritten(None)),
            (4, of_rewritten(Some(&mark)), is_rewritten(Some(mark))),
        ];
        for (position, resume, expected) in cases {
            assert_eq!(known(position, Some(resume)), expected);
        }
    }

    #[test]
    fn entries_of_earlier_versions_are_parsed() {
        let up_to = |mark| FileProgress::UpTo { position: 7, mark };
        let read_to_end = |position| FileProgress::ReadToEnd {
            position,
            snapshot: Snapshot::of_size(5),
        };
        let is_rewritten = FileProgress::Rewritten { mark: None };
        let mark = tail().mark().to_resume();
        let old_mark: Vec<&str> = mark.as_str().split(' ').take(4).collect();
        let old_mark = old_mark.join(" ");
        let parsed = Mark::from_text(&old_mark);
        assert!(parsed.as_ref().is_some_and(|mark| mark.upto() == 4));
        let cases = [
            (7, Some(old_mark.as_str().into()), up_to(parsed)),
            (7, Some("size 5".into()), read_to_end(7)),
            (7, Some("rewritten".into()), is_rewritten.clone()),
            (7, Some("something newer".into()), up_to(None)),
            (7, Some("mark 1 64 00".into()), up_to(None)),
            (7, None, up_to(None)),
            ((1 << 63) + 5, None, read_to_end((1 << 63) + 5)),
            (u64::MAX - 1, None, is_rewritten),
        ];
        for (position, resume, expected) in cases {
            assert_eq!(known(position, resume), expected);
        }
    }
}
