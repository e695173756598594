//! Strings in which values were substituted, and the errors about them: an error quotes the text of
//! the file, not a value, however short that is.

use std::iter;

use crate::node::Text;
use crate::{Diagnostic, Document, Span};

/// Shorter words are replaced only between quotes: they could be words of the message.
const SHORTEST_WORD: usize = 3;

/// A string with substituted values.
#[derive(Clone, Debug)]
pub struct FilledString {
    /// Its place in the file.
    pub span: Span,
    /// The string with the values.
    pub text: Text,
}

impl Document {
    /// The errors with the text of the file in place of the values that were substituted where an
    /// error is.
    pub fn conceal(&self, errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let concealed = errors.into_iter().map(|error| {
            // What an error of a named expression quotes can also be from where that is used.
            let places = || iter::once(error.span).chain(error.uses.iter().map(|used| used.span));
            let is_there = |filled: &&FilledString| {
                places()
                    .any(|place| filled.span.start <= place.end && place.start <= filled.span.end)
            };
            let filled = self.substituted.iter().filter(is_there);
            let words: Vec<_> = filled.flat_map(FilledString::words).collect();
            let conceal = |text: String| {
                words
                    .iter()
                    .fold(text, |text, (word, shown)| replace_word(&text, word, shown))
            };
            Diagnostic {
                message: conceal(error.message),
                label: conceal(error.label),
                help: error.help.map(conceal),
                ..error
            }
        });
        concealed.collect()
    }
}

impl FilledString {
    /// What a message can quote of the string, each with the text to show instead: the string, each
    /// word with a value, and each value.
    fn words(&self) -> Vec<(String, String)> {
        let value = &self.text.value;
        let of_values = self.text.filled.iter().flat_map(|filled| {
            let (start, end) = (filled.start as usize, filled.end as usize);
            let before = value[..start].trim_end_matches(is_of_word).len();
            let after = value[end..].trim_start_matches(is_of_word);
            [before..value.len() - after.len(), start..end]
        });
        let ranges = iter::once(0..value.len()).chain(of_values);
        let shown = ranges.map(|range| {
            let shown = self.text.unfilled(range.clone()).into_owned();
            (value[range].to_owned(), shown)
        });
        shown.filter(|(word, _)| !word.is_empty()).collect()
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces a word where it is not a part of another one.
fn replace_word(text: &str, word: &str, shown: &str) -> String {
    let is_short = word.chars().nth(SHORTEST_WORD - 1).is_none();
    let is_whole = |before: &str, after: &str| {
        let is_quote = |c| matches!(c, '`' | '\'' | '"');
        if is_short {
            return before.ends_with(is_quote) && after.starts_with(is_quote);
        }
        let begins = !(word.starts_with(is_of_word) && before.ends_with(is_of_word));
        begins && !(word.ends_with(is_of_word) && after.starts_with(is_of_word))
    };
    let mut replaced = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(word) {
        let end = start + word.len();
        if is_whole(&text[..start], &text[end..]) {
            replaced.extend([&text[copied..start], shown]);
            copied = end;
        }
    }
    replaced + &text[copied..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpolate::{self, LookupError};
    use crate::{NodeKind, document};

    #[test]
    fn an_error_quotes_the_text_of_the_file() {
        let text = r#"{:settings {:memory "${env:A}" :state "x${env:B}y ${env:A} ${env:C}"} pipeline (-> (stdin) (stdout))}"#;
        let mut document = document::from_edn(text).expect("valid");
        let mut values = |_: &str, name: &str| -> Result<String, LookupError> {
            Ok(match name {
                "A" => "abc",
                "B" => "ab.c",
                _ => "to",
            }
            .to_owned())
        };
        interpolate::document(&mut document, &mut values).expect("known");
        let NodeKind::Str(state) = &document.settings[1].2.kind else {
            panic!("a string");
        };
        let (memory, state) = (document.settings[0].2.span, state.span());
        for (span, message, shown) in [
            (memory, "abc is not a size", "${env:A} is not a size"),
            (
                memory,
                "`abcd` is not abc, xabc",
                "`abcd` is not ${env:A}, xabc",
            ),
            (state, "xab.cy", "x${env:B}y"),
            (state, "xab.cy abc to", "x${env:B}y ${env:A} ${env:C}"),
            (
                state,
                "'to' belongs to 'ab.c'",
                "'${env:C}' belongs to '${env:B}'",
            ),
            (Span::new(0, 1), "abc", "abc"),
        ] {
            let errors = vec![Diagnostic::new(span, message, message).with_help(message)];
            let concealed = document.conceal(errors).remove(0);
            let help = concealed.help.expect("it has one");
            assert_eq!([&*concealed.message, &concealed.label, &help], [shown; 3]);
        }
    }

    #[test]
    fn a_part_of_a_string_knows_what_was_substituted_in_it() {
        let mut document =
            document::from_edn(r#"{pipeline (-> (stdin) (select "a\\b ${env:X} c${env:Y}d"))}"#)
                .expect("valid");
        let mut values = |_: &str, name: &str| Ok(name.repeat(3));
        interpolate::document(&mut document, &mut values).expect("known");
        let text: &Text = &document.substituted[0].text;
        assert_eq!(text.value, "a\\b XXX cYYYd");
        assert_eq!(text.shown(), "a\\b ${env:X} c${env:Y}d");
        for (range, shown) in [
            (0..3, "a\\b"),
            (4..7, "${env:X}"),
            (5..9, "${env:X} c"),
            (3..13, " ${env:X} c${env:Y}d"),
        ] {
            assert_eq!(text.unfilled(range.clone()), shown);
            assert_eq!(text.slice(range.start, range.end).shown(), shown);
        }
    }
}
