//! The tree of wanted paths, and the visitors that read a record along it.

use std::fmt;
use std::num::NonZeroU32;

use pseidon_dsl::expr::PathStep;
use pseidon_plugin::places::{FieldPlace, FieldPlaces};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use super::check::reason;
use super::columns::{Column, Mismatch};
use super::keys::{KeySeed, KeySet};
use super::layout::{ExpectedField, Layout};
use super::reasons::not_an_object;
use super::scan::{self, ScannedEntry};

/// The columns that a record's values are written to.
pub(super) struct RecordColumns<'a> {
    pub(super) columns: &'a mut [Column],
    /// The fields of the records before it.
    pub(super) layout: &'a mut Layout,
    /// The places of its fields, if some are located.
    pub(super) places: Option<&'a mut FieldPlaces>,
    /// The record's index in the batch.
    pub(super) row: usize,
    pub(super) mismatch: Mismatch,
}

impl RecordColumns<'_> {
    fn read<'de, D: Deserializer<'de>>(&mut self, column: usize, next: D) -> Result<(), D::Error> {
        self.columns[column].read(self.row, next, &mut self.mismatch)
    }

    /// Notes the place of a field that is located, whose entry begins at `start`. Returns whether an
    /// editor can use it: an editor changes each of several fields of one name.
    fn locate(&mut self, number: usize, start: usize, entry: &ScannedEntry) -> bool {
        let place = |end| {
            Some(FieldPlace {
                start: u32::try_from(start).ok()?,
                name: u32::try_from(entry.key).ok()?,
                name_end: u32::try_from(entry.key_end).ok()?,
                value: u32::try_from(entry.value).ok()?,
                end,
            })
        };
        match (&mut self.places, index(entry.end).and_then(place)) {
            (Some(places), Some(place)) => places.add(number, place),
            _ => false,
        }
    }
}

/// An index after something, as places have it.
fn index(at: usize) -> Option<NonZeroU32> {
    u32::try_from(at).ok().and_then(NonZeroU32::new)
}

/// A node of the tree: a value in a record.
#[derive(Default)]
pub(super) struct PathNode {
    /// The indexes of the columns that receive the value.
    columns: Vec<usize>,
    names: KeySet,
    /// The nodes of the value's wanted fields, in the order of `names`.
    fields: Vec<PathNode>,
    /// The nodes of the value's wanted list elements, with their indexes.
    elements: Vec<(u32, PathNode)>,
    /// The number of this field of the record among those that are located.
    located: Option<usize>,
}

/// The JSON type that a record must have.
pub(super) enum RootType {
    Object,
    List,
    Anything,
}

impl RootType {
    /// Checks the first character of a record.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let first = text
            .trim_ascii_start()
            .bytes()
            .next()
            .ok_or("the record is empty")?;
        match (self, first) {
            (RootType::Object, b'{') | (RootType::List, b'[') | (RootType::Anything, _) => Ok(()),
            (RootType::Object, _) => Err(not_an_object(text)),
            (RootType::List, _) => Err("the record is not a JSON list".to_owned()),
        }
    }
}

impl PathNode {
    /// Adds the path of a column.
    pub(super) fn add(&mut self, path: &[PathStep], column: usize) {
        let Some((step, rest)) = path.split_first() else {
            self.columns.push(column);
            return;
        };
        let node = match step {
            PathStep::Field(name) => self.field(name),
            PathStep::Index(index) => {
                let at = self
                    .elements
                    .iter()
                    .position(|(at, _)| at == index)
                    .unwrap_or_else(|| {
                        self.elements.push((*index, PathNode::default()));
                        self.elements.len() - 1
                    });
                &mut self.elements[at].1
            }
        };
        node.add(rest, column);
    }

    /// The node of a field, which is added if it is new.
    fn field(&mut self, name: &str) -> &mut PathNode {
        let at = self.names.find_or_add(name);
        if at == self.fields.len() {
            self.fields.push(PathNode::default());
        }
        &mut self.fields[at]
    }

    /// Locates a field of the record, of which this node is the root.
    pub(super) fn locate(&mut self, name: &str, number: usize) {
        self.field(name).located = Some(number);
    }

    /// Whether nothing of the value is wanted.
    fn is_unwanted(&self) -> bool {
        self.columns.is_empty() && self.fields.is_empty() && self.elements.is_empty()
    }

    /// The type that a record must have if this node is the root.
    pub(super) fn start(&self) -> RootType {
        match (self.fields.is_empty(), self.elements.is_empty()) {
            (false, true) => RootType::Object,
            (true, false) => RootType::List,
            _ => RootType::Anything,
        }
    }

    /// Reads the fields of a record that the [fast scan](scan) accepts. Returns `false` if it does
    /// not; some columns may have a value then.
    ///
    /// # Errors
    /// A value cannot be parsed (its number is too large, an escape stands for no character). Its
    /// column may have a part of it.
    pub(super) fn read_scanned(
        &self,
        text: &str,
        record: &mut RecordColumns<'_>,
    ) -> Result<bool, String> {
        if !self.columns.is_empty() || !self.elements.is_empty() {
            return Ok(false);
        }
        let Some(mut at) = scan::after_open(text.as_bytes()) else {
            return Ok(false);
        };
        let (mut is_first, mut expected, mut is_located) = (true, ExpectedField::default(), true);
        while let Some((entry, field)) =
            record
                .layout
                .next_entry(text, at, is_first, &mut expected, &self.names)
        {
            if let Some(found) = field {
                let (field, value) = (&self.fields[found], &text[entry.value..entry.end]);
                if let Some(number) = field.located {
                    is_located &= record.locate(number, at, &entry);
                }
                field.read_text(value, record).map_err(|error| {
                    let name = &text[entry.key + 1..entry.key_end - 1];
                    format!("the value of `{name}`: {}", reason(&error, value))
                })?;
            }
            (at, is_first) = (entry.end, false);
        }
        let is_closed = scan::is_closed(text.as_bytes(), at);
        if is_closed
            && is_located
            && let (Some(places), Some(end)) = (&mut record.places, index(at))
        {
            places.end(end);
        }
        Ok(is_closed)
    }

    /// Reads a value that is valid JSON.
    fn read_text(&self, value: &str, record: &mut RecordColumns<'_>) -> sonic_rs::Result<()> {
        if self.is_unwanted() {
            return Ok(());
        }
        if let ([column], true, true) = (
            self.columns.as_slice(),
            self.fields.is_empty(),
            self.elements.is_empty(),
        ) {
            return record.columns[*column].read_text(record.row, value, &mut record.mismatch);
        }
        let mut parser = sonic_rs::Deserializer::from_str(value);
        self.read(&mut parser, record)
    }

    /// Reads the next value.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        &self,
        next: D,
        record: &mut RecordColumns<'_>,
    ) -> Result<(), D::Error> {
        if self.is_unwanted() {
            return IgnoredAny::deserialize(next).map(|_| ());
        }
        let below = !self.fields.is_empty() || !self.elements.is_empty();
        match (self.columns.as_slice(), below) {
            ([column], false) => record.read(*column, next),
            ([], _) => next.deserialize_any(ChildVisitor { node: self, record }),
            (wanted, _) => {
                // The whole value and parts of it are wanted: parse its text once for each.
                let value = LazyValue::deserialize(next)?;
                let parser = || sonic_rs::Deserializer::from_str(value.as_raw_str());
                for column in wanted {
                    record
                        .read(*column, &mut parser())
                        .map_err(D::Error::custom)?;
                }
                if below {
                    parser()
                        .deserialize_any(ChildVisitor { node: self, record })
                        .map_err(D::Error::custom)?;
                }
                Ok(())
            }
        }
    }
}

/// Reads the next value along a node.
struct NodeSeed<'a, 'r> {
    node: &'a PathNode,
    record: &'a mut RecordColumns<'r>,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, next: D) -> Result<(), D::Error> {
        self.node.read(next, self.record)
    }
}

/// Visits a value and reads the fields and elements of a node.
struct ChildVisitor<'a, 'r> {
    node: &'a PathNode,
    record: &'a mut RecordColumns<'r>,
}

impl<'de> Visitor<'de> for ChildVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let ChildVisitor { node, record } = self;
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(KeySeed {
            names: &node.names,
            expected,
        })? {
            match found {
                Some(at) => {
                    map.next_value_seed(NodeSeed {
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
        let ChildVisitor { node, record } = self;
        for index in 0_u32.. {
            let more = match node.elements.iter().find(|(at, _)| *at == index) {
                Some((_, node)) => list.next_element_seed(NodeSeed { node, record })?.is_some(),
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
