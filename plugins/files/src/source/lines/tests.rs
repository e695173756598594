//! Tests of blocks and batches: each record once, at its position, wherever blocks end.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use pseidon_plugin::framing::{Framing, Quotes};
use pseidon_plugin::{Batch, Split};

use super::block::MAX_BATCH_RECORDS;
use super::*;

mod patterns;

/// A stream that returns pieces of the given sizes in turn.
struct Pieces {
    data: Vec<u8>,
    sizes: Vec<usize>,
    turn: usize,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes[self.turn % self.sizes.len()];
        self.turn += 1;
        let len = size.min(into.len()).min(self.data.len() - self.at);
        into[..len].copy_from_slice(&self.data[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

fn split() -> Arc<Split> {
    Arc::new(Split {
        id: "s".into(),
        topic: "t".into(),
        partition: 0,
    })
}

/// All records with their positions, and the `next` of the last batch.
fn read_all(mut reader: LineReader) -> (Vec<(Position, Vec<u8>)>, Position) {
    let (mut records, mut next) = (Vec::new(), reader.position());
    let mut take = |block: Block| {
        for batch in block.batches(&split()) {
            assert!(batch.next > next, "a batch covers something");
            if let Some(lines) = batch.payloads.lines(0, batch.len()) {
                let mut expected = Vec::new();
                (0..batch.len()).for_each(|row| {
                    expected.extend([batch.payloads.get(row).unwrap(), b"\n"].concat())
                });
                assert_eq!(lines, expected);
            }
            records.extend((0..batch.len()).map(|row| {
                (
                    batch.positions[row],
                    batch.payloads.get(row).unwrap().to_vec(),
                )
            }));
            next = batch.next;
        }
    };
    while let Some(block) = reader.next_block().unwrap() {
        take(block);
    }
    if let Some(block) = reader.last_line().unwrap() {
        take(block);
    }
    (records, next)
}

fn naive(data: &[u8], from: usize) -> Vec<(Position, Vec<u8>)> {
    let mut at = from;
    let mut records = Vec::new();
    for line in data[from..].split(|byte| *byte == b'\n') {
        let record = line.strip_suffix(b"\r").unwrap_or(line);
        let record = match record.strip_prefix(BYTE_ORDER_MARK) {
            Some(record) if at == 0 => record,
            _ => record,
        };
        if !record.is_empty() {
            records.push((at as Position, record.to_vec()));
        }
        at += line.len() + 1;
    }
    records
}

fn over(data: &[u8], sizes: Vec<usize>, block: usize, from: usize) -> LineReader {
    let mut pieces = Pieces {
        data: data.to_vec(),
        sizes,
        turn: 0,
        at: 0,
    };
    pieces.at = from;
    LineReader::new(
        Stream::Decoded(Box::new(pieces)),
        Tail::unknown(from as u64),
        Limits {
            block,
            max_record: 1 << 20,
            skips_longer: false,
        },
        RecordFraming::Format(Framing::default()),
    )
}

fn some_text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => Just(b'a'),
        1 => Just(b'b'),
        2 => Just(b'\n'),
        1 => Just(b'\r'),
        1 => any::<u8>(),
    ];
    let start = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(BYTE_ORDER_MARK.to_vec()),
        1 => Just(BYTE_ORDER_MARK[..2].to_vec()),
    ];
    (start, prop::collection::vec(byte, 0..300)).prop_map(|(start, text)| [start, text].concat())
}

proptest! {
    #[test]
    fn lines_equal_those_of_a_naive_split(
        data in some_text(),
        sizes in prop::collection::vec(1usize..40, 1..5),
        block in 1usize..64,
    ) {
        let (records, next) = read_all(over(&data, sizes, block, 0));
        prop_assert_eq!(records, naive(&data, 0));
        prop_assert_eq!(next, data.len() as u64);
    }

    #[test]
    fn resuming_at_a_record_returns_exactly_the_rest(data in some_text(), block in 1usize..64) {
        let whole = naive(&data, 0);
        for (done, (position, _)) in whole.iter().enumerate() {
            let (records, _) = read_all(over(&data, vec![7], block, *position as usize));
            prop_assert_eq!(&records[..], &whole[done..]);
        }
    }
}

proptest! {
    #[test]
    fn records_that_are_too_long_are_skipped(
        data in "([a,\"\r]{0,12}\n?){0,12}",
        sizes in prop::collection::vec(1usize..40, 1..5),
        block in 1usize..64,
        max_record in 1usize..8,
        has_quotes: bool,
    ) {
        let data = data.into_bytes();
        let framing = Framing {
            quotes: has_quotes.then_some(Quotes::double(b',')),
            ..Framing::default()
        };
        let mut reader = over(&data, sizes, block, 0);
        reader.framing = RecordFraming::Format(framing);
        reader.limits.max_record = max_record;
        reader.limits.skips_longer = true;

        let (mut records, mut skipped, mut start) = (Vec::new(), Vec::new(), 0);
        let whole = [&data[..], b"\n"].concat();
        for end in framing.ends(&whole) {
            let line = &data[start..end];
            if line.len() > max_record {
                skipped.push((start as u64, line.len() as u64));
            } else if let Some(record) = framing.record(line) {
                records.push((start as u64, record.to_vec()));
            }
            start = end + 1;
        }

        let mut found = Vec::new();
        let mut upto = 0;
        while let Some(block) = reader.next_block().unwrap() {
            found.extend(records_of(block));
            prop_assert!(reader.position() >= upto, "the position goes back");
            upto = reader.position();
        }
        found.extend(reader.last_line().unwrap().map(records_of).unwrap_or_default());
        prop_assert_eq!(found, records);
        prop_assert_eq!(reader.take_skipped(), skipped);
        prop_assert_eq!(reader.position(), data.len() as u64);
    }
}

/// The records of a block, with their positions.
fn records_of(block: Block) -> Vec<(Position, Vec<u8>)> {
    let of_batch = |batch: Batch| {
        let record = |row: usize| batch.payloads.get(row).unwrap().to_vec();
        (0..batch.len())
            .map(|row| (batch.positions[row], record(row)))
            .collect::<Vec<_>>()
    };
    block.batches(&split()).flat_map(of_batch).collect()
}

#[test]
fn while_a_long_record_is_skipped_the_position_is_its_start() {
    let data = [b"one\n".to_vec(), vec![b'x'; 100], b"\ntwo\n".to_vec()].concat();
    let mut reader = over(&data[..60], vec![7], 16, 0);
    reader.limits.max_record = 10;
    reader.limits.skips_longer = true;
    let block = reader.next_block().unwrap().unwrap();
    assert_eq!(records_of(block), [(0, b"one".to_vec())]);
    assert_eq!(reader.next_block().unwrap(), None);
    assert_eq!((reader.position(), reader.read_to()), (4, 60));
    assert_eq!(reader.rest(), None);
    assert_eq!(reader.take_skipped(), []);
    // More is appended to it.
    let checkpoint = reader.checkpoint();
    for _ in 0..2 {
        reader.restore(checkpoint.clone());
        reader.stream = Stream::Decoded(Box::new(io::Cursor::new(data[60..].to_vec())));
        let blocks = std::iter::from_fn(|| reader.next_block().unwrap());
        let records: Vec<_> = blocks.flat_map(records_of).collect();
        assert_eq!(records, [(105, b"two".to_vec())]);
        assert_eq!(reader.take_skipped(), [(4, 100)]);
    }
}

#[test]
fn a_header_that_is_too_long_is_an_error() {
    let mut reader = over(b"abcdef\n1,2\n", vec![100], 64, 0);
    reader.framing = RecordFraming::Format(CSV);
    reader.limits.max_record = 4;
    reader.limits.skips_longer = true;
    assert!(matches!(
        reader.next_block(),
        Err(ReadError::TooLong { at: 0, .. })
    ));
    // A record after the header is skipped, also if it is read together with it.
    let mut reader = over(b"a,b\n1,23456\n1,2\n", vec![100], 64, 0);
    reader.framing = RecordFraming::Format(CSV);
    reader.limits.max_record = 4;
    reader.limits.skips_longer = true;
    let mut records = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        records.extend(records_of(block));
    }
    assert_eq!(records, [(12, b"1,2".to_vec())]);
    assert_eq!(reader.take_skipped(), [(4, 7)]);
}

const CSV: Framing = Framing {
    quotes: Some(Quotes::double(b',')),
    comment: None,
    has_header: true,
    is_json: false,
};

/// A reader of CSV that resumes at `from`.
fn csv_over(data: &[u8], sizes: Vec<usize>, block: usize, from: usize) -> LineReader {
    let header = match from {
        0 => None,
        _ => csv_over(data, vec![3], 8, 0).into_header().unwrap(),
    };
    let reader = over(data, sizes, block, from);
    LineReader {
        framing: RecordFraming::Format(CSV),
        ..reader
    }
    .with_header(header)
}

#[test]
fn the_header_goes_with_every_batch_and_is_no_record() {
    let data = b"\xef\xbb\xbf\r\nid,\"a\nb\"\r\n1,x\n\n2,\"y\nz\"\r\n3,";
    let mut reader = csv_over(data, vec![4], 5, 0);
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        blocks.push(block);
    }
    blocks.extend(reader.last_line().unwrap());
    let split = split();
    let batches = blocks.into_iter().flat_map(|block| block.batches(&split));
    let batches: Vec<Batch> = batches.filter(|batch| !batch.is_empty()).collect();
    for batch in &batches {
        assert_eq!(batch.payloads.header().unwrap(), "id,\"a\nb\"\r");
    }
    let records = batches.iter().flat_map(|batch| batch.payloads.iter());
    let records: Vec<&[u8]> = records.flatten().collect();
    assert_eq!(records, [b"1,x".as_slice(), b"2,\"y\nz\"", b"3,"]);
}

proptest! {
    #[test]
    fn quoted_records_do_not_depend_on_blocks(
        fields in prop::collection::vec("[ab\n]{0,5}", 1..40),
        sizes in prop::collection::vec(1usize..40, 1..5),
        block in 1usize..64,
    ) {
        let records: Vec<String> = fields.iter().map(|field| format!("1,\"{field}\"")).collect();
        let text = format!("id,a\n{}\n", records.join("\n"));
        let (found, next) = read_all(csv_over(text.as_bytes(), sizes, block, 0));
        let texts: Vec<&str> = found.iter().map(|(_, record)| std::str::from_utf8(record).unwrap()).collect();
        prop_assert_eq!(texts, records);
        prop_assert_eq!(next, text.len() as u64);
        for (done, (position, _)) in found.iter().enumerate() {
            let reader = csv_over(text.as_bytes(), vec![7], block, *position as usize);
            prop_assert_eq!(&read_all(reader).0[..], &found[done..]);
        }
    }
}

#[test]
fn utf_16_and_utf_32_are_refused() {
    for data in [b"\xff\xfe{\0}\0\n\0".as_slice(), b"\xfe\xff\0{\0}\0\n"] {
        let error = over(data, vec![1], 4, 0).next_block().unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is in UTF-16: convert it to UTF-8, for example with iconv"
        );
    }
    let utf16 = b"{\0}\0\n\0{\0".as_slice();
    let utf32 = b"{\0\0\0}\0\0\0";
    for (data, encoding) in [
        (utf16, "UTF-16"),
        (b"\0{\0}\0\n\0{", "UTF-16"),
        (utf32, "UTF-32"),
        (b"\0\0\0{\0\0\0}", "UTF-32"),
        (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
        (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
    ] {
        let error = over(data, vec![8], 8, 0).next_block().unwrap_err();
        assert!(error.to_string().contains(encoding), "{data:?}: {error}");
    }
    for data in [
        b"a\0b\0c\0de\0\n".as_slice(),
        b"\0\0\0\0\0\0\0\0\n",
        b"{\0}\0\n",
    ] {
        let (records, _) = read_all(over(data, vec![8], 8, 0));
        assert_eq!(records, naive(data, 0));
    }
    for data in [b"\xff\xfea\n".as_slice(), b"\xff\xfe\n"] {
        let (records, _) = read_all(over(data, vec![1], 4, 0));
        assert_eq!(records, naive(data, 0));
    }
}

#[test]
fn the_error_locates_a_record_that_is_too_long() {
    for (block, sizes) in [(16, vec![5]), (4096, vec![4096])] {
        let data = [b"short\n".as_slice(), &[b'x'; 200], b"\nshort\n"].concat();
        let mut reader = over(&data, sizes, block, 0);
        reader.limits.max_record = 100;
        let error = std::iter::repeat_with(|| reader.next_block())
            .find_map(Result::err)
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the record at byte 6 is longer than 100 bytes: raise :max-record, \
             or skip it with :on-long-record :skip"
        );
    }
}

#[test]
fn many_short_records_make_several_batches_of_one_block() {
    let data = b"1\n".repeat(MAX_BATCH_RECORDS * 2 + 5);
    let mut reader = over(&data, vec![BLOCK_BYTES], BLOCK_BYTES, 0);
    let block = reader.next_block().unwrap().unwrap();
    let sizes: Vec<_> = block
        .batches(&split())
        .map(|batch| {
            (
                batch.len(),
                batch.payloads.lines(0, batch.len()).unwrap().len(),
            )
        })
        .collect();
    assert_eq!(sizes, [(8192, 16384), (8192, 16384), (5, 10)]);
}

#[test]
fn records_before_damage_are_returned() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for number in 0..50_000 {
        writeln!(gzip, "record {number}").unwrap();
    }
    let mut packed = gzip.finish().unwrap();
    packed.truncate(packed.len() / 2);
    let decoder = flate2::bufread::MultiGzDecoder::new(io::Cursor::new(packed));
    let limits = Limits {
        block: BLOCK_BYTES,
        max_record: BLOCK_BYTES,
        skips_longer: false,
    };
    let mut reader = LineReader::new(
        Stream::Decoded(Box::new(decoder)),
        Tail::unknown(0),
        limits,
        RecordFraming::Format(Framing::default()),
    );
    let block = reader.next_block().unwrap().unwrap();
    let records: usize = block.batches(&split()).map(|batch| batch.len()).sum();
    assert!(records > 1000, "{records}");
    match reader.next_block() {
        Err(ReadError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
        other => panic!("{other:?}"),
    }
}
