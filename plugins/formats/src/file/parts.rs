//! The parts of a column: the fields of a struct, the elements of a list, the entries of a map.

use arrow::datatypes::{DataType, Field};

/// The parts of a column, each of which may have parts of its own.
pub(super) fn parts(field: &Field) -> Vec<&Field> {
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
pub(super) fn contains(field: &Field, is_one: fn(&Field) -> bool) -> bool {
    let mut inner = parts(field).into_iter();
    is_one(field) || inner.any(|part| contains(part, is_one))
}

/// Checks that a column has no intervals: Parquet's and Avro's have milliseconds and no sign, and
/// the libraries that encode them refuse some or all of their values.
pub(super) fn check_intervals(codec: &str, field: &Field) -> Result<(), String> {
    let is_interval = |part: &Field| matches!(part.data_type(), DataType::Interval(_));
    match contains(field, is_interval) {
        true => Err(format!(
            "{codec} has no intervals with microseconds and a sign; cast `{}` to utf8",
            field.name()
        )),
        false => Ok(()),
    }
}
