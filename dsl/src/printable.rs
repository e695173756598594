//! Text from outside, such as the value of a record, the name of a file or the answer of a server,
//! as it is printed in a terminal, a log or a page.
//!
//! Such a text can contain anything: a line end that forges a line of the log, a sequence that
//! clears the terminal or sets its title, a mark that reverses the order in which the rest of the
//! line is shown. Whatever prints it calls [`printable`], and [`beginning`] first if it can be
//! long.

use std::borrow::Cow;

/// The text with control characters, line and paragraph separators and marks of the writing
/// direction escaped as in Rust: `\n`, `\u{1b}`. It is one line that changes nothing around it.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_printable(&mut escaped, c);
    }
    escaped.into()
}

/// As [`printable`], for a message of several lines: line ends are kept.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| is_printable(c) || c == '\n') {
        return text.into();
    }
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    lines.join("\n").into()
}

/// As [`printable`], for JSON: what is escaped has the same value. Line ends between tokens are
/// kept.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let is_kept = |c| is_printable(c) || c == '\n';
    if json.chars().all(is_kept) {
        return json.into();
    }
    let escaped = json.chars().fold(String::new(), |mut out, c| {
        match is_kept(c) {
            true => out.push(c),
            false => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
        out
    });
    escaped.into()
}

/// The first characters of a text, with `…` for the rest.
pub fn beginning(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A message without the middle of a very long one.
pub fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 1000;
    const KEPT: usize = 300;

    if text.len() <= LONGEST {
        return text.into();
    }
    let begin = &text[..text.floor_char_boundary(KEPT)];
    let end = &text[text.ceil_char_boundary(text.len() - KEPT)..];
    format!("{begin} … {end}").into()
}

/// The reason why a record is invalid, with the beginning of each long value only. A value is in
/// single quotes.
pub fn short_reason(reason: &str) -> Cow<'_, str> {
    const LONGEST_VALUE: usize = 60;

    if reason.len() <= LONGEST_VALUE {
        return reason.into();
    }
    let mut short = String::new();
    let mut rest = reason;
    while let Some((before, value, after)) = next_value(rest) {
        short.extend([before, &beginning(value, LONGEST_VALUE), "'"]);
        rest = after;
    }
    short.push_str(rest);
    shortened(&short).into_owned().into()
}

/// The text up to the next value with its quote, the value, and the text after its quote. A quote
/// in a word is an apostrophe.
fn next_value(text: &str) -> Option<(&str, &str, &str)> {
    let mut quotes = text.match_indices('\'').map(|(at, _)| at);
    let opening = quotes.find(|at| !text[..*at].ends_with(char::is_alphanumeric))?;
    let closing = quotes.find(|at| !text[at + 1..].starts_with(char::is_alphanumeric))?;
    Some((
        &text[..=opening],
        &text[opening + 1..closing],
        &text[closing + 1..],
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_line_is_escaped() {
        let cases = [
            ("clicks é 日本 'x' \\", "clicks é 日本 'x' \\"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\u{0}"),
            ("\u{1b}[2J\u{1b}]0;t\u{7}", "\\u{1b}[2J\\u{1b}]0;t\\u{7}"),
            ("\u{9b}31m\u{85}\u{7f}", "\\u{9b}31m\\u{85}\\u{7f}"),
            ("a\u{2028}b\u{2029}", "a\\u{2028}b\\u{2029}"),
            (
                "\u{202e}gpj\u{2066}\u{2069}\u{200f}\u{61c}",
                "\\u{202e}gpj\\u{2066}\\u{2069}\\u{200f}\\u{61c}",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected, "{text:?}");
            assert!(printable(text).chars().all(is_printable), "{text:?}");
        }
        assert_eq!(printable_lines("a\n\u{1b}b\r\n"), "a\n\\u{1b}b\\r\n");
        assert_eq!(printable_lines("a\nb"), "a\nb");
        let json = "{\"a\": \"\u{9b}31m\u{202e}é\"}\n";
        assert_eq!(printable_json(json), "{\"a\": \"\\u009b31m\\u202eé\"}\n");
        assert_eq!(printable_json("[\"é\"]\n"), "[\"é\"]\n");
    }

    #[test]
    fn long_values_of_a_reason_are_cut() {
        let long = "ü".repeat(61);
        let cut = format!("{}…", "ü".repeat(60));
        let words = "it's the server's ".repeat(10);
        for (reason, expected) in [
            (
                "'12' is not a date".to_owned(),
                "'12' is not a date".to_owned(),
            ),
            (words.clone(), words),
            (
                format!("'{long}' and '{long}' are not equal to '12'"),
                format!("'{cut}' and '{cut}' are not equal to '12'"),
            ),
            (
                format!("'it's {long}' is not a date"),
                format!("'it's {}…' is not a date", "ü".repeat(55)),
            ),
            (
                format!("'{}{}", "a".repeat(1000), "b".repeat(1000)),
                format!("'{} … {}", "a".repeat(299), "b".repeat(300)),
            ),
        ] {
            assert_eq!(short_reason(&reason), expected, "{reason}");
        }
    }

    #[test]
    fn the_beginning_of_a_long_text_is_kept() {
        assert_eq!(beginning("", 3), "");
        assert_eq!(beginning("äöü", 3), "äöü");
        assert_eq!(beginning("äöüß", 3), "äöü…");
    }
}
