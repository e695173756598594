//! Compressed files as a row of blocks, each a gzip member or a zstd frame of its own.
//!
//! Both formats say that files put together are a file, and every tool reads such files. It keeps memory small where hundreds of files are
//! open: a file holds at most one block that is not compressed yet, and no compressor, of which zstd's takes megabytes.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::write::GzEncoder;
use zstd::bulk::Compressor;

use crate::retry::RetryWriter;

/// The bytes of a block. Larger ones hardly get smaller.
const BLOCK: usize = 256 << 10;

/// What a block is guessed to shrink to before the file has one: to one of so many parts.
const GUESS: u64 = 5;

/// How blocks are compressed. Shared by the files of a codec.
pub(super) enum Method {
    Gzip(flate2::Compression),
    /// The compressors that no thread uses just now.
    Zstd {
        level: i32,
        idle: Mutex<Vec<Compressor<'static>>>,
    },
}

impl Method {
    fn compress(&self, block: &[u8], out: &mut RetryWriter<File>) -> io::Result<()> {
        match self {
            Method::Gzip(level) => {
                let mut member = GzEncoder::new(out, *level);
                member.write_all(block)?;
                member.finish().map(|_| ())
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
        BlockWriter { method, block: Vec::new(), out, compressed: 0 }
    }

    /// Ends the block, and gives its memory back.
    pub(super) fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.compress(&block)?;
        }
        Ok(())
    }

    /// Ends the file. One without records holds an empty block, since an empty file is no compressed one.
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
        done + if self.compressed == 0 { open / GUESS } else { (u128::from(open) * u128::from(done) / u128::from(self.compressed)) as u64 }
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
