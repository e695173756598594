//! Formats: from records' bytes to columns, and from rows back to bytes, messages and files.
//!
//! - [`formats`] are what sources read: `json`, `txt`, `avro-txt`, `raw`; [`record_format`] reads
//!   their settings.
//! - A [`RecordEncoder`] writes rows as messages or lines.
//! - A [`FileCodec`] writes files: lines with or without compression, Parquet, Avro. Its files go
//!   through a [`RetryWriter`], so that a full disk loses nothing.

pub mod encode;
pub mod file;
pub mod record_format;
pub mod retry;

mod avro_txt;
mod decimal;
mod event;
mod json;
mod raw;
mod txt;
mod values;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute;
use pseidon_plugin::BadRow;
use pseidon_plugin::format::Format;

pub use encode::{RecordEncoder, RecordFormat, Values};
pub use file::{CodecName, Compression, EncodeError, FileCodec, FileCodecSettings, FileEncoder};
pub use json::infer_json_schema;
pub use record_format::RecordLayout;
pub use retry::RetryWriter;

/// All formats that records can be read in.
pub fn formats() -> Vec<Arc<dyn Format>> {
    vec![
        Arc::new(json::Json),
        Arc::new(txt::Txt),
        Arc::new(avro_txt::AvroTxt::default()),
        Arc::new(raw::Raw),
    ]
}

/// The layout that the settings of a format stand for.
fn layout(format: &str, settings: &str) -> Result<RecordLayout, String> {
    record_format::parse(&format!("{format}:{settings}"))
}

/// The columns with null in the bad rows.
fn without_bad(columns: Vec<ArrayRef>, bad: &[BadRow], rows: usize) -> Vec<ArrayRef> {
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

/// The start of a text that may be long, for messages.
fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    let mut start: String = text.chars().take(MOST).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}
