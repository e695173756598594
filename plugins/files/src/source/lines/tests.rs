//! Tests of blocks and batches: each record once, at its position, wherever blocks end.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use pseidon_plugin::framing::Quotes;
use pseidon_plugin::{Batch, Split};

use super::block::MAX_BATCH_RECORDS;
use super::*;

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
        },
        Framing::default(),
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

const CSV: Framing = Framing {
    quotes: Some(Quotes { separator: b',' }),
    has_header: true,
    skips_blank: false,
};

/// A reader of CSV that resumes at `from`.
fn csv_over(data: &[u8], sizes: Vec<usize>, block: usize, from: usize) -> LineReader {
    let header = match from {
        0 => None,
        _ => csv_over(data, vec![3], 8, 0).into_header().unwrap(),
    };
    let reader = over(data, sizes, block, from);
    LineReader {
        framing: CSV,
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
fn utf_16_is_refused() {
    for data in [b"\xff\xfe{\0}\0\n\0".as_slice(), b"\xfe\xff\0{\0}\0\n"] {
        let error = over(data, vec![1], 4, 0).next_block().unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is in UTF-16: convert it to UTF-8, for example with iconv"
        );
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
            "the record at byte 6 is longer than 100 bytes: raise :max-record"
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
    };
    let mut reader = LineReader::new(
        Stream::Decoded(Box::new(decoder)),
        Tail::unknown(0),
        limits,
        Framing::default(),
    );
    let block = reader.next_block().unwrap().unwrap();
    let records: usize = block.batches(&split()).map(|batch| batch.len()).sum();
    assert!(records > 1000, "{records}");
    match reader.next_block() {
        Err(ReadError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
        other => panic!("{other:?}"),
    }
}
