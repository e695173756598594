//! Encoders from rows to bytes: a record's value for a message, or lines for a file or a terminal.
//!
//! An unchanged record is written as its original bytes, whatever columns the rows have for
//! expressions. A changed record is written from its columns. As JSON, each column is a key:
//! numbers are numbers (decimals exactly), `json` columns are written unchanged, binary is base64,
//! dates are `2024-05-01`, timestamps are RFC 3339 in UTC with the digits of their unit; NULL, NaN
//! and the infinities are `null`. [`csv`] says how columns are written as CSV.

mod csv;
mod json;

use std::io::{self, Write};

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray, new_empty_array};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use pseidon_plugin::format::is_json;
use pseidon_plugin::options::Choice;
use pseidon_plugin::sink::{NeedsColumns, RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Rows};

pub use self::csv::CsvOptions;
use self::csv::{CsvEncoder, CsvRows};
pub(crate) use json::options as json_options;

/// The format that records are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum OutputFormat {
    /// JSON, one object per record.
    Json,
    /// CSV: the columns, separated by commas.
    Csv,
    /// Like `csv`, separated by tabs.
    Tsv,
    /// Text: the original bytes of an unchanged record, or the only column of a changed one, which
    /// must be a string or binary.
    Txt,
    /// The original bytes; changed records are rejected.
    Raw,
}

impl OutputFormat {
    /// Whether the fields of unchanged records are needed as columns.
    pub fn needs_columns(self) -> NeedsColumns {
        match self {
            OutputFormat::Json => NeedsColumns::UnlessJson,
            OutputFormat::Csv | OutputFormat::Tsv => NeedsColumns::Always,
            OutputFormat::Txt | OutputFormat::Raw => NeedsColumns::UnlessBytes,
        }
    }
}

/// Encodes rows as lines of JSON.
pub fn json_lines(rows: &Rows, record: RecordShape) -> Result<Vec<String>, String> {
    let input = SinkInput {
        scope: Default::default(),
        record,
    };
    let encoder = RecordEncoder::new(OutputFormat::Json, &input)?;
    let mut values = encoder.values(rows).map_err(|error| error.to_string())?;
    let mut line = |row| {
        let mut bytes = Vec::new();
        values.encode(row, &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok((0..rows.len()).map(&mut line).collect())
}

/// Encodes records in one format. Shared by threads.
pub struct RecordEncoder(EncoderKind);

/// What a record's value is built from.
enum EncoderKind {
    /// The original bytes. `json` is whether each value must be on one line.
    Bytes { json: bool },
    /// The only column, of strings.
    Text,
    /// The only column, of binary values, which may not be UTF-8.
    Binary,
    /// All columns, as a JSON object.
    Object {
        /// The bytes before each column's value: `{"a":`, then `,"b":` …
        keys: Vec<Vec<u8>>,
        options: EncoderOptions,
    },
    /// All columns, as fields between separators.
    Fields(CsvEncoder),
}

/// Encoded values are gathered up to this number of bytes before they are written.
const WRITE_BYTES: usize = 64 << 10;

impl RecordEncoder {
    /// Creates an encoder for the input of a sink. The error says why these records cannot be
    /// written in this format, and how to fix it.
    pub fn new(format: OutputFormat, input: &SinkInput) -> Result<RecordEncoder, String> {
        RecordEncoder::with_csv(format, &CsvOptions::default(), input)
    }

    /// The same with the options of CSV, which only CSV and TSV have.
    pub fn with_csv(
        format: OutputFormat,
        csv: &CsvOptions,
        input: &SinkInput,
    ) -> Result<RecordEncoder, String> {
        let is_csv = matches!(format, OutputFormat::Csv | OutputFormat::Tsv);
        if !is_csv && *csv != CsvOptions::default() {
            return Err("`:csv` is for the formats csv and tsv; remove it".to_owned());
        }
        let source = match (&input.record, format) {
            (RecordShape::AsCame { format }, OutputFormat::Json) if format == "raw" => {
                return Err(
                    "raw records cannot be written as json; write them as txt or raw".to_owned(),
                );
            }
            (RecordShape::AsCame { format }, OutputFormat::Json) if format != "json" => {
                return Err(format!(
                    "{format} records can be written as json if their fields are known; set \
                     :schema :infer at the source, or select the columns"
                ));
            }
            (RecordShape::AsCame { format }, OutputFormat::Csv | OutputFormat::Tsv) => {
                return Err(format!(
                    "csv writes columns, but these {format} records are unparsed; select their \
                     columns first"
                ));
            }
            (RecordShape::AsCame { .. }, format) => EncoderKind::Bytes {
                json: format == OutputFormat::Json,
            },
            (RecordShape::Columns(_), OutputFormat::Raw) => {
                return Err(
                    "raw writes the bytes of unchanged records, but these are columns; write them \
                    as json or txt"
                        .to_owned(),
                );
            }
            (RecordShape::Columns(schema), OutputFormat::Txt) => text_kind(schema)?,
            (RecordShape::Columns(schema), OutputFormat::Json) => object_kind(schema)?,
            (RecordShape::Columns(schema), OutputFormat::Csv) => fields_kind(b',', csv, schema)?,
            (RecordShape::Columns(schema), OutputFormat::Tsv) => fields_kind(b'\t', csv, schema)?,
        };
        Ok(RecordEncoder(source))
    }

    /// What a file begins with before its records: the names of the columns of CSV, as a line,
    /// unless they are not written.
    pub fn header(&self) -> Option<Vec<u8>> {
        match &self.0 {
            EncoderKind::Fields(csv) => Some([csv.header()?, b"\n"].concat()),
            _ => None,
        }
    }

    /// The rows that cannot be written, with the reasons. The caller removes them before it writes
    /// the others.
    pub fn check(&self, rows: &Rows) -> Vec<BadRow> {
        let missing: (Box<dyn Fn(usize) -> bool>, &str) = match &self.0 {
            EncoderKind::Bytes { .. } => (
                Box::new(|row| rows.payload(row).is_none()),
                "the record has no payload",
            ),
            EncoderKind::Text | EncoderKind::Binary => (
                Box::new(|row| rows.columns().column(0).is_null(row)),
                "the value is null",
            ),
            EncoderKind::Object { .. } | EncoderKind::Fields(_) => return Vec::new(),
        };
        let (missing, reason) = missing;
        (0..rows.len())
            .filter(|row| missing(*row))
            .map(|row| BadRow {
                row: row as u32,
                reason: reason.to_owned(),
            })
            .collect()
    }

    /// Returns an encoder for the values of these rows. The error is for columns that do not match
    /// the sink's input.
    pub fn values<'a>(&'a self, rows: &'a Rows) -> io::Result<ValueEncoder<'a>> {
        let values = match &self.0 {
            EncoderKind::Bytes { json } => RowValues::Bytes { rows, json: *json },
            EncoderKind::Text => {
                let texts = rows
                    .columns()
                    .columns()
                    .first()
                    .and_then(|column| column.as_string_opt());
                RowValues::Text(
                    texts.ok_or_else(|| io::Error::other("the rows have no string column"))?,
                )
            }
            EncoderKind::Binary => {
                let bytes = rows
                    .columns()
                    .columns()
                    .first()
                    .and_then(|column| column.as_binary_opt());
                RowValues::Binary(
                    bytes.ok_or_else(|| io::Error::other("the rows have no binary column"))?,
                )
            }
            EncoderKind::Object { .. } => return self.object_values(rows.columns()),
            EncoderKind::Fields(csv) => {
                RowValues::Fields(csv.values(rows.columns()).map_err(io::Error::other)?)
            }
        };
        Ok(ValueEncoder(values))
    }

    /// Creates an encoder from columns to JSON objects, for [`RecordEncoder::object_values`].
    pub(crate) fn objects(schema: &SchemaRef) -> Result<RecordEncoder, String> {
        object_kind(schema).map(RecordEncoder)
    }

    /// Returns an encoder for bare columns, without rows. Supports JSON objects only.
    pub(crate) fn object_values<'a>(
        &'a self,
        columns: &'a RecordBatch,
    ) -> io::Result<ValueEncoder<'a>> {
        let EncoderKind::Object { keys, options } = &self.0 else {
            return Err(io::Error::other("bare columns can be encoded as json only"));
        };
        let fields = columns.schema_ref().fields();
        let encoders = fields
            .iter()
            .zip(columns.columns())
            .map(|(field, column)| make_encoder(field, column, options));
        Ok(ValueEncoder(RowValues::Object {
            keys,
            columns: encoders
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?,
        }))
    }

    /// Writes each row followed by `\n`. Unchanged records that are contiguous in memory are
    /// written as one slice, which may be short, so `out` should be buffered.
    pub fn write_lines(&self, rows: &Rows, out: &mut impl Write) -> io::Result<()> {
        let mut values = self.values(rows)?;
        let mut piece = Vec::new();
        let mut row = 0;
        while row < rows.len() {
            let next = self.end_of_run(rows, row);
            if let Some(lines) = self.lines(rows, row, next) {
                out.write_all(&lines)?;
            } else {
                for row in row..next {
                    values.encode(row, &mut piece);
                    piece.push(b'\n');
                    if piece.len() >= WRITE_BYTES {
                        out.write_all(&piece)?;
                        piece.clear();
                    }
                }
                out.write_all(&piece)?;
                piece.clear();
            }
            row = next;
        }
        Ok(())
    }

    /// The end of the run of rows that can be written in one go: for bytes, rows that follow each
    /// other in memory; otherwise all rows.
    fn end_of_run(&self, rows: &Rows, row: usize) -> usize {
        if !matches!(self.0, EncoderKind::Bytes { .. }) {
            return rows.len();
        }
        rows.end_of_run(row)
    }

    /// The lines of a run of rows, if they are contiguous in memory.
    fn lines(&self, rows: &Rows, from: usize, to: usize) -> Option<bytes::Bytes> {
        let EncoderKind::Bytes { json } = self.0 else {
            return None;
        };
        let lines = rows.lines(from, to)?;
        // A line feed inside a JSON record would split it into two lines.
        let ready = !json || memchr::memchr_iter(b'\n', &lines).count() == to - from;
        ready.then_some(lines)
    }
}

fn text_kind(schema: &SchemaRef) -> Result<EncoderKind, String> {
    match schema.fields().iter().as_slice() {
        [field] if *field.data_type() == DataType::Utf8 && !is_json(field) => Ok(EncoderKind::Text),
        [field] if *field.data_type() == DataType::Binary => Ok(EncoderKind::Binary),
        [field] => Err(format!(
            "txt writes a string or binary column, but `{}` is neither; cast it to utf8, or write \
             json",
            field.name()
        )),
        fields => Err(format!(
            "txt writes exactly one column, but there are {}; select one, or write json",
            fields.len()
        )),
    }
}

fn fields_kind(separator: u8, csv: &CsvOptions, schema: &SchemaRef) -> Result<EncoderKind, String> {
    CsvEncoder::new(separator, csv, schema).map(EncoderKind::Fields)
}

fn object_kind(schema: &SchemaRef) -> Result<EncoderKind, String> {
    let options = json::options();
    let mut keys = Vec::new();
    for field in schema.fields() {
        check_type(field, field.name(), &options)?;
        let name = sonic_rs::to_string(field.name()).map_err(|error| error.to_string())?;
        let before = if keys.is_empty() { '{' } else { ',' };
        keys.push(format!("{before}{name}:").into_bytes());
    }
    Ok(EncoderKind::Object { keys, options })
}

/// Checks that JSON, and so CSV, can represent the values of a column.
pub(crate) fn check_type(
    field: &FieldRef,
    name: &str,
    options: &EncoderOptions,
) -> Result<(), String> {
    let data_type = field.data_type();
    match make_encoder(field, &new_empty_array(data_type), options) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "json cannot represent `{name}` of type {data_type}; cast it, for example to utf8"
        )),
    }
}

/// Encodes the values of rows, one by one.
pub struct ValueEncoder<'a>(RowValues<'a>);

enum RowValues<'a> {
    Bytes {
        rows: &'a Rows,
        json: bool,
    },
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Object {
        keys: &'a [Vec<u8>],
        columns: Vec<NullableEncoder<'a>>,
    },
    Fields(CsvRows<'a>),
}

impl ValueEncoder<'_> {
    /// Appends the value of a row, without a line feed. A JSON value is always one line. Appends
    /// nothing for a row that [`RecordEncoder::check`] returns.
    pub fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match &mut self.0 {
            RowValues::Bytes { rows, json } => match rows.payload(row) {
                Some(payload) if *json => json::push_on_one_line(payload, out),
                Some(payload) => out.extend_from_slice(payload),
                None => {}
            },
            RowValues::Text(texts) if texts.is_null(row) => {}
            RowValues::Text(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            RowValues::Binary(values) if values.is_null(row) => {}
            RowValues::Binary(values) => out.extend_from_slice(values.value(row)),
            RowValues::Fields(rows) => rows.encode(row, out),
            RowValues::Object { columns, .. } if columns.is_empty() => out.extend_from_slice(b"{}"),
            RowValues::Object { keys, columns } => {
                for (key, column) in keys.iter().zip(columns) {
                    out.extend_from_slice(key);
                    match column.is_null(row) {
                        true => out.extend_from_slice(b"null"),
                        false => column.encode(row, out),
                    }
                }
                out.push(b'}');
            }
        }
    }
}

#[cfg(test)]
mod tests;
