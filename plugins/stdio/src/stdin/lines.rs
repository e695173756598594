//! Splits a stream of bytes into batches of lines.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_plugin::batch::BYTE_ORDER_MARK;
use pseidon_plugin::framing::Framing;
use pseidon_plugin::{Batch, Payloads, Split};

/// How many bytes are read before a batch is emitted, if they are available. A longer line makes
/// the buffer grow.
const BLOCK: usize = 1 << 20;
/// The most bytes that a buffer's spans can address, with room for the line feed that the last line
/// may lack.
const MAX_BUFFER: usize = u32::MAX as usize - 1;

/// Reads bytes and returns complete lines.
pub(super) struct LineReader {
    /// Reused for every read. Emitted lines are copied out of it, once and in one piece.
    buffer: Vec<u8>,
    /// The number of bytes in the buffer. Those before `whole` are complete lines.
    filled: usize,
    whole: usize,
    /// The offset of the buffer's first byte in this run.
    offset: u64,
    /// Whether no line was returned yet.
    is_start: bool,
    framing: Framing,
    /// The header, once it is read, if the framing has one.
    header: Option<Bytes>,
}

/// Whether the input may have more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// More bytes may follow.
    More,
    /// The end of the input.
    End,
}

/// What standard input is instead of lines in UTF-8, with what to do about it.
fn other_content(beginning: &[u8]) -> Option<&'static str> {
    match beginning {
        [0x1f, 0x8b, ..] => Some("it is compressed with gzip: decompress it, as with zcat"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some("it is compressed with Zstandard: decompress it, as with zstdcat")
        }
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => {
            Some("it is compressed with bzip2: decompress it, as with bzcat")
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Some("it is compressed with xz: decompress it, as with xzcat")
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            Some("it is compressed with LZ4: decompress it, as with lz4cat")
        }
        [0xff, 0xfe, 1..=127, 0, ..] | [0xfe, 0xff, 0, 1..=127, ..] => {
            Some("it is in UTF-16: convert it to UTF-8, as with iconv -f UTF-16")
        }
        _ => None,
    }
}

impl LineReader {
    /// Creates a reader at the start of its input.
    pub(super) fn new() -> Self {
        LineReader {
            buffer: Vec::new(),
            filled: 0,
            whole: 0,
            offset: 0,
            is_start: true,
            framing: Framing::default(),
            header: None,
        }
    }

    /// Starts a run: bytes are counted from 0, beginning with those of a line that the last run was
    /// stopped in.
    pub(super) fn begin_run(&mut self, framing: Framing) {
        self.offset = 0;
        self.framing = framing;
    }

    /// The number of bytes that were read of an incomplete line.
    pub(super) fn unfinished(&self) -> usize {
        self.filled - self.whole
    }

    /// Reads once, then continues until the block is full, the input ends, or `ready` returns that
    /// no more bytes are available now.
    ///
    /// A line of more than `longest_line` bytes (at least one block) is an error.
    pub(super) fn fill<R: Read>(
        &mut self,
        input: &mut R,
        ready: impl Fn(&R) -> io::Result<bool>,
        longest_line: usize,
    ) -> io::Result<InputState> {
        let longest_line = longest_line.clamp(BLOCK, MAX_BUFFER);
        loop {
            self.make_room(longest_line)?;
            let count = match input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.find_lines();
                    self.end_last_line();
                    return Ok(InputState::End);
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.find_lines();
                    return Ok(InputState::More);
                }
                Err(error) => return Err(error),
            };
            self.filled += count;
            if self.is_start
                && let Some(what) = other_content(&self.buffer[..self.filled])
            {
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            let (is_full, has_more) = (self.filled == self.buffer.len(), ready(input)?);
            if is_full || !has_more {
                self.find_lines();
                if self.whole > 0 || !has_more {
                    return Ok(InputState::More);
                }
            }
        }
    }

    /// Finds the end of the complete lines.
    fn find_lines(&mut self) {
        let end = self.framing.last_end(&self.buffer[..self.filled], 0);
        self.whole = end.map_or(0, |end| end + 1);
    }

    /// Returns the complete lines that were read as a batch, or `None` if there are none. `first`
    /// is the position at the start of the run.
    pub(super) fn batch(&mut self, split: &Arc<Split>, first: Position) -> Option<Batch> {
        if self.whole == 0 {
            return None;
        }
        let lines = Bytes::copy_from_slice(&self.buffer[..self.whole]);
        let start = first + self.offset;
        self.buffer.copy_within(self.whole..self.filled, 0);
        self.filled -= self.whole;
        self.offset += self.whole as u64;
        self.whole = 0;
        if self.filled < BLOCK && self.buffer.len() > BLOCK {
            self.buffer.truncate(BLOCK);
            self.buffer.shrink_to_fit();
        }

        let (mut spans, mut positions, mut line) = (Vec::new(), Vec::new(), 0);
        let mut skipped = false;
        if std::mem::take(&mut self.is_start) && lines.starts_with(BYTE_ORDER_MARK) {
            line = BYTE_ORDER_MARK.len();
        }
        if self.header.is_none()
            && let Some(header) = self.framing.header(&lines[line..])
        {
            self.header = Some(Bytes::copy_from_slice(&lines[line..][header.clone()]));
            line += header.end + 1;
        }
        let first_line = line;
        for end in self.framing.ends(&lines[first_line..]) {
            let end = first_line + end;
            match self.framing.record(&lines[line..end]) {
                Some(record) => {
                    skipped |= record.len() < end - line;
                    spans.push((line as u32, record.len() as u32));
                    positions.push(start + line as u64);
                }
                None => skipped = true,
            }
            line = end + 1;
        }
        let next = start + lines.len() as u64;
        Some(Batch::from_payloads(
            split.clone(),
            Payloads::new(lines, spans, !skipped).with_header(self.header.clone()),
            positions,
            next,
        ))
    }

    fn make_room(&mut self, longest_line: usize) -> io::Result<()> {
        if self.filled < self.buffer.len() {
            return Ok(());
        }
        if self.filled > longest_line {
            let reason = format!(
                "the line at byte {} is longer than {longest_line} bytes; raise :memory",
                self.offset
            );
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        self.buffer
            .resize((self.buffer.len() * 2).clamp(BLOCK, longest_line + 1), 0);
        Ok(())
    }

    /// Adds the line feed that the last line of the input may lack.
    fn end_last_line(&mut self) {
        if self.unfinished() == 0 {
            return;
        }
        match self.buffer.get_mut(self.filled) {
            Some(byte) => *byte = b'\n',
            None => self.buffer.push(b'\n'),
        }
        self.filled += 1;
        self.whole = self.filled;
    }
}
