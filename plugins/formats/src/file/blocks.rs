//! Compressed files as a row of blocks, each a gzip member, a zstd frame, a bzip2 stream or a block
//! of Hadoop's snappy of its own.
//!
//! All of these formats say that files put together are a file, and every tool reads such files. It
//! keeps memory small where hundreds of files are open: a file holds at most one block that is not
//! compressed yet, and no compressor, of which those of zstd and bzip2 take megabytes.
//!
//! Hadoop's snappy, which Hive and Spark read in text files, is not snappy's own framing: each
//! block is its length before compression, then the length of the compressed chunk and the chunk,
//! raw snappy; both lengths in 4 bytes, big end first.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use zstd::bulk::Compressor;

use crate::retry::RetryWriter;

/// The bytes of a block. Larger ones hardly get smaller.
pub(super) const BLOCK: usize = 256 << 10;

/// The bytes of a block of Hadoop's snappy. Its reader has room for 256 KiB unless it is told
/// otherwise, also for the chunk, and what does not compress gets larger.
const SNAPPY_BLOCK: usize = 128 << 10;

/// The block size of bzip2, in 100 kB: one of its blocks holds one of ours.
const BZIP2_BLOCK: bzip2::Compression = bzip2::Compression::new(3);

/// What a block is guessed to shrink to before the file has one: to one of so many parts.
pub(super) const GUESS: u64 = 5;

/// How blocks are compressed. Shared by the files of a codec.
pub(super) enum Method {
    Gzip(flate2::Compression),
    Bzip2,
    Snappy,
    /// The compressors that no thread uses just now.
    Zstd {
        level: i32,
        idle: Mutex<Vec<Compressor<'static>>>,
    },
}

impl Method {
    pub(super) fn compress(&self, block: &[u8], out: &mut impl Write) -> io::Result<()> {
        match self {
            Method::Gzip(level) => {
                let mut member = GzEncoder::new(out, *level);
                member.write_all(block)?;
                member.finish().map(|_| ())
            }
            Method::Bzip2 => {
                let mut stream = BzEncoder::new(out, BZIP2_BLOCK);
                stream.write_all(block)?;
                stream.finish().map(|_| ())
            }
            Method::Snappy => {
                if block.is_empty() {
                    // The end of the file, to Hadoop: a block without a chunk.
                    return out.write_all(&big_endian(0)?);
                }
                let mut encoder = snap::raw::Encoder::new();
                for block in block.chunks(SNAPPY_BLOCK) {
                    let chunk = encoder.compress_vec(block)?;
                    out.write_all(&big_endian(block.len())?)?;
                    out.write_all(&big_endian(chunk.len())?)?;
                    out.write_all(&chunk)?;
                }
                Ok(())
            }
            Method::Zstd { level, idle } => {
                let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
                let free = lock().pop();
                let mut compressor = match free {
                    Some(compressor) => compressor,
                    None => {
                        let mut compressor = Compressor::new(*level)?;
                        compressor.include_checksum(true)?;
                        compressor
                    }
                };
                let frame = compressor.compress(block)?;
                lock().push(compressor);
                out.write_all(&frame)
            }
        }
    }
}

fn big_endian(length: usize) -> io::Result<[u8; 4]> {
    u32::try_from(length)
        .map(u32::to_be_bytes)
        .map_err(io::Error::other)
}

/// A compressed file that is being written.
pub(super) struct BlockWriter {
    method: Arc<Method>,
    /// What is not compressed yet.
    block: Vec<u8>,
    pub(super) out: RetryWriter<File>,
    /// The bytes that were compressed.
    compressed: u64,
}

impl BlockWriter {
    pub(super) fn new(method: Arc<Method>, out: RetryWriter<File>) -> BlockWriter {
        BlockWriter {
            method,
            block: Vec::new(),
            out,
            compressed: 0,
        }
    }

    /// Ends the block, and gives its memory back.
    pub(super) fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.compress(&block)?;
        }
        Ok(())
    }

    /// Ends the file. One without records holds an empty block, since an empty file is no
    /// compressed one.
    pub(super) fn finish(mut self) -> io::Result<RetryWriter<File>> {
        self.end_block()?;
        if self.compressed == 0 {
            self.compress(&[])?;
        }
        Ok(self.out)
    }

    pub(super) fn memory(&self) -> usize {
        self.block.capacity() + self.out.memory()
    }

    /// The bytes of the file, of which those of the open block are estimated.
    pub(super) fn file_bytes(&self) -> u64 {
        let done = self.out.written() + self.out.held() as u64;
        let open = self.block.len() as u64;
        done + if self.compressed == 0 {
            open / GUESS
        } else {
            (u128::from(open) * u128::from(done) / u128::from(self.compressed)) as u64
        }
    }

    fn compress(&mut self, block: &[u8]) -> io::Result<()> {
        self.compressed += block.len() as u64;
        self.method.compress(block, &mut self.out)
    }
}

/// Errors are the compressor's.
impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.is_empty() && bytes.len() >= BLOCK {
            self.compress(&bytes[..BLOCK])?;
            return Ok(BLOCK);
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            let mut block = std::mem::take(&mut self.block);
            self.compress(&block)?;
            block.clear();
            self.block = block;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.end_block()
    }
}
