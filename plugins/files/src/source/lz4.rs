//! LZ4 files, as the program `lz4` writes them: one or more frames.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;

/// Decodes a stream of frames.
///
/// The decoder returns 0 at the end of each frame, and also if the file ends between two blocks of a
/// frame. In the second case it has asked for more than there is.
pub(super) struct Lz4Reader<R: BufRead> {
    frames: FrameDecoder<Input<R>>,
    /// Whether the last frame was read to its end.
    is_done: bool,
}

/// The file, and whether more was read than it has.
struct Input<R> {
    file: R,
    is_exhausted: bool,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.is_exhausted |= read == 0 && !out.is_empty();
        Ok(read)
    }
}

impl<R: BufRead> Lz4Reader<R> {
    pub(super) fn new(file: R) -> Self {
        let is_exhausted = false;
        Lz4Reader {
            frames: FrameDecoder::new(Input { file, is_exhausted }),
            is_done: false,
        }
    }
}

impl<R: BufRead> Read for Lz4Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.is_done {
            let read = self.frames.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let input = self.frames.get_mut();
            if input.is_exhausted {
                let reason = "a frame has no end mark";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
            self.is_done = input.file.fill_buf()?.is_empty();
        }
        Ok(0)
    }
}
