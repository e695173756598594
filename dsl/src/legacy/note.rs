//! What there is to say of a key that did not stop an old file from being converted.

use std::fmt;

use crate::Span;

/// A sentence about one key of an old file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The key as it stands in the file, those that lead to it before it: `:writer :use-buffer`.
    pub key: String,
    /// Where it stands.
    pub span: Span,
    /// What kind of thing is said.
    pub kind: NoteKind,
    /// Why the key has no meaning, what is different, or which name was most likely meant. May be
    /// empty for an unknown key.
    pub sentence: String,
}

/// The kinds of [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// The key is known and has no meaning any more.
    NoMeaning,
    /// The key has its effect, and something about it is different or needs a look.
    Changed,
    /// The key is not known, so it has no effect.
    Unknown,
}

impl Note {
    /// The line of `text` (the old file) on which the key stands, counted from 1.
    pub fn line_in(&self, text: &str) -> usize {
        let before = text
            .as_bytes()
            .get(..self.span.start as usize)
            .unwrap_or(text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Note { key, sentence, .. } = self;
        match self.kind {
            NoteKind::NoMeaning => write!(f, "`{key}` has no meaning any more: {sentence}"),
            NoteKind::Changed => write!(f, "`{key}`: {sentence}"),
            NoteKind::Unknown if sentence.is_empty() => {
                write!(f, "`{key}` is not known and has no effect")
            }
            NoteKind::Unknown => write!(f, "`{key}` is not known and has no effect; {sentence}"),
        }
    }
}
