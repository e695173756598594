//! The options of CSV that is written.

use pseidon_plugin::options::{Argument, Choice, OptionValue, Options, ParseResult};
use pseidon_plugin::spec::OptionKind;

use crate::csv::separator_of;

/// How CSV and TSV are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Options)]
pub struct CsvOptions {
    /// Whether the first line has the names of the columns, which is the default.
    pub(super) header: Option<bool>,
    /// The separator: `comma`, `tab`, `semicolon`, `pipe`, `space`, `byte1`, or one character such
    /// as `"|"`. The default is a comma, and a tab for TSV.
    pub(super) sep: Option<CsvSeparator>,
    /// What is written for NULL. A string that is the same is written in quotes. The default is
    /// nothing, and the empty string is written in quotes in any case.
    pub(super) null: Option<String>,
    /// What separates the digits of a fraction, in floats and decimals: `:point`, the default, or
    /// `:comma`.
    pub(super) decimal: Option<DecimalMark>,
}

/// The byte between two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CsvSeparator(pub(super) u8);

impl OptionValue for CsvSeparator {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<CsvSeparator> {
        argument.checked(separator_of).map(CsvSeparator)
    }
}

/// What separates the digits of a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum DecimalMark {
    Point,
    Comma,
}

impl CsvOptions {
    /// Whether the first line has the names of the columns.
    pub(super) fn has_header(&self) -> bool {
        self.header.unwrap_or(true)
    }

    /// Whether fractions have a comma.
    pub(super) fn has_decimal_comma(&self) -> bool {
        self.decimal == Some(DecimalMark::Comma)
    }

    /// What is written for NULL.
    ///
    /// # Errors
    /// It could not be read back.
    pub(super) fn null(&self, separator: u8) -> Result<&str, String> {
        let null = self.null.as_deref().unwrap_or_default();
        let is_special = |byte: u8| byte == separator || b"\"\r\n".contains(&byte);
        match null.bytes().any(is_special) {
            true => Err(format!(
                "the text for NULL, `{}`, contains the separator, a quote or a line end",
                crate::abbreviate(null)
            )),
            false => Ok(null),
        }
    }
}
