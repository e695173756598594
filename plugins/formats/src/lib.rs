//! Formats: from records' bytes to columns, and from rows back to bytes, messages and files.
//!
//! - [`formats`] are what sources read: `json`, `txt`, `raw`.
//! - A [`RecordEncoder`] writes rows as messages or lines.
//! - A [`FileCodec`] writes files: lines with or without compression, Parquet. Its files go through a [`RetryWriter`], so that a full disk
//!   loses nothing.

pub mod encode;
pub mod file;
pub mod retry;

mod json;
mod raw;
mod txt;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use pseidon_plugin::format::Format;

pub use encode::{RecordEncoder, RecordFormat, Values};
pub use file::{CodecName, Compression, EncodeError, FileCodec, FileCodecSettings, FileEncoder};
pub use json::infer_json_schema;
pub use retry::RetryWriter;

/// All formats that records can be read in.
pub fn formats() -> Vec<Arc<dyn Format>> {
    vec![Arc::new(json::Json), Arc::new(txt::Txt), Arc::new(raw::Raw)]
}

/// For formats that take no settings.
fn no_settings(format: &str, settings: &str) -> Result<(), String> {
    if settings.is_empty() {
        return Ok(());
    }
    Err(format!("{format} takes no settings, but `{settings}` follows the colon"))
}
