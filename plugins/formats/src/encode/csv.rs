//! Encodes columns as CSV, as in RFC 4180.
//!
//! A value is written as in JSON, but strings, dates and timestamps without JSON's quotes. A value
//! is put into quotes only if it has to be: if it contains the separator, a quote or a line end. NULL
//! is empty, and the empty string is `""`, so that the format `csv` reads both back.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use pseidon_plugin::format::is_json;

use super::{check_type, json};

/// Encodes rows with these columns. Shared by threads.
pub(super) struct CsvEncoder {
    separator: u8,
    /// The names of the columns as a record.
    header: Vec<u8>,
    options: EncoderOptions,
}

impl CsvEncoder {
    /// Creates an encoder. The error says which column cannot be written.
    pub(super) fn new(separator: u8, schema: &SchemaRef) -> Result<CsvEncoder, String> {
        if schema.fields().is_empty() {
            return Err("csv needs at least one column".to_owned());
        }
        let options = json::options();
        let mut header = Vec::new();
        for (number, field) in schema.fields().iter().enumerate() {
            check_type(field, field.name(), &options)?;
            if number > 0 {
                header.push(separator);
            }
            push_value(&mut header, separator, field.name().as_bytes());
        }
        Ok(CsvEncoder {
            separator,
            header,
            options,
        })
    }

    /// The names of the columns, as the first record of a file.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// An encoder for the values of these columns.
    pub(super) fn values<'a>(
        &'a self,
        columns: &'a RecordBatch,
    ) -> Result<CsvRows<'a>, ArrowError> {
        let fields = columns.schema_ref().fields().iter();
        let column = |(field, values)| CsvColumn::new(field, values, &self.options);
        let columns = fields.zip(columns.columns()).map(column);
        Ok(CsvRows {
            separator: self.separator,
            columns: columns.collect::<Result<_, _>>()?,
            text: Vec::new(),
        })
    }
}

/// Encodes the values of rows, one by one.
pub(super) struct CsvRows<'a> {
    separator: u8,
    columns: Vec<CsvColumn<'a>>,
    /// A value as JSON.
    text: Vec<u8>,
}

enum CsvColumn<'a> {
    Strings(&'a StringArray),
    /// The source text of JSON values.
    Json(&'a StringArray),
    Others(NullableEncoder<'a>),
}

impl<'a> CsvColumn<'a> {
    fn new(
        field: &'a FieldRef,
        values: &'a Arc<dyn Array>,
        options: &'a EncoderOptions,
    ) -> Result<CsvColumn<'a>, ArrowError> {
        match values.data_type() {
            DataType::Utf8 if is_json(field) => Ok(CsvColumn::Json(values.as_string())),
            DataType::Utf8 => Ok(CsvColumn::Strings(values.as_string())),
            _ => make_encoder(field, values, options).map(CsvColumn::Others),
        }
    }
}

impl CsvRows<'_> {
    /// Appends a row, without a line feed.
    pub(super) fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        for (number, column) in self.columns.iter_mut().enumerate() {
            if number > 0 {
                out.push(self.separator);
            }
            match column {
                CsvColumn::Strings(values) if values.is_valid(row) => {
                    push_value(out, self.separator, values.value(row).as_bytes());
                }
                CsvColumn::Json(values) if values.is_valid(row) => {
                    push_json(out, self.separator, values.value(row));
                }
                CsvColumn::Others(values) if !values.is_null(row) => {
                    self.text.clear();
                    values.encode(row, &mut self.text);
                    push_json(out, self.separator, &String::from_utf8_lossy(&self.text));
                }
                _ => {}
            }
        }
        if out.len() == start {
            // A single column that is NULL: readers skip empty lines.
            out.extend_from_slice(b"\"\"");
        }
    }
}

/// Appends a JSON value: nothing for `null`, the content of a string, or else its text.
fn push_json(out: &mut Vec<u8>, separator: u8, json: &str) {
    let text: Cow<'_, str> = match json.as_bytes() {
        b"null" => return,
        [b'"', ..] => sonic_rs::from_str(json).map_or(json.into(), |text: String| text.into()),
        _ => json.into(),
    };
    push_value(out, separator, text.as_bytes());
}

/// Appends a value, in quotes if it has to be.
fn push_value(out: &mut Vec<u8>, separator: u8, text: &[u8]) {
    let is_special = |byte: &u8| *byte == separator || matches!(*byte, b'"' | b'\n' | b'\r');
    if !text.is_empty() && !text.iter().any(is_special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    let mut copied = 0;
    for quote in memchr::memchr_iter(b'"', text) {
        out.extend_from_slice(&text[copied..=quote]);
        out.push(b'"');
        copied = quote + 1;
    }
    out.extend_from_slice(&text[copied..]);
    out.push(b'"');
}
