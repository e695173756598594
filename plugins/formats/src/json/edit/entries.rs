//! The entries of an object, found without converting their values.
//!
//! An entry is the text from the end of the entry before it to the end of its value:
//!
//! ```text
//! { "a": 1 , "b": [2] }
//!  ‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾‾ the entries ` "a": 1` and ` , "b": [2]`
//! ```
//!
//! sonic-rs finds the ends, and validates what it skips.

use std::borrow::Cow;

use sonic_rs::{ObjectJsonIter, to_object_iter};

use super::super::check::reason;
use super::super::reasons::unexpected_end;

/// An entry of an object.
pub(super) struct Entry<'t> {
    /// The key without quotes and escapes.
    pub(super) name: Cow<'t, str>,
    /// Where the entry begins in the object's text.
    pub(super) start: usize,
    /// The text before the value: white space, with the comma of an entry that is not the first,
    /// the key, and the colon.
    pub(super) head: &'t str,
    pub(super) value: &'t str,
}

impl<'t> Entry<'t> {
    /// White space before the key, with the comma of an entry that is not the first.
    pub(super) fn gap(&self) -> &'t str {
        &self.head[..self.head.find('"').unwrap_or_default()]
    }

    /// The colon with the white space around it.
    pub(super) fn colon(&self) -> &'t str {
        let key_end = self.head.rfind('"').map_or(0, |quote| quote + 1);
        &self.head[key_end..]
    }

    /// Where the entry ends in the object's text.
    pub(super) fn end(&self) -> usize {
        self.start + self.head.len() + self.value.len()
    }
}

/// Finds one entry after the other.
pub(super) struct Entries<'t> {
    text: &'t str,
    iterator: ObjectJsonIter<'t>,
    /// The end of the last entry.
    at: usize,
}

impl<'t> Entries<'t> {
    /// The entries of an object. Before its brace there may be white space only.
    pub(super) fn new(text: &'t str) -> Entries<'t> {
        Entries {
            text,
            iterator: to_object_iter(text),
            at: text.find('{').map_or(0, |brace| brace + 1),
        }
    }

    /// The next entry; `None` at the end of the object. An error says why the text is invalid.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'t>>, String> {
        let Some(entry) = self.iterator.next() else {
            return Ok(None);
        };
        let (name, value) = entry.map_err(|error| self.reason(&error))?;
        // The value is a part of the text.
        let raw = value.as_raw_str();
        let from = raw.as_ptr() as usize - self.text.as_ptr() as usize;
        let start = self.at;
        self.at = from + raw.len();
        Ok(Some(Entry {
            name,
            start,
            head: &self.text[start..from],
            value: &self.text[from..self.at],
        }))
    }

    fn reason(&self, error: &sonic_rs::Error) -> String {
        match self.text[self.at..].trim_ascii() {
            "" => unexpected_end(self.text),
            _ => reason(error, self.text),
        }
    }

    /// The text after the last entry, from white space and the closing brace on. An error says that
    /// something else follows the object.
    pub(super) fn closing(&self) -> Result<&'t str, String> {
        let closing = &self.text[self.at..];
        let after = closing.find('}').map_or(closing.len(), |brace| brace + 1);
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let spaces = closing.as_bytes()[after..]
            .iter()
            .take_while(|byte| is_space(byte));
        let end = self.at + after + spaces.count();
        if end < self.text.len() {
            return Err(format!(
                "invalid JSON at byte {end}: expected the end of the record"
            ));
        }
        Ok(closing)
    }
}

/// The value at a path of an object, if it exists. Of a repeated key, the first value counts.
pub(super) fn value_at<'t>(text: &'t str, path: &[String]) -> Option<&'t str> {
    let (name, rest) = path.split_first()?;
    if !text.starts_with('{') {
        return None;
    }
    let mut entries = Entries::new(text);
    while let Ok(Some(entry)) = entries.next() {
        if entry.name == *name {
            return if rest.is_empty() {
                Some(entry.value)
            } else {
                value_at(entry.value, rest)
            };
        }
    }
    None
}
