//! Tests of records that begin with a line that matches a pattern.

use std::fs::{self, File};

use flate2::write::GzEncoder;

use super::super::super::compression::InputCompression;
use super::*;

/// A record begins with a digit.
const PATTERN: &str = "^[0-9]";

fn pattern(max_record: usize) -> RecordFraming {
    RecordFraming::Pattern(StartPattern::new(PATTERN, max_record).unwrap())
}

fn pattern_over(data: &[u8], sizes: Vec<usize>, block: usize, max_record: usize) -> LineReader {
    let mut reader = over(data, sizes, block, 0);
    reader.framing = pattern(max_record);
    reader.limits.max_record = max_record;
    reader
}

/// The records, each with its position and its length in the file, without the line feed at its
/// end.
fn joined(data: &[u8], max_record: usize) -> Vec<(Position, usize, Vec<u8>)> {
    let mut records: Vec<(Position, usize, Vec<u8>)> = Vec::new();
    let mut at = 0;
    for line in data.split(|byte| *byte == b'\n') {
        let begins = line.len() <= max_record && line.first().is_some_and(u8::is_ascii_digit);
        match records.last_mut() {
            Some((_, len, record)) if !begins => {
                record.extend([b"\n", line].concat());
                *len += 1 + line.len();
            }
            _ => records.push((at as Position, line.len(), line.to_vec())),
        }
        at += line.len() + 1;
    }
    for (_, _, record) in &mut records {
        while record.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            record.pop();
        }
    }
    records
}

/// The records that are not empty, with their positions.
fn expected(data: &[u8], max_record: usize) -> Vec<(Position, Vec<u8>)> {
    let records = joined(data, max_record).into_iter();
    let is_record = |record: &(Position, usize, Vec<u8>)| !record.2.is_empty();
    let records = records.filter(is_record);
    records.map(|(at, _, record)| (at, record)).collect()
}

fn traces() -> impl Strategy<Value = Vec<u8>> {
    "([0-9]?[ab]{0,3}\r?\n){0,10}[0-9]?[ab]{0,3}".prop_map(String::into_bytes)
}

#[test]
fn a_record_ends_before_the_next_line_that_matches() {
    let data = b"rest\r\n at x\r\n1 one\r\n\r\n at a\r\n at b\r\n\r\n2 two\n3 three\n at c";
    let (records, next) = read_all(pattern_over(data, vec![5], 8, 100));
    let texts: Vec<&str> = records
        .iter()
        .map(|(_, record)| std::str::from_utf8(record).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "rest\r\n at x",
            "1 one\r\n\r\n at a\r\n at b",
            "2 two",
            "3 three\n at c"
        ]
    );
    assert_eq!(next, data.len() as u64);
}

#[test]
fn the_last_record_waits_for_the_next_one() {
    let mut reader = pattern_over(b"1 one\n at a\n2 two\n at b\n", vec![100], 64, 100);
    let block = reader.next_block().unwrap().unwrap();
    assert_eq!(records_of(block), [(0, b"1 one\n at a".to_vec())]);
    assert_eq!(reader.next_block().unwrap(), None);
    assert_eq!((reader.position(), reader.read_to()), (12, 24));
    assert_eq!(reader.rest(), Some(b"2 two\n at b\n".as_slice()));
    // More is appended to it.
    let checkpoint = reader.checkpoint();
    reader.restore(checkpoint);
    reader.stream = Stream::Decoded(Box::new(io::Cursor::new(b" at c\n3".to_vec())));
    assert_eq!(reader.next_block().unwrap(), None);
    reader.stream = Stream::Decoded(Box::new(io::Cursor::new(b"\n".to_vec())));
    let block = reader.next_block().unwrap().unwrap();
    assert_eq!(records_of(block), [(12, b"2 two\n at b\n at c".to_vec())]);
}

#[test]
fn lines_that_were_compared_are_not_compared_again() {
    let bytes = b"1\n2\n at a\n3";
    let ends = [0, 3, 4, 9, 10].map(|searched| pattern(100).last_end(bytes, searched));
    assert_eq!(ends, [Some(1), Some(1), None, None, None]);
    // A line that was incomplete is compared when it is complete.
    assert_eq!(pattern(100).last_end(b"1\n2\n at a\n3\n", 10), Some(9));
}

#[test]
fn a_record_without_an_end_is_an_error_that_names_the_option() {
    let mut reader = pattern_over(b"1\n at a\n at b\n at c\n", vec![3], 4, 10);
    let error = reader.next_block().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record at byte 0 is longer than 10 bytes: make :record-start match its lines, raise \
         :max-record, or skip it with :on-long-record :skip"
    );
    // Also if that shows only at the end of the file.
    let mut reader = pattern_over(b"1\n at a\n at bcd", vec![3], 4, 10);
    assert_eq!(reader.next_block().unwrap(), None);
    assert!(matches!(
        reader.last_line(),
        Err(ReadError::TooLong { at: 0, .. })
    ));
}

proptest! {
    #[test]
    fn records_do_not_depend_on_blocks(
        data in traces(),
        sizes in prop::collection::vec(1usize..40, 1..5),
        block in 1usize..64,
    ) {
        let (records, next) = read_all(pattern_over(&data, sizes, block, 1 << 20));
        prop_assert_eq!(records, expected(&data, 1 << 20));
        prop_assert_eq!(next, data.len() as u64);
    }

    #[test]
    fn long_records_are_skipped_as_a_whole(
        data in traces(),
        sizes in prop::collection::vec(1usize..40, 1..5),
        block in 1usize..64,
        max_record in 1usize..10,
    ) {
        let mut reader = pattern_over(&data, sizes, block, max_record);
        reader.limits.skips_longer = true;
        let (mut records, mut skipped, mut upto) = (Vec::new(), Vec::new(), 0);
        while let Some(block) = reader.next_block().unwrap() {
            records.extend(records_of(block));
            skipped.extend(reader.take_skipped());
            prop_assert!(reader.position() >= upto, "the position goes back");
            upto = reader.position();
        }
        records.extend(reader.last_line().unwrap().map(records_of).unwrap_or_default());
        skipped.extend(reader.take_skipped());
        prop_assert_eq!(reader.position(), data.len() as u64);

        let (long, kept): (Vec<_>, Vec<_>) = joined(&data, max_record)
            .into_iter()
            .partition(|(_, len, _)| *len > max_record);
        let kept = kept.into_iter().filter(|(_, _, record)| !record.is_empty());
        prop_assert_eq!(records, kept.map(|(at, _, record)| (at, record)).collect::<Vec<_>>());
        let long = long.into_iter().map(|(at, len, _)| (at, len as u64));
        prop_assert_eq!(skipped, long.collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// A run stops after any record, with the position after it or, if another sink has written
    /// less, one byte into it.
    #[test]
    fn after_a_crash_each_record_is_read_once(data in traces(), block in 1usize..64) {
        let dir = tempfile::tempdir().unwrap();
        let (plain, packed) = (dir.path().join("a.log"), dir.path().join("a.log.gz"));
        fs::write(&plain, &data).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&data).unwrap();
        fs::write(&packed, encoder.finish().unwrap()).unwrap();
        let whole = expected(&data, 1 << 20);
        let starts = whole.iter().map(|(position, _)| *position);
        let ends = starts.clone().skip(1).chain([data.len() as Position]);
        for (done, (start, end)) in starts.zip(ends).enumerate() {
            for position in [start + 1, end] {
                for (path, compression) in
                    [(&plain, InputCompression::None), (&packed, InputCompression::Gzip)]
                {
                    let file = File::open(path).unwrap();
                    let framing = pattern(1 << 20);
                    let from = record_start(file, compression, &framing, position, None).unwrap();
                    let file = File::open(path).unwrap();
                    let reader = LineReader::new(
                        Stream::open(file, compression, from).unwrap(),
                        Tail::unknown(from),
                        Limits { block, max_record: 1 << 20, skips_longer: false },
                        framing,
                    );
                    let (records, _) = read_all(reader);
                    prop_assert_eq!(&records[..], &whole[done + 1..], "from {}", position);
                }
            }
        }
    }
}
