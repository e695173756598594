//! What all grammars share: how a parser's own error becomes a mistake in words.

use pest::RuleType;
use pest::error::{Error, ErrorVariant, InputLocation};

use crate::Diagnostic;
use crate::node::Text;

/// The mistake that `error` tells of. `word` names a rule for the user (`a value`, `an operator`),
/// or not at all.
pub(crate) fn mistake<R: RuleType>(
    text: &Text,
    error: &Error<R>,
    word: impl Fn(R) -> Option<&'static str>,
) -> Diagnostic {
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
    };
    let found = token_at(&text.value, at);
    let span = text.span_of(at, at + found.len());
    let message = match found {
        "" => "the text ends too early".to_owned(),
        _ if text.secret => "this is not expected here".to_owned(),
        found => format!("`{found}` is not expected here"),
    };
    let ErrorVariant::ParsingError { positives, .. } = &error.variant else {
        return Diagnostic::new(span, message, "");
    };
    let mut expected: Vec<&str> = Vec::new();
    for name in positives.iter().filter_map(|rule| word(*rule)) {
        if !expected.contains(&name) {
            expected.push(name);
        }
    }
    Diagnostic::new(span, message, enumerate(&expected))
}

fn enumerate(expected: &[&str]) -> String {
    match expected {
        [] => String::new(),
        [only] => format!("expected {only}"),
        [first @ .., last] => format!("expected {} or {last}", first.join(", ")),
    }
}

/// The word, number or other character that begins at `at`.
fn token_at(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let word = rest
        .find(|next: char| !next.is_alphanumeric() && next != '_')
        .unwrap_or(rest.len());
    let length = if word > 0 {
        word
    } else {
        rest.chars().next().map_or(0, char::len_utf8)
    };
    rest.get(..length).unwrap_or_default()
}
