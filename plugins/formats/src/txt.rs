//! The format `txt`: text records.
//!
//! Without settings a record has one field, `line`, with the whole record as a string. With
//! settings (`txt:sep=tab;ts=0;msg=2:`) a record is split at a separator into fields. They are
//! decoded as an event time, a message and, if they have names, as individual fields.

mod fields;
mod line;
mod split;

use arrow::datatypes::SchemaRef;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Decoder, Format, WantedColumn};

use self::fields::FieldsDecoder;
use crate::event;
use crate::record_format::{RecordLayout, TxtLayout};

/// The format `txt`.
pub(crate) struct Txt;

impl Format for Txt {
    fn name(&self) -> &'static str {
        "txt"
    }

    fn summary(&self) -> &'static str {
        "Text. Without settings the whole record is the field `line`. `txt:sep=tab;ts=0;msg=2:` \
         splits the record at a separator into `ts`, `msg` and the fields that `fields=a,b` names."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        Ok(Some(match layout(settings)? {
            Some(layout) => event::schema(&layout.event),
            None => line::schema(),
        }))
    }

    fn infer(&self, _: &str, _: &[Payloads]) -> Result<SchemaRef, String> {
        Err("the fields of txt records are defined by their format; remove :schema".to_owned())
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

/// The layout of the fields; `None` if the whole record is one string.
fn layout(settings: &str) -> Result<Option<TxtLayout>, String> {
    match crate::layout("txt", settings)? {
        RecordLayout::Txt(layout) => Ok(Some(layout)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
