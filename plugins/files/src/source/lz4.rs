//! LZ4 files, as the program `lz4` writes them: one or more frames. Skippable frames, in which other
//! programs keep their own data, have no content.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;

use super::members::is_at_end;

/// Decodes a stream of frames.
///
/// The decoder returns 0 at the end of each frame, and also if the file ends between two blocks of a
/// frame. In the second case it has asked for more than there is.
pub(super) struct Lz4Reader<R: BufRead> {
    frames: FrameDecoder<Input<R>>,
    /// Whether the decoder is in front of a frame.
    is_between: bool,
    /// Whether the last frame was read to its end.
    is_done: bool,
}

/// The file, and whether more was read than it has.
struct Input<R> {
    file: R,
    /// The first bytes of a frame, which are read before the rest of the file.
    magic: Vec<u8>,
    is_exhausted: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.magic.is_empty() {
            let len = out.len().min(self.magic.len());
            out[..len].copy_from_slice(&self.magic[..len]);
            self.magic.drain(..len);
            return Ok(len);
        }
        let read = self.file.read(out)?;
        self.is_exhausted |= read == 0 && !out.is_empty();
        Ok(read)
    }
}

impl<R: BufRead> Input<R> {
    /// Skips skippable frames. Returns whether another frame follows.
    fn find_frame(&mut self) -> io::Result<bool> {
        loop {
            if is_at_end(&mut self.file)? {
                return Ok(false);
            }
            let mut magic = Vec::with_capacity(4);
            (&mut self.file).take(4).read_to_end(&mut magic)?;
            if !matches!(magic[..], [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
                self.magic = magic;
                return Ok(true);
            }
            let mut length = [0; 4];
            self.file.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            let skipped = io::copy(&mut (&mut self.file).take(length), &mut io::sink())?;
            if skipped < length {
                let reason = "a skippable frame is incomplete";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
        }
    }
}

impl<R: BufRead> Lz4Reader<R> {
    pub(super) fn new(file: R) -> Self {
        let input = Input {
            file,
            magic: Vec::new(),
            is_exhausted: false,
        };
        Lz4Reader {
            frames: FrameDecoder::new(input),
            is_between: true,
            is_done: false,
        }
    }
}

impl<R: BufRead> Read for Lz4Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.is_done {
            if self.is_between {
                self.is_done = !self.frames.get_mut().find_frame()?;
                self.is_between = false;
                continue;
            }
            let read = self.frames.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            if self.frames.get_mut().is_exhausted {
                let reason = "a frame has no end mark";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            self.is_between = true;
        }
        Ok(0)
    }
}
