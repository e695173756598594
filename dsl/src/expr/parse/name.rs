//! Names and strings without their quotes.

use pest::iterators::Pair;

use crate::expr::grammar::Rule;

/// A name without its quotes.
pub(super) fn name(pair: &Pair<'_, Rule>) -> String {
    let text = pair.as_str();
    match text.chars().next() {
        Some(quote @ ('"' | '`')) => unquoted(text, quote),
        _ => text.to_owned(),
    }
}

/// A text without its quotes; a doubled quote in it is a single one.
pub(super) fn unquoted(text: &str, quote: char) -> String {
    let inner = text
        .strip_prefix(quote)
        .and_then(|text| text.strip_suffix(quote))
        .unwrap_or(text);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}
