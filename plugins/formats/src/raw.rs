//! `raw`: bytes that nobody looks into.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Decoded, Decoder, Format, WantedColumn};

/// The format.
pub(crate) struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn summary(&self) -> &'static str {
        "Bytes without fields: records are only passed on."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        crate::no_settings(self.name(), settings)?;
        Ok(Some(Arc::new(Schema::empty())))
    }

    fn decoder(&self, settings: &str, columns: &[WantedColumn]) -> Result<Box<dyn Decoder>, String> {
        crate::no_settings(self.name(), settings)?;
        match columns.first() {
            Some(column) => Err(format!("raw records have no fields, so there is no `{}`; :format \"json\" or \"txt\" has", column.path)),
            None => Ok(Box::new(RawDecoder)),
        }
    }
}

struct RawDecoder;

impl Decoder for RawDecoder {
    fn decode(&mut self, _: &Payloads) -> Decoded {
        Decoded { columns: Vec::new(), bad: Vec::new() }
    }
}
