//! Text from outside, such as the value of a record, the name of a file or the answer of a server,
//! as it is printed in a terminal, a log or a page.
//!
//! Such a text can contain anything: a line end that forges a line of the log, a sequence that
//! clears the terminal or sets its title, a mark that reverses the order in which the rest of the
//! line is shown. It can also contain a secret of the pipeline file, which another program repeats.
//! Whatever prints it calls [`printable`], and [`beginning`] first if it can be long.

use std::borrow::Cow;

use crate::conceal::conceal;
use crate::escape::escape;
pub use crate::escape::is_printable;

/// The text with [values that were filled in](mod@crate::conceal) concealed, and with control
/// characters, line and paragraph separators and marks of the writing direction escaped as in Rust:
/// `\n`, `\u{1b}`. It is one line that changes nothing around it.
pub fn printable(text: &str) -> Cow<'_, str> {
    then(conceal(text), escape)
}

/// As [`printable`], for a message of several lines: line ends are kept.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    then(conceal(text), |text| {
        if text.chars().all(|c| is_printable(c) || c == '\n') {
            return text.into();
        }
        let lines: Vec<_> = text.split('\n').map(escape).collect();
        lines.join("\n").into()
    })
}

/// As [`printable`], for JSON: what is escaped has the same value. Line ends between tokens are
/// kept. Only strings are concealed, not keys, and not the values of the keys `own_words`, which the
/// program itself has chosen.
pub fn printable_json<'t>(json: &'t str, own_words: &[&str]) -> Cow<'t, str> {
    then(concealed_json(json, own_words), |json| {
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
    })
}

/// Changes a text that may have been changed before.
fn then(text: Cow<'_, str>, change: impl Fn(&str) -> Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => change(text),
        Cow::Owned(text) => change(&text).into_owned().into(),
    }
}

/// JSON with the values in its strings concealed, except after the keys `own_words`.
fn concealed_json<'t>(json: &'t str, own_words: &[&str]) -> Cow<'t, str> {
    let mut shown = String::new();
    let (mut copied, mut key) = (0, "");
    let mut at = 0;
    while let Some(start) = json[at..].find('"').map(|quote| at + quote) {
        let end = end_of_string(json, start);
        let token = &json[start..end];
        at = end;
        if json[end..].trim_start().starts_with(':') {
            key = token.trim_matches('"');
            continue;
        }
        if own_words.contains(&key) {
            continue;
        }
        let Ok(text) = serde_json::from_str::<String>(token) else {
            continue;
        };
        if let Cow::Owned(concealed) = conceal(&text) {
            shown.push_str(&json[copied..start]);
            shown.push_str(&serde_json::Value::from(concealed).to_string());
            copied = end;
        }
    }
    match copied {
        0 => json.into(),
        _ => (shown + &json[copied..]).into(),
    }
}

/// The end of the JSON string that begins at `start`, behind its quote.
fn end_of_string(json: &str, start: usize) -> usize {
    let mut is_escaped = false;
    let content = json.bytes().enumerate().skip(start + 1);
    for (at, byte) in content {
        match byte {
            b'"' if !is_escaped => return at + 1,
            b'\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    json.len()
}

/// The first characters of a text, with `…` for the rest. Values that were filled in are concealed
/// before: a part of one would not be found any more.
pub fn beginning(text: &str, max_chars: usize) -> Cow<'_, str> {
    then(conceal(text), |text| {
        match text.char_indices().nth(max_chars) {
            Some((end, _)) => format!("{}…", &text[..end]).into(),
            None => text.into(),
        }
    })
}

/// A message without the middle of a very long one, and without values that were filled in.
pub fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 1000;
    const KEPT: usize = 300;

    then(conceal(text), |text| {
        if text.len() <= LONGEST {
            return text.into();
        }
        let begin = &text[..text.floor_char_boundary(KEPT)];
        let end = &text[text.ceil_char_boundary(text.len() - KEPT)..];
        format!("{begin} … {end}").into()
    })
}

/// The reason why a record is invalid, with the beginning of each long value only, and without
/// values that were filled in. A value is in single quotes.
pub fn short_reason(reason: &str) -> Cow<'_, str> {
    then(conceal(reason), with_short_values)
}

fn with_short_values(reason: &str) -> Cow<'_, str> {
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
        assert_eq!(
            printable_json(json, &[]),
            "{\"a\": \"\\u009b31m\\u202eé\"}\n"
        );
        assert_eq!(printable_json("[\"é\"]\n", &[]), "[\"é\"]\n");
    }

    #[test]
    fn only_strings_of_json_are_concealed() {
        crate::conceal::register("${env:OF_JSON}", "n0-secret").expect("it is short");
        crate::conceal::register("${env:WORD_OF_JSON}", "walking").expect("it is short");
        let json = r#"{"state": "walking", "n0-secret" : ["n0-secret", "a\\n0-secret", "\n0-secret",
            "\\\"n0-secret\\"], "text": "walking", "n": 1}"#;
        let shown = r#"{"state": "walking", "n0-secret" : ["${env:OF_JSON}", "a\\${env:OF_JSON}", "\n0-secret",
            "\\\"${env:OF_JSON}\\"], "text": "${env:WORD_OF_JSON}", "n": 1}"#;
        assert_eq!(printable_json(json, &["state"]), shown);
        assert_eq!(printable_json("\"n0-secret", &[]), "\"n0-secret");
    }

    #[test]
    fn a_value_is_concealed_before_a_text_is_cut() {
        let value = "s3cret".repeat(100);
        crate::conceal::register("${env:LONG}", &value).expect("it is short");
        assert_eq!(printable(&value), "${env:LONG}");
        assert_eq!(printable_lines(&format!("a\n{value}")), "a\n${env:LONG}");
        assert_eq!(beginning(&value, 20), "${env:LONG}");
        assert_eq!(
            shortened(&format!("{value}{value}")),
            "${env:LONG}${env:LONG}"
        );
        let reason = format!("'{value}' is not a date");
        assert_eq!(short_reason(&reason), "'${env:LONG}' is not a date");
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
