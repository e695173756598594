//! The wanted paths as one tree, and a record's way through it.

use std::collections::HashMap;
use std::fmt;

use pseidon_dsl::expr::Step;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use super::columns::{Column, Misfit};

/// Where a record's values go.
pub(super) struct Record<'a> {
    pub(super) columns: &'a mut [Column],
    /// The record's number in the batch.
    pub(super) row: usize,
    pub(super) misfit: Misfit,
}

impl Record<'_> {
    fn read<'de, D: Deserializer<'de>>(&mut self, column: usize, next: D) -> Result<(), D::Error> {
        self.columns[column].read(self.row, next, &mut self.misfit)
    }
}

/// A place in a record.
#[derive(Default)]
pub(super) struct Node {
    /// The columns that its value goes to.
    columns: Vec<usize>,
    names: Names,
    /// What is wanted below it, in the order of the names.
    fields: Vec<Node>,
    /// What is wanted of a list, by index.
    elements: Vec<(u32, Node)>,
}

/// What a record has to be.
pub(super) enum Start {
    Object,
    List,
    Anything,
}

impl Start {
    /// Whether the record begins as it has to.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let first = text
            .trim_ascii_start()
            .bytes()
            .next()
            .ok_or("the record is empty")?;
        match (self, first) {
            (Start::Object, b'{') | (Start::List, b'[') | (Start::Anything, _) => Ok(()),
            (Start::Object, _) => Err("the record is not a json object".to_owned()),
            (Start::List, _) => Err("the record is not a json list".to_owned()),
        }
    }
}

impl Node {
    /// Adds a column's path.
    pub(super) fn add(&mut self, path: &[Step], column: usize) {
        let Some((step, rest)) = path.split_first() else {
            self.columns.push(column);
            return;
        };
        let node = match step {
            Step::Field(name) => {
                let at = self.names.find_or_add(name);
                if at == self.fields.len() {
                    self.fields.push(Node::default());
                }
                &mut self.fields[at]
            }
            Step::Index(index) => {
                let at = self
                    .elements
                    .iter()
                    .position(|(at, _)| at == index)
                    .unwrap_or_else(|| {
                        self.elements.push((*index, Node::default()));
                        self.elements.len() - 1
                    });
                &mut self.elements[at].1
            }
        };
        node.add(rest, column);
    }

    /// What a record has to be if this is the root.
    pub(super) fn start(&self) -> Start {
        match (self.fields.is_empty(), self.elements.is_empty()) {
            (false, true) => Start::Object,
            (true, false) => Start::List,
            _ => Start::Anything,
        }
    }

    /// Reads the value that comes next.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        &self,
        next: D,
        record: &mut Record<'_>,
    ) -> Result<(), D::Error> {
        let below = !self.fields.is_empty() || !self.elements.is_empty();
        match (self.columns.as_slice(), below) {
            ([column], false) => record.read(*column, next),
            ([], _) => next.deserialize_any(Below { node: self, record }),
            (wanted, _) => {
                // Somebody wants the whole value and somebody else a part of it: its text is read
                // once more for each.
                let value = LazyValue::deserialize(next)?;
                let parser = || sonic_rs::Deserializer::from_str(value.as_raw_str());
                for column in wanted {
                    record
                        .read(*column, &mut parser())
                        .map_err(D::Error::custom)?;
                }
                if below {
                    parser()
                        .deserialize_any(Below { node: self, record })
                        .map_err(D::Error::custom)?;
                }
                Ok(())
            }
        }
    }
}

/// Reads the value that comes next, as a node says.
struct Read<'a, 'r> {
    node: &'a Node,
    record: &'a mut Record<'r>,
}

impl<'de> DeserializeSeed<'de> for Read<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, next: D) -> Result<(), D::Error> {
        self.node.read(next, self.record)
    }
}

/// Looks for a node's fields and elements in a value.
struct Below<'a, 'r> {
    node: &'a Node,
    record: &'a mut Record<'r>,
}

impl<'de> Visitor<'de> for Below<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Below { node, record } = self;
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(Key {
            names: &node.names,
            expected,
        })? {
            match found {
                Some(at) => {
                    map.next_value_seed(Read {
                        node: &node.fields[at],
                        record,
                    })?;
                    expected = at + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Below { node, record } = self;
        for index in 0_u32.. {
            let more = match node.elements.iter().find(|(at, _)| *at == index) {
                Some((_, node)) => list.next_element_seed(Read { node, record })?.is_some(),
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// The wanted keys of an object.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<String>,
    /// Where there are too many to look at each.
    table: HashMap<String, usize>,
}

/// Up to so many names comparing with each is faster than a hash.
const FEW_NAMES: usize = 16;

impl Names {
    /// The number of a name, which is added if it is new.
    pub(super) fn find_or_add(&mut self, name: &str) -> usize {
        if let Some(at) = self.names.iter().position(|known| known == name) {
            return at;
        }
        self.names.push(name.to_owned());
        if self.names.len() > FEW_NAMES {
            self.table = self.names.iter().cloned().zip(0..).collect();
        }
        self.names.len() - 1
    }

    /// The number of a name. Most records have their keys in the same order, so `expected` is
    /// compared first.
    fn find(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|known| known == name) {
            return Some(expected);
        }
        if self.names.len() > FEW_NAMES {
            return self.table.get(name).copied();
        }
        self.names.iter().position(|known| known == name)
    }
}

/// Reads a key and gives its number among the names.
pub(super) struct Key<'a> {
    pub(super) names: &'a Names,
    pub(super) expected: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Option<usize>, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.names.find(key, self.expected))
    }
}
