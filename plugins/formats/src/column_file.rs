//! Files of columns as a source of records.
//!
//! A record of such a file has no bytes of its own: a batch of them is an Arrow record batch from
//! the file to the sink. Only the values that are used are read. The position of a record is the
//! number of its row.
//!
//! - [`ColumnFormat`] is what a pipeline's `:format` names, and opens files. A [`ColumnReader`]
//!   reads the rows of one.
//! - [`parquet`], [`avro`] and [`arrow_ipc`] are the formats of files; [`errors`] are the errors that they share.
//! - [`decoder`] takes the wanted columns out of those that were read, and [`convert`] converts them
//!   to the wanted types; [`types`] are the engine's types for those of files.

mod arrow_ipc;
mod avro;
mod convert;
mod decoder;
mod errors;
mod parquet;
mod types;

use std::fs::File;
use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pseidon_expr::bounds::Bounds;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Decoder, Format, WantedColumn};

use self::arrow_ipc::ArrowReader;
use self::avro::AvroReader;
use self::decoder::ColumnDecoder;
use self::parquet::ParquetReader;
use self::types::fields_of;

/// The maximum number of rows that are read at once.
const MAX_ROWS: usize = 8192;

/// How many bytes of values are read at once, about.
const READ_BYTES: u64 = 8 << 20;

/// The formats of files whose records are columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// Parquet, whose files are complete when they have a footer.
    Parquet,
    /// Avro's object container files, to which blocks of rows are appended.
    Avro,
    /// Arrow's IPC files, which are complete when they have a footer.
    Arrow,
}

/// The bytes of a file by which it is recognized.
#[derive(Debug)]
pub struct IdentityBytes {
    /// Bytes that another file, or another content of this one, does not have.
    pub bytes: Vec<u8>,
    /// Whether the file is complete enough that these bytes stay.
    pub is_complete: bool,
}

/// Which of a file's values are used.
#[derive(Clone, Debug, Default)]
pub struct UsedValues {
    /// The names of the fields; `None` for all.
    pub fields: Option<Vec<String>>,
    /// What the rows must satisfy. Groups of rows that do not are left out, if the file shows it.
    pub bounds: Arc<Bounds>,
}

/// Reads the rows of a file.
pub trait ColumnReader: Send {
    /// The columns that are read, as the file has them, without rows.
    fn empty(&self) -> RecordBatch;

    /// The number of the next row. Rows may be left out, so it may increase by more than the number
    /// of rows that were returned. At the end of the file it is the number of its rows.
    fn position(&self) -> u64;

    /// The next rows, at least one; `None` at the end of the file. After an error, the reader must
    /// not be used.
    ///
    /// # Errors
    /// The file is damaged (`InvalidData`), ends too early (`UnexpectedEof`), or cannot be read.
    fn next_rows(&mut self) -> io::Result<Option<RecordBatch>>;
}

impl ColumnFormat {
    /// All formats.
    pub const ALL: [ColumnFormat; 3] = [
        ColumnFormat::Parquet,
        ColumnFormat::Avro,
        ColumnFormat::Arrow,
    ];

    /// The format with this name; `None` if the records of that format have bytes.
    pub fn of_name(name: &str) -> Option<ColumnFormat> {
        ColumnFormat::ALL
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// Opens a file for reading the used values from row `from` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if nothing can be read of it yet, as while it is being written;
    /// `InvalidData` if it is not of this format, or damaged; otherwise the error of reading it.
    pub fn open(
        self,
        file: File,
        used: &UsedValues,
        from: u64,
    ) -> io::Result<Box<dyn ColumnReader>> {
        let fields = used.fields.as_deref();
        Ok(match self {
            ColumnFormat::Parquet => Box::new(ParquetReader::open(file, used, from)?),
            ColumnFormat::Avro => Box::new(AvroReader::open(file, fields, from)?),
            ColumnFormat::Arrow => Box::new(ArrowReader::open(file, fields, from)?),
        })
    }

    /// The bytes by which a file is recognized.
    ///
    /// # Errors
    /// The file cannot be read. A file that is not of this format has bytes too.
    pub fn identity(self, file: &File) -> io::Result<IdentityBytes> {
        match self {
            ColumnFormat::Parquet => parquet::identity(file),
            ColumnFormat::Avro => avro::identity(file),
            ColumnFormat::Arrow => arrow_ipc::identity(file),
        }
    }

    /// Whether rows may be appended to a file that was read to its end.
    pub fn may_grow(self) -> bool {
        self == ColumnFormat::Avro
    }
}

impl Format for ColumnFormat {
    fn name(&self) -> &'static str {
        match self {
            ColumnFormat::Parquet => "parquet",
            ColumnFormat::Avro => "avro",
            ColumnFormat::Arrow => "arrow",
        }
    }

    fn summary(&self) -> &'static str {
        match self {
            ColumnFormat::Parquet => {
                "Parquet files, of which only the used columns and row groups are read. Their \
                 fields are known."
            }
            ColumnFormat::Avro => {
                "Avro object container files, whose schema they contain. Their fields are known."
            }
            ColumnFormat::Arrow => {
                "Arrow IPC files (Feather), not streams. Their fields are known."
            }
        }
    }

    fn has_bytes(&self) -> bool {
        false
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        match settings {
            "" => Ok(None),
            _ => Err(format!("{} has no settings", self.name())),
        }
    }

    fn infer(&self, _: &str, samples: &[Payloads]) -> Result<SchemaRef, String> {
        let columns = samples.iter().find_map(Payloads::columns);
        let columns = columns.ok_or_else(|| format!("there is no {} file", self.name()))?;
        Ok(fields_of(columns.schema_ref()))
    }

    fn decoder(&self, _: &str, columns: &[WantedColumn]) -> Result<Box<dyn Decoder>, String> {
        Ok(Box::new(ColumnDecoder {
            wanted: columns.to_vec(),
        }))
    }
}
