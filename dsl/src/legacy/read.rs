//! Reading the maps of an old file.
//!
//! A key is known if it was asked for. Whatever nobody asked for is reported when a map is done
//! with, with the nearest of the names that were: so no list of known keys can differ from what the
//! code reads.

use std::ops::RangeInclusive;

use super::{Note, NoteKind};
use crate::{Diagnostic, Node, NodeKind, Span, nearest};

/// What was found out about an old file besides its meaning.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) notes: Vec<Note>,
    pub(super) mistakes: Vec<Diagnostic>,
}

/// A map of an old file.
pub(super) struct Keys<'a> {
    /// What leads to it: `:writer ` for the map under that key, nothing for the outermost.
    path: String,
    entries: Vec<Entry<'a>>,
    asked: Vec<String>,
}

struct Entry<'a> {
    name: String,
    key: &'a Node,
    value: &'a Node,
    was_read: bool,
}

/// A key that is there, and its value.
#[derive(Clone)]
pub(super) struct Given<'a> {
    /// As messages name it, without its own colon's quotes: `:writer :codec`.
    pub(super) path: String,
    pub(super) key: Span,
    pub(super) value: &'a Node,
}

impl Findings {
    pub(super) fn note(&mut self, given: &Given<'_>, kind: NoteKind, sentence: impl Into<String>) {
        self.notes.push(Note {
            key: given.path.clone(),
            span: given.key,
            kind,
            sentence: sentence.into(),
        });
    }

    /// The value is wrong.
    pub(super) fn wrong(&mut self, given: &Given<'_>, expected: &str) {
        self.wrong_at(given.value, &given.path, expected);
    }

    /// A part of the value of `path` is wrong.
    pub(super) fn wrong_at(&mut self, node: &Node, path: &str, expected: &str) {
        // What a text holds may be a password, so it is shown by its place only.
        let label = format!("expected {expected}, found {}", node.describe());
        self.mistakes.push(Diagnostic::new(
            node.span,
            format!("this is wrong for `{path}`"),
            label,
        ));
    }

    /// The entries of a map whose keys are keywords.
    pub(super) fn keys<'a>(&mut self, given: &Given<'a>) -> Option<Keys<'a>> {
        let NodeKind::Map(entries) = &given.value.kind else {
            self.wrong(given, "a map");
            return None;
        };
        Some(self.keys_of(entries, format!("{} ", given.path)))
    }

    /// The same of entries that are not a value of another map.
    pub(super) fn keys_of<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a (Node, Node)>,
        path: String,
    ) -> Keys<'a> {
        let mut keys = Keys {
            path,
            entries: Vec::new(),
            asked: Vec::new(),
        };
        for (key, value) in entries {
            match &key.kind {
                NodeKind::Keyword(name) => keys.entries.push(Entry {
                    name: name.to_string(),
                    key,
                    value,
                    was_read: false,
                }),
                _ => self.mistakes.push(Diagnostic::new(
                    key.span,
                    format!("{} cannot be a key here", key.describe()),
                    "expected a keyword",
                )),
            }
        }
        keys
    }

    /// Reports what was never asked for.
    pub(super) fn finish(&mut self, keys: Keys<'_>) {
        let Keys {
            path,
            entries,
            asked,
        } = keys;
        for Entry { name, key, .. } in entries.into_iter().filter(|entry| !entry.was_read) {
            let near = nearest(&name, asked.iter().map(String::as_str));
            let sentence = near
                .map(|near| format!("did you mean `:{near}`?"))
                .unwrap_or_default();
            self.notes.push(Note {
                key: format!("{path}:{name}"),
                span: key.span,
                kind: NoteKind::Unknown,
                sentence,
            });
        }
    }

    /// Accepts a key that has no effect any more.
    pub(super) fn no_meaning(&mut self, keys: &mut Keys<'_>, name: &str, sentence: &str) {
        if let Some(given) = keys.take(name) {
            self.note(&given, NoteKind::NoMeaning, sentence);
        }
    }

    pub(super) fn count(
        &mut self,
        keys: &mut Keys<'_>,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let given = keys.take(name)?;
        match given.value.kind {
            NodeKind::Int(value) if range.contains(&value) => Some(value),
            _ => {
                let (low, high) = range.into_inner();
                let expected = if high == i64::MAX {
                    format!("a whole number from {low} on")
                } else {
                    format!("a whole number from {low} to {high}")
                };
                self.wrong(&given, &expected);
                None
            }
        }
    }

    /// A number of milliseconds.
    pub(super) fn millis(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<u64> {
        self.count(keys, name, 1..=i64::MAX).map(i64::unsigned_abs)
    }

    pub(super) fn flag(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<bool> {
        let given = keys.take(name)?;
        match given.value.kind {
            NodeKind::Bool(value) => Some(value),
            _ => {
                self.wrong(&given, "true or false");
                None
            }
        }
    }

    /// A text that is not empty.
    pub(super) fn text<'a>(&mut self, keys: &mut Keys<'a>, name: &str) -> Option<&'a str> {
        let given = keys.take(name)?;
        let text = as_text(given.value);
        if text.is_none() {
            self.wrong(&given, "a text that is not empty");
        }
        text
    }

    /// A text or several; never none of them.
    pub(super) fn texts(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<Vec<String>> {
        let given = keys.take(name)?;
        let values: Option<Vec<String>> = match items(given.value) {
            Some(items) => items
                .iter()
                .map(|item| as_text(item).map(str::to_owned))
                .collect(),
            None => as_text(given.value).map(|text| vec![text.to_owned()]),
        };
        let values = values.filter(|values| !values.is_empty());
        if values.is_none() {
            self.wrong(&given, "a text or a vector of texts");
        }
        values
    }
}

impl<'a> Keys<'a> {
    /// The value of a key. `nil` is as good as no entry.
    pub(super) fn take(&mut self, name: &str) -> Option<Given<'a>> {
        self.asked.push(name.to_owned());
        let entry = self.entries.iter_mut().find(|entry| entry.name == name)?;
        entry.was_read = true;
        let given = Given {
            path: format!("{}:{name}", self.path),
            key: entry.key.span,
            value: entry.value,
        };
        (entry.value.kind != NodeKind::Nil).then_some(given)
    }

    /// The names of all keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }
}

/// The items of a vector, a list or a set.
pub(super) fn items(node: &Node) -> Option<&[Node]> {
    match &node.kind {
        NodeKind::Vector(items) | NodeKind::List(items) | NodeKind::Set(items) => Some(items),
        _ => None,
    }
}

/// A text that is not empty.
pub(super) fn as_text(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Str(text) if !text.value.trim().is_empty() => Some(&text.value),
        _ => None,
    }
}
