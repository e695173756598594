//! The formats `csv` and `tsv`: fields between separators, as in RFC 4180.
//!
//! The header of a file names the fields, so a column is found by its name, whatever its place in a
//! file. Without a header, the setting `fields` or the schema of the source names them, or they are
//! `column1`, `column2`, … The dialect, such as another quote, is in the settings too. An empty
//! field is NULL, and an empty one in quotes (`""`) is the empty string. A field without a declared
//! type is a string.

mod columns;
mod fields;
mod infer;
mod layout;
mod sniff;

use arrow::datatypes::{Schema, SchemaRef};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Decoder, Format, WantedColumn};
use pseidon_plugin::framing::Framing;

use self::columns::CsvDecoder;
pub(crate) use self::layout::separator_of;
use self::layout::{CsvLayout, FieldNames, place_of};

/// The format `csv` or `tsv`.
pub(crate) struct Csv {
    name: &'static str,
    summary: &'static str,
    /// The separator if the settings name none.
    separator: u8,
}

impl Csv {
    /// Fields between commas.
    pub(crate) const CSV: Csv = Csv {
        name: "csv",
        summary: "Comma-separated values with a header that names the fields. `csv:sep=semicolon` \
                  sets the separator, `header=false` and `fields=a,b` are for records without a \
                  header, and `quote`, `escape`, `comment`, `null` and `decimal` for other dialects.",
        separator: b',',
    };

    /// Fields between tabs.
    pub(crate) const TSV: Csv = Csv {
        name: "tsv",
        summary: "Tab-separated values; otherwise like `csv`.",
        separator: b'\t',
    };

    fn layout(&self, settings: &str) -> Result<CsvLayout, String> {
        CsvLayout::parse(self.name, self.separator, settings)
    }
}

impl Format for Csv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        // The header is not known before the files are read.
        self.layout(settings).map(|_| None)
    }

    fn framing(&self, settings: &str) -> Framing {
        let layout = self.layout(settings);
        layout.map_or_else(|_| Framing::default(), |layout| layout.framing())
    }

    fn named(&self, settings: &str, schema: &Schema) -> Result<Option<String>, String> {
        if self.layout(settings)?.names != FieldNames::Numbered {
            return Ok(None);
        }
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let names: Vec<&str> = names.collect();
        for (place, name) in names.iter().enumerate() {
            if place_of(name).is_some_and(|other| other != place) {
                let place = place + 1;
                return Err(format!(
                    "without a header, :schema names all fields in their order, but `{name}` is \
                     field {place} of it"
                ));
            }
            if name.is_empty() || name.contains([',', ';']) || name.contains(char::is_whitespace) {
                return Err(format!(
                    "without a header, the name `{name}` has a comma, a semicolon or white space; \
                     rename it in :schema"
                ));
            }
        }
        Ok(Some(format!("{settings};fields={}", names.join(","))))
    }

    fn infer(&self, settings: &str, samples: &[Payloads]) -> Result<SchemaRef, String> {
        let layout = self.layout(settings)?;
        let headers = samples.iter().filter_map(Payloads::header);
        for header in headers.filter(|_| !layout.names_separator) {
            if let Some(name) = sniff::other_separator(header, &layout) {
                return Err(other_separator(self.name, header, name));
            }
        }
        infer::infer(&layout, samples)
    }

    fn other_settings(&self, samples: &[Payloads]) -> Option<String> {
        let layout = self.layout("").ok()?;
        let headers = samples.iter().filter_map(Payloads::header);
        let name = headers.filter_map(|header| sniff::other_separator(header, &layout));
        name.map(|name| format!("sep={name}")).next()
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        let decoder = CsvDecoder::new(self.layout(settings)?, columns)?;
        Ok(Box::new(decoder))
    }
}

/// The error for a header that is a single field and has another separator.
fn other_separator(format: &str, header: &[u8], name: &str) -> String {
    let header = String::from_utf8_lossy(header);
    format!(
        "the header `{}` is a single field; if its separator is a {name}, set :format \
         \"{format}:sep={name}\"",
        crate::abbreviate(&header)
    )
}

#[cfg(test)]
mod tests;
