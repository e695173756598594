//! The fields that samples have, while their types are inferred.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema};

/// How many fields an inferred schema has at most, those of structs included. Objects whose names
/// are values, such as the ids of users, have more.
pub(crate) const MAX_FIELDS: usize = 2000;
/// The same for a header, whose names are no values.
pub(crate) const MAX_IN_HEADER: usize = 20_000;

/// Fields by name, in the order of their first occurrence. Each step takes the same time however
/// many there are.
#[derive(Debug)]
pub(crate) struct InferredFields<T> {
    places: HashMap<Arc<str>, usize>,
    fields: Vec<(Arc<str>, T)>,
}

impl<T> Default for InferredFields<T> {
    fn default() -> Self {
        InferredFields {
            places: HashMap::new(),
            fields: Vec::new(),
        }
    }
}

impl<T> InferredFields<T> {
    /// The place of a field, which is added with this type if it is new.
    pub(crate) fn place(&mut self, name: &str, new: impl FnOnce() -> T) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let (place, name) = (self.fields.len(), Arc::<str>::from(name));
        self.places.insert(Arc::clone(&name), place);
        self.fields.push((name, new()));
        place
    }

    /// The type of the field at a place.
    pub(crate) fn at(&mut self, place: usize) -> &mut T {
        &mut self.fields[place].1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<T> IntoIterator for InferredFields<T> {
    type Item = (Arc<str>, T);
    type IntoIter = std::vec::IntoIter<(Arc<str>, T)>;

    /// The fields in their order.
    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}

/// Checks the number of fields of an inferred schema, so that records of thousands of fields do not
/// make a plan that never ends.
pub(crate) fn check_count(schema: &Schema, most: usize) -> Result<(), String> {
    let count = count(schema.fields());
    if count <= most {
        return Ok(());
    }
    let largest = schema.fields().iter().max_by_key(|field| count_in(field));
    let largest = largest.filter(|field| count_in(field) > most / 2);
    let help = match largest {
        Some(field) => format!("with the type `:json` for `{}`", field.name()),
        None => "with the fields that are needed".to_owned(),
    };
    Err(format!(
        "the sample records have {count} fields, and at most {most} are inferred; write \
         :schema by hand, {help}"
    ))
}

fn count(fields: &Fields) -> usize {
    fields.iter().map(|field| 1 + count_in(field)).sum()
}

/// The number of fields in the type of a field.
fn count_in(field: &FieldRef) -> usize {
    match field.data_type() {
        DataType::Struct(fields) => count(fields),
        DataType::List(elements) => count_in(elements),
        _ => 0,
    }
}
