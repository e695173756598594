//! Record formats: decoders from bytes to columns, and encoders from rows to messages, lines and
//! files.
//!
//! - [`formats`] lists the formats that sources read; [`record_format`] parses their settings.
//! - A [`ColumnReader`] reads the rows of a file of a [`ColumnFormat`], which have no bytes.
//! - A [`RecordEncoder`] encodes rows as messages or lines.
//! - A [`FileCodec`] writes files: lines with or without compression, Parquet and Avro. They are
//!   written through a [`RetryWriter`], so that no data is lost when the disk is full.

#![forbid(unsafe_code)]

pub mod encode;
pub mod file;
pub mod record_format;
pub mod retry;

mod avro_txt;
mod column_file;
mod csv;
mod decimal;
mod event;
mod inferred_fields;
mod json;
mod parts;
mod raw;
mod texts;
mod txt;
mod values;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute;
use pseidon_plugin::BadRow;
use pseidon_plugin::format::Format;

pub use column_file::{ColumnFormat, ColumnReader, IdentityBytes, UsedValues};
pub use encode::{CsvOptions, OutputFormat, RecordEncoder, ValueEncoder, json_lines};
pub use file::{CodecName, Compression, EncodeError, FileCodec, FileCodecSettings, FileEncoder};
pub use record_format::RecordLayout;
pub use retry::RetryWriter;

/// All formats that sources can read, for the plugin registry.
pub fn formats() -> Vec<Arc<dyn Format>> {
    vec![
        Arc::new(json::Json),
        Arc::new(csv::Csv::CSV),
        Arc::new(csv::Csv::TSV),
        Arc::new(txt::Txt),
        Arc::new(avro_txt::AvroTxt::default()),
        Arc::new(raw::Raw),
        Arc::new(ColumnFormat::Parquet),
        Arc::new(ColumnFormat::Avro),
        Arc::new(ColumnFormat::Arrow),
    ]
}

/// Parses the settings of a format: what follows the colon, possibly nothing.
fn layout(format: &str, settings: &str) -> Result<RecordLayout, String> {
    record_format::parse(&format!("{format}:{settings}"))
}

/// Sets the bad rows to null in every column. `rows` is the length of the columns.
fn null_bad_rows(columns: Vec<ArrayRef>, bad: &[BadRow], rows: usize) -> Vec<ArrayRef> {
    if bad.is_empty() {
        return columns;
    }
    let mut mask = vec![false; rows];
    for row in bad {
        mask[row.row as usize] = true;
    }
    let mask = BooleanArray::from(mask);
    let masked = |column: ArrayRef| {
        compute::nullif(&column, &mask).expect("the mask is as long as the column")
    };
    columns.into_iter().map(masked).collect()
}

/// The first 40 characters of a string, for messages. `…` marks a cut.
fn abbreviate(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut start: String = text.chars().take(MAX_CHARS).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}
