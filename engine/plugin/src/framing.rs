//! Framing: where the records of a file or a stream end.
//!
//! Most formats have a record per line. In CSV a field in quotes may contain line ends, and the
//! first record of a file may be a header that names the fields. A source that splits bytes into
//! records does so by the [`Framing`] of its format; a source of messages has its records already.
//!
//! The rule for quotes is that of RFC 4180, and of csv-core for what the RFC leaves open: a quote
//! at the beginning of a field opens it, two quotes inside are one quote of the value, and another
//! quote closes it. A quote inside a field that does not begin with one is an ordinary character. A
//! byte order mark before a record is not part of its first field. The quote may be another byte, a
//! backslash may escape it, and lines that begin with some byte may be comments: these are the
//! dialects of CSV.

mod end_search;
mod quotes;

use std::ops::Range;

use crate::batch::BYTE_ORDER_MARK;

pub use self::end_search::EndSearch;
pub use self::quotes::{Escape, Quotes};

/// How the records of a format follow each other in a file or a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// How fields in quotes are recognized, if a format has them. Without quotes each line is a
    /// record.
    pub quotes: Option<Quotes>,
    /// The first byte of lines that are comments, if a format has them. They are no records, and a
    /// quote in them has no meaning.
    pub comment: Option<u8>,
    /// Whether the first record of a file is a header.
    pub has_header: bool,
    /// Whether each record is a JSON value: a line of white space is no record, and the bytes of a
    /// record show whether it is complete. An empty line never is a record.
    pub is_json: bool,
}

/// Whether bytes without a line end after them are a complete record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// They are, whatever follows.
    Complete,
    /// They are the beginning of a record.
    Incomplete,
    /// The bytes do not show it.
    Unknown,
}

impl Framing {
    /// The record in a line without its line feed: without the carriage return of `\r\n`. `None` if
    /// the line is no record.
    pub fn record(self, line: &[u8]) -> Option<&[u8]> {
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        if self.is_comment(record) {
            return None;
        }
        let is_blank = match self.is_json {
            true => record.iter().all(u8::is_ascii_whitespace),
            false => record.is_empty(),
        };
        (!is_blank).then_some(record)
    }

    /// Whether a line that begins with these bytes is a comment.
    pub fn is_comment(self, line: &[u8]) -> bool {
        self.comment.is_some() && line.first().copied() == self.comment
    }

    /// Whether the bytes after the last line end are a complete record.
    pub fn completeness(self, rest: &[u8]) -> Completeness {
        if !self.is_json {
            return Completeness::Unknown;
        }
        // More digits may follow a number.
        let ends_itself = rest.trim_ascii_end().ends_with(b"}");
        match serde_json::from_slice::<serde::de::IgnoredAny>(rest) {
            Ok(_) if ends_itself => Completeness::Complete,
            Err(error) if error.is_eof() => Completeness::Incomplete,
            _ => Completeness::Unknown,
        }
    }

    /// The header in whole records at the beginning of a file, without its line feed; `None` if the
    /// framing has none, or if all lines are empty.
    pub fn header(self, lines: &[u8]) -> Option<Range<usize>> {
        let mut start = 0;
        let mut ends = self.has_header.then(|| self.ends(lines))?;
        ends.find_map(|end| {
            let line = std::mem::replace(&mut start, end + 1)..end;
            self.record(&lines[line.clone()])?;
            Some(line)
        })
    }

    /// The ends of whole records: the index of each line feed that ends one. The last byte ends one
    /// in any case, also if a quote is open: nothing follows it.
    pub fn ends(self, records: &[u8]) -> RecordEnds<'_> {
        RecordEnds {
            is_whole: true,
            ..self.found_ends(records)
        }
    }

    /// The ends that are found in bytes that begin with a record.
    fn found_ends(self, bytes: &[u8]) -> RecordEnds<'_> {
        RecordEnds {
            bytes,
            framing: self,
            at: 0,
            is_whole: false,
        }
    }

    /// The index of the first line feed that ends a record, in bytes that begin with a record.
    pub fn first_end(self, bytes: &[u8]) -> Option<usize> {
        self.found_ends(bytes).next()
    }

    /// The index of the last line feed that ends a record, in bytes that begin with a record.
    /// Without quotes, none of the first `searched` bytes may be a line feed.
    pub fn last_end(self, bytes: &[u8], searched: usize) -> Option<usize> {
        let has_quote = |quotes: Quotes| memchr::memchr(quotes.quote, bytes).is_some();
        if self.quotes.is_some_and(has_quote) {
            return self.found_ends(bytes).last();
        }
        memchr::memrchr(b'\n', &bytes[searched..]).map(|end| searched + end)
    }
}

/// An iterator over the ends of records; see [`Framing::ends`].
pub struct RecordEnds<'a> {
    bytes: &'a [u8],
    framing: Framing,
    /// The start of the next record.
    at: usize,
    /// Whether the last byte ends a record in any case.
    is_whole: bool,
}

impl Iterator for RecordEnds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let line = &self.bytes[self.at..];
        let content = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let is_comment = self.framing.is_comment(content);
        let found = match self.framing.quotes.filter(|_| !is_comment) {
            None => memchr::memchr(b'\n', line).map(|end| self.at + end),
            Some(quotes) => quotes.end(self.bytes, self.at),
        };
        let has_rest = self.is_whole && self.at < self.bytes.len();
        let end = found.or_else(|| has_rest.then(|| self.bytes.len() - 1))?;
        self.at = end + 1;
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CSV: Framing = Framing {
        quotes: Some(Quotes::double(b',')),
        comment: None,
        has_header: true,
        is_json: false,
    };

    /// Quotes are `'`, with a backslash before one inside.
    const OTHER: Framing = Framing {
        quotes: Some(Quotes {
            separator: b',',
            quote: b'\'',
            escape: Escape::Backslash,
        }),
        comment: Some(b'#'),
        ..CSV
    };

    fn records(framing: Framing, text: &str) -> Vec<&str> {
        let mut start = 0;
        let ends = framing.found_ends(text.as_bytes());
        let record = |end| {
            let record = &text[start..end];
            start = end + 1;
            record
        };
        ends.map(record).collect()
    }

    #[test]
    fn a_line_end_in_quotes_belongs_to_the_record() {
        let text = "a,\"b\nc\"\n\"x\"\"\n\",y\nz,5\" pipe\n\"\",\n\"open\n";
        assert_eq!(
            records(CSV, text),
            ["a,\"b\nc\"", "\"x\"\"\n\",y", "z,5\" pipe", "\"\","]
        );
        assert_eq!(records(Framing::default(), text).len(), 7);
    }

    #[test]
    fn a_byte_order_mark_is_before_the_first_field() {
        let text = "\u{feff}\"a\nb\",c\n\u{feff}a\"\n";
        assert_eq!(records(CSV, text), ["\u{feff}\"a\nb\",c", "\u{feff}a\""]);
    }

    #[test]
    fn the_last_byte_of_whole_records_ends_one() {
        let ends = |text: &str| CSV.ends(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(ends("a\n\"b\nc\n"), [1, 6]);
        assert_eq!(ends("a\n"), [1]);
        assert!(ends("").is_empty());
        assert_eq!(CSV.header(b"\"a\nb\n"), Some(0..4));
    }

    #[test]
    fn the_header_is_the_first_line_that_is_not_empty() {
        assert_eq!(CSV.header(b"\n\r\n\"a\nb\",c\nd\n"), Some(3..10));
        assert_eq!(CSV.header(b"\n\n"), None);
        assert_eq!(Framing::default().header(b"a\n"), None);
    }

    #[test]
    fn dialects_have_other_quotes_and_comments() {
        let text = "a,'b\n\\'c\\\\',\"\n\"\n# it's\n'x\\'\n',y\n\u{feff}#'\n'\\";
        assert_eq!(
            records(OTHER, text),
            [
                "a,'b\n\\'c\\\\',\"",
                "\"",
                "# it's",
                "'x\\'\n',y",
                "\u{feff}#'"
            ]
        );
        assert_eq!(OTHER.record(b"# it's"), None);
        assert_eq!(OTHER.record(b"a# it's\r"), Some(b"a# it's".as_slice()));
        assert_eq!(OTHER.header(b"#'\n\na,b\n1,2\n"), Some(4..7));
    }

    #[test]
    fn a_quote_opens_a_field_only_at_its_beginning() {
        let tabs = Framing {
            quotes: Some(Quotes::double(b'\t')),
            ..CSV
        };
        assert_eq!(records(tabs, "a\t\"b\nc\"\n"), ["a\t\"b\nc\""]);
        assert_eq!(records(tabs, "a,\"b\nc\"\n"), ["a,\"b", "c\""]);
    }

    #[test]
    fn json_shows_whether_it_is_complete() {
        let json = Framing {
            is_json: true,
            ..Framing::default()
        };
        let cases = [
            (r#"{"a":1}"#, Completeness::Complete),
            ("{\"a\":\"ä\"} \r", Completeness::Complete),
            (r#"{"a":1"#, Completeness::Incomplete),
            (r#"{"a":tr"#, Completeness::Incomplete),
            (r#"{"a":"}"#, Completeness::Incomplete),
            ("{\"a\":\"\\", Completeness::Incomplete),
            ("  ", Completeness::Incomplete),
            ("12", Completeness::Unknown),
            (r#"{"a":1} {"#, Completeness::Unknown),
            ("no JSON", Completeness::Unknown),
        ];
        for (rest, expected) in cases {
            assert_eq!(json.completeness(rest.as_bytes()), expected, "{rest}");
            let text = Framing::default();
            assert_eq!(text.completeness(rest.as_bytes()), Completeness::Unknown);
        }
        let cut = &"{\"a\":\"ä".as_bytes()[..7];
        assert_eq!(json.completeness(cut), Completeness::Incomplete);
    }

    /// The ends that csv-core finds. It skips empty lines, so there are none in the input.
    fn by_csv_core(text: &[u8]) -> Vec<usize> {
        let mut reader = csv_core::ReaderBuilder::new()
            .terminator(csv_core::Terminator::Any(b'\n'))
            .build();
        let (mut fields, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
        let (mut at, mut found) = (0, Vec::new());
        while at < text.len() {
            let (result, read, _, _) = reader.read_record(&text[at..], &mut fields, &mut ends);
            at += read;
            if result != csv_core::ReadRecordResult::Record {
                break;
            }
            found.push(at - 1);
        }
        found
    }

    proptest! {
        #[test]
        fn records_end_where_csv_core_ends_them(
            lines in prop::collection::vec("[a,\"]{1,8}", 0..8),
        ) {
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let text = text.as_bytes();
            prop_assert_eq!(CSV.found_ends(text).collect::<Vec<_>>(), by_csv_core(text));
        }

        #[test]
        fn the_last_end_is_the_last_of_the_ends(text in "[a,\"'#\\\\\n]{0,30}") {
            for framing in [CSV, OTHER, Framing::default()] {
                let text = text.as_bytes();
                prop_assert_eq!(framing.last_end(text, 0), framing.found_ends(text).last());
            }
        }
    }
}
