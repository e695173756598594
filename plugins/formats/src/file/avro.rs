//! Avro object container files.
//!
//! arrow-avro encodes the rows. The container around them is written here, because arrow-avro's own
//! writer makes a block of every batch, and batches are small where many files are open: a block
//! here is as large as in other compressed files, whatever the batches are. The file format is that
//! of <https://avro.apache.org/docs/1.12.0/specification/#object-container-files>.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampSecondType};
use arrow_avro::schema::{AvroSchema, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroBinaryFormat;
use arrow_avro::writer::{Encoder, WriterBuilder};
use flate2::Crc;
use flate2::write::DeflateEncoder;
use pseidon_plugin::{BadRow, Rows};

use super::blocks::{BLOCK, GUESS, Method};
use super::{EncodeError, has_json};
use crate::retry::RetryWriter;

/// How blocks are compressed.
pub(super) enum Blocks {
    Plain,
    Deflate(flate2::Compression),
    /// Raw snappy, then the checksum of what it was.
    Snappy,
    Bzip2(Method),
    Zstandard(Method),
}

impl Blocks {
    fn name(&self) -> &'static str {
        match self {
            Blocks::Plain => "null",
            Blocks::Deflate(_) => "deflate",
            Blocks::Snappy => "snappy",
            Blocks::Bzip2(_) => "bzip2",
            Blocks::Zstandard(_) => "zstandard",
        }
    }

    fn compress(&self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Blocks::Plain => out.extend_from_slice(block),
            Blocks::Deflate(level) => {
                let mut encoder = DeflateEncoder::new(&mut out, *level);
                encoder.write_all(block)?;
                encoder.finish()?;
            }
            Blocks::Snappy => {
                out = snap::raw::Encoder::new().compress_vec(block)?;
                let mut checksum = Crc::new();
                checksum.update(block);
                out.extend_from_slice(&checksum.sum().to_be_bytes());
            }
            Blocks::Bzip2(method) | Blocks::Zstandard(method) => {
                method.compress(block, &mut out)?
            }
        }
        Ok(out)
    }
}

/// Writes files of one schema. Shared by threads.
pub(super) struct AvroCodec {
    /// What every file begins with, up to its sync marker.
    header: Vec<u8>,
    blocks: Blocks,
    schema: SchemaRef,
    /// The encoders that no thread uses just now.
    idle: Mutex<Vec<Encoder>>,
}

impl AvroCodec {
    /// The error is a sentence that says which column does not fit.
    pub(super) fn new(schema: &SchemaRef, blocks: Blocks) -> Result<AvroCodec, String> {
        if schema.fields().is_empty() {
            return Err("avro needs at least one column".to_owned());
        }
        schema
            .fields()
            .iter()
            .try_for_each(|field| fits(field, true))?;
        let cannot =
            |error: &dyn std::fmt::Display| format!("avro cannot hold these columns: {error}");
        let plain = Schema::new(schema.fields().clone());
        let json = AvroSchema::try_from(&plain)
            .map_err(|error| cannot(&error))?
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
        let encoder = codec.encoder().map_err(|error| cannot(&error))?;
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

    /// The rows that cannot be written: times in seconds that do not fit when they are
    /// milliseconds, which avro has.
    pub(super) fn check(&self, rows: &Rows) -> Vec<BadRow> {
        let mut bad = Vec::new();
        for (field, column) in self.schema.fields().iter().zip(rows.columns().columns()) {
            let Some(seconds) = column.as_primitive_opt::<TimestampSecondType>() else {
                continue;
            };
            let too_far = |row: &usize| {
                seconds.is_valid(*row) && seconds.value(*row).checked_mul(1000).is_none()
            };
            bad.extend((0..seconds.len()).filter(too_far).map(|row| BadRow {
                row: row as u32,
                reason: format!("`{}` is too far from 1970 for avro", field.name()),
            }));
        }
        bad.sort_by_key(|bad| bad.row);
        bad.dedup_by_key(|bad| bad.row);
        bad
    }
}

/// Whether Avro can hold this column.
fn fits(field: &Field, top: bool) -> Result<(), String> {
    let name = field.name();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.bytes().all(allowed)
        || name
            .bytes()
            .next()
            .is_none_or(|first| first.is_ascii_digit())
    {
        return Err(format!(
            "avro names are letters, digits and `_` and do not begin with a digit; give `{name}` another name in a `select`"
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
            "avro has no uint64, which `{name}` is; cast it to int64 or decimal(20, 0)"
        )),
        DataType::Timestamp(TimeUnit::Second, _) if !top => Err(format!(
            "avro has no times in seconds, which `{name}` is; cast it to a timestamp of milliseconds"
        )),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| fits(field, false)),
        DataType::List(element) => fits(element, false),
        _ => Ok(()),
    }
}

/// A file that is being written.
pub(super) struct AvroWriter {
    codec: Arc<AvroCodec>,
    sync: [u8; 16],
    /// Encoded rows that are in no block yet.
    block: Vec<u8>,
    /// How many they are.
    rows: i64,
    pub(super) out: RetryWriter<File>,
    /// The bytes that were compressed, and what they became.
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
            if self.block.len() >= BLOCK {
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

    /// Ends the block, and gives its memory back.
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

    /// The bytes of the file, of which those of the open block are estimated.
    pub(super) fn file_bytes(&self) -> u64 {
        let done = self.out.written() + self.out.held() as u64;
        let open = self.block.len() as u64;
        done + match (&self.codec.blocks, self.compressed) {
            (Blocks::Plain, _) => open,
            (_, (0, _)) => open / GUESS,
            (_, (before, after)) => {
                (u128::from(open) * u128::from(after) / u128::from(before)) as u64
            }
        }
    }
}

/// What stands behind every block of a file, so that readers find the next: bytes that nobody can
/// foresee. The standard library's hasher has random keys, which is all that is wanted here.
fn sync_marker() -> [u8; 16] {
    let mut marker = [0; 16];
    for half in marker.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    marker
}

/// Avro's `long`: zigzag, then 7 bits a byte, the lowest first.
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
