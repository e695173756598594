//! Framing: where the records of a file or a stream end.
//!
//! Most formats have a record per line. In CSV a field in quotes may contain line ends, and the
//! first record of a file may be a header that names the fields. A source that splits bytes into
//! records does so by the [`Framing`] of its format; a source of messages has its records already.
//!
//! The rule for quotes is that of RFC 4180, and of csv-core for what the RFC leaves open: a quote at
//! the beginning of a field opens it, two quotes inside are one quote of the value, and another
//! quote closes it. A quote inside a field that does not begin with one is an ordinary character. A
//! byte order mark before a record is not part of its first field.

mod end_search;

use std::ops::Range;

use crate::batch::BYTE_ORDER_MARK;

pub use self::end_search::EndSearch;

/// How the records of a format follow each other in a file or a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// How fields in quotes are recognized, if a format has them. Without quotes each line is a
    /// record.
    pub quotes: Option<Quotes>,
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

/// How fields in quotes (`"`) are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotes {
    /// The byte between two fields.
    pub separator: u8,
}

const QUOTE: u8 = b'"';

impl Framing {
    /// The record in a line without its line feed: without the carriage return of `\r\n`. `None` if
    /// the line is no record.
    pub fn record(self, line: &[u8]) -> Option<&[u8]> {
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        let is_blank = match self.is_json {
            true => record.iter().all(u8::is_ascii_whitespace),
            false => record.is_empty(),
        };
        (!is_blank).then_some(record)
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
            quotes: self.quotes,
            at: 0,
            is_whole: false,
        }
    }

    /// The index of the first line feed that ends a record, in bytes that begin with a record.
    pub fn first_end(self, bytes: &[u8]) -> Option<usize> {
        self.found_ends(bytes).next()
    }

    /// The index of the last line feed that ends a record, in bytes that begin with a record. Without
    /// quotes, none of the first `searched` bytes may be a line feed.
    pub fn last_end(self, bytes: &[u8], searched: usize) -> Option<usize> {
        let is_open = self.quotes.is_some() && memchr::memchr(QUOTE, bytes).is_some();
        if is_open {
            return self.found_ends(bytes).last();
        }
        memchr::memrchr(b'\n', &bytes[searched..]).map(|end| searched + end)
    }
}

/// An iterator over the ends of records; see [`Framing::ends`].
pub struct RecordEnds<'a> {
    bytes: &'a [u8],
    quotes: Option<Quotes>,
    /// The start of the next record.
    at: usize,
    /// Whether the last byte ends a record in any case.
    is_whole: bool,
}

impl Iterator for RecordEnds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let found = match self.quotes {
            None => memchr::memchr(b'\n', &self.bytes[self.at..]).map(|end| self.at + end),
            Some(quotes) => quotes.end(self.bytes, self.at),
        };
        let has_rest = self.is_whole && self.at < self.bytes.len();
        let end = found.or_else(|| has_rest.then(|| self.bytes.len() - 1))?;
        self.at = end + 1;
        Some(end)
    }
}

impl Quotes {
    /// The line feed that ends the record that begins at `start`.
    fn end(self, bytes: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let found = at + memchr::memchr2(b'\n', QUOTE, &bytes[at..])?;
            if bytes[found] == b'\n' {
                return Some(found);
            }
            let opens = found == start
                || bytes[found - 1] == self.separator
                || &bytes[start..found] == BYTE_ORDER_MARK;
            at = match opens {
                true => closing_quote(bytes, found + 1)? + 1,
                false => found + 1,
            };
        }
    }
}

/// The index of the quote that closes a field whose content begins at `start`; `None` if it is not
/// closed.
pub fn closing_quote(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let quote = at + memchr::memchr(QUOTE, &bytes[at..])?;
        if bytes.get(quote + 1) != Some(&QUOTE) {
            return Some(quote);
        }
        at = quote + 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CSV: Framing = Framing {
        quotes: Some(Quotes { separator: b',' }),
        has_header: true,
        is_json: false,
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
    fn a_quote_opens_a_field_only_at_its_beginning() {
        let tabs = Framing {
            quotes: Some(Quotes { separator: b'\t' }),
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
        fn the_last_end_is_the_last_of_the_ends(text in "[a,\"\n]{0,30}") {
            for framing in [CSV, Framing::default()] {
                let text = text.as_bytes();
                prop_assert_eq!(framing.last_end(text, 0), framing.found_ends(text).last());
            }
        }
    }
}
