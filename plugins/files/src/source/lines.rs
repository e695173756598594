//! From a file's bytes to batches of lines.
//!
//! A [`LineReader`] reads large blocks that end at a line end; the rest of an incomplete last line
//! is kept for the next block. A [`Block`] is split into records that are slices of it: no record
//! is copied.
//!
//! A line is what the [`RecordFraming`] ends with a line feed: in CSV it may contain line feeds in
//! quotes, and with `:record-start` further lines. The first line of a file may be a header, which
//! is not a record but goes with the records of all batches; a reader that begins later gets it
//! from the file's beginning ([`LineReader::with_header`]).
//!
//! A record that is longer than [`Limits::max_record`] is an error, or it is skipped. If its end is
//! not among the bytes that were read, they are dropped while the end is searched, and its line
//! feed remains, as an empty line. (So does the beginning of a line that may begin the next
//! record.) Until the end is found, the reader's position is the start of the record.

mod block;
mod record_framing;
mod record_start;

use std::io;

use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_plugin::batch::BYTE_ORDER_MARK;

pub(super) use self::block::Block;
use self::record_framing::LongSearch;
pub(super) use self::record_framing::{RecordFraming, StartPattern};
pub(super) use self::record_start::record_start;
use super::compression::Stream;
use super::read_error::ReadError;
use super::tail::Tail;

/// How many bytes show the encoding of a file without a byte order mark.
const ENCODED_BYTES: usize = 32;
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
    framing: RecordFraming,
    /// The file's header, once it is read, if the framing has one.
    header: Option<Bytes>,
    /// The record whose end is searched because it is too long.
    long: Option<LongRecord>,
    /// The start and the length of each record that was skipped.
    skipped: Vec<(Position, u64)>,
}

/// A record that is too long, of which a part has been dropped.
#[derive(Clone)]
struct LongRecord {
    /// The bytes before it.
    before: Tail,
    search: LongSearch,
}

/// A reader's state, apart from its stream.
#[derive(Clone)]
pub(super) struct Checkpoint {
    carry: Vec<u8>,
    before: Tail,
    header: Option<Bytes>,
    long: Option<LongRecord>,
}

/// Limits for the memory of a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes to read at once.
    pub(super) block: usize,
    /// Bytes of the longest record.
    pub(super) max_record: usize,
    /// Whether a longer record is skipped; otherwise it is an error.
    pub(super) skips_longer: bool,
}

impl LineReader {
    /// Creates a reader for a stream that is positioned at the end of `before`.
    pub(super) fn new(
        stream: Stream,
        before: Tail,
        limits: Limits,
        framing: RecordFraming,
    ) -> Self {
        LineReader {
            stream,
            carry: Vec::new(),
            position: before.upto(),
            before,
            limits,
            framing,
            header: None,
            long: None,
            skipped: Vec::new(),
        }
    }

    /// Sets the header of a file whose beginning is not read. Without one, the next line is the
    /// header if the framing has one.
    pub(super) fn with_header(self, header: Option<Bytes>) -> Self {
        LineReader { header, ..self }
    }

    /// Reads up to the end of the header, and returns it. `None` if the file has only empty lines.
    pub(super) fn into_header(mut self) -> Result<Option<Bytes>, ReadError> {
        while self.header.is_none() {
            if self.next_block()?.is_none() {
                self.last_line()?;
                break;
            }
        }
        Ok(self.header)
    }

    /// The bytes before the first line that was not returned yet.
    pub(super) fn before(&self) -> Tail {
        self.long
            .as_ref()
            .map_or(&self.before, |long| &long.before)
            .clone()
    }

    /// The last bytes that were read.
    pub(super) fn tail(&self) -> Tail {
        let mut tail = self.before.clone();
        tail.push(&self.carry);
        tail
    }

    /// The current state, for [`LineReader::restore`].
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            carry: self.carry.clone(),
            before: self.before.clone(),
            header: self.header.clone(),
            long: self.long.clone(),
        }
    }

    /// Restores a state and drops everything that was read since. The stream is at its end
    /// afterwards.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) {
        self.stream = Stream::Decoded(Box::new(io::empty()));
        self.position = checkpoint.before.upto();
        self.carry = checkpoint.carry;
        self.before = checkpoint.before;
        self.header = checkpoint.header;
        self.long = checkpoint.long;
        self.skipped.clear();
    }

    /// The position of the first line that was not returned yet.
    pub(super) fn position(&self) -> Position {
        self.long
            .as_ref()
            .map_or(&self.before, |long| &long.before)
            .upto()
    }

    /// The position of the next byte to read.
    pub(super) fn read_to(&self) -> Position {
        self.position + self.carry.len() as u64
    }

    /// The bytes after the last end of a record, once [`LineReader::next_block`] has returned
    /// `None`; `None` if they are the beginning of a record that is skipped.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        self.long.is_none().then_some(&self.carry)
    }

    /// Whether bytes that were read already may contain complete lines: a record that is too long,
    /// and what was read with it.
    pub(super) fn has_buffered(&self) -> bool {
        self.framing.unended_len(&self.carry) > self.limits.max_record
    }

    /// The start and the length in bytes of each record that was skipped since the last call.
    pub(super) fn take_skipped(&mut self) -> Vec<(Position, u64)> {
        std::mem::take(&mut self.skipped)
    }

    /// The next complete lines; `None` if there are none now. A plain file may have more later.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, ReadError> {
        // Lines that were read together with a record that is too long have not been searched.
        let mut searched = match self.has_buffered() {
            true => 0,
            false => self.carry.len(),
        };
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.reserve_exact(self.limits.block);
        loop {
            let at_end = match self.fill(&mut bytes) {
                Ok(at_end) => at_end,
                Err(error) => return self.lines_before_error(bytes, searched, error),
            };
            if self.position == 0
                && let Some(encoding) = other_encoding(&bytes)
            {
                return Err(ReadError::NotUtf8(encoding));
            }
            if self.drop_long(&mut bytes) {
                searched = 0;
            }
            if let Some(end) = self.framing.last_end(&bytes, searched) {
                return match self.first_refused(&bytes[..=end]) {
                    None => Ok(Some(self.take_block(bytes, end + 1))),
                    Some(0) => Err(self.too_long()),
                    Some(start) => Ok(Some(self.take_block(bytes, start))),
                };
            }
            if self.framing.unended_len(&bytes) > self.limits.max_record {
                if !self.skips() {
                    return Err(self.too_long());
                }
                self.long = Some(LongRecord {
                    before: self.before.clone(),
                    search: self.framing.long_search(),
                });
                searched = 0;
            } else if at_end {
                bytes.shrink_to_fit();
                self.carry = bytes;
                return Ok(None);
            } else {
                searched = bytes.len();
                bytes.reserve(bytes.len());
            }
        }
    }

    /// Drops the next bytes of the record that is skipped, without the line feed at its end.
    /// Returns whether there was such a record.
    fn drop_long(&mut self, bytes: &mut Vec<u8>) -> bool {
        let Some(long) = &mut self.long else {
            return false;
        };
        let part = long.search.find(bytes);
        self.before.push(&bytes[..part.len]);
        bytes.drain(..part.len);
        self.position += part.len as u64;
        if part.is_end {
            self.end_long();
        }
        true
    }

    fn end_long(&mut self) {
        if let Some(long) = self.long.take() {
            let start = long.before.upto();
            self.skipped.push((start, self.position - start));
        }
    }

    /// Whether the next record is skipped if it is too long. A header is not a record.
    fn skips(&self) -> bool {
        self.limits.skips_longer && (self.header.is_some() || !self.framing.has_header())
    }

    /// The start of the first record that is too long and not skipped, in whole records. Remembers
    /// those that are skipped.
    fn first_refused(&mut self, records: &[u8]) -> Option<usize> {
        // Only more bytes than the limit can contain a record that is longer.
        if records.len() <= self.limits.max_record {
            return None;
        }
        let (mut start, mut skips) = (0, self.skips());
        for end in self.framing.ends(records) {
            let line = &records[start..end];
            if line.len() > self.limits.max_record {
                if !skips {
                    return Some(start);
                }
                let position = self.position + start as u64;
                self.skipped.push((position, line.len() as u64));
            }
            // The first line that is not empty is the header.
            skips |= self.limits.skips_longer && self.framing.record(line).is_some();
            start = end + 1;
        }
        None
    }

    /// What remains at the end of the file, as records: a line without a `\n`, or lines after which
    /// no record begins.
    pub(super) fn last_line(&mut self) -> Result<Option<Block>, ReadError> {
        if self.carry.is_empty() {
            self.end_long();
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.carry);
        let end = self.position + bytes.len() as u64;
        bytes.push(b'\n');
        self.drop_long(&mut bytes);
        if self.long.is_some() {
            // It ends with the file.
            self.end_long();
            return Ok(None);
        }
        if self.first_refused(&bytes).is_some() {
            return Err(self.too_long());
        }
        let (start, len) = (self.position, bytes.len());
        let mut before = self.before.clone();
        before.push(&bytes[..len - 1]);
        let block = Block {
            end,
            ..self.take_block(bytes, len)
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
        mut bytes: Vec<u8>,
        mut searched: usize,
        error: io::Error,
    ) -> Result<Option<Block>, ReadError> {
        if self.drop_long(&mut bytes) {
            searched = 0;
        }
        let end = self.framing.last_end(&bytes, searched).map(|end| end + 1);
        let end = end.map(|end| self.first_refused(&bytes[..end]).unwrap_or(end));
        match end {
            Some(end) if end > 0 => {
                self.stream = Stream::Decoded(Box::new(FailedStream(Some(error))));
                Ok(Some(self.take_block(bytes, end)))
            }
            _ => {
                self.carry = bytes;
                Err(error.into())
            }
        }
    }

    fn take_block(&mut self, mut bytes: Vec<u8>, end: usize) -> Block {
        self.carry = bytes[end..].to_vec();
        bytes.truncate(end);
        // A few lines must not keep the memory of a whole block.
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        let (start, before) = (self.position, self.before.clone());
        self.position += end as u64;
        self.before.push(&bytes);
        let header_len = self.take_header(&bytes, start);
        Block {
            bytes: Bytes::from(bytes),
            start,
            end: self.position,
            before,
            framing: self.framing.clone(),
            header: self.header.clone(),
            header_len,
            max_record: self.limits.max_record,
        }
    }

    /// Takes the header out of the lines that begin at `start`, if it is there. Returns how many
    /// bytes of them are not records.
    fn take_header(&mut self, lines: &[u8], start: Position) -> usize {
        if self.header.is_some() {
            return 0;
        }
        let mark = match start == 0 && lines.starts_with(BYTE_ORDER_MARK) {
            true => BYTE_ORDER_MARK.len(),
            false => 0,
        };
        let Some(header) = self.framing.header(&lines[mark..]) else {
            return 0;
        };
        let end = mark + header.end;
        self.header = Some(Bytes::copy_from_slice(&lines[mark + header.start..end]));
        end + 1
    }

    /// The error for the next record.
    fn too_long(&self) -> ReadError {
        ReadError::TooLong {
            at: self.position,
            limit: self.limits.max_record,
            help: match () {
                () if self.framing.has_quotes() => {
                    "close its quote, raise :max-record, or skip it with :on-long-record :skip"
                }
                () if self.framing.has_open_end() => {
                    "make :record-start match its lines, raise :max-record, or skip it with \
                     :on-long-record :skip"
                }
                () => "raise :max-record, or skip it with :on-long-record :skip",
            },
        }
    }
}

/// The encoding of a file that begins like one in UTF-16 or UTF-32: with a byte order mark and an
/// ASCII character, or with several ASCII characters.
fn other_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, 1..=127, 0, 0, 0, ..] | [0, 0, 0xfe, 0xff, 0, 0, 0, 1..=127, ..] => {
            Some("UTF-32")
        }
        [0xff, 0xfe, 1..=127, 0, ..] | [0xfe, 0xff, 0, 1..=127, ..] => Some("UTF-16"),
        _ => {
            let beginning = &bytes[..bytes.len().min(ENCODED_BYTES)];
            let is_each = |width: usize, at: usize| {
                let (chars, rest) = beginning.as_chunks::<4>();
                let is_ascii = |(index, byte): (usize, &u8)| match index % width == at {
                    true => matches!(byte, 1..=127),
                    false => *byte == 0,
                };
                let is_alike = |char: &[u8; 4]| char.iter().enumerate().all(is_ascii);
                chars.len() >= 2 && rest.is_empty() && chars.iter().all(is_alike)
            };
            match () {
                () if is_each(2, 0) || is_each(2, 1) => Some("UTF-16"),
                () if is_each(4, 0) || is_each(4, 3) => Some("UTF-32"),
                () => None,
            }
        }
    }
}

/// A stream that returns an error once and is at its end afterwards.
struct FailedStream(Option<io::Error>);

impl io::Read for FailedStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[cfg(test)]
mod tests;
