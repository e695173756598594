//! Errors of the TOML parser, with what it leaves out.

use crate::node::Text;
use crate::{Diagnostic, Span};

/// The error for a text that is not TOML, from the parser's message.
pub(super) fn error(text: &str, message: &str, span: Span) -> Diagnostic {
    let message = message.lines().next().unwrap_or("invalid TOML");
    let found = text
        .get(span.start as usize..span.end as usize)
        .unwrap_or_default();
    if message.starts_with("duplicate key") {
        return Diagnostic::duplicate_key(found, span, first_key(text, found, span));
    }
    let error = Diagnostic::new(span, message, "invalid TOML");
    match is_in_double_quotes(text, span) {
        true => error.with_help(
            "a string that contains `\"` is written between `'''`: \
             '''(-> in (where \"a > 1\") out)'''",
        ),
        false => error,
    }
}

/// The error for a flow such as `in -> out`, with arrows between its stages.
pub(super) fn without_parentheses(flow: &Text, span: Span) -> Option<Diagnostic> {
    let text = flow.value.trim();
    if text.starts_with(['(', '[', '{', ';']) || !text.contains(char::is_whitespace) {
        return None;
    }
    let arrows = ["->", "->>", "|", "|>", "=>"];
    let stages: Vec<&str> = text
        .split_whitespace()
        .map(|stage| stage.trim_end_matches(','))
        .filter(|stage| !arrows.contains(stage))
        .collect();
    let error = Diagnostic::new(
        span,
        "a flow is written in parentheses",
        "expected \"(-> …)\"",
    );
    Some(error.with_help(format!("write \"(-> {})\"", stages.join(" "))))
}

/// The place of the key before `second` that has the same name: at the beginning of a line, or the
/// last part of the header of a table.
fn first_key(text: &str, name: &str, second: Span) -> Option<Span> {
    let mut start = 0;
    let mut found = None;
    let before = text.get(..second.start as usize)?;
    for line in before.split_inclusive('\n') {
        let header = line.trim().trim_matches(['[', ']']);
        let (key, is_value) = match line.split_once('=') {
            Some((key, _)) => (key.trim(), true),
            None => (header, line.trim_start().starts_with('[')),
        };
        let last = key.rsplit('.').next().unwrap_or(key).trim();
        if is_value
            && last == name
            && let Some(at) = line.find(last)
        {
            let at = if line.trim_start().starts_with('[') {
                line.rfind(last).unwrap_or(at)
            } else {
                at
            };
            found = Some(Span::new(start + at, start + at + name.len()));
        }
        start += line.len();
    }
    found
}

/// Whether an error is behind a string in double quotes on its line, as if the string had ended
/// early.
fn is_in_double_quotes(text: &str, span: Span) -> bool {
    let at = text.floor_char_boundary((span.start as usize).min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let is_value = line.split_once('=').is_some_and(|(_, value)| {
        let value = value.trim_start();
        value.starts_with('"') && !value.starts_with("\"\"\"")
    });
    is_value && line.matches('"').count() > 2
}
