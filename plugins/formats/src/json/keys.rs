//! The wanted keys of an object, and their lookup while a record is read.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

/// The wanted keys of an object, numbered in the order in which they were added.
#[derive(Default)]
pub(super) struct KeySet {
    names: Vec<String>,
    /// The lengths of the names modulo 64, a bit for each. Most keys that are not wanted have
    /// another length.
    lengths: u64,
    /// Used instead of a linear search if there are more than [`FEW_NAMES`] keys.
    table: HashMap<String, usize>,
}

/// Up to this number of keys, a linear search is faster than a hash table.
const FEW_NAMES: usize = 16;

impl KeySet {
    /// Returns the number of a key, and adds it if it is new.
    pub(super) fn find_or_add(&mut self, name: &str) -> usize {
        if let Some(at) = self.names.iter().position(|known| known == name) {
            return at;
        }
        self.names.push(name.to_owned());
        self.lengths |= length_bit(name);
        if self.names.len() > FEW_NAMES {
            self.table = self.names.iter().cloned().zip(0..).collect();
        }
        self.names.len() - 1
    }

    /// Returns the number of a key. Most records have their keys in the same order, so `expected`
    /// is compared first.
    #[inline]
    pub(super) fn find(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|known| known == name) {
            return Some(expected);
        }
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        if self.names.len() > FEW_NAMES {
            return self.table.get(name).copied();
        }
        self.names.iter().position(|known| known == name)
    }
}

/// The bit for the length of a name.
fn length_bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

/// Reads a key and returns its number, if it is wanted.
pub(super) struct KeySeed<'a> {
    pub(super) names: &'a KeySet,
    pub(super) expected: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Option<usize>, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.names.find(key, self.expected))
    }
}
