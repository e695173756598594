//! File codecs: how records are written to files, and how the files are compressed.
//!
//! A [`FileEncoder`] never fails because of the disk. It writes through a [`RetryWriter`], which
//! buffers what the disk does not accept. The caller checks [`FileEncoder::blocked`] and passes no
//! more rows until [`FileEncoder::resume`] has succeeded.

mod avro;
mod blocks;
mod compressor_memory;
mod intervals;
mod parquet;
mod seconds;

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use pseidon_plugin::options::Choice;
use pseidon_plugin::sink::{NeedsColumns, RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Rows};
use thiserror::Error;

use self::avro::{AvroCodec, AvroCompression, AvroWriter};
use self::blocks::{BlockCompression, BlockWriter};
use self::parquet::{ParquetCodec, ParquetWriter};
use crate::encode::{CsvOptions, OutputFormat, RecordEncoder};
use crate::retry::RetryWriter;

/// The layout of a file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum CodecName {
    /// One JSON object per line.
    Json,
    /// A header with the names of the columns, and a line per record.
    Csv,
    /// Like CSV, separated by tabs.
    Tsv,
    /// One string per line.
    Txt,
    /// The unchanged records, each followed by a line feed.
    Raw,
    /// Apache Parquet.
    Parquet,
    /// Avro object container files.
    Avro,
}

impl CodecName {
    /// The compression of its files if none is configured.
    pub fn default_compression(self) -> Compression {
        match self {
            CodecName::Parquet => Compression::Zstd,
            // Every Avro reader supports snappy; not every reader supports zstd.
            CodecName::Avro => Compression::Snappy,
            CodecName::Json | CodecName::Csv | CodecName::Tsv | CodecName::Txt | CodecName::Raw => {
                Compression::None
            }
        }
    }

    /// Whether the fields of unchanged records are needed as columns.
    pub fn needs_columns(self) -> NeedsColumns {
        match self {
            CodecName::Json => OutputFormat::Json.needs_columns(),
            CodecName::Txt | CodecName::Raw => NeedsColumns::UnlessBytes,
            CodecName::Csv | CodecName::Tsv | CodecName::Parquet | CodecName::Avro => {
                NeedsColumns::Always
            }
        }
    }
}

/// The compression of a file. Parquet compresses its pages, Avro its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Compression {
    /// No compression.
    None,
    /// gzip. In Avro files it is raw deflate without the gzip header, which Avro calls `deflate`.
    Gzip,
    /// Snappy. Files of lines use Hadoop's framing (`.snappy`), which Hive and Spark read.
    Snappy,
    /// bzip2.
    Bzip2,
    /// Zstandard.
    Zstd,
}

/// The settings of a file codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCodecSettings {
    /// The layout of the files.
    pub codec: CodecName,
    /// The compression of the files.
    pub compression: Compression,
    /// The compression level: 1 to 9 for gzip (default 6), 1 to 22 for zstd (default 3). Snappy and
    /// bzip2 have no levels.
    pub level: Option<i32>,
    /// The encoded size, in bytes, at which a row group of a Parquet file ends. Must not be 0.
    pub row_group_bytes: usize,
    /// How CSV and TSV are written. Other codecs have none of these options.
    pub csv: CsvOptions,
}

/// Creates file encoders with one set of settings. Shared by threads.
pub struct FileCodec {
    extension: String,
    layout: FileLayout,
}

enum FileLayout {
    Lines {
        records: Arc<RecordEncoder>,
        compression: Option<Arc<BlockCompression>>,
    },
    Parquet(Box<ParquetCodec>),
    Avro(Arc<AvroCodec>),
}

impl FileCodec {
    /// Creates a codec for a sink's input. The error says which setting or column is unsupported.
    pub fn new(settings: FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let is_binary = matches!(settings.codec, CodecName::Parquet | CodecName::Avro);
        if is_binary && settings.csv != CsvOptions::default() {
            return Err("`:csv` is for the codecs csv and tsv; remove it".to_owned());
        }
        let (name, format) = match settings.codec {
            CodecName::Json => ("json", OutputFormat::Json),
            CodecName::Csv => ("csv", OutputFormat::Csv),
            CodecName::Tsv => ("tsv", OutputFormat::Tsv),
            CodecName::Txt => ("txt", OutputFormat::Txt),
            CodecName::Raw => ("raw", OutputFormat::Raw),
            CodecName::Parquet => return FileCodec::parquet(&settings, input),
            CodecName::Avro => return FileCodec::avro(&settings, input),
        };
        let level = level(&settings)?;
        let (ending, compression) = match settings.compression {
            Compression::None => ("", None),
            Compression::Gzip => (
                ".gz",
                Some(BlockCompression::Gzip(flate2::Compression::new(
                    level.unsigned_abs(),
                ))),
            ),
            Compression::Snappy => (".snappy", Some(BlockCompression::Snappy)),
            Compression::Bzip2 => (".bz2", Some(BlockCompression::Bzip2)),
            Compression::Zstd => (
                ".zst",
                Some(BlockCompression::Zstd {
                    level,
                    idle: Mutex::default(),
                }),
            ),
        };
        let records = Arc::new(RecordEncoder::with_csv(format, &settings.csv, input)?);
        Ok(FileCodec {
            extension: format!("{name}{ending}"),
            layout: FileLayout::Lines {
                records,
                compression: compression.map(Arc::new),
            },
        })
    }

    fn parquet(settings: &FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let RecordShape::Columns(schema) = &input.record else {
            return Err(
                "parquet writes columns, but these records are unparsed; select their columns first"
                    .to_owned(),
            );
        };
        Ok(FileCodec {
            extension: "parquet".to_owned(),
            layout: FileLayout::Parquet(Box::new(ParquetCodec::new(settings, schema)?)),
        })
    }

    fn avro(settings: &FileCodecSettings, input: &SinkInput) -> Result<FileCodec, String> {
        let RecordShape::Columns(schema) = &input.record else {
            return Err(
                "avro writes columns, but these records are unparsed; select their columns first"
                    .to_owned(),
            );
        };
        let level = level(settings)?;
        let blocks = match settings.compression {
            Compression::None => AvroCompression::Plain,
            Compression::Gzip => {
                AvroCompression::Deflate(flate2::Compression::new(level.unsigned_abs()))
            }
            Compression::Snappy => AvroCompression::Snappy,
            Compression::Bzip2 => AvroCompression::Bzip2(BlockCompression::Bzip2),
            Compression::Zstd => AvroCompression::Zstandard(BlockCompression::Zstd {
                level,
                idle: Mutex::default(),
            }),
        };
        Ok(FileCodec {
            extension: "avro".to_owned(),
            layout: FileLayout::Avro(Arc::new(AvroCodec::new(schema, blocks)?)),
        })
    }

    /// The extension of its files' names: `json.gz`, `parquet`.
    pub fn extension(&self) -> String {
        self.extension.clone()
    }

    /// The rows that cannot be written, with reasons. The caller removes them before writing.
    pub fn check(&self, rows: &Rows) -> Vec<BadRow> {
        match &self.layout {
            FileLayout::Lines { records, .. } => records.check(rows),
            FileLayout::Parquet(codec) => codec.check(rows.columns()),
            FileLayout::Avro(codec) => codec.check(rows.columns()),
        }
    }

    /// Starts a file, which must be empty.
    pub fn open(&self, file: File) -> Result<FileEncoder, EncodeError> {
        let out = RetryWriter::new(file);
        let body = match &self.layout {
            FileLayout::Lines {
                records,
                compression: None,
            } => FileBody::Plain {
                records: records.clone(),
                out,
            },
            FileLayout::Lines {
                records,
                compression: Some(method),
            } => FileBody::Compressed {
                records: records.clone(),
                out: BlockWriter::new(method.clone(), out),
            },
            FileLayout::Parquet(codec) => FileBody::Parquet(Box::new(codec.open(out)?)),
            FileLayout::Avro(codec) => {
                FileBody::Avro(AvroWriter::new(codec.clone(), out).map_err(EncodeError::Records)?)
            }
        };
        let mut body = FileEncoder(body);
        body.begin().map_err(EncodeError::Records)?;
        Ok(body)
    }
}

/// Checks the compression level. Returns 0 for a compression without levels.
fn level(settings: &FileCodecSettings) -> Result<i32, String> {
    let (name, max, default) = match settings.compression {
        Compression::None if settings.level.is_some() => {
            return Err("a compression level requires gzip or zstd compression".to_owned());
        }
        Compression::Snappy if settings.level.is_some() => {
            return Err("snappy has no compression levels; remove the level".to_owned());
        }
        Compression::Bzip2 if settings.level.is_some() => {
            return Err("bzip2 has no compression levels; remove the level".to_owned());
        }
        Compression::None | Compression::Snappy | Compression::Bzip2 => return Ok(0),
        Compression::Gzip => ("gzip", 9, 6),
        Compression::Zstd => ("zstd", 22, 3),
    };
    match settings.level.unwrap_or(default) {
        level if (1..=max).contains(&level) => Ok(level),
        level => Err(format!("invalid {name} level {level}; expected 1 to {max}")),
    }
}

/// A file that is being written.
pub struct FileEncoder(FileBody);

enum FileBody {
    Plain {
        records: Arc<RecordEncoder>,
        out: RetryWriter<File>,
    },
    Compressed {
        records: Arc<RecordEncoder>,
        out: BlockWriter,
    },
    Parquet(Box<ParquetWriter>),
    Avro(AvroWriter),
}

impl FileEncoder {
    /// Writes what a file has before its records.
    fn begin(&mut self) -> io::Result<()> {
        match &mut self.0 {
            FileBody::Plain { records, out } => {
                out.write_all(&records.header().unwrap_or_default())
            }
            FileBody::Compressed { records, out } => {
                out.write_all(&records.header().unwrap_or_default())
            }
            // Their writers do it.
            FileBody::Parquet(_) | FileBody::Avro(_) => Ok(()),
        }
    }

    /// Appends rows. Bytes that the disk does not accept are buffered; see
    /// [`FileEncoder::blocked`]. After an error the file must be abandoned.
    pub fn write(&mut self, rows: &Rows) -> Result<(), EncodeError> {
        match &mut self.0 {
            FileBody::Plain { records, out } => {
                records.write_lines(rows, out).map_err(EncodeError::Records)
            }
            FileBody::Compressed { records, out } => {
                records.write_lines(rows, out).map_err(EncodeError::Records)
            }
            FileBody::Parquet(writer) => writer.write(rows.columns()),
            FileBody::Avro(writer) => writer.write(rows.columns()),
        }
    }

    /// Why bytes cannot be written to the file, or `None` if they can. No data is lost, but rows
    /// that are written while the file is blocked stay in memory.
    pub fn blocked(&self) -> Option<&io::Error> {
        match &self.0 {
            FileBody::Plain { out, .. } => out.blocked(),
            FileBody::Compressed { out, .. } => out.out.blocked(),
            FileBody::Parquet(writer) => writer.out().blocked(),
            FileBody::Avro(writer) => writer.out.blocked(),
        }
    }

    /// Retries writing the buffered bytes. [`FileEncoder::blocked`] then reports whether that
    /// succeeded.
    pub fn resume(&mut self) {
        match &mut self.0 {
            FileBody::Plain { out, .. } => out.resume(),
            FileBody::Compressed { out, .. } => out.out.resume(),
            // Parquet's writer has already counted these bytes; they only arrive late.
            FileBody::Parquet(writer) => writer.out_mut().resume(),
            FileBody::Avro(writer) => writer.out.resume(),
        }
    }

    /// The bytes of memory that the encoder uses, including buffers and compressors.
    pub fn memory(&self) -> usize {
        match &self.0 {
            FileBody::Plain { out, .. } => out.memory(),
            FileBody::Compressed { out, .. } => out.memory(),
            FileBody::Parquet(writer) => writer.memory(),
            FileBody::Avro(writer) => writer.memory(),
        }
    }

    /// The size of the file in bytes, with an estimate for what is not yet encoded.
    pub fn file_bytes(&self) -> u64 {
        match &self.0 {
            FileBody::Plain { out, .. } => out.bytes_written() + out.buffered_bytes() as u64,
            FileBody::Compressed { out, .. } => out.file_bytes(),
            FileBody::Parquet(writer) => writer.file_bytes(),
            FileBody::Avro(writer) => writer.file_bytes(),
        }
    }

    /// Ends the block or row group and writes out the buffers, to free memory.
    pub fn shed(&mut self) -> Result<(), EncodeError> {
        let flushed = match &mut self.0 {
            FileBody::Plain { out, .. } => out.flush(),
            FileBody::Compressed { out, .. } => {
                out.end_block().map_err(EncodeError::Records)?;
                out.out.flush()
            }
            FileBody::Parquet(writer) => writer.shed()?,
            FileBody::Avro(writer) => {
                writer.end_block()?;
                writer.out.flush()
            }
        };
        flushed.map_err(EncodeError::Records)
    }

    /// Finishes the file. Parquet files store `metadata` as key-value metadata; other codecs ignore
    /// it. The caller gets the file from [`RetryWriter::into_inner`] once the writer is not
    /// blocked. The bytes are then handed to the operating system, but not fsynced.
    pub fn finish(self, metadata: &[(String, String)]) -> Result<RetryWriter<File>, EncodeError> {
        let mut out = match self.0 {
            FileBody::Plain { out, .. } => out,
            FileBody::Compressed { out, .. } => out.finish().map_err(EncodeError::Records)?,
            FileBody::Parquet(writer) => writer.finish(metadata)?,
            FileBody::Avro(writer) => writer.finish()?,
        };
        out.flush().map_err(EncodeError::Records)?;
        Ok(out)
    }
}

/// An error in encoding rows. Disk errors are never reported here.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The compressor or the record encoder failed.
    #[error("cannot encode records: {0}")]
    Records(#[source] io::Error),
    /// Parquet's writer failed.
    #[error("cannot write parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// Avro's encoder failed.
    #[error("cannot write avro: {0}")]
    Avro(#[from] arrow_avro::errors::AvroError),
}

#[cfg(test)]
mod tests;
