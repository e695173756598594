//! Parquet files.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ::parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use ::parquet::basic::{Compression as PageCompression, GzipLevel, ZstdLevel};
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pseidon_plugin::BadRow;

use super::compressor_memory::{CompressorMemory, zstd_context_bytes};
use super::intervals::check_intervals;
use super::{Compression, EncodeError, FileCodecSettings, level, seconds};
use crate::parts::has_json;
use crate::retry::RetryWriter;

/// Encodes files of one schema. Shared by threads.
pub(super) struct ParquetCodec {
    /// The columns as they are written.
    schema: SchemaRef,
    properties: WriterProperties,
    /// The bytes of memory that the compressor of one column uses.
    context: usize,
    /// The number of Parquet's leaf columns.
    columns: usize,
}

impl ParquetCodec {
    /// The error says which setting or column is unsupported.
    pub(super) fn new(
        settings: &FileCodecSettings,
        schema: &SchemaRef,
    ) -> Result<ParquetCodec, String> {
        let fields = schema.fields().iter();
        fields
            .clone()
            .try_for_each(|field| seconds::check_nested("parquet", field))?;
        fields
            .clone()
            .try_for_each(|field| check_intervals("parquet", field))?;
        let schema: SchemaRef = Arc::new(seconds::in_milliseconds(schema));
        let columns = leaf_columns(&schema)?;
        let level = level(settings)?;
        let compression = match settings.compression {
            Compression::None => PageCompression::UNCOMPRESSED,
            Compression::Zstd => {
                PageCompression::ZSTD(ZstdLevel::try_new(level).map_err(|error| error.to_string())?)
            }
            Compression::Gzip => PageCompression::GZIP(
                GzipLevel::try_new(level.unsigned_abs()).map_err(|error| error.to_string())?,
            ),
            Compression::Snappy => PageCompression::SNAPPY,
            Compression::Bzip2 => {
                return Err(
                    "bzip2 is not supported for parquet; use none, gzip, snappy or zstd".to_owned(),
                );
            }
        };
        if settings.row_group_bytes == 0 {
            return Err("the row group size must be at least 1 byte".to_owned());
        }
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(Some(settings.row_group_bytes))
            .build();
        let context = match settings.compression {
            Compression::Zstd => zstd_context_bytes(level),
            _ => 0,
        };
        Ok(ParquetCodec {
            schema,
            properties,
            context,
            columns,
        })
    }

    /// The rows that cannot be written: timestamps in seconds that overflow as milliseconds.
    pub(super) fn check(&self, rows: &RecordBatch) -> Vec<BadRow> {
        seconds::out_of_range("parquet", rows)
    }

    pub(super) fn open(&self, out: RetryWriter<File>) -> Result<ParquetWriter, EncodeError> {
        let properties = Some(self.properties.clone());
        Ok(ParquetWriter {
            schema: self.schema.clone(),
            writer: ArrowWriter::try_new(out, self.schema.clone(), properties)?,
            compressors: CompressorMemory::new(self.context, self.columns),
        })
    }
}

/// A file that is being written.
pub(super) struct ParquetWriter {
    schema: SchemaRef,
    writer: ArrowWriter<RetryWriter<File>>,
    compressors: CompressorMemory,
}

impl ParquetWriter {
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), EncodeError> {
        let grouped = match rows.schema_ref().fields() == self.schema.fields() {
            true => self.append(rows)?,
            false => {
                let rows = converted(rows, &self.schema);
                self.append(&rows.map_err(::parquet::errors::ParquetError::from)?)?
            }
        };
        self.compressors.rows_written(rows, grouped);
        Ok(())
    }

    /// Returns the number of rows in the open row group afterwards.
    fn append(&mut self, rows: &RecordBatch) -> Result<usize, EncodeError> {
        self.writer.write(rows)?;
        Ok(self.writer.in_progress_rows())
    }

    pub(super) fn out(&self) -> &RetryWriter<File> {
        self.writer.inner()
    }

    pub(super) fn out_mut(&mut self) -> &mut RetryWriter<File> {
        self.writer.inner_mut()
    }

    pub(super) fn memory(&self) -> usize {
        self.writer.memory_size()
            + self.writer.inner().memory()
            + self.compressors.memory(self.writer.in_progress_rows())
    }

    pub(super) fn file_bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Ends the row group and writes out the buffers.
    pub(super) fn shed(&mut self) -> Result<io::Result<()>, EncodeError> {
        self.writer.flush()?;
        self.compressors.row_group_ended();
        Ok(self.writer.sync())
    }

    /// Finishes the file with this key-value metadata.
    pub(super) fn finish(
        mut self,
        metadata: &[(String, String)],
    ) -> Result<RetryWriter<File>, EncodeError> {
        for (key, value) in metadata {
            let pair = KeyValue::new(key.clone(), value.clone());
            self.writer.append_key_value_metadata(pair);
        }
        Ok(self.writer.into_inner()?)
    }
}

/// The rows with the types of this schema.
fn converted(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let columns = rows.columns().iter().zip(schema.fields());
    let columns: Result<Vec<ArrayRef>, _> = columns
        .map(|(column, field)| cast_with_options(column, field.data_type(), &strict))
        .collect();
    RecordBatch::try_new(schema.clone(), columns?)
}

/// The number of Parquet's leaf columns for these columns, if Parquet supports them.
fn leaf_columns(schema: &SchemaRef) -> Result<usize, String> {
    let untyped: Vec<_> = schema
        .fields()
        .iter()
        .filter(|field| has_json(field))
        .map(|field| format!("`{}`", field.name()))
        .collect();
    if !untyped.is_empty() {
        return Err(format!(
            "parquet needs a type for every column; give one to {} in :schema or by a cast",
            untyped.join(", ")
        ));
    }
    if schema.fields().is_empty() {
        return Err("parquet needs at least one column".to_owned());
    }
    ArrowSchemaConverter::new()
        .convert(schema)
        .map(|schema| schema.num_columns())
        .map_err(|error| format!("parquet cannot hold these columns: {error}"))
}
