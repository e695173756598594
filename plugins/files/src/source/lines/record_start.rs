//! Where reading resumes.
//!
//! A position in the state store separates the records below it from the others. While a lane has
//! newer records than those that it has committed, that is the start of the last committed record
//! plus one: a byte inside a line. The rest of that line is not a record. So the byte before a
//! position is the first one of a line, or the last one of the line before.

use std::fs::File;
use std::io;

use pseidon_delivery::Position;

use pseidon_plugin::framing::Framing;

use super::super::compression::{InputCompression, Stream};
use super::super::tail::Mark;
use super::record_framing::{LongSearch, RecordFraming};

/// How many bytes are searched at once.
const SEARCH_BYTES: usize = 64 << 10;

/// The start of the first line that does not begin below the position, or the end of the file if
/// all lines do. A position among rows is the start of one. `mark` is the string that is stored
/// with the position: it belongs to the end of what was read, which need not be the end of a line.
pub(in crate::source) fn record_start(
    file: File,
    compression: InputCompression,
    framing: &RecordFraming,
    position: Position,
    mark: Option<&Mark>,
) -> io::Result<Position> {
    let is_rows = matches!(compression, InputCompression::Columns(_));
    if position == 0 || is_rows || mark.is_some_and(|mark| mark.upto() == position) {
        return Ok(position);
    }
    let found = match framing {
        RecordFraming::Format(framing) => find_line_start(file, compression, *framing, position),
        RecordFraming::Pattern(_) => {
            find_matching_line(file, compression, framing.long_search(), position)
        }
    };
    match found {
        // Reading fails at the same byte, and reports it.
        Err(error) if compression != InputCompression::None && error.raw_os_error().is_none() => {
            Ok(position)
        }
        found => found,
    }
}

fn find_line_start(
    file: File,
    compression: InputCompression,
    framing: Framing,
    position: Position,
) -> io::Result<Position> {
    let mut at = position - 1;
    let mut stream = Stream::open(file, compression, at)?;
    let mut bytes = Vec::with_capacity(SEARCH_BYTES);
    while stream.read(&mut bytes)? > 0 {
        if let Some(line_end) = framing.first_end(&bytes) {
            return Ok(at + line_end as u64 + 1);
        }
        if framing.quotes.is_some() {
            // The quote of a field may be in what was read.
            bytes.reserve(bytes.len());
        } else {
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    Ok(at + bytes.len() as u64)
}

/// The start of the first line after `position - 1` that begins a record, or the end of the file. A
/// last line without a line end counts as it is: a record that was taken at the end of the file
/// contains it, unless it begins one.
fn find_matching_line(
    file: File,
    compression: InputCompression,
    mut search: LongSearch,
    position: Position,
) -> io::Result<Position> {
    let mut at = position - 1;
    let mut stream = Stream::open(file, compression, at)?;
    let mut bytes = Vec::with_capacity(SEARCH_BYTES);
    loop {
        bytes.reserve(SEARCH_BYTES);
        let is_at_end = stream.read(&mut bytes)? == 0;
        let end = at + bytes.len() as u64;
        if is_at_end {
            bytes.push(b'\n');
        }
        let part = search.find(&bytes);
        at += part.len as u64;
        if part.is_end {
            return Ok(at + 1);
        }
        if is_at_end {
            return Ok(end);
        }
        bytes.drain(..part.len);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::write::GzEncoder;
    use pseidon_plugin::framing::Quotes;

    use super::super::super::tail::Tail;
    use super::*;

    const LINES: RecordFraming = RecordFraming::Format(Framing {
        quotes: None,
        comment: None,
        has_header: false,
        is_json: false,
    });

    #[test]
    fn a_position_inside_a_line_is_followed_by_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let content = b"one\n\nx\r\nfour\nrest";
        let plain = dir.path().join("a.log");
        fs::write(&plain, content).unwrap();
        let compressed = dir.path().join("a.log.gz");
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        fs::write(&compressed, encoder.finish().unwrap()).unwrap();
        let expected = [
            0, 4, 4, 4, 4, 5, 8, 8, 8, 13, 13, 13, 13, 13, 17, 17, 17, 17,
        ];
        for (path, compression) in [
            (&plain, InputCompression::None),
            (&compressed, InputCompression::Gzip),
        ] {
            for (position, expected) in expected.into_iter().enumerate() {
                let file = File::open(path).unwrap();
                let found = record_start(file, compression, &LINES, position as u64, None).unwrap();
                assert_eq!(found, expected, "{compression:?} at {position}");
            }
        }
    }

    #[test]
    fn a_position_in_a_quoted_record_is_followed_by_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let content = b"a,b\n1,\"x\ny\"\n2,\"\"\n";
        fs::write(&path, content).unwrap();
        let framing = Framing {
            quotes: Some(Quotes::double(b',')),
            comment: None,
            has_header: true,
            is_json: false,
        };
        for (record, next) in [(4, 12), (12, 17)] {
            for position in [record + 1, next] {
                let file = File::open(&path).unwrap();
                let none = InputCompression::None;
                let found =
                    record_start(file, none, &RecordFraming::Format(framing), position, None)
                        .unwrap();
                assert_eq!(found, next, "{position}");
            }
        }
    }

    #[test]
    fn a_line_that_was_read_before_its_end_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, b"one\ntw").unwrap();
        let file = File::open(&path).unwrap();
        let mark = Tail::of(&file, 6).unwrap().mark();
        fs::write(&path, b"one\ntwo\n").unwrap();
        let found = record_start(file, InputCompression::None, &LINES, 6, Some(&mark)).unwrap();
        assert_eq!(found, 6);
    }
}
