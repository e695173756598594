//! The changes of a record, by object and key.

use std::sync::atomic::{AtomicBool, Ordering};

use pseidon_plugin::format::FieldChange;

use super::entries::inside;
use super::located::LocatedChanges;

/// The changes of all objects of a record.
pub(super) struct ChangeTree {
    pub(super) root: ObjectChanges,
    /// The fields that are renamed, by the number of the renaming.
    renamed: Vec<RenamedField>,
}

/// A field that is renamed.
struct RenamedField {
    path: Vec<String>,
    /// The number of the change of the record that it is, or is inside of.
    change: usize,
}

/// The changes of one object.
#[derive(Default)]
pub(super) struct ObjectChanges {
    /// The keys with changes, in the order in which missing fields are appended.
    pub(super) keys: Vec<ChangedKey>,
}

/// A key of an object, with its change.
pub(super) struct ChangedKey {
    pub(super) name: String,
    /// The name as JSON, with its quotes.
    pub(super) quoted: String,
    pub(super) change: KeyChange,
    /// Whether a record had the field that is removed or moved away.
    was_found: AtomicBool,
}

impl ChangedKey {
    fn new(name: &str, change: KeyChange) -> ChangedKey {
        ChangedKey {
            name: name.to_owned(),
            quoted: quoted(name),
            change,
            was_found: AtomicBool::new(false),
        }
    }

    /// Notes that a record has the field.
    #[inline]
    pub(super) fn note_found(&self) {
        // Threads that only read share the cache line.
        if !self.was_found.load(Ordering::Relaxed) {
            self.was_found.store(true, Ordering::Relaxed);
        }
    }
}

/// The change of one key.
pub(super) enum KeyChange {
    /// Set to the value with this number.
    Set(usize),
    /// Removed.
    Remove,
    /// Moved away; to this key, which is in quotes, if it stays in its object.
    MoveAway(Option<String>),
    /// The new place in another object of the renaming with this number.
    MoveHere(usize),
    /// Replaced, in the same object, by the renaming with this number.
    Replaced(usize),
    /// Changes inside the value.
    Inside(ObjectChanges),
}

impl ChangeTree {
    pub(super) fn new(changes: &[FieldChange]) -> ChangeTree {
        let mut tree = ChangeTree {
            root: ObjectChanges::default(),
            renamed: Vec::new(),
        };
        let mut values = 0..;
        for change in changes {
            match change {
                FieldChange::Set { path, .. } => {
                    let number = values.next().unwrap_or_default();
                    tree.root.add(path, KeyChange::Set(number));
                }
                FieldChange::Remove { path } => tree.root.add(path, KeyChange::Remove),
                FieldChange::Rename { from, to } => tree.add_renaming(from, to),
            }
        }
        tree
    }

    fn add_renaming(&mut self, from: &[String], to: &[String]) {
        let number = self.renamed.len();
        let stays = from.split_last().map(|(_, object)| object)
            == to.split_last().map(|(_, object)| object);
        let (new_key, here) = if stays {
            (
                to.last().map(|key| quoted(key)),
                KeyChange::Replaced(number),
            )
        } else {
            (None, KeyChange::MoveHere(number))
        };
        self.root.add(from, KeyChange::MoveAway(new_key));
        self.root.add(to, here);
        self.renamed.push(RenamedField {
            path: from.to_vec(),
            change: self
                .root
                .names()
                .position(|key| key == from[0])
                .unwrap_or_default(),
        });
    }

    /// The values of the fields that are renamed, by the number of the renaming; `None` for a field
    /// that is missing.
    pub(super) fn moved_values<'t>(
        &self,
        text: &'t str,
        located: Option<&LocatedChanges>,
    ) -> Vec<Option<&'t str>> {
        if self.renamed.is_empty() {
            return Vec::new();
        }
        let value = |RenamedField { path, change }: &RenamedField| match located {
            Some(located) => inside(located.value(*change, text)?, &path[1..]),
            None => inside(text, path),
        };
        self.renamed.iter().map(value).collect()
    }
}

impl ObjectChanges {
    /// The keys with changes, in the order of these.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.name.as_str())
    }

    /// Adds the paths, each after `object`, that are removed or moved away and that no record had.
    pub(super) fn add_absent(&self, object: &[String], absent: &mut Vec<Vec<String>>) {
        for key in &self.keys {
            let path = [object, std::slice::from_ref(&key.name)].concat();
            match &key.change {
                KeyChange::Inside(inside) => inside.add_absent(&path, absent),
                KeyChange::Remove | KeyChange::MoveAway(_)
                    if !key.was_found.load(Ordering::Relaxed) =>
                {
                    absent.push(path);
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, path: &[String], change: KeyChange) {
        let Some((key, rest)) = path.split_first() else {
            return;
        };
        if rest.is_empty() {
            self.keys.push(ChangedKey::new(key, change));
            return;
        }
        let known = self.keys.iter().position(|known| known.name == *key);
        let at = known.unwrap_or_else(|| {
            let inside = KeyChange::Inside(ObjectChanges::default());
            self.keys.push(ChangedKey::new(key, inside));
            self.keys.len() - 1
        });
        if let KeyChange::Inside(object) = &mut self.keys[at].change {
            object.add(rest, change);
        }
    }
}

/// A key as JSON.
fn quoted(key: &str) -> String {
    serde_json::Value::from(key).to_string()
}
