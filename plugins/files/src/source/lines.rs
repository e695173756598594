//! From a file's bytes to batches of lines.
//!
//! A [`LineReader`] reads large blocks that end at a line end; the rest of an incomplete last line
//! is kept for the next block. A [`Block`] is split into records that are slices of it: no record
//! is copied.

mod block;
mod record_start;

use std::io;

use bytes::Bytes;
use pseidon_delivery::Position;

pub(super) use self::block::Block;
pub(super) use self::record_start::record_start;
use super::compression::Stream;
use super::progress::Tail;
use super::read_error::ReadError;

/// How many bytes are read at once.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Reads a file block by block.
pub(super) struct LineReader {
    stream: Stream,
    /// The beginning of a line whose end has not been read yet.
    carry: Vec<u8>,
    /// The position at which `carry` starts.
    position: Position,
    /// The bytes before `carry`.
    before: Tail,
    limits: Limits,
}

/// A reader's state, apart from its stream.
pub(super) struct Checkpoint {
    carry: Vec<u8>,
    before: Tail,
}

/// Limits for the memory of a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes to read at once.
    pub(super) block: usize,
    /// Bytes of the longest record.
    pub(super) max_record: usize,
}

impl LineReader {
    /// Creates a reader for a stream that is positioned at the end of `before`.
    pub(super) fn new(stream: Stream, before: Tail, limits: Limits) -> Self {
        LineReader {
            stream,
            carry: Vec::new(),
            position: before.upto(),
            before,
            limits,
        }
    }

    /// The bytes before the first line that was not returned yet.
    pub(super) fn before(&self) -> Tail {
        self.before
    }

    /// The last bytes that were read.
    pub(super) fn tail(&self) -> Tail {
        let mut tail = self.before;
        tail.push(&self.carry);
        tail
    }

    /// The current state, for [`LineReader::restore`].
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            carry: self.carry.clone(),
            before: self.before,
        }
    }

    /// Restores a state and drops everything that was read since. The stream is at its end
    /// afterwards.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) {
        self.stream = Stream::Decoded(Box::new(io::empty()));
        (self.position, self.carry, self.before) = (
            checkpoint.before.upto(),
            checkpoint.carry,
            checkpoint.before,
        );
    }

    /// The position of the first line that was not returned yet.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The position of the next byte to read.
    pub(super) fn read_to(&self) -> Position {
        self.position + self.carry.len() as u64
    }

    /// The next complete lines; `None` if there are none now. A plain file may have more later.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.reserve_exact(self.limits.block);
        loop {
            let searched = bytes.len();
            let at_end = match self.fill(&mut bytes) {
                Ok(at_end) => at_end,
                Err(error) => return self.lines_before_error(bytes, searched, error),
            };
            if self.position == 0 && is_utf16(&bytes) {
                return Err(ReadError::Utf16);
            }
            if let Some(end) = memchr::memrchr(b'\n', &bytes[searched..]) {
                return self.take_block(bytes, searched + end + 1).map(Some);
            }
            if bytes.len() > self.limits.max_record {
                return Err(ReadError::TooLong {
                    at: self.position,
                    limit: self.limits.max_record,
                });
            }
            if at_end {
                bytes.shrink_to_fit();
                self.carry = bytes;
                return Ok(None);
            }
            bytes.reserve(bytes.len());
        }
    }

    /// The last line, if the file ends without a `\n`.
    pub(super) fn last_line(&mut self) -> Result<Option<Block>, ReadError> {
        if self.carry.is_empty() {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        let (start, end) = (self.position, self.read_to() + bytes.len() as u64);
        let mut before = self.before;
        before.push(&bytes);
        bytes.push(b'\n');
        let len = bytes.len();
        let block = Block {
            end,
            ..self.take_block(bytes, len)?
        };
        debug_assert_eq!(block.start, start);
        (self.position, self.before) = (end, before);
        Ok(Some(block))
    }

    /// Reads until the buffer is full. Returns whether the stream is at its end.
    fn fill(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        while bytes.len() < bytes.capacity() {
            if self.stream.read(bytes)? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the lines that were read before an error; the next call returns the error.
    fn lines_before_error(
        &mut self,
        bytes: Vec<u8>,
        searched: usize,
        error: io::Error,
    ) -> Result<Option<Block>, ReadError> {
        match memchr::memrchr(b'\n', &bytes[searched..]) {
            Some(end) => {
                self.stream = Stream::Decoded(Box::new(FailedStream(Some(error))));
                self.take_block(bytes, searched + end + 1).map(Some)
            }
            None => {
                self.carry = bytes;
                Err(error.into())
            }
        }
    }

    fn take_block(&mut self, mut bytes: Vec<u8>, end: usize) -> Result<Block, ReadError> {
        self.carry = bytes[end..].to_vec();
        bytes.truncate(end);
        let mut line_start = 0;
        // Only a block that is longer than the limit can contain a record that is.
        if end > self.limits.max_record {
            for line_end in memchr::memchr_iter(b'\n', &bytes) {
                if line_end - line_start > self.limits.max_record {
                    return Err(ReadError::TooLong {
                        at: self.position + line_start as u64,
                        limit: self.limits.max_record,
                    });
                }
                line_start = line_end + 1;
            }
        }
        // A few lines must not keep the memory of a whole block.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        let (start, before) = (self.position, self.before);
        self.position += end as u64;
        self.before.push(&bytes);
        let is_plain = matches!(self.stream, Stream::Plain { .. });
        Ok(Block {
            bytes: Bytes::from(bytes),
            start,
            end: self.position,
            before,
            is_plain,
        })
    }
}

/// Whether a file begins like one in UTF-16: with its byte order mark and an ASCII character.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0xff, 0xfe, 1..=127, 0, ..] | [0xfe, 0xff, 0, 1..=127, ..]
    )
}

/// A stream that returns an error once and is at its end afterwards.
struct FailedStream(Option<io::Error>);

impl io::Read for FailedStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use proptest::prelude::*;
    use pseidon_plugin::Split;
    use pseidon_plugin::batch::BYTE_ORDER_MARK;

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
        (start, prop::collection::vec(byte, 0..300))
            .prop_map(|(start, text)| [start, text].concat())
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
        let mut reader =
            LineReader::new(Stream::Decoded(Box::new(decoder)), Tail::unknown(0), limits);
        let block = reader.next_block().unwrap().unwrap();
        let records: usize = block.batches(&split()).map(|batch| batch.len()).sum();
        assert!(records > 1000, "{records}");
        match reader.next_block() {
            Err(ReadError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            other => panic!("{other:?}"),
        }
    }
}
