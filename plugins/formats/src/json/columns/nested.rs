//! Columns for JSON objects and lists: structs and lists of columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, NullBufferBuilder, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, FieldRef, Fields};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use super::super::keys::{KeySeed, KeySet};
use super::{Column, Mismatch};

/// A column of objects, of which some fields are wanted.
pub(super) struct StructColumn {
    fields: Fields,
    names: KeySet,
    columns: Vec<Column>,
    nulls: NullBufferBuilder,
}

/// A column of lists.
pub(super) struct ListColumn {
    field: FieldRef,
    /// The index of each list's first element, and the end of the last list.
    offsets: Vec<i32>,
    elements: Box<Column>,
    nulls: NullBufferBuilder,
}

impl StructColumn {
    pub(super) fn new(fields: &Fields, path: &str) -> Result<StructColumn, String> {
        let mut names = KeySet::default();
        let mut columns = Vec::new();
        for field in fields {
            let path = format!("{path}.{}", field.name());
            if names.find_or_add(field.name()) != columns.len() {
                return Err(format!("duplicate field `{path}`"));
            }
            columns.push(inner(field, path)?);
        }
        Ok(StructColumn {
            fields: fields.clone(),
            names,
            columns,
            nulls: NullBufferBuilder::new(0),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(super) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        mismatch: &mut Mismatch,
    ) -> Result<(), A::Error> {
        let at = self.nulls.len();
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(KeySeed {
            names: &self.names,
            expected,
        })? {
            match found {
                Some(number) => {
                    map.next_value_seed(ColumnSeed {
                        column: &mut self.columns[number],
                        at,
                        mismatch,
                    })?;
                    expected = number + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    /// Finishes a value. Fields that it does not have become null.
    pub(super) fn close(&mut self, valid: bool) {
        self.nulls.append(valid);
        for column in &mut self.columns {
            column.fill(self.nulls.len());
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let (len, nulls) = (self.nulls.len(), self.nulls.finish());
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        let objects = StructArray::try_new_with_length(self.fields.clone(), columns, nulls, len)
            .expect("all fields are nullable, of their types, and as long");
        Arc::new(objects)
    }
}

impl ListColumn {
    pub(super) fn new(field: &FieldRef, path: &str) -> Result<ListColumn, String> {
        let elements = Box::new(inner(field, format!("{path}[]"))?);
        Ok(ListColumn {
            field: field.clone(),
            offsets: vec![0],
            elements,
            nulls: NullBufferBuilder::new(0),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(super) fn read<'de, A: SeqAccess<'de>>(
        &mut self,
        mut list: A,
        mismatch: &mut Mismatch,
    ) -> Result<(), A::Error> {
        let mut at = self.elements.len();
        while list
            .next_element_seed(ColumnSeed {
                column: &mut self.elements,
                at,
                mismatch,
            })?
            .is_some()
        {
            at += 1;
        }
        Ok(())
    }

    /// Finishes a list of all elements that were read since the last list was finished.
    pub(super) fn close(&mut self, valid: bool) {
        // Every element takes at least one byte of the batch, and a batch is smaller than 2 GiB.
        self.offsets
            .push(i32::try_from(self.elements.len()).unwrap_or(i32::MAX));
        self.nulls.append(valid);
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(
            &mut self.offsets,
            vec![0],
        )));
        let (elements, nulls) = (self.elements.finish(), self.nulls.finish());
        Arc::new(
            ListArray::try_new(self.field.clone(), offsets, elements, nulls)
                .expect("the offsets end with the elements, which are nullable"),
        )
    }
}

/// Reads the next value into a column.
struct ColumnSeed<'a> {
    column: &'a mut Column,
    at: usize,
    mismatch: &'a mut Mismatch,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, next: D) -> Result<(), D::Error> {
        self.column.read(self.at, next, self.mismatch)
    }
}

/// Creates the column of a nested field.
fn inner(field: &Field, path: String) -> Result<Column, String> {
    if !field.is_nullable() {
        return Err(format!(
            "`{path}` must be nullable: JSON records may omit it"
        ));
    }
    Column::new(field, path)
}
