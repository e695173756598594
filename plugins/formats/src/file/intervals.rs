//! Intervals, which some codecs do not have.

use arrow::datatypes::{DataType, Field};

use crate::parts::contains;

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
