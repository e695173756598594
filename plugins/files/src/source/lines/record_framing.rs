//! Where the records of a file end: where its format says, or before the next line that matches a
//! pattern.
//!
//! With a pattern, a record begins with a line that matches and contains the following lines that
//! do not. So its end is known when the next matching line is read to its end. The first line of a
//! file begins a record in any case, and so does the line at a place where reading began or stopped
//! before. Empty lines at the end of a record are not part of it.
//!
//! A line that is longer than a record may be does not begin one, whether it matches or not: it
//! belongs to the record before, which is too long with it. So a record is too long or not however
//! its bytes arrive, and at most two records of the maximum length are in memory.

use std::ops::Range;
use std::sync::Arc;

use pseidon_plugin::framing::{Completeness, EndSearch, Framing, RecordEnds};
use regex::bytes::Regex;

/// How the records of a source follow each other in its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) enum RecordFraming {
    /// As the format says.
    Format(Framing),
    /// From one line that matches to the next.
    Pattern(StartPattern),
}

/// A pattern for the lines with which records begin.
#[derive(Clone, Debug)]
pub(in crate::source) struct StartPattern {
    regex: Arc<Regex>,
    /// The length of the longest record in bytes.
    max_record: usize,
}

impl PartialEq for StartPattern {
    fn eq(&self, other: &StartPattern) -> bool {
        (self.regex.as_str(), self.max_record) == (other.regex.as_str(), other.max_record)
    }
}

impl Eq for StartPattern {}

impl StartPattern {
    /// Compiles a pattern; `max_record` is the length of the longest record in bytes.
    pub(in crate::source) fn new(
        pattern: &str,
        max_record: usize,
    ) -> Result<StartPattern, regex::Error> {
        Ok(StartPattern {
            regex: Arc::new(Regex::new(pattern)?),
            max_record,
        })
    }

    /// Whether a record begins with this line, which has no line feed.
    fn begins(&self, line: &[u8]) -> bool {
        let content = line.strip_suffix(b"\r").unwrap_or(line);
        line.len() <= self.max_record && self.regex.is_match(content)
    }

    /// The line feed before the first complete line that begins a record, after the first line
    /// feed.
    fn first_end(&self, bytes: &[u8]) -> Option<usize> {
        let mut before = memchr::memchr(b'\n', bytes)?;
        loop {
            let start = before + 1;
            let end = start + memchr::memchr(b'\n', &bytes[start..])?;
            if self.begins(&bytes[start..end]) {
                return Some(before);
            }
            before = end;
        }
    }

    /// The line feed before the last complete line that begins a record. No line that ends in the
    /// first `searched` bytes does.
    fn last_end(&self, bytes: &[u8], searched: usize) -> Option<usize> {
        let mut end = memchr::memrchr(b'\n', bytes)?;
        while end >= searched {
            let before = memchr::memrchr(b'\n', &bytes[..end])?;
            if self.begins(&bytes[before + 1..end]) {
                return Some(before);
            }
            end = before;
        }
        None
    }
}

/// The part of a record that is too long and that has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongPart {
    /// How many bytes belong to the record, without the line feed at its end.
    pub(super) len: usize,
    /// Whether the record ends there.
    pub(super) is_end: bool,
}

/// A search for the end of a record that does not fit into memory.
#[derive(Clone, Debug)]
pub(super) enum LongSearch {
    Format(EndSearch),
    Pattern(StartPattern),
}

impl LongSearch {
    /// Searches the next bytes, which begin after the last part that was found.
    pub(super) fn find(&mut self, bytes: &[u8]) -> LongPart {
        let (end, rest) = match self {
            LongSearch::Format(search) => (search.find(bytes), bytes.len()),
            LongSearch::Pattern(pattern) => {
                let last = memchr::memrchr(b'\n', bytes);
                // The last line may begin a record when it is complete, unless it is too long.
                let kept = last.filter(|last| bytes.len() - last - 1 <= pattern.max_record);
                (pattern.first_end(bytes), kept.unwrap_or(bytes.len()))
            }
        };
        LongPart {
            len: end.unwrap_or(rest),
            is_end: end.is_some(),
        }
    }
}

impl RecordFraming {
    /// See [`Framing::record`].
    pub(in crate::source) fn record<'a>(&self, lines: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            RecordFraming::Format(framing) => framing.record(lines),
            RecordFraming::Pattern(_) => {
                let is_content = |byte: &u8| !matches!(byte, b'\n' | b'\r');
                let end = lines.iter().rposition(is_content)? + 1;
                Some(&lines[..end])
            }
        }
    }

    /// See [`Framing::completeness`].
    pub(in crate::source) fn completeness(&self, rest: &[u8]) -> Completeness {
        match self {
            RecordFraming::Format(framing) => framing.completeness(rest),
            RecordFraming::Pattern(_) => Completeness::Unknown,
        }
    }

    /// See [`Framing::is_comment`].
    pub(in crate::source) fn is_comment(&self, line: &[u8]) -> bool {
        matches!(self, RecordFraming::Format(framing) if framing.is_comment(line))
    }

    /// Whether the first record of a file is a header.
    pub(in crate::source) fn has_header(&self) -> bool {
        matches!(self, RecordFraming::Format(framing) if framing.has_header)
    }

    /// Whether a line feed may be in quotes, which shows only from the beginning of a file.
    pub(in crate::source) fn has_quotes(&self) -> bool {
        matches!(self, RecordFraming::Format(framing) if framing.quotes.is_some())
    }

    /// Whether a record may have several lines of which each may be the last one.
    pub(in crate::source) fn has_open_end(&self) -> bool {
        matches!(self, RecordFraming::Pattern(_))
    }

    /// See [`Framing::header`].
    pub(super) fn header(&self, lines: &[u8]) -> Option<Range<usize>> {
        match self {
            RecordFraming::Format(framing) => framing.header(lines),
            RecordFraming::Pattern(_) => None,
        }
    }

    /// The ends of whole records: the index of each line feed that ends one. The last byte is one
    /// of them.
    pub(super) fn ends<'a>(&'a self, records: &'a [u8]) -> Ends<'a> {
        match self {
            RecordFraming::Format(framing) => Ends::Format(framing.ends(records)),
            RecordFraming::Pattern(pattern) => Ends::Pattern {
                pattern,
                records,
                at: 0,
            },
        }
    }

    /// The index of the last line feed that ends a record, in bytes that begin with a record.
    /// Without quotes, none of the first `searched` bytes may be one of which this is known.
    pub(super) fn last_end(&self, bytes: &[u8], searched: usize) -> Option<usize> {
        match self {
            RecordFraming::Format(framing) => framing.last_end(bytes, searched),
            RecordFraming::Pattern(pattern) => pattern.last_end(bytes, searched),
        }
    }

    /// How many bytes certainly belong to the first record, of bytes in which no record ends.
    pub(super) fn unended_len(&self, bytes: &[u8]) -> usize {
        match (self, memchr::memrchr(b'\n', bytes)) {
            (RecordFraming::Pattern(_), Some(last)) => last.max(bytes.len() - last - 1),
            _ => bytes.len(),
        }
    }

    /// A search for the end of a record that is too long, in bytes that begin with it.
    pub(super) fn long_search(&self) -> LongSearch {
        match self {
            RecordFraming::Format(framing) => LongSearch::Format(EndSearch::new(*framing)),
            RecordFraming::Pattern(pattern) => LongSearch::Pattern(pattern.clone()),
        }
    }
}

/// An iterator over the ends of records; see [`RecordFraming::ends`].
pub(super) enum Ends<'a> {
    Format(RecordEnds<'a>),
    Pattern {
        pattern: &'a StartPattern,
        records: &'a [u8],
        /// The start of the next record.
        at: usize,
    },
}

impl Iterator for Ends<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Ends::Format(ends) => ends.next(),
            Ends::Pattern {
                pattern,
                records,
                at,
            } => {
                let rest = records.get(*at..).filter(|rest| !rest.is_empty())?;
                let end = pattern.first_end(rest).unwrap_or(rest.len() - 1);
                *at += end + 1;
                Some(*at - 1)
            }
        }
    }
}
