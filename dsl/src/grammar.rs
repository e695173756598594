//! Parser errors as diagnostics, for all grammars of this crate.

use pest::RuleType;
use pest::error::{Error, ErrorVariant, InputLocation};

use crate::Diagnostic;
use crate::node::Text;

/// The diagnostic for a parser error. `word` returns the name of a rule for the user (`a value`,
/// `an operator`), or `None` for a rule that is not listed among the expected ones.
pub(crate) fn diagnostic<R: RuleType>(
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
        "" => "unexpected end of input".to_owned(),
        found => format!("unexpected `{found}`"),
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

/// The word or number that begins at `at`, or else the single character there.
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
