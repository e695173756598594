//! Hadoop's snappy, as Hive, Spark and the sink `files` write it, and the frames of snappy's own
//! format, which have a magic number.
//!
//! A block of Hadoop's is the length of its content, then chunks, each with its own length, until they have that
//! much content. Lengths are 4 bytes, big-endian.

use std::io::{self, BufRead, Read};

use snap::read::FrameDecoder;

/// A block that claims to be longer than this is damaged.
const MAX_BLOCK_BYTES: usize = 1 << 28;

/// The first bytes of frames.
pub(super) const FRAMED_SNAPPY: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Decodes a stream of either format.
pub(super) fn reader(mut input: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(match input.fill_buf()?.starts_with(FRAMED_SNAPPY) {
        true => Box::new(FramedReader(FrameDecoder::new(input))),
        false => Box::new(SnappyReader::new(input)),
    })
}

/// Decodes frames.
struct FramedReader<R: Read>(FrameDecoder<R>);

impl<R: Read> Read for FramedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out).map_err(|error| match error.kind() {
            io::ErrorKind::Other => damaged(error),
            _ => error,
        })
    }
}

/// Decodes a stream of blocks.
struct SnappyReader<R> {
    input: R,
    /// How many bytes of the block are left after `chunk`.
    rest: usize,
    chunk: Vec<u8>,
    /// How many bytes of the chunk were returned.
    done: usize,
}

impl<R: Read> SnappyReader<R> {
    fn new(input: R) -> Self {
        SnappyReader {
            input,
            rest: 0,
            chunk: Vec::new(),
            done: 0,
        }
    }

    /// Decodes the next chunk. Returns whether there is one.
    fn next_chunk(&mut self) -> io::Result<bool> {
        while self.rest == 0 {
            match self.length(true)? {
                Some(length) => self.rest = length,
                None => return Ok(false),
            }
        }
        let length = self.length(false)?.unwrap_or_default();
        let mut packed = vec![0; length];
        self.input.read_exact(&mut packed)?;
        self.chunk = snap::raw::Decoder::new()
            .decompress_vec(&packed)
            .map_err(damaged)?;
        self.done = 0;
        self.rest = self
            .rest
            .checked_sub(self.chunk.len())
            .ok_or_else(|| damaged("a chunk is longer than its block"))?;
        Ok(true)
    }

    /// The next length; `None` at the end of the stream if it `may_end` there.
    fn length(&mut self, may_end: bool) -> io::Result<Option<usize>> {
        let mut bytes = [0; 4];
        let mut read = 0;
        while read < bytes.len() {
            match self.input.read(&mut bytes[read..]) {
                Ok(0) if read == 0 && may_end => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match u32::from_be_bytes(bytes) as usize {
            length if length <= MAX_BLOCK_BYTES => Ok(Some(length)),
            _ => Err(damaged("it is not Hadoop's snappy")),
        }
    }
}

fn damaged(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.done == self.chunk.len() {
            if !self.next_chunk()? {
                return Ok(0);
            }
        }
        let count = out.len().min(self.chunk.len() - self.done);
        out[..count].copy_from_slice(&self.chunk[self.done..self.done + count]);
        self.done += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(blocks: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut out = Vec::new();
        for chunks in blocks {
            let length: usize = chunks.iter().map(Vec::len).sum();
            out.extend((length as u32).to_be_bytes());
            for chunk in chunks {
                let packed = snap::raw::Encoder::new().compress_vec(chunk).unwrap();
                out.extend((packed.len() as u32).to_be_bytes());
                out.extend(packed);
            }
        }
        out
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        SnappyReader::new(packed).read_to_end(&mut out).map(|_| out)
    }

    proptest! {
        #[test]
        fn blocks_of_chunks_are_read_and_a_cut_is_noticed(
            blocks in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..4), 0..4),
            cut in 1usize..6,
        ) {
            let packed = packed(&blocks);
            prop_assert_eq!(unpacked(&packed).unwrap(), blocks.concat().concat());
            let has_chunks = blocks.last().is_some_and(|chunks| !chunks.is_empty());
            if has_chunks {
                let error = unpacked(&packed[..packed.len() - cut.min(5)]).unwrap_err();
                prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpacked(&bytes);
        }
    }
}
