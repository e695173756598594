//! What must be right before the grammar may recurse over the text of an expression.

use crate::Diagnostic;
use crate::node::Text;

/// How deep parentheses, calls and `case` may nest.
pub(super) const MAX_NESTING: usize = 64;

/// The first quote that is never closed, or the place where too much is nested.
pub(super) fn check(text: &Text) -> Result<(), Diagnostic> {
    let mut depth = 0_usize;
    let mut rest = text.value.as_str();
    while let Some(next) = rest.chars().next() {
        let start = text.value.len() - rest.len();
        let length = token_length(rest, next).ok_or_else(|| {
            let kind = if next == '\'' { "text" } else { "name" };
            Diagnostic::new(
                text.span_of(start, start + 1),
                format!("this {kind} is never closed"),
                "the quote that begins it",
            )
        })?;
        let (token, after) = rest.split_at(length);
        // A field called `case` or `end` only makes the estimate a little wrong.
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
                format!("this nests more than {MAX_NESTING} levels deep"),
                "one level too deep",
            ));
        }
        rest = after;
    }
    Ok(())
}

/// The bytes of a quoted text, of a word, or of any other character; none for a quote that is never
/// closed.
fn token_length(rest: &str, next: char) -> Option<usize> {
    if matches!(next, '\'' | '"' | '`') {
        return rest.get(1..)?.find(next).map(|inner| inner + 2);
    }
    let in_word = |next: char| next.is_alphanumeric() || next == '_';
    let word = rest.find(|next| !in_word(next)).unwrap_or(rest.len());
    Some(word.max(next.len_utf8()))
}
