//! From rows to bytes: a record's value for a message, or lines for a file or a terminal.
//!
//! An unchanged record is its bytes as they came, whatever columns the rows carry for expressions.
//! A changed one is its columns. As JSON a column is a key: numbers are numbers (decimals exactly),
//! `json` columns stand as they are, binary is base64, dates are `2024-05-01`, timestamps RFC 3339
//! in UTC with the digits of their unit; NULL, NaN and the infinities are `null`.

mod json;

use std::io::{self, Write};
use std::str::FromStr;

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, StringArray, new_empty_array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use pseidon_plugin::format::is_json;
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Rows};

pub(crate) use json::options as json_options;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// JSON, one object for each record.
    Json,
    /// Text: the bytes as they came, or the one column of text or binary.
    Txt,
    /// The bytes as they came.
    Raw,
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "json" => Ok(RecordFormat::Json),
            "txt" => Ok(RecordFormat::Txt),
            "raw" => Ok(RecordFormat::Raw),
            _ => Err(format!(
                "no format is named `{name}`; expected json, txt or raw"
            )),
        }
    }
}

/// Writes records in one format. Shared by threads.
pub struct RecordEncoder(Source);

/// What a record's value is made from.
enum Source {
    /// The bytes as they came.
    Bytes { json: bool },
    /// The one column, of text.
    Text,
    /// The one column, of bytes that may be no text.
    Binary,
    /// All columns, as a JSON object.
    Object {
        /// What stands before each column's value: `{"a":`, then `,"b":` …
        keys: Vec<Vec<u8>>,
        options: EncoderOptions,
    },
}

/// Encoded values are put together up to here before they are written.
const PIECE: usize = 64 << 10;

impl RecordEncoder {
    /// An encoder for what a sink is given. The error is a sentence that says why these records
    /// cannot be written so, and what to do.
    pub fn new(format: RecordFormat, input: &SinkInput) -> Result<RecordEncoder, String> {
        let source = match (&input.record, format) {
            (RecordShape::AsCame { format }, RecordFormat::Json) if format != "json" => {
                return Err(format!(
                    "the records come as {format} and are not json: select their columns first, or write them as txt or raw"
                ));
            }
            (RecordShape::AsCame { .. }, format) => Source::Bytes {
                json: format == RecordFormat::Json,
            },
            (RecordShape::Columns(_), RecordFormat::Raw) => {
                return Err("raw writes records as they came, but these were changed: write them as json, or as txt".to_owned());
            }
            (RecordShape::Columns(schema), RecordFormat::Txt) => text(schema)?,
            (RecordShape::Columns(schema), RecordFormat::Json) => object(schema)?,
        };
        Ok(RecordEncoder(source))
    }

    /// The rows that cannot be written. They have to be taken out before the others are.
    pub fn check(&self, rows: &Rows) -> Vec<BadRow> {
        let missing: (Box<dyn Fn(usize) -> bool>, &str) = match &self.0 {
            Source::Bytes { .. } => (
                Box::new(|row| rows.payload(row).is_none()),
                "the record has no payload",
            ),
            Source::Text | Source::Binary => (
                Box::new(|row| rows.columns().column(0).is_null(row)),
                "the text is null",
            ),
            Source::Object { .. } => return Vec::new(),
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

    /// What gives the rows' values one by one. The error is for columns that the rows should not
    /// have.
    pub fn values<'a>(&'a self, rows: &'a Rows) -> io::Result<Values<'a>> {
        let values = match &self.0 {
            Source::Bytes { json } => ValueSource::Bytes { rows, json: *json },
            Source::Text => {
                let texts = rows
                    .columns()
                    .columns()
                    .first()
                    .and_then(|column| column.as_string_opt());
                ValueSource::Text(
                    texts.ok_or_else(|| io::Error::other("the rows have no text column"))?,
                )
            }
            Source::Binary => {
                let bytes = rows
                    .columns()
                    .columns()
                    .first()
                    .and_then(|column| column.as_binary_opt());
                ValueSource::Binary(
                    bytes.ok_or_else(|| io::Error::other("the rows have no binary column"))?,
                )
            }
            Source::Object { .. } => return self.values_of(rows.columns()),
        };
        Ok(Values(values))
    }

    /// An encoder of columns as JSON objects, for [`RecordEncoder::values_of`].
    pub(crate) fn objects(schema: &SchemaRef) -> Result<RecordEncoder, String> {
        object(schema).map(RecordEncoder)
    }

    /// What gives the values of columns that no sink was given: JSON objects only.
    pub(crate) fn values_of<'a>(&'a self, columns: &'a RecordBatch) -> io::Result<Values<'a>> {
        let Source::Object { keys, options } = &self.0 else {
            return Err(io::Error::other("only json is made from columns alone"));
        };
        let fields = columns.schema_ref().fields();
        let encoders = fields
            .iter()
            .zip(columns.columns())
            .map(|(field, column)| make_encoder(field, column, options));
        Ok(Values(ValueSource::Object {
            keys,
            columns: encoders
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?,
        }))
    }

    /// Writes each row followed by `\n`. Records as they came that lie in one piece are handed over
    /// as one slice, which may be short, so `out` should be one that gathers.
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
                    if piece.len() >= PIECE {
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

    /// Where the run of rows ends that can be written in one go: for bytes those that follow one
    /// another in the batch, else all.
    fn end_of_run(&self, rows: &Rows, row: usize) -> usize {
        if !matches!(self.0, Source::Bytes { .. }) {
            return rows.len();
        }
        let first = rows.number(row);
        (row + 1..rows.len())
            .find(|at| rows.number(*at) != first + (at - row))
            .unwrap_or(rows.len())
    }

    /// The lines of a run of rows, if they lie ready.
    fn lines(&self, rows: &Rows, from: usize, to: usize) -> Option<bytes::Bytes> {
        let Source::Bytes { json } = self.0 else {
            return None;
        };
        let lines = rows
            .batch()
            .payloads
            .lines(rows.number(from), rows.number(to - 1) + 1)?;
        // A newline inside a JSON record would make two lines of it.
        let ready = !json || memchr::memchr_iter(b'\n', &lines).count() == to - from;
        ready.then_some(lines)
    }
}

fn text(schema: &SchemaRef) -> Result<Source, String> {
    match schema.fields().iter().as_slice() {
        [field] if *field.data_type() == DataType::Utf8 && !is_json(field) => Ok(Source::Text),
        [field] if *field.data_type() == DataType::Binary => Ok(Source::Binary),
        [field] => Err(format!(
            "txt writes a text or binary, but `{}` is none: cast it to utf8, or write json",
            field.name()
        )),
        fields => Err(format!(
            "txt writes one text column, but there are {}: select one, or write json",
            fields.len()
        )),
    }
}

fn object(schema: &SchemaRef) -> Result<Source, String> {
    let options = json::options();
    let mut keys = Vec::new();
    for field in schema.fields() {
        if make_encoder(field, &new_empty_array(field.data_type()), &options).is_err() {
            return Err(format!(
                "`{}` is {}, which json cannot hold: cast it, for example to utf8",
                field.name(),
                field.data_type()
            ));
        }
        let name = sonic_rs::to_string(field.name()).map_err(|error| error.to_string())?;
        let before = if keys.is_empty() { '{' } else { ',' };
        keys.push(format!("{before}{name}:").into_bytes());
    }
    Ok(Source::Object { keys, options })
}

/// The values of some rows.
pub struct Values<'a>(ValueSource<'a>);

enum ValueSource<'a> {
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
}

impl Values<'_> {
    /// Appends the row's value, without a line end; as JSON it is one line. For a row that
    /// [`RecordEncoder::check`] names it appends nothing.
    pub fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        match &mut self.0 {
            ValueSource::Bytes { rows, json } => match rows.payload(row) {
                Some(payload) if *json => json::push_on_one_line(payload, out),
                Some(payload) => out.extend_from_slice(payload),
                None => {}
            },
            ValueSource::Text(texts) if texts.is_null(row) => {}
            ValueSource::Text(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            ValueSource::Binary(values) if values.is_null(row) => {}
            ValueSource::Binary(values) => out.extend_from_slice(values.value(row)),
            ValueSource::Object { columns, .. } if columns.is_empty() => {
                out.extend_from_slice(b"{}")
            }
            ValueSource::Object { keys, columns } => {
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
