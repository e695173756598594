//! Checks of quotes and nesting that run before the recursive grammar parses an expression.

use crate::Diagnostic;
use crate::node::Text;

/// The maximum nesting depth of parentheses, calls and `case`.
pub(super) const MAX_NESTING: usize = 64;

/// Checks that all quotes are closed and that nesting stays within the limit. Returns the first
/// error.
pub(super) fn check(text: &Text) -> Result<(), Diagnostic> {
    let mut depth = 0_usize;
    let mut rest = text.value.as_str();
    while let Some(next) = rest.chars().next() {
        let start = text.value.len() - rest.len();
        let length = token_length(rest, next).ok_or_else(|| {
            let kind = match next {
                '\'' => "string",
                '/' => "comment",
                _ => "name",
            };
            Diagnostic::new(
                text.span_of(start, start + 1),
                format!("unclosed {kind}"),
                format!("the {kind} starts here"),
            )
        })?;
        let (token, after) = rest.split_at(length);
        // A field named `case` or `end` is counted as well. The depth is only an estimate.
        if token == "(" || token.eq_ignore_ascii_case("case") {
            depth += 1;
        }
        if token == ")" || token.eq_ignore_ascii_case("end") {
            depth = depth.saturating_sub(1);
        }
        if depth > MAX_NESTING {
            let span = text.span_of(start, start + length);
            return Err(Diagnostic::new(
                span,
                format!("expression nested too deeply (limit: {MAX_NESTING} levels)"),
                "nesting limit exceeded here",
            ));
        }
        rest = after;
    }
    Ok(())
}

/// The length in bytes of a quoted string, a comment, a word or any other single character. `None`
/// for an unclosed quote or comment.
fn token_length(rest: &str, next: char) -> Option<usize> {
    if let Some(comment) = comment_length(rest) {
        return comment;
    }
    if matches!(next, '\'' | '"' | '`') {
        return rest.get(1..)?.find(next).map(|inner| inner + 2);
    }
    let in_word = |next: char| next.is_alphanumeric() || next == '_';
    let word = rest.find(|next| !in_word(next)).unwrap_or(rest.len());
    Some(word.max(next.len_utf8()))
}

/// The length in bytes of a comment at the beginning of `rest`. `None` if there is none, and
/// `Some(None)` if it is not closed.
pub(super) fn comment_length(rest: &str) -> Option<Option<usize>> {
    if rest.starts_with("--") {
        return Some(rest.find(['\n', '\r']).or(Some(rest.len())));
    }
    let inner = rest.strip_prefix("/*")?;
    Some(inner.find("*/").map(|end| end + "/**/".len()))
}
