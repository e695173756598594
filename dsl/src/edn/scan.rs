//! The first look at a text: do its delimiters match, and how deep do they nest?
//!
//! It runs before the grammar for two reasons. A parser that recurses must not see text that nests
//! without bounds; and "this `[` is never closed" is what a user wants to hear, not what was
//! expected at the end of the file.

use crate::{Diagnostic, Span};

/// How deep collections, tags and discards may nest.
pub(super) const MAX_DEPTH: usize = 128;

/// Whether texts in single quotes are known, as in a flow on the command line or in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// EDN: double quotes only.
    Double,
    /// Single quotes too.
    Any,
}

/// What waits for its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A collection, and the character that closes it.
    Collection {
        closer: char,
        at: usize,
        width: usize,
    },
    /// `#tag`, which becomes one form with what follows it.
    Tag,
    /// `#_`, which takes what follows it away.
    Discard,
}

/// The mistakes in the delimiters of `text`, in the order of the file.
pub(super) fn check(text: &str, quotes: Quotes) -> Vec<Diagnostic> {
    let mut scanner = Scanner {
        text,
        at: 0,
        quotes,
        open: Vec::new(),
        mistakes: Vec::new(),
    };
    scanner.run();
    scanner.mistakes.sort_by_key(|mistake| mistake.span);
    scanner.mistakes
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    quotes: Quotes,
    open: Vec<Open>,
    mistakes: Vec<Diagnostic>,
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
                let mistake = Diagnostic::new(
                    span,
                    format!("this nests more than {MAX_DEPTH} levels deep"),
                    "one level too deep",
                );
                self.mistakes.push(mistake);
                return;
            }
        }
        while let Some(open) = self.open.pop() {
            self.never_closed(open, None);
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, closer: char, width: usize) {
        self.open.push(Open::Collection {
            closer,
            at: self.at,
            width,
        });
        self.at += width;
    }

    fn close(&mut self, found: char) {
        let here = Span::new(self.at, self.at + 1);
        self.at += 1;
        let fits =
            |open: &Open| matches!(open, Open::Collection { closer, .. } if *closer == found);
        if !self.open.iter().any(fits) {
            self.mistakes.push(Diagnostic::new(
                here,
                format!("`{found}` closes nothing"),
                "nothing is open that this could close",
            ));
            return;
        }
        while let Some(open) = self.open.pop() {
            if fits(&open) {
                break;
            }
            self.never_closed(open, Some(found));
        }
        self.form_ends();
    }

    fn never_closed(&mut self, open: Open, found: Option<char>) {
        let Open::Collection { closer, at, width } = open else {
            return;
        };
        let span = Span::new(at, at + width);
        let opener = self.text.get(at..at + width).unwrap_or_default();
        let label = match found {
            Some(found) => format!("expected `{closer}` before the next `{found}`"),
            None => format!("expected `{closer}` before the end"),
        };
        self.mistakes.push(Diagnostic::new(
            span,
            format!("`{opener}` is never closed"),
            label,
        ));
    }

    /// A form is complete. It completes the tags before it too, and is taken away by a discard.
    fn form_ends(&mut self) {
        while let Some(Open::Tag | Open::Discard) = self.open.last() {
            if self.open.pop() == Some(Open::Discard) {
                return;
            }
        }
    }

    /// A text in double quotes, or what stands between those of a regular expression.
    fn string(&mut self) {
        let start = self.at;
        let mut escaped = false;
        let closing = self.rest().char_indices().skip(1).find(|(_, next)| {
            let closes = *next == '"' && !escaped;
            escaped = *next == '\\' && !escaped;
            closes
        });
        self.end_text(start, closing.map(|(offset, _)| offset));
    }

    fn quoted(&mut self) {
        let start = self.at;
        if self.quotes == Quotes::Double {
            let span = Span::new(start, start + 1);
            self.mistakes.push(
                Diagnostic::new(span, "a text stands in double quotes here", "expected `\"`")
                    .with_help("write \"…\""),
            );
        }
        // A doubled quote ends one text and begins the next one, which is all the same here.
        let closing = self
            .rest()
            .char_indices()
            .skip(1)
            .find(|(_, next)| *next == '\'');
        self.end_text(start, closing.map(|(offset, _)| offset));
    }

    fn end_text(&mut self, start: usize, closing: Option<usize>) {
        match closing {
            Some(offset) => {
                self.at += offset + 1;
                let doubled = self
                    .text
                    .get(start..)
                    .is_some_and(|text| text.starts_with('\''))
                    && self.rest().starts_with('\'');
                if !doubled {
                    self.form_ends();
                }
            }
            None => {
                let mistake = Diagnostic::new(
                    Span::new(start, start + 1),
                    "this text is never closed",
                    "the quote that begins it",
                );
                self.mistakes.push(mistake);
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
                self.open.push(Open::Discard);
                self.at += 2;
            }
            Some('"') => self.at += 1,
            Some('r') if after.starts_with("r\"") => self.at += 2,
            Some(next) if next.is_alphabetic() => {
                self.open.push(Open::Tag);
                self.at += self.token_length();
            }
            _ => self.token(),
        }
    }

    fn token(&mut self) {
        self.at += self.token_length();
        self.form_ends();
    }

    fn token_length(&self) -> usize {
        let ends = |next: char| next.is_whitespace() || ",()[]{}\";".contains(next);
        self.rest().find(ends).unwrap_or(self.rest().len())
    }
}
