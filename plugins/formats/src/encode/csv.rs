//! Encodes columns as CSV, as in RFC 4180.
//!
//! A value is written as in JSON, but strings, dates and timestamps without JSON's quotes. A value
//! is put into quotes only if it has to be: if it contains the separator, a quote or a line end.
//! NULL is empty, and the empty string is `""`, so that the format `csv` reads both back.
//! [`dialect`] has the options with which it is written otherwise.

mod dialect;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use pseidon_plugin::format::is_json;

pub use self::dialect::CsvOptions;
use super::{check_type, json};

/// Encodes rows with these columns. Shared by threads.
pub(super) struct CsvEncoder {
    style: FieldStyle,
    has_decimal_comma: bool,
    /// The names of the columns as a record, if they are written.
    header: Option<Vec<u8>>,
    options: EncoderOptions,
}

impl CsvEncoder {
    /// Creates an encoder. The error says which column cannot be written.
    pub(super) fn new(
        separator: u8,
        dialect: &CsvOptions,
        schema: &SchemaRef,
    ) -> Result<CsvEncoder, String> {
        if schema.fields().is_empty() {
            return Err("csv needs at least one column".to_owned());
        }
        let options = json::options();
        let separator = dialect.sep.map_or(separator, |separator| separator.0);
        if separator == b'"' {
            return Err("the separator is the quote; choose another one".to_owned());
        }
        let style = FieldStyle {
            separator,
            null: dialect.null(separator)?.as_bytes().to_vec(),
        };
        let mut header = Vec::new();
        for (number, field) in schema.fields().iter().enumerate() {
            check_type(field, field.name(), &options)?;
            if number > 0 {
                header.push(separator);
            }
            style.push(&mut header, field.name().as_bytes());
        }
        Ok(CsvEncoder {
            style,
            has_decimal_comma: dialect.has_decimal_comma(),
            header: dialect.has_header().then_some(header),
            options,
        })
    }

    /// The names of the columns, as the first record of a file, if there is one.
    pub(super) fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// An encoder for the values of these columns.
    pub(super) fn values<'a>(
        &'a self,
        columns: &'a RecordBatch,
    ) -> Result<CsvRows<'a>, ArrowError> {
        let fields = columns.schema_ref().fields().iter();
        let column = |(field, values)| CsvColumn::new(field, values, self);
        let columns = fields.zip(columns.columns()).map(column);
        Ok(CsvRows {
            style: &self.style,
            columns: columns.collect::<Result<_, _>>()?,
            text: Vec::new(),
        })
    }
}

/// Encodes the values of rows, one by one.
pub(super) struct CsvRows<'a> {
    style: &'a FieldStyle,
    columns: Vec<CsvColumn<'a>>,
    /// A value as JSON.
    text: Vec<u8>,
}

enum CsvColumn<'a> {
    Strings(&'a StringArray),
    /// The source text of JSON values.
    Json(&'a StringArray),
    Others(NullableEncoder<'a>),
    /// Numbers with a decimal comma.
    Fractions(NullableEncoder<'a>),
}

impl<'a> CsvColumn<'a> {
    fn new(
        field: &'a FieldRef,
        values: &'a Arc<dyn Array>,
        encoder: &'a CsvEncoder,
    ) -> Result<CsvColumn<'a>, ArrowError> {
        let data_type = values.data_type();
        let is_fraction = data_type.is_floating() || data_type.is_decimal();
        match data_type {
            DataType::Utf8 if is_json(field) => Ok(CsvColumn::Json(values.as_string())),
            DataType::Utf8 => Ok(CsvColumn::Strings(values.as_string())),
            _ if is_fraction && encoder.has_decimal_comma => {
                make_encoder(field, values, &encoder.options).map(CsvColumn::Fractions)
            }
            _ => make_encoder(field, values, &encoder.options).map(CsvColumn::Others),
        }
    }
}

impl CsvRows<'_> {
    /// Appends a row, without a line feed.
    pub(super) fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        for (number, column) in self.columns.iter_mut().enumerate() {
            if number > 0 {
                out.push(self.style.separator);
            }
            match column {
                CsvColumn::Strings(values) if values.is_valid(row) => {
                    self.style.push(out, values.value(row).as_bytes());
                }
                CsvColumn::Json(values) if values.is_valid(row) => {
                    self.style.push_json(out, values.value(row));
                }
                CsvColumn::Others(values) if !values.is_null(row) => {
                    self.text.clear();
                    values.encode(row, &mut self.text);
                    self.style
                        .push_json(out, &String::from_utf8_lossy(&self.text));
                }
                CsvColumn::Fractions(values) if !values.is_null(row) => {
                    self.text.clear();
                    values.encode(row, &mut self.text);
                    if let Some(point) = memchr::memchr(b'.', &self.text) {
                        self.text[point] = b',';
                    }
                    self.style
                        .push_json(out, &String::from_utf8_lossy(&self.text));
                }
                _ => out.extend_from_slice(&self.style.null),
            }
        }
        if out.len() == start {
            // A single column that is NULL: readers skip empty lines.
            out.extend_from_slice(b"\"\"");
        }
    }
}

/// How single values are written.
struct FieldStyle {
    separator: u8,
    /// What is written for NULL.
    null: Vec<u8>,
}

impl FieldStyle {
    /// Appends a JSON value: NULL for `null`, the content of a string, or else its text.
    fn push_json(&self, out: &mut Vec<u8>, json: &str) {
        let text: Cow<'_, str> = match json.as_bytes() {
            b"null" => return out.extend_from_slice(&self.null),
            [b'"', ..] => sonic_rs::from_str(json).map_or(json.into(), |text: String| text.into()),
            _ => json.into(),
        };
        self.push(out, text.as_bytes());
    }

    /// Appends a value, in quotes if it has to be.
    fn push(&self, out: &mut Vec<u8>, text: &[u8]) {
        let is_special =
            |byte: &u8| *byte == self.separator || matches!(*byte, b'"' | b'\n' | b'\r');
        if !text.is_empty() && text != self.null && !text.iter().any(is_special) {
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
}

#[cfg(test)]
mod tests;
