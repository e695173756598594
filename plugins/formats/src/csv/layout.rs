//! The settings of `csv` and `tsv`.

use crate::record_format::Settings;

/// How the fields of a record are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CsvLayout {
    /// The byte between two fields.
    pub(super) separator: u8,
    /// Whether the settings name the separator.
    pub(super) names_separator: bool,
    /// Whether a field may be in quotes.
    pub(super) has_quotes: bool,
    /// The names of the fields of records without a header.
    pub(super) fields: Option<Vec<String>>,
}

/// How to read records without a header.
const NO_HEADER: &str =
    "for a file without a header, set fields=a,b,c; otherwise remove the setting";

const SETTINGS: [&str; 3] = ["sep", "quote", "fields"];

impl CsvLayout {
    /// Parses the part of a format after the colon. The error names the setting and says what was
    /// expected.
    pub(super) fn parse(format: &str, separator: u8, text: &str) -> Result<CsvLayout, String> {
        let settings = Settings::parse(format, &SETTINGS, text).map_err(|error| {
            match text
                .split(';')
                .any(|it| it.trim_start().starts_with("header"))
            {
                true => format!("{format} has no setting `header`; {NO_HEADER}"),
                false => error,
            }
        })?;
        let has_quotes = match settings.get("quote") {
            None | Some("double") => true,
            Some("none") => false,
            Some(other) => {
                return Err(format!(
                    "invalid `quote` value `{}`; expected double or none",
                    crate::abbreviate(other)
                ));
            }
        };
        let fields = settings.names("fields")?;
        let named = settings.separator()?;
        Ok(CsvLayout {
            separator: named.unwrap_or(separator),
            names_separator: named.is_some(),
            has_quotes,
            fields: (!fields.is_empty()).then_some(fields),
        })
    }
}
