//! Files of records: codecs with their compression.
//!
//! A [`FileEncoder`] never fails because of the disk. It goes through a [`RetryWriter`], which
//! holds what the disk does not take; whoever writes looks at [`FileEncoder::blocked`] and hands no
//! more in until [`FileEncoder::resume`] has helped.

mod avro;
mod blocks;
mod contexts;

use std::fs::File;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression as PageCompression, GzipLevel, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use pseidon_plugin::format::is_json;
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Rows};
use thiserror::Error;

use self::avro::{AvroCodec, AvroWriter, Blocks};
use self::blocks::{BlockWriter, Method};
use self::contexts::Contexts;
use crate::encode::{RecordEncoder, RecordFormat};
use crate::retry::RetryWriter;

/// How a file of records is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecName {
    /// One JSON object a line.
    Json,
    /// One text a line.
    Txt,
    /// The records as they came, each followed by a line end.
    Raw,
    /// Apache Parquet.
    Parquet,
    /// Avro object container files.
    Avro,
}

impl CodecName {
    /// The compression of its files where nothing else is said.
    pub fn default_compression(self) -> Compression {
        match self {
            CodecName::Parquet => Compression::Zstd,
            // Every reader of Avro knows it, which is not so for zstd.
            CodecName::Avro => Compression::Snappy,
            CodecName::Json | CodecName::Txt | CodecName::Raw => Compression::None,
        }
    }
}

impl FromStr for CodecName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(CodecName::Json),
            "txt" => Ok(CodecName::Txt),
            "raw" => Ok(CodecName::Raw),
            "parquet" => Ok(CodecName::Parquet),
            "avro" => Ok(CodecName::Avro),
            _ => Err(format!(
                "no codec is named `{name}`; expected json, txt, raw, parquet or avro"
            )),
        }
    }
}

/// How a file is compressed; in Parquet its pages are, in Avro its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip; in Avro it is the same method without gzip's head, which Avro calls `deflate`.
    Gzip,
    /// Snappy; in files of lines as Hadoop writes it (`.snappy`), which is what Hive and Spark
    /// read.
    Snappy,
    /// bzip2
    Bzip2,
    /// Zstandard
    Zstd,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "snappy" => Ok(Compression::Snappy),
            "bzip2" => Ok(Compression::Bzip2),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(format!(
                "no compression is named `{name}`; expected none, gzip, snappy, bzip2 or zstd"
            )),
        }
    }
}

/// What a file codec is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCodecSettings {
    /// The layout.
    pub codec: CodecName,
    /// The compression.
    pub compression: Compression,
    /// Its level: 1 to 9 for gzip (6 if none is given), 1 to 22 for zstd (3). Snappy and bzip2 have
    /// none.
    pub level: Option<i32>,
    /// The encoded bytes after which a row group of a Parquet file ends.
    pub row_group_bytes: usize,
}

/// Writes files of one kind. Shared by threads.
pub struct FileCodec {
    extension: String,
    layout: Layout,
}

enum Layout {
    Lines {
        records: Arc<RecordEncoder>,
        compression: Option<Arc<Method>>,
    },
    Parquet {
        schema: SchemaRef,
        properties: Box<WriterProperties>,
        /// What a compressor of a column holds.
        context: usize,
        columns: usize,
    },
    Avro(Arc<AvroCodec>),
}

impl FileCodec {
    /// A codec for what a sink is given. The error is a sentence that says what does not fit.
    pub fn new(settings: FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let (name, format) = match settings.codec {
            CodecName::Json => ("json", RecordFormat::Json),
            CodecName::Txt => ("txt", RecordFormat::Txt),
            CodecName::Raw => ("raw", RecordFormat::Raw),
            CodecName::Parquet => return FileCodec::parquet(&settings, input),
            CodecName::Avro => return FileCodec::avro(&settings, input),
        };
        let level = level(&settings)?;
        let (ending, compression) = match settings.compression {
            Compression::None => ("", None),
            Compression::Gzip => (
                ".gz",
                Some(Method::Gzip(flate2::Compression::new(level.unsigned_abs()))),
            ),
            Compression::Snappy => (".snappy", Some(Method::Snappy)),
            Compression::Bzip2 => (".bz2", Some(Method::Bzip2)),
            Compression::Zstd => (
                ".zst",
                Some(Method::Zstd {
                    level,
                    idle: Mutex::default(),
                }),
            ),
        };
        let records = Arc::new(RecordEncoder::new(format, input)?);
        Ok(FileCodec {
            extension: format!("{name}{ending}"),
            layout: Layout::Lines {
                records,
                compression: compression.map(Arc::new),
            },
        })
    }

    fn parquet(settings: &FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let RecordShape::Columns(schema) = &input.record else {
            return Err(
                "parquet writes columns, but the records come as bytes: select their columns first"
                    .to_owned(),
            );
        };
        let columns = parquet_schema(schema)?;
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
            Compression::Bzip2 => return Err(
                "parquet pages cannot be compressed with bzip2; take none, gzip, snappy or zstd"
                    .to_owned(),
            ),
        };
        if settings.row_group_bytes == 0 {
            return Err("a row group cannot have 0 bytes".to_owned());
        }
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(None)
            .set_max_row_group_bytes(Some(settings.row_group_bytes))
            .build();
        Ok(FileCodec {
            extension: "parquet".to_owned(),
            layout: Layout::Parquet {
                schema: schema.clone(),
                properties: Box::new(properties),
                context: if settings.compression == Compression::Zstd {
                    contexts::of_zstd(level)
                } else {
                    0
                },
                columns,
            },
        })
    }

    fn avro(settings: &FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let RecordShape::Columns(schema) = &input.record else {
            return Err(
                "avro writes columns, but the records come as bytes: select their columns first"
                    .to_owned(),
            );
        };
        let level = level(settings)?;
        let blocks = match settings.compression {
            Compression::None => Blocks::Plain,
            Compression::Gzip => Blocks::Deflate(flate2::Compression::new(level.unsigned_abs())),
            Compression::Snappy => Blocks::Snappy,
            Compression::Bzip2 => Blocks::Bzip2(Method::Bzip2),
            Compression::Zstd => Blocks::Zstandard(Method::Zstd {
                level,
                idle: Mutex::default(),
            }),
        };
        Ok(FileCodec {
            extension: "avro".to_owned(),
            layout: Layout::Avro(Arc::new(AvroCodec::new(schema, blocks)?)),
        })
    }

    /// The ending of its files' names: `json.gz`, `parquet`.
    pub fn extension(&self) -> String {
        self.extension.clone()
    }

    /// The rows that cannot be written. They have to be taken out before the others are.
    pub fn check(&self, rows: &Rows) -> Vec<BadRow> {
        match &self.layout {
            Layout::Lines { records, .. } => records.check(rows),
            Layout::Parquet { .. } => Vec::new(),
            Layout::Avro(codec) => codec.check(rows),
        }
    }

    /// Starts a file, which has to be empty.
    pub fn open(&self, file: File) -> Result<FileEncoder, EncodeError> {
        let out = RetryWriter::new(file);
        let body = match &self.layout {
            Layout::Lines {
                records,
                compression: None,
            } => Body::Plain {
                records: records.clone(),
                out,
            },
            Layout::Lines {
                records,
                compression: Some(method),
            } => Body::Compressed {
                records: records.clone(),
                out: BlockWriter::new(method.clone(), out),
            },
            Layout::Parquet {
                schema,
                properties,
                context,
                columns,
            } => {
                let writer =
                    ArrowWriter::try_new(out, schema.clone(), Some(properties.as_ref().clone()))?;
                Body::Parquet(Box::new(writer), Contexts::new(*context, *columns))
            }
            Layout::Avro(codec) => {
                Body::Avro(AvroWriter::new(codec.clone(), out).map_err(EncodeError::Records)?)
            }
        };
        Ok(FileEncoder(body))
    }
}

/// The level, if the compression has it.
fn level(settings: &FileCodecSettings) -> Result<i32, String> {
    let (name, most, default) = match settings.compression {
        Compression::None if settings.level.is_some() => {
            return Err("a level needs a compression: gzip or zstd".to_owned());
        }
        Compression::Snappy if settings.level.is_some() => {
            return Err("snappy has no levels; leave the level out".to_owned());
        }
        Compression::Bzip2 if settings.level.is_some() => {
            return Err("bzip2 has no levels; leave the level out".to_owned());
        }
        Compression::None | Compression::Snappy | Compression::Bzip2 => return Ok(0),
        Compression::Gzip => ("gzip", 9, 6),
        Compression::Zstd => ("zstd", 22, 3),
    };
    match settings.level.unwrap_or(default) {
        level if (1..=most).contains(&level) => Ok(level),
        level => Err(format!("{name} has the levels 1 to {most}, not {level}")),
    }
}

/// How many columns these are in Parquet, if it can hold them.
fn parquet_schema(schema: &SchemaRef) -> Result<usize, String> {
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

fn has_json(field: &Field) -> bool {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().any(|field| has_json(field)),
        DataType::List(element) => has_json(element),
        _ => is_json(field),
    }
}

/// A file that is being written.
pub struct FileEncoder(Body);

enum Body {
    Plain {
        records: Arc<RecordEncoder>,
        out: RetryWriter<File>,
    },
    Compressed {
        records: Arc<RecordEncoder>,
        out: BlockWriter,
    },
    Parquet(Box<ArrowWriter<RetryWriter<File>>>, Contexts),
    Avro(AvroWriter),
}

impl FileEncoder {
    /// Adds rows. What the disk does not take is held; see [`FileEncoder::blocked`]. After an error
    /// the file cannot be gone on with.
    pub fn write(&mut self, rows: &Rows) -> Result<(), EncodeError> {
        match &mut self.0 {
            Body::Plain { records, out } => {
                records.write_lines(rows, out).map_err(EncodeError::Records)
            }
            Body::Compressed { records, out } => {
                records.write_lines(rows, out).map_err(EncodeError::Records)
            }
            Body::Parquet(writer, contexts) => {
                writer.write(rows.columns())?;
                contexts.written(rows.columns(), writer.in_progress_rows());
                Ok(())
            }
            Body::Avro(writer) => writer.write(rows.columns()),
        }
    }

    /// Why bytes do not get out, if they do not. Nothing is lost, but what is written meanwhile
    /// stays in memory.
    pub fn blocked(&self) -> Option<&io::Error> {
        match &self.0 {
            Body::Plain { out, .. } => out.blocked(),
            Body::Compressed { out, .. } => out.out.blocked(),
            Body::Parquet(writer, _) => writer.inner().blocked(),
            Body::Avro(writer) => writer.out.blocked(),
        }
    }

    /// Tries again to write what is held; [`FileEncoder::blocked`] then says whether that worked.
    pub fn resume(&mut self) {
        match &mut self.0 {
            Body::Plain { out, .. } => out.resume(),
            Body::Compressed { out, .. } => out.out.resume(),
            // Parquet's writer has counted these bytes already: they are only late.
            Body::Parquet(writer, _) => writer.inner_mut().resume(),
            Body::Avro(writer) => writer.out.resume(),
        }
    }

    /// The bytes it holds in memory.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Body::Plain { out, .. } => out.memory(),
            Body::Compressed { out, .. } => out.memory(),
            Body::Parquet(writer, contexts) => {
                writer.memory_size()
                    + writer.inner().memory()
                    + contexts.memory(writer.in_progress_rows())
            }
            Body::Avro(writer) => writer.memory(),
        }
    }

    /// The bytes of the file so far, with an estimate of what is not encoded yet.
    pub fn file_bytes(&self) -> u64 {
        match &self.0 {
            Body::Plain { out, .. } => out.written() + out.held() as u64,
            Body::Compressed { out, .. } => out.file_bytes(),
            Body::Parquet(writer, _) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Body::Avro(writer) => writer.file_bytes(),
        }
    }

    /// Writes out what is buffered, to free memory: ends the block or the row group.
    pub fn shed(&mut self) -> Result<(), EncodeError> {
        let flushed = match &mut self.0 {
            Body::Plain { out, .. } => out.flush(),
            Body::Compressed { out, .. } => {
                out.end_block().map_err(EncodeError::Records)?;
                out.out.flush()
            }
            Body::Parquet(writer, contexts) => {
                writer.flush()?;
                contexts.ended();
                writer.sync()
            }
            Body::Avro(writer) => {
                writer.end_block()?;
                writer.out.flush()
            }
        };
        flushed.map_err(EncodeError::Records)
    }

    /// Ends the file. Parquet files carry the metadata as key-value metadata; others ignore it. The
    /// file is to be had from what comes back ([`RetryWriter::into_inner`]) as soon as that is not
    /// blocked; the bytes are with the operating system then, and not fsynced.
    pub fn finish(self, metadata: &[(String, String)]) -> Result<RetryWriter<File>, EncodeError> {
        let mut out = match self.0 {
            Body::Plain { out, .. } => out,
            Body::Compressed { out, .. } => out.finish().map_err(EncodeError::Records)?,
            Body::Parquet(mut writer, _) => {
                for (key, value) in metadata {
                    writer.append_key_value_metadata(KeyValue::new(key.clone(), value.clone()));
                }
                writer.into_inner()?
            }
            Body::Avro(writer) => writer.finish()?,
        };
        out.flush().map_err(EncodeError::Records)?;
        Ok(out)
    }
}

/// Rows could not be encoded. The disk has no part in it.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The compressor or the record encoder failed.
    #[error("cannot encode records: {0}")]
    Records(#[source] io::Error),
    /// Parquet's writer failed.
    #[error("cannot write parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Avro's encoder failed.
    #[error("cannot write avro: {0}")]
    Avro(#[from] arrow_avro::errors::AvroError),
}

#[cfg(test)]
mod tests;
