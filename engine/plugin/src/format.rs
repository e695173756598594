//! Formats: from a record's bytes to the fields that the plan asks for.

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use bytes::Bytes;
use pseidon_dsl::expr::Path;

use crate::batch::Payloads;
use crate::rows::BadRow;

/// How records are laid out in bytes. A source's `:format` is the format's name, or `name:k=v;k=v`
/// with its settings.
pub trait Format: Send + Sync {
    /// The format's name.
    fn name(&self) -> &'static str;

    /// One sentence, for lists.
    fn summary(&self) -> &'static str;

    /// The fields every record has in this format with these settings (what follows the colon, or
    /// nothing), if the format itself says so. An error names the setting and says what was
    /// expected.
    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String>;

    /// The fields that these records have, for `:schema :infer`. An error says why they cannot be
    /// found.
    fn infer(&self, samples: &[Bytes]) -> Result<SchemaRef, String>;

    /// A decoder for these columns. An error says which column cannot be had, and why.
    fn decoder(&self, settings: &str, columns: &[WantedColumn])
    -> Result<Box<dyn Decoder>, String>;
}

/// A field that the plan asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedColumn {
    /// Where it is in the record.
    pub path: Path,
    /// Its name and type. A column of the extension type `arrow.json` (see [`json_field`]) gets the
    /// value's own text.
    pub field: FieldRef,
}

/// Decodes the records of one batch after another; each ETL thread has its own.
pub trait Decoder: Send {
    /// Gets what it takes from elsewhere to decode these records, such as their schemas. It is
    /// called before [`Decoder::decode`], and does not wait for what cannot be had just now: an
    /// error says why that is so, and the batch is read again later.
    fn prepare(&mut self, _payloads: &Payloads) -> Result<(), String> {
        Ok(())
    }

    /// Gives one value for each record and wanted column. A field that is missing or null is null.
    /// A record that is not of the format, or whose value does not fit its column, is bad: it is
    /// named, and its values are null.
    fn decode(&mut self, payloads: &Payloads) -> Decoded;
}

/// What a decoder gives.
#[derive(Debug)]
pub struct Decoded {
    /// In the order of the wanted columns.
    pub columns: Vec<ArrayRef>,
    /// Bad records, in order.
    pub bad: Vec<BadRow>,
}

pub use pseidon_expr::types::{is_json, json_field};
