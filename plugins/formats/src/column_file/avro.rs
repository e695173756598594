//! Avro object container files.
//!
//! The container and the places of the records are read here, and arrow-avro turns the records into
//! columns. Its own reader of files cannot be used for files that may be damaged: it ends silently
//! where a file is cut, does not stop at a block with more bytes than its records have, and
//! decompresses whatever a block contains. Here nothing is decoded that was not checked before:
//!
//! - [`header`]: the schema, the compression and the marker behind every block.
//! - [`blocks`]: the blocks one after the other, each with its marker, decompressed up to a limit.
//!   Blocks before the wanted row are skipped by the number of their rows.
//! - [`schema`]: the types of the values. A type that cannot be read is refused by the field's name.
//! - [`values`]: where each record ends, and how much memory it takes as columns.
//! - [`padding`]: bytes for values that have none, which arrow-avro cannot decode everywhere.
//! - [`rows`]: from the records to columns.
//!
//! A file may grow by further blocks, so a file of this format has no end that could be checked. It
//! is complete if it ends with a block.

mod blocks;
mod header;
mod padding;
mod rows;
mod schema;
mod values;

use std::fs::File;
use std::io;

use arrow::array::RecordBatch;
use pseidon_expr::panics::catch_panic;

use self::blocks::BlockReader;
use self::header::Header;
use self::padding::PaddedRecord;
use self::rows::RowDecoder;
use self::schema::RecordType;
use self::values::Cursor;
use super::errors::{damaged, read_up_to, refused, truncated};
use super::{ColumnReader, IdentityBytes, MAX_ROWS, READ_BYTES};

/// How many bytes of the header, and how many of the first block, identify a file.
const IDENTITY_BYTES: u64 = 512;

/// Reads the rows of an Avro file.
pub(super) struct AvroReader {
    blocks: BlockReader,
    types: RecordType,
    decoder: RowDecoder,
    /// The block that is being read.
    block: Records,
    /// The number of the next row.
    position: u64,
    /// What follows the rows that were returned.
    failure: Option<io::Error>,
}

/// The records of a block.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// The byte at which the next record begins.
    next: usize,
    /// How many records follow.
    rows: u64,
}

/// Records of a block that follow each other.
struct MeasuredRecords {
    /// Where they begin and end.
    ends: Vec<usize>,
    /// Them, if some of their values are padded. Else they are in the block.
    padded: Option<Vec<u8>>,
    /// The error of what follows them.
    failure: Option<io::Error>,
}

impl AvroReader {
    /// Opens a file for reading the fields with these names, or all, from row `from` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends in its header; `InvalidData` if it is not an Avro file, is
    /// damaged, or has a type that cannot be read; otherwise the error of reading it.
    pub(super) fn open(file: File, fields: Option<&[String]>, from: u64) -> io::Result<AvroReader> {
        let header = Header::read(&file)?;
        let types = RecordType::parse(&header.schema).map_err(refused)?;
        let decoder = catch_panic(|| RowDecoder::new(&types, fields)).map_err(damaged)?;
        let mut reader = AvroReader {
            blocks: BlockReader::new(file, &header)?,
            decoder: decoder.map_err(refused)?,
            types,
            block: Records::default(),
            position: 0,
            failure: None,
        };
        reader.skip_to(from)?;
        Ok(reader)
    }

    fn skip_to(&mut self, row: u64) -> io::Result<()> {
        let skipped = self.blocks.skip_rows(row)?;
        self.position = skipped;
        while self.position < row {
            if self.block.rows == 0 && !self.next_block()? {
                return Err(truncated(self.position, row));
            }
            let skipped = self.measure((row - self.position).min(self.block.rows));
            skipped.failure.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// Reads the next block that has records. Returns whether there is one.
    fn next_block(&mut self) -> io::Result<bool> {
        while let Some((rows, bytes)) = self.blocks.next()? {
            if rows > bytes.len() as u64 {
                let bytes = bytes.len();
                return Err(damaged(format!(
                    "a block of {bytes} bytes has {rows} records"
                )));
            }
            let is_empty = rows == 0;
            self.block = Records {
                bytes,
                next: 0,
                rows,
            };
            if is_empty {
                self.check_end()?;
                continue;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Finds the ends of the next records of the block, and moves behind them.
    fn measure(&mut self, most: u64) -> MeasuredRecords {
        let mut padded = self.types.is_padded.then(Vec::new);
        let mut ends = vec![if padded.is_some() { 0 } else { self.block.next }];
        let mut memory = 0;
        for _ in 0..most {
            let rest = self.block.bytes.get(self.block.next..).unwrap_or_default();
            let mut cursor = Cursor::new(rest, padded.as_mut().map(PaddedRecord::at_end_of));
            if let Err(reason) = self.types.skip(&mut cursor) {
                let failure = Some(damaged(reason));
                return MeasuredRecords {
                    ends,
                    padded,
                    failure,
                };
            }
            self.block.next += cursor.read();
            self.block.rows -= 1;
            self.position += 1;
            memory += cursor.memory();
            cursor.finish();
            ends.push(padded.as_ref().map_or(self.block.next, Vec::len));
            if memory >= READ_BYTES {
                break;
            }
        }
        let failure = self.check_end().err();
        MeasuredRecords {
            ends,
            padded,
            failure,
        }
    }

    /// Checks that nothing follows the last record of a block.
    fn check_end(&self) -> io::Result<()> {
        match self.block.rows == 0 && self.block.next < self.block.bytes.len() {
            true => Err(damaged("a block has more bytes than its records")),
            false => Ok(()),
        }
    }
}

impl ColumnReader for AvroReader {
    fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(self.decoder.columns().clone())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_rows(&mut self) -> io::Result<Option<RecordBatch>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        if self.block.rows == 0 && !self.next_block()? {
            return Ok(None);
        }
        let start = self.position;
        let measured = self.measure(self.block.rows.min(MAX_ROWS as u64));
        self.failure = measured.failure;
        let bytes = measured.padded.as_ref().unwrap_or(&self.block.bytes);
        let records = |range: &[usize]| match range {
            [from, to] => bytes.get(*from..*to).unwrap_or_default(),
            _ => &[],
        };
        let records: Vec<&[u8]> = measured.ends.windows(2).map(records).collect();
        let (rows, failure) = self.decoder.decode(&records);
        if let Some(failure) = failure {
            self.failure = Some(failure);
            self.position = start + rows.as_ref().map_or(0, |rows| rows.num_rows() as u64);
        }
        match (rows, self.failure.take()) {
            (None, Some(failure)) => Err(failure),
            (rows, failure) => {
                self.failure = failure;
                Ok(rows)
            }
        }
    }
}

/// The bytes around the beginning of the first block: the marker, which is random, and the first
/// records. They stay when blocks are appended.
pub(super) fn identity(file: &File) -> io::Result<IdentityBytes> {
    let header = match Header::read(file) {
        Ok(header) => header,
        Err(error) if error.raw_os_error().is_some() => return Err(error),
        Err(_) => {
            return Ok(IdentityBytes {
                bytes: read_up_to(file, 0, IDENTITY_BYTES as usize)?,
                is_complete: false,
            });
        }
    };
    let from = header.len.saturating_sub(IDENTITY_BYTES);
    let end = BlockReader::new(file.try_clone()?, &header)?.end_of_first();
    let end = end.unwrap_or(header.len);
    let to = end.min(header.len + IDENTITY_BYTES);
    Ok(IdentityBytes {
        bytes: read_up_to(file, from, (to - from) as usize)?,
        // The first block is a part of it.
        is_complete: end > header.len,
    })
}

#[cfg(test)]
mod tests;
