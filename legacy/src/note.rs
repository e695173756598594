//! Notes about keys of a legacy file that do not prevent its conversion.

use std::fmt;

use pseidon_dsl::Span;

/// A note about one key of a legacy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The key with the keys of its enclosing maps: `:writer :use-buffer`.
    pub key: String,
    /// The position of the key.
    pub span: Span,
    /// Whether the key has no effect, has changed or is unknown.
    pub kind: NoteKind,
    /// Why the key has no effect, what has changed, or which name was most likely meant. It can be
    /// empty for an unknown key.
    pub sentence: String,
}

/// The kinds of [`Note`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// The key is known, but no longer has an effect.
    NoEffect,
    /// The key has an effect, but its meaning has changed or its value should be reviewed.
    Changed,
    /// The key is unknown and has no effect.
    Unknown,
}

impl Note {
    /// The line number of the key in `text`, the legacy file, starting at 1.
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
            NoteKind::NoEffect => write!(f, "`{key}` no longer has an effect: {sentence}"),
            NoteKind::Changed => write!(f, "`{key}`: {sentence}"),
            NoteKind::Unknown if sentence.is_empty() => {
                write!(f, "`{key}` is unknown and has no effect")
            }
            NoteKind::Unknown => write!(f, "`{key}` is unknown and has no effect; {sentence}"),
        }
    }
}
