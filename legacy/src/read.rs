//! A reader for the maps of a legacy file.
//!
//! A key is known if the code has looked it up. When a map is finished, every other key is reported
//! as unknown, with the nearest of the names that were looked up. So there is no list of known keys
//! that could differ from what the code reads.

use std::ops::RangeInclusive;

use pseidon_dsl::{Diagnostic, Node, NodeKind, Span, nearest};

use crate::{Note, NoteKind};

/// The notes and errors about a legacy file, collected during its conversion.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) notes: Vec<Note>,
    pub(crate) errors: Vec<Diagnostic>,
}

/// The keys of a map in a legacy file.
pub(crate) struct Keys<'a> {
    /// The keys of the enclosing maps, such as `:writer `. Empty for the outermost map.
    path: String,
    entries: Vec<Entry<'a>>,
    /// The names that were looked up.
    requested: Vec<String>,
}

struct Entry<'a> {
    name: String,
    key: &'a Node,
    value: &'a Node,
    was_read: bool,
}

/// A key of a legacy file with its value.
#[derive(Clone)]
pub(crate) struct KeyValue<'a> {
    /// The key with the keys of its enclosing maps, as shown in messages: `:writer :codec`.
    pub(crate) path: String,
    pub(crate) key: Span,
    pub(crate) value: &'a Node,
}

impl Findings {
    pub(crate) fn note(
        &mut self,
        given: &KeyValue<'_>,
        kind: NoteKind,
        sentence: impl Into<String>,
    ) {
        self.notes.push(Note {
            key: given.path.clone(),
            span: given.key,
            kind,
            sentence: sentence.into(),
        });
    }

    /// Reports an invalid value.
    pub(crate) fn invalid(&mut self, given: &KeyValue<'_>, expected: &str) {
        self.invalid_at(given.value, &given.path, expected);
    }

    /// Reports that `node`, a part of the value of `path`, is invalid.
    pub(crate) fn invalid_at(&mut self, node: &Node, path: &str, expected: &str) {
        // A string may contain a password, so the value itself is not part of the message.
        let label = format!("expected {expected}, found {}", node.describe());
        self.errors.push(Diagnostic::new(
            node.span,
            format!("invalid value for `{path}`"),
            label,
        ));
    }

    /// Reports a missing key at `opening`, the opening brace of its map.
    pub(crate) fn missing(&mut self, name: &str, example: &str, opening: Span) {
        let error = Diagnostic::new(
            opening,
            format!("missing required key `:{name}`"),
            "required in this map",
        );
        self.errors
            .push(error.with_help(format!("add, for example, :{name} {example}")));
    }

    /// A required key. If it is missing, that is reported at `opening`.
    pub(crate) fn required<'a>(
        &mut self,
        keys: &mut Keys<'a>,
        name: &str,
        example: &str,
        opening: Span,
    ) -> Option<KeyValue<'a>> {
        let given = keys.take(name);
        if given.is_none() {
            self.missing(name, example, opening);
        }
        given
    }

    /// The keys of a map. `None` if the value is not a map, which is reported.
    pub(crate) fn keys<'a>(&mut self, given: &KeyValue<'a>) -> Option<Keys<'a>> {
        let NodeKind::Map(entries) = &given.value.kind else {
            self.invalid(given, "a map");
            return None;
        };
        Some(self.keys_of(entries, format!("{} ", given.path)))
    }

    /// The keys of the given entries; `path` names their enclosing map. A key that is not a keyword
    /// is reported.
    pub(crate) fn keys_of<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a (Node, Node)>,
        path: String,
    ) -> Keys<'a> {
        let mut keys = Keys {
            path,
            entries: Vec::new(),
            requested: Vec::new(),
        };
        for (key, value) in entries {
            match &key.kind {
                NodeKind::Keyword(name) => keys.entries.push(Entry {
                    name: name.to_string(),
                    key,
                    value,
                    was_read: false,
                }),
                _ => self.errors.push(Diagnostic::new(
                    key.span,
                    format!("{} cannot be a key of this map", key.describe()),
                    "expected a keyword",
                )),
            }
        }
        keys
    }

    /// Reports the keys that were never looked up.
    pub(crate) fn finish(&mut self, keys: Keys<'_>) {
        let Keys {
            path,
            entries,
            requested,
        } = keys;
        for Entry { name, key, .. } in entries.into_iter().filter(|entry| !entry.was_read) {
            let near = nearest(&name, requested.iter().map(String::as_str));
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

    /// Accepts a key that no longer has an effect.
    pub(crate) fn no_effect(&mut self, keys: &mut Keys<'_>, name: &str, sentence: &str) {
        if let Some(given) = keys.take(name) {
            self.note(&given, NoteKind::NoEffect, sentence);
        }
    }

    /// An integer in `range`.
    pub(crate) fn count(
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
                    format!("an integer of at least {low}")
                } else {
                    format!("an integer from {low} to {high}")
                };
                self.invalid(&given, &expected);
                None
            }
        }
    }

    /// A positive number of milliseconds.
    pub(crate) fn millis(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<u64> {
        self.count(keys, name, 1..=i64::MAX).map(i64::unsigned_abs)
    }

    /// A boolean. `None` if the key is missing, or after a report if its value is invalid.
    pub(crate) fn flag(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<bool> {
        let given = keys.take(name)?;
        match given.value.kind {
            NodeKind::Bool(value) => Some(value),
            _ => {
                self.invalid(&given, "true or false");
                None
            }
        }
    }

    /// A non-empty string. `None` if the key is missing, or after a report if its value is invalid.
    pub(crate) fn text<'a>(&mut self, keys: &mut Keys<'a>, name: &str) -> Option<&'a str> {
        let given = keys.take(name)?;
        let text = as_text(given.value);
        if text.is_none() {
            self.invalid(&given, "a non-empty string");
        }
        text
    }

    /// One or more non-empty strings: a string, or a vector of strings.
    pub(crate) fn texts(&mut self, keys: &mut Keys<'_>, name: &str) -> Option<Vec<String>> {
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
            self.invalid(&given, "a string or a vector of strings");
        }
        values
    }
}

impl<'a> Keys<'a> {
    /// The value of a key. `None` if the key is missing or its value is `nil`.
    pub(crate) fn take(&mut self, name: &str) -> Option<KeyValue<'a>> {
        self.requested.push(name.to_owned());
        let entry = self.entries.iter_mut().find(|entry| entry.name == name)?;
        entry.was_read = true;
        let given = KeyValue {
            path: format!("{}:{name}", self.path),
            key: entry.key.span,
            value: entry.value,
        };
        (entry.value.kind != NodeKind::Nil).then_some(given)
    }

    /// The names of all keys, without colons.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }
}

/// The items of a vector, a list or a set. `None` for other values.
pub(crate) fn items(node: &Node) -> Option<&[Node]> {
    match &node.kind {
        NodeKind::Vector(items) | NodeKind::List(items) | NodeKind::Set(items) => Some(items),
        _ => None,
    }
}

/// The value of a non-empty string. `None` for other values.
pub(crate) fn as_text(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Str(text) if !text.value.trim().is_empty() => Some(&text.value),
        _ => None,
    }
}

/// Whether a password is in plain text, not a `${…}` placeholder.
pub(crate) fn is_plain_secret(password: &str) -> bool {
    !password.is_empty() && !password.contains("${")
}
