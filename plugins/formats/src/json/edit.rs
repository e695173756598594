//! Changes fields of JSON records without printing the others.
//!
//! Where the changed fields of a record are is known from the decoder ([`located`]), or else the
//! record is scanned ([`entries`]). Its entries are copied as they came, byte for byte, except for
//! those along the changed paths: [`tree`] has the changes of each object by key, and [`object`]
//! copies one object. A field that is set and missing is appended to its object. If a
//! key is repeated, its first value is set, and the others are left out, so that no reader sees an
//! old value. A record without a payload, a tombstone, stays one.

mod entries;
mod located;
mod object;
mod tree;

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use pseidon_plugin::batch::NO_PAYLOAD;
use pseidon_plugin::format::{EditedRecords, Editor, FieldChange};
use pseidon_plugin::{BadRow, Payloads, Rows};

use super::reasons::not_an_object;
use crate::encode::{check_type, json_options};
use crate::texts::Texts;
use located::LocatedChanges;
use object::{ObjectEdit, Values};
use tree::ChangeTree;

/// The largest result, in bytes: positions in it are 32 bits wide.
const MAX_BYTES: usize = u32::MAX as usize;

/// The space for what is added to a record, in bytes. More is allocated if it is too little.
const ADDED_BYTES: usize = 32;

/// Changes fields of JSON records.
pub(super) struct JsonEditor {
    tree: ChangeTree,
    /// The types of the values that are set.
    fields: Vec<FieldRef>,
    options: EncoderOptions,
    /// Whether a record was edited.
    has_edited: AtomicBool,
}

impl JsonEditor {
    /// Creates an editor; the paths do not overlap. An error names a value whose type JSON does not
    /// have.
    pub(super) fn new(changes: &[FieldChange]) -> Result<JsonEditor, String> {
        let options = json_options();
        let mut fields = Vec::new();
        for change in changes {
            if let FieldChange::Set { path, field } = change {
                check_type(field, &path.join("."), &options)?;
                fields.push(field.clone());
            }
        }
        Ok(JsonEditor {
            tree: ChangeTree::new(changes),
            fields,
            options,
            has_edited: AtomicBool::new(false),
        })
    }

    fn edit_record(
        &self,
        text: &str,
        located: Option<&LocatedChanges>,
        values: &Values,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if !text.trim_ascii_start().starts_with('{') {
            return Err(not_an_object(text));
        }
        let moved = self.tree.moved_values(text, located);
        let edit = ObjectEdit {
            values,
            moved: &moved,
        };
        match located {
            Some(located) => edit.copy_located(&self.tree.root, text, located, out),
            None => edit.copy(&self.tree.root, text, out),
        }
    }
}

impl Editor for JsonEditor {
    fn fields(&self) -> Vec<String> {
        self.tree.root.names().map(str::to_owned).collect()
    }

    fn absent(&self) -> Option<Vec<Vec<String>>> {
        let mut absent = Vec::new();
        self.tree.root.add_absent(&[], &mut absent);
        self.has_edited.load(Ordering::Relaxed).then_some(absent)
    }

    fn edit(&self, rows: &Rows, values: &[ArrayRef]) -> Result<EditedRecords, ArrowError> {
        let mut encoders = self
            .fields
            .iter()
            .zip(values)
            .map(|(field, column)| make_encoder(field, column, &self.options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut bytes = Vec::with_capacity(rows.record_bytes() + rows.len() * ADDED_BYTES);
        let (mut spans, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
        let (payloads, numbers) = rows.bytes();
        let numbers = numbers.values();
        let texts = match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) => Texts::new(payloads, *first as usize..*last as usize + 1),
            _ => Texts::new(payloads, 0..0),
        };
        let (mut encoded, mut are_lines) = (Values::default(), true);
        let mut located = rows.places().and_then(|places| {
            LocatedChanges::new(self.tree.root.names().map(|name| places.number(name)))
        });
        for row in 0..rows.len() {
            encoded.encode(&mut encoders, row);
            let start = bytes.len();
            let number = numbers[row] as usize;
            if payloads.place(number).is_none() {
                spans.push((start as u32, NO_PAYLOAD));
                are_lines = false;
                continue;
            }
            let places = located.as_mut().zip(rows.places_of(row));
            let located = places.map(|(located, places)| located.of(&places));
            let edited = match texts.get(number) {
                Some(text) => self.edit_record(text, located, &encoded, &mut bytes),
                None => Err("the record is not valid UTF-8".to_owned()),
            };
            if let Err(reason) = edited {
                bytes.truncate(start);
                bad.push(BadRow {
                    row: row as u32,
                    reason,
                });
            }
            if bytes.len() >= MAX_BYTES {
                return Err(ArrowError::MemoryError(
                    "the records would become too large together".to_owned(),
                ));
            }
            spans.push((start as u32, (bytes.len() - start) as u32));
            bytes.push(b'\n');
        }
        if bad.len() < rows.len() {
            self.has_edited.store(true, Ordering::Relaxed);
        }
        Ok(EditedRecords {
            payloads: Payloads::new(bytes.into(), spans, are_lines),
            bad,
        })
    }
}

#[cfg(test)]
mod tests;
