//! Avro object container files.
//!
//! arrow-avro encodes the rows. The container around them is written here, because arrow-avro's own
//! writer turns every batch into a block, and batches are small when many files are open. A block
//! written here is as large as in other compressed files, whatever the size of the batches. The
//! file format is specified at
//! <https://avro.apache.org/docs/1.12.0/specification/#object-container-files>.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_avro::schema::{AvroSchema, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroBinaryFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use flate2::Crc;
use flate2::write::DeflateEncoder;
use pseidon_plugin::BadRow;

use super::blocks::{ASSUMED_RATIO, BLOCK_BYTES, BlockCompression};
use super::intervals::check_intervals;
use super::{EncodeError, seconds};
use crate::parts::{has_json, parts};
use crate::retry::RetryWriter;

/// The compression of blocks, Avro's `avro.codec`.
pub(super) enum AvroCompression {
    Plain,
    Deflate(flate2::Compression),
    /// Raw snappy, followed by the CRC-32 of the uncompressed block.
    Snappy,
    Bzip2(BlockCompression),
    Zstandard(BlockCompression),
}

impl AvroCompression {
    fn name(&self) -> &'static str {
        match self {
            AvroCompression::Plain => "null",
            AvroCompression::Deflate(_) => "deflate",
            AvroCompression::Snappy => "snappy",
            AvroCompression::Bzip2(_) => "bzip2",
            AvroCompression::Zstandard(_) => "zstandard",
        }
    }

    fn compress(&self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            AvroCompression::Plain => out.extend_from_slice(block),
            AvroCompression::Deflate(level) => {
                let mut encoder = DeflateEncoder::new(&mut out, *level);
                encoder.write_all(block)?;
                encoder.finish()?;
            }
            AvroCompression::Snappy => {
                out = snap::raw::Encoder::new().compress_vec(block)?;
                let mut checksum = Crc::new();
                checksum.update(block);
                out.extend_from_slice(&checksum.sum().to_be_bytes());
            }
            AvroCompression::Bzip2(method) | AvroCompression::Zstandard(method) => {
                method.compress(block, &mut out)?
            }
        }
        Ok(out)
    }
}

/// Encodes files of one schema. Shared by threads.
pub(super) struct AvroCodec {
    /// The header of every file, up to the sync marker.
    header: Vec<u8>,
    blocks: AvroCompression,
    schema: SchemaRef,
    /// The encoders that no thread is using.
    idle: Mutex<Vec<Encoder>>,
}

impl AvroCodec {
    /// The error says which column Avro does not support.
    pub(super) fn new(schema: &SchemaRef, blocks: AvroCompression) -> Result<AvroCodec, String> {
        if schema.fields().is_empty() {
            return Err("avro needs at least one column".to_owned());
        }
        let fields = schema.fields().iter();
        fields.clone().try_for_each(|field| fits(field))?;
        fields
            .clone()
            .try_for_each(|field| seconds::check_nested("avro", field))?;
        fields
            .clone()
            .try_for_each(|field| check_intervals("avro", field))?;
        let unsupported =
            |error: &dyn std::fmt::Display| format!("avro cannot hold these columns: {error}");
        let plain = Schema::new(schema.fields().clone());
        let json = AvroSchema::try_from(&plain)
            .map_err(|error| unsupported(&error))?
            .json_string;
        let schema = plain.with_metadata([(SCHEMA_METADATA_KEY.to_owned(), json.clone())].into());
        let mut header = b"Obj\x01".to_vec();
        push_long(2, &mut header);
        for text in [SCHEMA_METADATA_KEY, &json, "avro.codec", blocks.name()] {
            push_long(text.len() as i64, &mut header);
            header.extend_from_slice(text.as_bytes());
        }
        push_long(0, &mut header);
        let codec = AvroCodec {
            header,
            blocks,
            schema: Arc::new(schema),
            idle: Mutex::default(),
        };
        let encoder = codec.encoder().map_err(|error| unsupported(&error))?;
        codec
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(encoder);
        Ok(codec)
    }

    fn encoder(&self) -> Result<Encoder, arrow_avro::errors::AvroError> {
        let free = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        free.map_or_else(
            || WriterBuilder::new(self.schema.as_ref().clone()).build_encoder::<AvroBinaryFormat>(),
            Ok,
        )
    }

    /// The rows that cannot be written: timestamps in seconds that overflow as milliseconds, Avro's
    /// unit.
    pub(super) fn check(&self, rows: &RecordBatch) -> Vec<BadRow> {
        seconds::out_of_range("avro", rows)
    }
}

/// Checks that Avro supports this column, or part of one.
fn fits(field: &Field) -> Result<(), String> {
    let name = field.name();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.bytes().all(allowed)
        || name
            .bytes()
            .next()
            .is_none_or(|first| first.is_ascii_digit())
    {
        return Err(format!(
            "avro does not support the name `{name}`; expected letters, digits and `_`, not \
             starting with a digit; rename it in a `select`"
        ));
    }
    match field.data_type() {
        _ if has_json(field) && !field.data_type().is_nested() => Err(format!(
            "avro needs a type for every column; give one to `{name}` in :schema or by a cast"
        )),
        DataType::Null => Err(format!(
            "avro needs a type for every column; give one to `{name}` by a cast"
        )),
        DataType::UInt64 => Err(format!(
            "avro has no uint64 type; cast `{name}` to int64 or decimal(20, 0)"
        )),
        _ => parts(field).into_iter().try_for_each(fits),
    }
}

/// A file that is being written.
pub(super) struct AvroWriter {
    codec: Arc<AvroCodec>,
    sync: [u8; 16],
    /// Encoded rows that are not yet part of a block.
    block: Vec<u8>,
    /// The number of rows in `block`.
    rows: i64,
    pub(super) out: RetryWriter<File>,
    /// The bytes of all finished blocks, before and after compression.
    compressed: (u64, u64),
}

impl AvroWriter {
    pub(super) fn new(codec: Arc<AvroCodec>, mut out: RetryWriter<File>) -> io::Result<AvroWriter> {
        let sync = sync_marker();
        out.write_all(&codec.header)?;
        out.write_all(&sync)?;
        Ok(AvroWriter {
            codec,
            sync,
            block: Vec::new(),
            rows: 0,
            out,
            compressed: (0, 0),
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        let mut encoder = self.codec.encoder()?;
        encoder.encode(rows)?;
        let encoded = encoder.flush();
        for (start, end) in encoded
            .offsets()
            .iter()
            .zip(encoded.offsets().iter().skip(1))
        {
            self.block
                .extend_from_slice(encoded.bytes().get(*start..*end).unwrap_or_default());
            self.rows += 1;
            if self.block.len() >= BLOCK_BYTES {
                self.end_block()?;
            }
        }
        self.codec
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(encoder);
        Ok(())
    }

    /// Finishes the block and frees its memory.
    pub(super) fn end_block(&mut self) -> Result<(), EncodeError> {
        if self.rows == 0 {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let data = self
            .codec
            .blocks
            .compress(&block)
            .map_err(EncodeError::Records)?;
        let mut head = Vec::new();
        push_long(std::mem::take(&mut self.rows), &mut head);
        push_long(data.len() as i64, &mut head);
        for bytes in [&head, &data, self.sync.as_slice()] {
            self.out.write_all(bytes).map_err(EncodeError::Records)?;
        }
        self.compressed.0 += block.len() as u64;
        self.compressed.1 += data.len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<RetryWriter<File>, EncodeError> {
        self.end_block()?;
        Ok(self.out)
    }

    pub(super) fn memory(&self) -> usize {
        self.block.capacity() + self.out.memory()
    }

    /// The size of the file in bytes. The size of the open block is estimated.
    pub(super) fn file_bytes(&self) -> u64 {
        let done = self.out.bytes_written() + self.out.buffered_bytes() as u64;
        let open = self.block.len() as u64;
        done + match (&self.codec.blocks, self.compressed) {
            (AvroCompression::Plain, _) => open,
            (_, (0, _)) => open / ASSUMED_RATIO,
            (_, (before, after)) => {
                (u128::from(open) * u128::from(after) / u128::from(before)) as u64
            }
        }
    }
}

/// The random marker after every block, by which readers find the next block. The standard
/// library's hasher has random keys, which is random enough here.
fn sync_marker() -> [u8; 16] {
    let mut marker = [0; 16];
    for half in marker.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    marker
}

/// Appends an Avro `long`: zigzag encoding, then 7 bits per byte, lowest first.
fn push_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests;
