//! Numbers that are too large for a float.
//!
//! Arrow's casts make them infinity, which no number of a record is. Here a cast of such a number
//! fails, as a cast of a number that is too large for an integer does. An infinity stays one: that
//! of another float, and the string `inf`.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array};
use arrow::compute::{CastOptions, cast, cast_with_options, nullif, take};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion_common::{Result, exec_datafusion_err};

use crate::scalar::ColumnFunction;
use crate::types::type_name;

/// Whether a cast has made a number infinity, for each row, also inside of lists and structs.
/// `values` are those before it.
///
/// # Errors
/// The values have no text.
pub fn overflowed(values: &ArrayRef, made: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    let mut found = vec![false; made.len()];
    match made.data_type() {
        DataType::Struct(fields) => {
            for (field, made) in fields.iter().zip(made.as_struct().columns()) {
                let values = values.as_struct_opt();
                if let Some(values) = values.and_then(|all| all.column_by_name(field.name())) {
                    let inner = overflowed(values, made)?;
                    inner
                        .values()
                        .set_indices()
                        .for_each(|row| found[row] = true);
                }
            }
        }
        DataType::List(_) if has_infinity(made) => {
            let values = cast(values, &as_list(values.data_type()))?;
            if let Some(lists) = values.as_list_opt::<i32>() {
                for (row, pair) in lists.iter().zip(made.as_list::<i32>().iter()).enumerate() {
                    if let (Some(values), Some(made)) = pair {
                        found[row] = overflowed(&values, &made)?.true_count() > 0;
                    }
                }
            }
        }
        _ => {
            let infinite = infinite_rows(made);
            if !infinite.is_empty() {
                let places = UInt64Array::from_iter_values(infinite.iter().map(|row| *row as u64));
                let texts = cast(&take(values, &places, None)?, &DataType::Utf8)?;
                for (row, text) in infinite.iter().zip(texts.as_string::<i32>()) {
                    found[*row] = text
                        .unwrap_or_default()
                        .contains(|c: char| c.is_ascii_digit());
                }
            }
        }
    }
    Ok(found.into())
}

/// Whether there is an infinity anywhere in the values.
fn has_infinity(values: &ArrayRef) -> bool {
    match values.data_type() {
        DataType::Struct(_) => values.as_struct().columns().iter().any(has_infinity),
        DataType::List(_) => has_infinity(values.as_list::<i32>().values()),
        _ => !infinite_rows(values).is_empty(),
    }
}

/// The type of lists with 32-bit offsets for any type of lists.
fn as_list(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(item.clone()),
        other => other.clone(),
    }
}

/// The rows whose value is infinity.
fn infinite_rows(floats: &ArrayRef) -> Vec<usize> {
    match floats.data_type() {
        DataType::Float16 => rows_where::<Float16Type>(floats, |value| value.is_infinite()),
        DataType::Float32 => rows_where::<Float32Type>(floats, f32::is_infinite),
        DataType::Float64 => rows_where::<Float64Type>(floats, f64::is_infinite),
        _ => Vec::new(),
    }
}

fn rows_where<T: ArrowPrimitiveType>(
    floats: &ArrayRef,
    holds: impl Fn(T::Native) -> bool,
) -> Vec<usize> {
    let rows = floats.as_primitive::<T>().iter().enumerate();
    let rows = rows.filter(|(_, value)| value.is_some_and(&holds));
    rows.map(|(row, _)| row).collect()
}

/// Whether a number of the first type may be too large for the second.
pub(crate) fn may_overflow(from: &DataType, to: &DataType) -> bool {
    let is_wider = from.is_floating() && from.primitive_width() <= to.primitive_width();
    let always_fits = from.is_integer() || matches!(from, DataType::Boolean | DataType::Null);
    to.is_floating() && !is_wider && !always_fits
}

/// A function that casts its argument to a float.
///
/// # Errors
/// A value is not a number, or is too large. With `is_try`, such a value becomes NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FloatCast {
    pub(crate) to: DataType,
    pub(crate) is_try: bool,
}

impl ColumnFunction for FloatCast {
    const NAME: &'static str = "float_cast";

    fn result(&self) -> DataType {
        self.to.clone()
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let options = CastOptions {
            safe: self.is_try,
            ..CastOptions::default()
        };
        let floats = cast_with_options(values, &self.to, &options)?;
        let overflowed = overflowed(values, &floats)?;
        let Some(first) = overflowed.values().set_indices().next() else {
            return Ok(floats);
        };
        if self.is_try {
            return Ok(nullif(&floats, &overflowed)?);
        }
        let text = cast(&values.slice(first, 1), &DataType::Utf8)?;
        let (text, to) = (text.as_string::<i32>().value(0), type_name(&self.to));
        Err(exec_datafusion_err!("{text} is too large for {to}"))
    }
}
