//! Compressed files as a sequence of blocks. Each block is a gzip member, a zstd frame, a bzip2
//! stream or a Hadoop snappy block of its own.
//!
//! All of these formats define concatenated files as a valid file, and every tool reads them. It
//! keeps memory small when hundreds of files are open: a file holds at most one uncompressed block
//! and no compressor. Compressors of zstd and bzip2 take megabytes.
//!
//! Hadoop's snappy, which Hive and Spark read in text files, is not snappy's own framing format.
//! Each block is its uncompressed length, the length of the compressed chunk, and the chunk in raw
//! snappy. Both lengths are 4 bytes, big-endian.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use zstd::bulk::Compressor;

use crate::retry::RetryWriter;

/// The size of a block in bytes. Larger blocks hardly compress better.
pub(super) const BLOCK_BYTES: usize = 256 << 10;

/// The size of a block of Hadoop's snappy in bytes. By default, Hadoop's reader has a buffer of 256
/// KiB, which must hold the chunk too, and incompressible data grows.
const SNAPPY_BLOCK_BYTES: usize = 128 << 10;

/// The block size of bzip2, in 100 kB: one bzip2 block holds one of our blocks.
const BZIP2_BLOCK_SIZE: bzip2::Compression = bzip2::Compression::new(3);

/// The compression ratio that is assumed until the file has a compressed block.
pub(super) const ASSUMED_RATIO: u64 = 5;

/// The compression of blocks. Shared by the files of a codec.
pub(super) enum BlockCompression {
    Gzip(flate2::Compression),
    Bzip2,
    Snappy,
    /// `idle` has the compressors that no thread is using.
    Zstd {
        level: i32,
        idle: Mutex<Vec<Compressor<'static>>>,
    },
}

impl BlockCompression {
    pub(super) fn compress(&self, block: &[u8], out: &mut impl Write) -> io::Result<()> {
        match self {
            BlockCompression::Gzip(level) => {
                let mut member = GzEncoder::new(out, *level);
                member.write_all(block)?;
                member.finish().map(|_| ())
            }
            BlockCompression::Bzip2 => {
                let mut stream = BzEncoder::new(out, BZIP2_BLOCK_SIZE);
                stream.write_all(block)?;
                stream.finish().map(|_| ())
            }
            BlockCompression::Snappy => {
                if block.is_empty() {
                    // Hadoop's end of file: a block without a chunk.
                    return out.write_all(&big_endian(0)?);
                }
                let mut encoder = snap::raw::Encoder::new();
                for block in block.chunks(SNAPPY_BLOCK_BYTES) {
                    let chunk = encoder.compress_vec(block)?;
                    out.write_all(&big_endian(block.len())?)?;
                    out.write_all(&big_endian(chunk.len())?)?;
                    out.write_all(&chunk)?;
                }
                Ok(())
            }
            BlockCompression::Zstd { level, idle } => {
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
    method: Arc<BlockCompression>,
    /// The bytes that are not yet compressed.
    block: Vec<u8>,
    pub(super) out: RetryWriter<File>,
    /// The number of bytes before compression in all finished blocks.
    compressed: u64,
}

impl BlockWriter {
    pub(super) fn new(method: Arc<BlockCompression>, out: RetryWriter<File>) -> BlockWriter {
        BlockWriter {
            method,
            block: Vec::new(),
            out,
            compressed: 0,
        }
    }

    /// Finishes the block and frees its memory.
    pub(super) fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.compress(&block)?;
        }
        Ok(())
    }

    /// Finishes the file. A file without records gets an empty block, since an empty file is not a
    /// valid compressed file.
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

    /// The size of the file in bytes. The size of the open block is estimated.
    pub(super) fn file_bytes(&self) -> u64 {
        let done = self.out.bytes_written() + self.out.buffered_bytes() as u64;
        let open = self.block.len() as u64;
        done + if self.compressed == 0 {
            open / ASSUMED_RATIO
        } else {
            (u128::from(open) * u128::from(done) / u128::from(self.compressed)) as u64
        }
    }

    fn compress(&mut self, block: &[u8]) -> io::Result<()> {
        self.compressed += block.len() as u64;
        self.method.compress(block, &mut self.out)
    }
}

/// Errors come from the compressor; the [`RetryWriter`] does not fail.
impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.is_empty() && bytes.len() >= BLOCK_BYTES {
            self.compress(&bytes[..BLOCK_BYTES])?;
            return Ok(BLOCK_BYTES);
        }
        let count = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK_BYTES {
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
