//! A check that delimiters match and do not nest too deeply.
//!
//! It runs before the grammar for two reasons. A recursive parser must not process text that nests
//! without bounds. And "unclosed `[`" helps a user more than what was expected at the end of the
//! file.

use crate::{Diagnostic, Span};

/// The maximum nesting depth of collections, tags and discards.
pub(super) const MAX_DEPTH: usize = 128;

/// Whether strings in single quotes are accepted, as in a flow on the command line or in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// Double quotes only, as in EDN.
    Double,
    /// Single or double quotes.
    Any,
}

/// A form that is not complete yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenForm {
    /// A collection, with the character that closes it.
    Collection {
        closer: char,
        at: usize,
        width: usize,
    },
    /// `#tag`, which is one form together with the next form.
    Tag,
    /// `#_`, which discards the next form.
    Discard,
}

/// The errors in the delimiters of `text`, in source order.
pub(super) fn check(text: &str, quotes: Quotes) -> Vec<Diagnostic> {
    let mut scanner = Scanner {
        text,
        at: 0,
        quotes,
        open: Vec::new(),
        errors: Vec::new(),
    };
    scanner.run();
    scanner.errors.sort_by_key(|error| error.span);
    scanner.errors
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    quotes: Quotes,
    open: Vec<OpenForm>,
    errors: Vec<Diagnostic>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while let Some(next) = self.rest().chars().next() {
            match next {
                ';' => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                '"' => self.string(),
                '\'' => self.quoted(),
                '(' => self.push(')', 1),
                '[' => self.push(']', 1),
                '{' => self.push('}', 1),
                ')' | ']' | '}' => self.close(next),
                '#' => self.dispatch(),
                '\\' => self.character(),
                _ if next == ',' || next.is_whitespace() => self.at += next.len_utf8(),
                _ => self.token(),
            }
            if self.open.len() > MAX_DEPTH {
                let span = Span::new(self.at.saturating_sub(1), self.at);
                let error = Diagnostic::new(
                    span,
                    format!("nested too deeply (limit: {MAX_DEPTH} levels)"),
                    "nesting limit exceeded here",
                );
                self.errors.push(error);
                return;
            }
        }
        while let Some(open) = self.open.pop() {
            self.report_unclosed(open, None);
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, closer: char, width: usize) {
        self.open.push(OpenForm::Collection {
            closer,
            at: self.at,
            width,
        });
        self.at += width;
    }

    fn close(&mut self, found: char) {
        let here = Span::new(self.at, self.at + 1);
        self.at += 1;
        let fits = |open: &OpenForm| match open {
            OpenForm::Collection { closer, .. } => *closer == found,
            OpenForm::Tag | OpenForm::Discard => false,
        };
        if !self.open.iter().any(fits) {
            self.errors.push(Diagnostic::new(
                here,
                format!("unmatched `{found}`"),
                "no open delimiter matches it",
            ));
            return;
        }
        while let Some(open) = self.open.pop() {
            if fits(&open) {
                break;
            }
            self.report_unclosed(open, Some(found));
        }
        self.complete_form();
    }

    fn report_unclosed(&mut self, open: OpenForm, found: Option<char>) {
        let OpenForm::Collection { closer, at, width } = open else {
            return;
        };
        let span = Span::new(at, at + width);
        let opener = self.text.get(at..at + width).unwrap_or_default();
        let label = match found {
            Some(found) => format!("expected `{closer}` before the next `{found}`"),
            None => format!("expected `{closer}` before the end of the input"),
        };
        self.errors
            .push(Diagnostic::new(span, format!("unclosed `{opener}`"), label));
    }

    /// Called when a form is complete. This also completes the tags before it, or the discard that
    /// removes it.
    fn complete_form(&mut self) {
        while let Some(OpenForm::Tag | OpenForm::Discard) = self.open.last() {
            if self.open.pop() == Some(OpenForm::Discard) {
                return;
            }
        }
    }

    /// Skips a string in double quotes, or the quoted part of a regular expression.
    fn string(&mut self) {
        let start = self.at;
        let mut escaped = false;
        let closing = self.rest().char_indices().skip(1).find(|(_, next)| {
            let closes = *next == '"' && !escaped;
            escaped = *next == '\\' && !escaped;
            closes
        });
        self.end_string(start, closing.map(|(offset, _)| offset));
    }

    fn quoted(&mut self) {
        let start = self.at;
        if self.quotes == Quotes::Double {
            let span = Span::new(start, start + 1);
            self.errors.push(
                Diagnostic::new(
                    span,
                    "a string is written in double quotes here",
                    "expected `\"`",
                )
                .with_help("write \"…\""),
            );
        }
        // A doubled quote is scanned as the end of one string and the start of the next: the
        // delimiters match either way.
        let closing = self
            .rest()
            .char_indices()
            .skip(1)
            .find(|(_, next)| *next == '\'');
        self.end_string(start, closing.map(|(offset, _)| offset));
    }

    fn end_string(&mut self, start: usize, closing: Option<usize>) {
        match closing {
            Some(offset) => {
                self.at += offset + 1;
                let doubled = self
                    .text
                    .get(start..)
                    .is_some_and(|text| text.starts_with('\''))
                    && self.rest().starts_with('\'');
                if !doubled {
                    self.complete_form();
                }
            }
            None => {
                let error = Diagnostic::new(
                    Span::new(start, start + 1),
                    "unclosed string",
                    "the string starts here",
                );
                self.errors.push(error);
                self.at = self.text.len();
                self.open.clear();
            }
        }
    }

    fn character(&mut self) {
        self.at += 1;
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
        self.token();
    }

    fn dispatch(&mut self) {
        let after = self.rest().get(1..).unwrap_or_default();
        match after.chars().next() {
            Some('{') => self.push('}', 2),
            Some('_') => {
                self.open.push(OpenForm::Discard);
                self.at += 2;
            }
            Some('"') => self.at += 1,
            Some('r') if after.starts_with("r\"") => self.at += 2,
            Some(next) if next.is_alphabetic() => {
                self.open.push(OpenForm::Tag);
                self.at += self.token_length();
            }
            _ => self.token(),
        }
    }

    fn token(&mut self) {
        self.at += self.token_length();
        self.complete_form();
    }

    fn token_length(&self) -> usize {
        let ends = |next: char| next.is_whitespace() || ",()[]{}\";".contains(next);
        self.rest().find(ends).unwrap_or(self.rest().len())
    }
}
