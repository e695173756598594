//! From a file's bytes to batches of lines.
//!
//! A [`LineReader`] reads large blocks that end at a line end; the rest of an incomplete last line
//! is kept for the next block. A [`Block`] is split into records that are slices of it: no record
//! is copied.
//!
//! A line is what the [`Framing`] of the format ends with a line feed: in CSV it may contain line
//! feeds in quotes. The first line of a file may be a header, which is not a record but goes with
//! the records of all batches; a reader that begins later gets it from the file's beginning
//! ([`LineReader::with_header`]).

mod block;
mod record_start;

use std::io;

use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_plugin::batch::BYTE_ORDER_MARK;
use pseidon_plugin::framing::Framing;

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
    framing: Framing,
    /// The file's header, once it is read, if the framing has one.
    header: Option<Bytes>,
}

/// A reader's state, apart from its stream.
pub(super) struct Checkpoint {
    carry: Vec<u8>,
    before: Tail,
    header: Option<Bytes>,
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
    pub(super) fn new(stream: Stream, before: Tail, limits: Limits, framing: Framing) -> Self {
        LineReader {
            stream,
            carry: Vec::new(),
            position: before.upto(),
            before,
            limits,
            framing,
            header: None,
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
            header: self.header.clone(),
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
            if let Some(end) = self.framing.last_end(&bytes, searched) {
                return self.take_block(bytes, end + 1).map(Some);
            }
            if bytes.len() > self.limits.max_record {
                return Err(self.too_long(self.position));
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
        match self.framing.last_end(&bytes, searched) {
            Some(end) => {
                self.stream = Stream::Decoded(Box::new(FailedStream(Some(error))));
                self.take_block(bytes, end + 1).map(Some)
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
            for line_end in self.framing.ends(&bytes) {
                if line_end - line_start > self.limits.max_record {
                    return Err(self.too_long(self.position + line_start as u64));
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
        let header_len = self.take_header(&bytes, start);
        Ok(Block {
            bytes: Bytes::from(bytes),
            start,
            end: self.position,
            before,
            is_plain,
            framing: self.framing,
            header: self.header.clone(),
            header_len,
        })
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

    fn too_long(&self, at: Position) -> ReadError {
        ReadError::TooLong {
            at,
            limit: self.limits.max_record,
            help: match self.framing.quotes {
                None => "raise :max-record",
                Some(_) => "close its quote, or raise :max-record",
            },
        }
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
mod tests;
