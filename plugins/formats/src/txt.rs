//! `txt`: text records.
//!
//! Without settings a record is one text, its field `line`. With settings
//! (`txt:sep=tab;ts=0;msg=2:`) it is fields between separators, of which an event time, a message
//! and, where they have names, the fields themselves can be had.

mod fields;
mod line;
mod split;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use pseidon_plugin::format::{Decoder, Format, WantedColumn};

use self::fields::FieldsDecoder;
use crate::event;
use crate::record_format::{RecordLayout, TxtLayout};

/// The format.
pub(crate) struct Txt;

impl Format for Txt {
    fn name(&self) -> &'static str {
        "txt"
    }

    fn summary(&self) -> &'static str {
        "Text: the record is its only field, `line`. `txt:sep=tab;ts=0;msg=2:` splits it at a separator into `ts`, `msg` and the fields that \
         `fields=a,b` names."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        Ok(Some(match layout(settings)? {
            Some(layout) => event::schema(&layout.event),
            None => line::schema(),
        }))
    }

    fn infer(&self, _samples: &[Bytes]) -> Result<SchemaRef, String> {
        Err("txt records have the same fields always; leave :schema out".to_owned())
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        match layout(settings)? {
            Some(layout) => Ok(Box::new(FieldsDecoder::new(layout, columns)?)),
            None => line::decoder(columns),
        }
    }
}

/// How fields are laid out; nothing for records that are one text.
fn layout(settings: &str) -> Result<Option<TxtLayout>, String> {
    match crate::layout("txt", settings)? {
        RecordLayout::Txt(layout) => Ok(Some(layout)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
