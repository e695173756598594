//! Characters that change what is shown around them, and their escapes.

use std::borrow::Cow;

/// The text on one line, with what would change the line escaped as in Rust: `\n`, `\u{1b}`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_printable(&mut escaped, c);
    }
    escaped.into()
}

/// Appends a character, escaped if it is not printable.
pub(crate) fn push_printable(out: &mut String, c: char) {
    if is_printable(c) {
        out.push(c);
    } else {
        out.extend(c.escape_default());
    }
}

/// Whether a character is shown as itself and changes nothing around it.
pub fn is_printable(c: char) -> bool {
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    let is_direction = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !(c.is_control() || is_separator || is_direction)
}
