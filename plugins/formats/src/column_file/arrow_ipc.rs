//! Arrow's IPC files, which Feather files are too.
//!
//! arrow-ipc allocates what a file declares, and panics where it contradicts itself. So everything
//! that leads to memory is checked before: the places of the blocks against the length of the file
//! ([`layout`]), and the places and lengths of the buffers in a block ([`message`]). What remains is
//! caught, like the panics of other libraries.
//!
//! A record batch of a file is read as a whole, and passed on in parts, by what their rows take as
//! columns of values ([`expansion`]).

mod expansion;
mod layout;
mod lz4;
mod message;

use std::fs::File;
use std::io;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::Block;
use arrow_ipc::reader::FileDecoder;
use pseidon_expr::panics::catch_panic;
use pseidon_plugin::memory::ArrayMemory;

use self::expansion::expanded_memory;
use self::layout::{Layout, MAGIC};
use super::errors::{damaged, read_up_to, refused, truncated};
use super::{ColumnReader, IdentityBytes, MAX_ROWS, READ_BYTES};

/// How many pieces of a large file identify it, and how many bytes each of them has.
const SAMPLES: u64 = 1024;
const SAMPLE_BYTES: u64 = 4096;

/// The maximum memory of a record batch, and of all dictionaries of a file.
const MAX_MEMORY: u64 = 2 << 30;

/// The maximum memory of a record as columns of values.
const MAX_RECORD_MEMORY: u64 = 256 << 20;

/// Reads the rows of an Arrow file.
pub(super) struct ArrowReader {
    file: File,
    decoder: FileDecoder,
    columns: SchemaRef,
    /// The record batches that follow, the next one last.
    blocks: Vec<Block>,
    /// The rows of a batch that follow.
    rest: RecordBatch,
    /// The memory of the whole batch.
    memory: u64,
    /// How many of its rows were returned last.
    at_once: usize,
    /// The number of the next row.
    position: u64,
}

impl ArrowReader {
    /// Opens a file for reading the fields with these names, or all, from row `from` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file has no end, as while it is being written; `InvalidData` if it is
    /// not an Arrow file, is damaged, or has a type that cannot be read; otherwise the error of
    /// reading it.
    pub(super) fn open(
        file: File,
        fields: Option<&[String]>,
        from: u64,
    ) -> io::Result<ArrowReader> {
        let layout = Layout::read(&file)?;
        let schema = layout.schema;
        let mut decoder = FileDecoder::new(schema.clone(), layout.version);
        let mut columns = schema.clone();
        if let Some(fields) = fields {
            let numbered = schema.fields().iter().enumerate();
            let used = numbered.filter(|(_, field)| fields.contains(field.name()));
            let used: Vec<usize> = used.map(|(number, _)| number).collect();
            columns = schema.project(&used).map(Into::into).map_err(damaged)?;
            decoder = decoder.with_projection(used);
        }
        read_dictionaries(&mut decoder, &file, &layout.dictionaries, MAX_MEMORY)?;
        let mut reader = ArrowReader {
            file,
            decoder,
            rest: RecordBatch::new_empty(columns.clone()),
            columns,
            blocks: layout.batches.into_iter().rev().collect(),
            memory: 0,
            at_once: MAX_ROWS,
            position: 0,
        };
        reader.skip_to(from)?;
        Ok(reader)
    }

    fn skip_to(&mut self, row: u64) -> io::Result<()> {
        while self.position < row {
            let Some(block) = self.blocks.last() else {
                return Err(truncated(self.position, row));
            };
            let rows = message::rows(&self.file, block)?;
            if self.position + rows <= row {
                self.blocks.pop();
                self.position += rows;
                continue;
            }
            self.next_batch()?;
            let skipped = (row - self.position).min(self.rest.num_rows() as u64);
            let skipped = skipped as usize;
            self.rest = self.rest.slice(skipped, self.rest.num_rows() - skipped);
            self.position = row;
        }
        Ok(())
    }

    /// Reads the next batch that has rows. Returns whether there is one.
    fn next_batch(&mut self) -> io::Result<bool> {
        while let Some(block) = self.blocks.pop() {
            let (message, _) = read(&self.file, &block)?;
            let outcome = catch_panic(|| self.decoder.read_record_batch(&block, &message));
            let batch: Result<_, ArrowError> = outcome.map_err(damaged)?;
            let Some(batch) = batch.map_err(damaged)? else {
                continue;
            };
            if batch.num_rows() > 0 {
                let mut memory = ArrayMemory::default();
                batch.columns().iter().for_each(|column| memory.add(column));
                self.memory = memory.bytes() as u64;
                self.at_once = MAX_ROWS;
                self.rest = batch;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many of the rows that follow are returned at once: about [`READ_BYTES`] of values.
    fn rows_at_once(&self) -> io::Result<usize> {
        // The rows that follow may be smaller than the last ones.
        let mut rows = (self.at_once * 2).min(MAX_ROWS).min(self.rest.num_rows());
        loop {
            let limit = if rows > 1 {
                READ_BYTES
            } else {
                MAX_RECORD_MEMORY
            };
            let mut memory = 0;
            for column in self.rest.columns() {
                let outcome = catch_panic(|| expanded_memory(column, 0..rows, limit));
                memory += outcome.map_err(damaged)?.map_err(damaged)?;
            }
            if memory <= limit {
                return Ok(rows);
            }
            if rows == 1 {
                return Err(refused(format!(
                    "its record {} takes more than 256 MiB of memory: write smaller records",
                    self.position
                )));
            }
            rows /= 2;
        }
    }
}

impl ColumnReader for ArrowReader {
    fn empty(&self) -> RecordBatch {
        RecordBatch::new_empty(self.columns.clone())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn next_rows(&mut self) -> io::Result<Option<RecordBatch>> {
        if self.rest.num_rows() == 0 && !self.next_batch()? {
            return Ok(None);
        }
        let (follows, rows) = (self.rest.num_rows(), self.rows_at_once()?);
        self.at_once = rows;
        let is_last_of_small = rows == follows && self.memory <= 2 * READ_BYTES;
        let part = match is_last_of_small || self.rest.num_columns() == 0 {
            true => self.rest.slice(0, rows),
            // A slice would keep the memory of the whole batch.
            false => {
                let numbers = UInt32Array::from_iter_values(0..rows as u32);
                let copy = catch_panic(|| take_record_batch(&self.rest, &numbers));
                copy.map_err(damaged)?.map_err(damaged)?
            }
        };
        self.rest = self.rest.slice(rows, follows - rows);
        self.position += rows as u64;
        Ok(Some(part))
    }
}

/// Reads the dictionaries of a file, which take at most `most` bytes of memory together.
fn read_dictionaries(
    decoder: &mut FileDecoder,
    file: &File,
    blocks: &[Block],
    most: u64,
) -> io::Result<()> {
    let mut memory = 0_u64;
    for block in blocks {
        let (message, declared) = read(file, block)?;
        memory = memory.saturating_add(declared);
        if memory > most {
            let what = "it has dictionaries of more than 2 GiB: write long values without one";
            return Err(refused(what));
        }
        let outcome = catch_panic(|| decoder.read_dictionary(block, &message));
        outcome.map_err(damaged)?.map_err(damaged)?;
    }
    Ok(())
}

/// Reads a block and checks it. Returns the memory that it declares, too.
fn read(file: &File, block: &Block) -> io::Result<(Buffer, u64)> {
    let len = block.metaDataLength() as usize + block.bodyLength() as usize;
    let bytes = read_up_to(file, block.offset() as u64, len)?;
    if bytes.len() < len {
        return Err(damaged("a block is not in the file"));
    }
    let memory = message::check(&bytes, block.metaDataLength() as usize)?;
    Ok((Buffer::from_vec(bytes), memory))
}

/// All bytes of a small file, or samples of them: the footer does not describe the values, so a file
/// with the same layout and other values has the same one.
pub(super) fn identity(file: &File) -> io::Result<IdentityBytes> {
    let len = file.metadata()?.len();
    let bytes = match len <= SAMPLES * SAMPLE_BYTES {
        true => read_up_to(file, 0, len as usize)?,
        false => samples(file, len - SAMPLE_BYTES)?,
    };
    Ok(IdentityBytes {
        // A file begins with the same bytes.
        is_complete: bytes.ends_with(MAGIC) && len > MAGIC.len() as u64,
        bytes,
    })
}

/// Samples at equal distances, the last of which begins at `last`.
fn samples(file: &File, last: u64) -> io::Result<Vec<u8>> {
    let distance = last / (SAMPLES - 1);
    let places = (0..SAMPLES - 1).map(|number| number * distance);
    let mut bytes = Vec::new();
    for place in places.chain([last]) {
        bytes.extend(read_up_to(file, place, SAMPLE_BYTES as usize)?);
    }
    Ok(bytes)
}

/// The error of a type that cannot be read.
fn cannot_read(field: &str, what: &str) -> io::Error {
    refused(format!("the field `{field}` cannot be read: it has {what}"))
}

#[cfg(test)]
mod tests;
