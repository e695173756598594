//! Objects and lists as columns of columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, NullBufferBuilder, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, FieldRef, Fields};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use super::columns::{Column, Misfit};
use super::tree::{Key, Names};

/// Objects of which some fields are wanted.
pub(super) struct StructColumn {
    fields: Fields,
    names: Names,
    columns: Vec<Column>,
    nulls: NullBufferBuilder,
}

/// Lists.
pub(super) struct ListColumn {
    field: FieldRef,
    /// Where each list starts among the elements, and where the last one ends.
    offsets: Vec<i32>,
    elements: Box<Column>,
    nulls: NullBufferBuilder,
}

impl StructColumn {
    pub(super) fn new(fields: &Fields, path: &str) -> Result<StructColumn, String> {
        let mut names = Names::default();
        let mut columns = Vec::new();
        for field in fields {
            let path = format!("{path}.{}", field.name());
            if names.find_or_add(field.name()) != columns.len() {
                return Err(format!("`{path}` is there twice"));
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
        misfit: &mut Misfit,
    ) -> Result<(), A::Error> {
        let at = self.nulls.len();
        let mut expected = 0;
        while let Some(found) = map.next_key_seed(Key {
            names: &self.names,
            expected,
        })? {
            match found {
                Some(number) => {
                    map.next_value_seed(Read {
                        column: &mut self.columns[number],
                        at,
                        misfit,
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

    /// Ends a value, of which some fields may be missing.
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
        misfit: &mut Misfit,
    ) -> Result<(), A::Error> {
        let mut at = self.elements.len();
        while list
            .next_element_seed(Read {
                column: &mut self.elements,
                at,
                misfit,
            })?
            .is_some()
        {
            at += 1;
        }
        Ok(())
    }

    /// Ends a list of all elements that were read since the last one ended.
    pub(super) fn close(&mut self, valid: bool) {
        // Every element takes a byte of the batch, and the batch has less than 2 GiB.
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

/// Reads the value that comes next into a column.
struct Read<'a> {
    column: &'a mut Column,
    at: usize,
    misfit: &'a mut Misfit,
}

impl<'de> DeserializeSeed<'de> for Read<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, next: D) -> Result<(), D::Error> {
        self.column.read(self.at, next, self.misfit)
    }
}

/// The column of what is inside.
fn inner(field: &Field, path: String) -> Result<Column, String> {
    if !field.is_nullable() {
        return Err(format!("`{path}` has to be nullable: json may lack it"));
    }
    Column::new(field, path)
}
