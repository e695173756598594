//! The parts of a column: the fields of a struct, the elements of a list, the entries of a map.

use arrow::datatypes::{DataType, Field};
use pseidon_plugin::format::is_json;

/// The parts of a column, each of which may have parts of its own.
pub(crate) fn parts(field: &Field) -> Vec<&Field> {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().map(AsRef::as_ref).collect(),
        DataType::List(part)
        | DataType::LargeList(part)
        | DataType::FixedSizeList(part, _)
        | DataType::Map(part, _) => vec![part],
        _ => Vec::new(),
    }
}

/// Whether a column, or any part of it, is one of these.
pub(crate) fn contains(field: &Field, is_one: fn(&Field) -> bool) -> bool {
    let mut inner = parts(field).into_iter();
    is_one(field) || inner.any(|part| contains(part, is_one))
}

/// Whether a column is `json`, or has values that are.
pub(crate) fn has_json(field: &Field) -> bool {
    contains(field, is_json)
}
