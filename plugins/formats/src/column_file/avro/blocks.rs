//! The blocks of a file.

use std::fs::File;
use std::io::{self, Read};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use pseidon_dsl::nearest;

use super::super::errors::{damaged, incomplete, read_up_to, refused};
use super::header::{Header, MARKER_BYTES, long};

/// The maximum length of a block, before and after compression.
const MAX_BYTES: u64 = 256 << 20;

/// The maximum length of the two numbers before a block.
const HEAD_BYTES: usize = 20;

/// Reads the blocks of a file in order.
pub(super) struct BlockReader {
    file: File,
    marker: [u8; MARKER_BYTES],
    codec: BlockCodec,
    /// Where the next block begins.
    next: u64,
    /// The length of the file when it was opened.
    len: u64,
}

/// Where a block is.
struct Block {
    rows: u64,
    /// Where its records begin.
    at: u64,
    /// The length of its records.
    bytes: u64,
}

impl Block {
    /// Where the next block begins.
    fn end(&self) -> u64 {
        self.at + self.bytes + MARKER_BYTES as u64
    }
}

impl BlockReader {
    /// Creates a reader that begins with the first block. An error names a compression that cannot
    /// be read.
    pub(super) fn new(file: File, header: &Header) -> io::Result<BlockReader> {
        Ok(BlockReader {
            len: file.metadata()?.len(),
            file,
            marker: header.marker,
            codec: BlockCodec::of(&header.codec)?,
            next: header.len,
        })
    }

    /// The number of rows of the next block, and its decompressed records; `None` at the end of the
    /// file.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(block) = self.find()? else {
            return Ok(None);
        };
        if block.bytes > MAX_BYTES {
            return Err(too_long());
        }
        let bytes = read_up_to(&self.file, block.at, block.bytes as usize)?;
        if (bytes.len() as u64) < block.bytes {
            return Err(cut());
        }
        let records = self.codec.decompress(bytes)?;
        self.next = block.end();
        Ok(Some((block.rows, records)))
    }

    /// Skips the blocks that have only rows below this one. Returns how many rows that were.
    pub(super) fn skip_rows(&mut self, below: u64) -> io::Result<u64> {
        let mut skipped = 0;
        while skipped < below {
            match self.find()? {
                Some(block) if skipped.saturating_add(block.rows) <= below => {
                    skipped += block.rows;
                    self.next = block.end();
                }
                _ => break,
            }
        }
        Ok(skipped)
    }

    /// Where the first block ends; the end of the header if there is none.
    ///
    /// # Errors
    /// The block is incomplete or damaged.
    pub(super) fn end_of_first(&self) -> io::Result<u64> {
        Ok(self.find()?.map_or(self.next, |block| block.end()))
    }

    /// Where the next block begins.
    #[cfg(test)]
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// Finds the next block, and checks that it is complete.
    fn find(&self) -> io::Result<Option<Block>> {
        if self.next >= self.len {
            return Ok(None);
        }
        let head = read_up_to(&self.file, self.next, HEAD_BYTES)?;
        let unreadable = || match head.len() < HEAD_BYTES {
            true => cut(),
            false => damaged("the length of a block is not a number"),
        };
        let (rows, rest) = long(&head).ok_or_else(unreadable)?;
        let (bytes, rest) = long(rest).ok_or_else(unreadable)?;
        let (Ok(rows), Ok(bytes)) = (u64::try_from(rows), u64::try_from(bytes)) else {
            return Err(damaged("the length of a block is negative"));
        };
        let at = self.next + (head.len() - rest.len()) as u64;
        let follows = self.len.saturating_sub(at);
        if bytes.saturating_add(MARKER_BYTES as u64) > follows {
            return Err(cut());
        }
        let block = Block { rows, at, bytes };
        if read_up_to(&self.file, at + bytes, MARKER_BYTES)? != self.marker {
            return Err(damaged("a block does not end with the file's marker"));
        }
        Ok(Some(block))
    }
}

fn cut() -> io::Error {
    incomplete("it ends in a block")
}

fn too_long() -> io::Error {
    refused("it has a block of more than 256 MiB: write smaller blocks")
}

/// The compression of blocks, Avro's `avro.codec`.
#[derive(Clone, Copy)]
enum BlockCodec {
    Null,
    Deflate,
    /// Raw snappy, followed by the CRC-32 of the uncompressed block.
    Snappy,
    Bzip2,
    Zstandard,
}

impl BlockCodec {
    const NAMES: [&str; 5] = ["null", "deflate", "snappy", "bzip2", "zstandard"];

    fn of(name: &str) -> io::Result<BlockCodec> {
        Ok(match name {
            "null" => BlockCodec::Null,
            "deflate" => BlockCodec::Deflate,
            "snappy" => BlockCodec::Snappy,
            "bzip2" => BlockCodec::Bzip2,
            "zstandard" => BlockCodec::Zstandard,
            _ => {
                let hint = match nearest(name, BlockCodec::NAMES) {
                    Some(near) => format!("`{near}`, for example"),
                    None => format!("one of {}", BlockCodec::NAMES.join(", ")),
                };
                return Err(refused(format!(
                    "its blocks are compressed with `{name}`, which is not read: write it with {hint}"
                )));
            }
        })
    }

    fn decompress(self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            BlockCodec::Null => Ok(block),
            BlockCodec::Deflate => read_all(DeflateDecoder::new(&block[..])),
            BlockCodec::Snappy => decompress_snappy(&block),
            BlockCodec::Bzip2 => read_all(bzip2::read::BzDecoder::new(&block[..])),
            BlockCodec::Zstandard => read_all(zstd::Decoder::new(&block[..])?),
        }
    }
}

fn read_all(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    let mut limited = decoder.take(MAX_BYTES + 1);
    limited
        .read_to_end(&mut records)
        .map_err(cannot_decompress)?;
    match records.len() as u64 > MAX_BYTES {
        true => Err(too_long()),
        false => Ok(records),
    }
}

fn decompress_snappy(block: &[u8]) -> io::Result<Vec<u8>> {
    let Some((block, checksum)) = block.split_last_chunk::<4>() else {
        return Err(damaged("a compressed block has no checksum"));
    };
    let len = snap::raw::decompress_len(block).map_err(cannot_decompress)?;
    if len as u64 > MAX_BYTES {
        return Err(too_long());
    }
    let records = snap::raw::Decoder::new()
        .decompress_vec(block)
        .map_err(cannot_decompress)?;
    let mut found = Crc::new();
    found.update(&records);
    match found.sum().to_be_bytes() == *checksum {
        true => Ok(records),
        false => Err(damaged("the checksum of a block is another one")),
    }
}

fn cannot_decompress(error: impl std::fmt::Display) -> io::Error {
    damaged(format!("a block cannot be decompressed: {error}"))
}
