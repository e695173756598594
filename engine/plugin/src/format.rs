//! Formats: decoding a record's bytes into the fields that the plan needs.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use pseidon_delivery::Reason;
use pseidon_dsl::expr::Path;

use crate::batch::Payloads;
use crate::framing::Framing;
use crate::options::{Argument, OptionValue, ParseResult};
use crate::places::FieldPlaces;
use crate::rows::{BadRow, Rows};
use crate::secret::hosts_of_urls;
use crate::spec::OptionKind;

/// The layout of a record's bytes. A source's `:format` is the format's name, or `name:k=v;k=v`
/// with its settings.
pub trait Format: Send + Sync {
    /// The name in `:format`, such as `json`.
    fn name(&self) -> &'static str;

    /// One sentence, for lists.
    fn summary(&self) -> &'static str;

    /// Whether a record has bytes. If not, as in Parquet, only a source that
    /// [reads columns](crate::source::SourceFacts::reads_columns) has records of this format, and
    /// what it has are [columns](Payloads::columns).
    fn has_bytes(&self) -> bool {
        true
    }

    /// The fields that every record has in this format with these settings (the part after the
    /// colon, or empty), if the format itself determines them. An error names the setting and says
    /// what was expected.
    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String>;

    /// How records follow each other in a file, with valid settings.
    fn framing(&self, _settings: &str) -> Framing {
        Framing::default()
    }

    /// The fields of these records, for `:schema :infer`. An error says why they cannot be
    /// determined.
    fn infer(&self, settings: &str, samples: &[Payloads]) -> Result<SchemaRef, String>;

    /// The settings with the names of all fields in their order, for records that have no names and
    /// settings that name none. `schema` is that of the source. An error says why it cannot name
    /// them. `None` if the fields have names.
    fn named(&self, _settings: &str, _schema: &Schema) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// The settings with which these records have more than one field, if they have only one
    /// without settings. `pseidon infer` calls it.
    fn other_settings(&self, _samples: &[Payloads]) -> Option<String> {
        None
    }

    /// Creates a decoder for these columns. An error says which column cannot be decoded, and why.
    fn decoder(&self, settings: &str, columns: &[WantedColumn])
    -> Result<Box<dyn Decoder>, String>;

    /// Creates an editor that changes these fields of a record and leaves its other bytes as they
    /// are. The paths do not overlap. An error says why it cannot.
    fn editor(&self, _changes: &[FieldChange]) -> Result<Arc<dyn Editor>, String> {
        Err(format!(
            "the fields of {} records cannot be changed in place; set :schema :infer at the source, \
             or `select` the columns first",
            self.name()
        ))
    }
}

/// A change of a field. A path is the names from the outermost object to the field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldChange {
    /// Sets a field to the value of the next column of values, and adds it if it is missing.
    Set {
        /// The field. Missing objects on the way to it are created.
        path: Vec<String>,
        /// The type of the values.
        field: FieldRef,
    },
    /// Removes a field.
    Remove {
        /// The field. A record without it is not changed.
        path: Vec<String>,
    },
    /// Moves a field to another name or object. Without the field, nothing is changed.
    Rename {
        /// The field before the change.
        from: Vec<String>,
        /// Its new place; a field that is there is replaced.
        to: Vec<String>,
    },
}

impl FieldChange {
    /// The path of the field that is removed or renamed. Without it, nothing is changed.
    pub fn expected_path(&self) -> Option<&Vec<String>> {
        match self {
            FieldChange::Set { .. } => None,
            FieldChange::Remove { path } | FieldChange::Rename { from: path, .. } => Some(path),
        }
    }

    /// The paths of the fields that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        let (one, other) = match self {
            FieldChange::Set { path, .. } | FieldChange::Remove { path } => (path, None),
            FieldChange::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(one).chain(other).map(Vec::as_slice)
    }
}

/// `sets user.age int64`, for plans.
impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldChange::Set { path, field } => {
                write!(f, "sets {} {}", path.join("."), field_type_name(field))
            }
            FieldChange::Remove { path } => write!(f, "removes {}", path.join(".")),
            FieldChange::Rename { from, to } => {
                write!(f, "renames {} to {}", from.join("."), to.join("."))
            }
        }
    }
}

/// Changes fields of records. Shared by threads.
pub trait Editor: Send + Sync {
    /// The fields of the record itself that are changed or have a changed part. The rows may have
    /// the [places](Rows::places) of these.
    fn fields(&self) -> Vec<String>;

    /// Returns the changed bytes of each row, in the order of the rows. `values` has a column for
    /// each [`FieldChange::Set`], in their order.
    ///
    /// # Errors
    /// The columns do not have the declared types, or the result is too large
    /// ([`ArrowError::MemoryError`]).
    fn edit(&self, rows: &Rows, values: &[ArrayRef]) -> Result<EditedRecords, ArrowError>;

    /// The paths that are removed or renamed and that no record had so far. `None` if no record was
    /// edited.
    fn absent(&self) -> Option<Vec<Vec<String>>>;
}

/// The result of changing fields.
#[derive(Debug)]
pub struct EditedRecords {
    /// The bytes of all rows.
    pub payloads: Payloads,
    /// Rows that could not be changed; their bytes are unspecified.
    pub bad: Vec<BadRow>,
}

/// The format of a source's records, as its `:format` has it: `json`, or `name:settings`. It is
/// printed with the host only of a URL in the settings.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFormat(String);

impl SourceFormat {
    /// The name of the [`Format`].
    pub fn name(&self) -> &str {
        self.split().0
    }

    /// The part after the colon, which may contain a password. Empty without a colon.
    pub fn settings(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }
}

impl<T: Into<String>> From<T> for SourceFormat {
    fn from(text: T) -> SourceFormat {
        SourceFormat(text.into())
    }
}

impl fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hosts_of_urls(&self.0))
    }
}

impl fmt::Debug for SourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", hosts_of_urls(&self.0))
    }
}

impl OptionValue for SourceFormat {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<SourceFormat> {
        argument.scalar().map(SourceFormat)
    }

    fn identity(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A field that the plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedColumn {
    /// The path of the field in the record.
    pub path: Path,
    /// The column's name and type. A column of the extension type `arrow.json` (see [`json_field`])
    /// gets the JSON text of the value.
    pub field: FieldRef,
}

/// Decodes batches of records. Used by one thread at a time.
pub trait Decoder: Send {
    /// Prepares decoding these records without a request to anything else. Returns `false` if
    /// something is missing, such as a schema: then [`Decoder::prepare`] is called on a thread that
    /// it may block.
    fn prepare_locally(&mut self, _payloads: &Payloads) -> bool {
        true
    }

    /// Fetches what decoding these records needs from elsewhere, such as their schemas. Either this
    /// or [`Decoder::prepare_locally`] has succeeded before [`Decoder::decode`] is called. May
    /// block until a request is answered or expires, but does not repeat it: an error says why
    /// something is not available now, and the batch is re-read later.
    fn prepare(&mut self, _payloads: &Payloads) -> Result<(), Reason> {
        Ok(())
    }

    /// Asks for the places of these fields of the record itself in all records that are decoded
    /// from now on. A decoder may know none.
    fn locate(&mut self, _fields: &[String]) {}

    /// Returns one value for each record and wanted column. A field that is missing or null becomes
    /// null. A record that is not of the format, or whose value does not fit its column, is
    /// invalid: it is listed in the result, and its values are null.
    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns;
}

/// The result of decoding a batch.
#[derive(Debug)]
pub struct DecodedColumns {
    /// The columns, in the order of the wanted columns.
    pub columns: Vec<ArrayRef>,
    /// Invalid records, in order.
    pub bad: Vec<BadRow>,
    /// The [located](Decoder::locate) fields of each record, if they are known.
    pub places: Option<FieldPlaces>,
}

impl DecodedColumns {
    /// Columns of records whose fields are not located.
    pub fn new(columns: Vec<ArrayRef>, bad: Vec<BadRow>) -> DecodedColumns {
        DecodedColumns {
            columns,
            bad,
            places: None,
        }
    }
}

use pseidon_expr::types::field_type_name;
pub use pseidon_expr::types::{is_json, json_field};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_printed_without_the_login_of_its_registry() {
        let format = SourceFormat::from("avro-txt:ts=0;registry=http://u:hidden@r:8081");
        assert_eq!(format.name(), "avro-txt");
        assert_eq!(format.settings(), "ts=0;registry=http://u:hidden@r:8081");
        let shown = "avro-txt:ts=0;registry=http://…@r:8081";
        assert_eq!(format.to_string(), shown);
        assert_eq!(format!("{format:?}"), format!("{shown:?}"));
        assert_eq!(SourceFormat::from("json").settings(), "");
    }
}
