//! The settings of `csv` and `tsv`: the dialect, and the names of the fields.

use pseidon_plugin::framing::{Escape, Framing, Quotes};

use crate::record_format::{SEPARATORS, Settings};

/// How the fields of a record are written, and their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CsvLayout {
    /// The byte between two fields.
    pub(super) separator: u8,
    /// Whether the settings name the separator.
    pub(super) names_separator: bool,
    /// How fields in quotes are recognized; `None` if quotes have no meaning.
    pub(super) quotes: Option<Quotes>,
    /// The first byte of lines that are comments.
    pub(super) comment: Option<u8>,
    /// The texts that are NULL without quotes, besides the empty one.
    pub(super) nulls: Vec<String>,
    /// Whether a comma separates the digits of a fraction.
    pub(super) has_decimal_comma: bool,
    /// Where the names of the fields are.
    pub(super) names: FieldNames,
}

/// Where the names of the fields are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldNames {
    /// In the header of each file.
    InHeader,
    /// In the settings.
    Given {
        names: Vec<String>,
        /// Whether files have a header nevertheless, which is skipped.
        has_header: bool,
    },
    /// Nowhere: they are `column1`, `column2`, …
    Numbered,
}

const SETTINGS: [&str; 8] = [
    "sep", "quote", "escape", "comment", "null", "decimal", "header", "fields",
];

impl CsvLayout {
    /// Parses the part of a format after the colon. The error names the setting and says what was
    /// expected.
    pub(super) fn parse(format: &str, separator: u8, text: &str) -> Result<CsvLayout, String> {
        let settings = Settings::parse(format, &SETTINGS, text)?;
        let named = settings.get("sep").map(separator_of).transpose()?;
        let separator = named.unwrap_or(separator);
        let comment = settings.get("comment");
        let layout = CsvLayout {
            separator,
            names_separator: named.is_some(),
            quotes: quotes(&settings, separator)?,
            comment: comment.map(|it| character("comment", it)).transpose()?,
            nulls: settings.names("null")?,
            has_decimal_comma: one_of(&settings, "decimal", ["point", "comma"])? == Some("comma"),
            names: field_names(&settings)?,
        };
        layout.check()?;
        Ok(layout)
    }

    /// How records follow each other in a file.
    pub(super) fn framing(&self) -> Framing {
        Framing {
            quotes: self.quotes,
            comment: self.comment,
            has_header: match &self.names {
                FieldNames::InHeader => true,
                FieldNames::Given { has_header, .. } => *has_header,
                FieldNames::Numbered => false,
            },
            is_json: false,
        }
    }

    /// Whether a value without quotes is NULL.
    pub(super) fn is_null(&self, value: &[u8]) -> bool {
        value.is_empty() || self.nulls.iter().any(|null| null.as_bytes() == value)
    }

    /// Finds settings that contradict each other.
    fn check(&self) -> Result<(), String> {
        let quote = self.quotes.map(|quotes| quotes.quote);
        let escape = self.quotes.map(|quotes| quotes.escape);
        let shown = |byte: u8| char::from(byte);
        let same = |one: &str, other: &str, byte: u8| {
            let byte = shown(byte);
            Err(format!(
                "`{one}` and `{other}` are both `{byte}`; choose different characters"
            ))
        };
        if quote == Some(self.separator) {
            return same("sep", "quote", self.separator);
        }
        if let Some(comment) = self.comment {
            if comment == self.separator {
                return same("sep", "comment", comment);
            }
            if quote == Some(comment) {
                return same("quote", "comment", comment);
            }
        }
        let is_backslash = |byte: u8| byte == b'\\' && escape == Some(Escape::Backslash);
        if quote.is_some_and(is_backslash) || is_backslash(self.separator) {
            return Err(
                "with escape=backslash, a backslash is neither `sep` nor `quote`".to_owned(),
            );
        }
        if self.has_decimal_comma && self.separator == b',' && self.quotes.is_none() {
            return Err(
                "a decimal comma cannot be told from the separator without quotes; set `sep`, or \
                 remove quote=none"
                    .to_owned(),
            );
        }
        let has = |null: &&String| {
            let bytes = null.as_bytes();
            bytes.contains(&self.separator) || bytes.first().copied() == quote
        };
        match self.nulls.iter().find(has) {
            Some(null) => Err(format!(
                "the `null` value `{}` contains the separator or begins with a quote, so no field \
                 without quotes has it",
                crate::abbreviate(null)
            )),
            None => Ok(()),
        }
    }
}

/// The separator of this name, or the character itself.
pub(crate) fn separator_of(text: &str) -> Result<u8, String> {
    let named = SEPARATORS.iter().find(|(name, _)| *name == text);
    if let Some((_, byte)) = named {
        return Ok(*byte);
    }
    special(text).ok_or_else(|| {
        let names = SEPARATORS.map(|(name, _)| name).join(", ");
        let text = crate::abbreviate(text);
        format!("invalid `sep` value `{text}`; expected {names}, or one character such as `|`")
    })
}

/// The only character of a text, if it is ASCII and neither a letter, a digit, nor a control
/// character.
fn special(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_punctuation() => Some(*byte),
        _ => None,
    }
}

fn character(key: &str, text: &str) -> Result<u8, String> {
    special(text).ok_or_else(|| {
        format!(
            "invalid `{key}` value `{}`; expected one character such as `#`",
            crate::abbreviate(text)
        )
    })
}

fn quotes(settings: &Settings<'_>, separator: u8) -> Result<Option<Quotes>, String> {
    let escape = match one_of(settings, "escape", ["double", "backslash"])? {
        Some("backslash") => Escape::Backslash,
        _ => Escape::Doubled,
    };
    let quote = match settings.get("quote") {
        Some("none") if settings.get("escape").is_some() => {
            return Err("`escape` has no meaning with quote=none; remove one of them".to_owned());
        }
        Some("none") => return Ok(None),
        None | Some("double") => b'"',
        Some("single") => b'\'',
        Some(other) => special(other).ok_or_else(|| {
            format!(
                "invalid `quote` value `{}`; expected double, single, none, or one character",
                crate::abbreviate(other)
            )
        })?,
    };
    Ok(Some(Quotes {
        separator,
        quote,
        escape,
    }))
}

fn field_names(settings: &Settings<'_>) -> Result<FieldNames, String> {
    let names = settings.names("fields")?;
    let header = one_of(settings, "header", ["true", "false"])?;
    Ok(match (names.is_empty(), header) {
        (true, Some("false")) => FieldNames::Numbered,
        (true, _) => FieldNames::InHeader,
        (false, header) => FieldNames::Given {
            names,
            has_header: header == Some("true"),
        },
    })
}

/// The value of a setting that is one of two words.
fn one_of<'a>(
    settings: &Settings<'a>,
    key: &str,
    words: [&str; 2],
) -> Result<Option<&'a str>, String> {
    match settings.get(key) {
        Some(other) if !words.contains(&other) => Err(format!(
            "invalid `{key}` value `{}`; expected {} or {}",
            crate::abbreviate(other),
            words[0],
            words[1]
        )),
        found => Ok(found),
    }
}

/// The name of a field without a name, by its place from 0.
pub(super) fn numbered(place: usize) -> String {
    format!("column{}", place + 1)
}

/// The place of a field that is named by it.
pub(super) fn place_of(name: &str) -> Option<usize> {
    let place = name.strip_prefix("column")?.parse::<usize>().ok()?;
    let place = place.checked_sub(1)?;
    (numbered(place) == name).then_some(place)
}
