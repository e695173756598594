//! A Parquet file whose end is an error.
//!
//! The library skips an unknown list in the header of a page by reading each element. At the end of
//! a file, reading returns no bytes and no error, so it would read each of the up to two billion
//! elements that a damaged length names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// A file that the library reads.
pub(super) struct BoundedFile(pub(super) File);

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for BoundedFile {
    type T = BoundedReader;

    fn get_read(&self, start: u64) -> Result<BoundedReader, ParquetError> {
        self.0.get_read(start).map(BoundedReader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// Reads from a place of the file. Reading at its end is an error.
pub(super) struct BoundedReader(BufReader<File>);

impl Read for BoundedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.fill_buf()?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read(buffer)
    }
}
