//! Values that Arrow holds although they are outside of their type: a time after the end of the day,
//! a decimal with more digits than its precision, a date that no calendar has. A file may contain
//! them, and Arrow's casts keep any integer as a time. They have no text, so they are never passed
//! on: a cast to them fails, as a cast of a number that is too large for an integer does.

use std::ops::RangeInclusive;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, DecimalType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampSecondType,
};
use chrono::{DateTime, NaiveDate, Utc};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::types::type_name;

/// The microseconds of a day: the numbers that are times of day.
pub const DAY: RangeInclusive<i64> = 0..=86_399_999_999;

/// The numbers that are timestamps of this unit.
pub fn timestamps(unit: TimeUnit) -> RangeInclusive<i64> {
    let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
    match unit {
        TimeUnit::Second => first.timestamp()..=last.timestamp(),
        TimeUnit::Millisecond => first.timestamp_millis()..=last.timestamp_millis(),
        TimeUnit::Microsecond => first.timestamp_micros()..=last.timestamp_micros(),
        TimeUnit::Nanosecond => i64::MIN..=i64::MAX,
    }
}

/// The rows with a value outside of its type, in order.
pub fn rows_out_of_range(values: &ArrayRef) -> Vec<usize> {
    let mut is_outside = vec![false; values.len()];
    mark(values, &mut is_outside);
    let rows = is_outside.iter().enumerate();
    rows.filter_map(|(row, outside)| outside.then_some(row))
        .collect()
}

/// Marks the values that are outside of their type.
fn mark(values: &ArrayRef, is_outside: &mut [bool]) {
    match values.data_type() {
        DataType::Time64(TimeUnit::Microsecond) => {
            mark_unless::<Time64MicrosecondType>(values, is_outside, |time| DAY.contains(&time));
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            mark_unless::<Time64NanosecondType>(values, is_outside, |time| {
                DAY.contains(&time.div_euclid(1_000))
            });
        }
        DataType::Date32 => {
            let epoch = NaiveDate::default();
            let days = |date: NaiveDate| date.signed_duration_since(epoch).num_days();
            let calendar = days(NaiveDate::MIN)..=days(NaiveDate::MAX);
            mark_unless::<Date32Type>(values, is_outside, |day| calendar.contains(&day.into()));
        }
        DataType::Timestamp(unit @ TimeUnit::Second, _) => {
            let range = timestamps(*unit);
            mark_unless::<TimestampSecondType>(values, is_outside, |at| range.contains(&at));
        }
        DataType::Timestamp(unit @ TimeUnit::Millisecond, _) => {
            let range = timestamps(*unit);
            mark_unless::<TimestampMillisecondType>(values, is_outside, |at| range.contains(&at));
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, _) => {
            let range = timestamps(*unit);
            mark_unless::<TimestampMicrosecondType>(values, is_outside, |at| range.contains(&at));
        }
        DataType::Decimal128(precision, _) => {
            mark_unless::<Decimal128Type>(values, is_outside, |decimal| {
                Decimal128Type::is_valid_decimal_precision(decimal, *precision)
            });
        }
        DataType::Decimal256(precision, _) => {
            mark_unless::<Decimal256Type>(values, is_outside, |decimal| {
                Decimal256Type::is_valid_decimal_precision(decimal, *precision)
            });
        }
        DataType::Struct(_) => {
            let mut inside = vec![false; values.len()];
            let fields = values.as_struct();
            fields
                .columns()
                .iter()
                .for_each(|field| mark(field, &mut inside));
            mark_valid(values, is_outside, |row| inside[row]);
        }
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let mut inside = vec![false; lists.values().len()];
            mark(lists.values(), &mut inside);
            let offsets = lists.value_offsets();
            mark_valid(values, is_outside, |row| {
                let elements = offsets[row] as usize..offsets[row + 1] as usize;
                inside[elements].contains(&true)
            });
        }
        _ => {}
    }
}

/// Marks the values for which the condition does not hold.
fn mark_unless<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    is_outside: &mut [bool],
    holds: impl Fn(T::Native) -> bool,
) {
    let numbers = values.as_primitive::<T>().values();
    mark_valid(values, is_outside, |row| !holds(numbers[row]));
}

/// Marks the rows that are not null and for which `is_marked` is true.
fn mark_valid(values: &ArrayRef, is_outside: &mut [bool], is_marked: impl Fn(usize) -> bool) {
    for (row, outside) in is_outside.iter_mut().enumerate() {
        *outside |= is_marked(row) && values.is_valid(row);
    }
}

/// Whether some values of a type are outside of it.
pub(crate) fn has_range(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Time64(_)
            | DataType::Date32
            | DataType::Timestamp(_, _)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    )
}

/// A function that returns its argument.
///
/// # Errors
/// A value is outside of its type. With `is_try`, such a value becomes NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct RangeCheck {
    data_type: DataType,
    is_try: bool,
    signature: Signature,
}

impl RangeCheck {
    pub(crate) fn new(data_type: DataType, is_try: bool) -> RangeCheck {
        RangeCheck {
            data_type,
            is_try,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for RangeCheck {
    fn name(&self) -> &str {
        "range_check"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("expected one value to check"));
        };
        let values = match value {
            ColumnarValue::Array(values) => values.clone(),
            ColumnarValue::Scalar(value) => value.to_array()?,
        };
        let rows = rows_out_of_range(&values);
        if rows.is_empty() {
            return Ok(value.clone());
        }
        if !self.is_try {
            let name = type_name(&self.data_type);
            return Err(exec_datafusion_err!("a value is out of range for {name}"));
        }
        let mut is_outside = vec![false; values.len()];
        rows.into_iter().for_each(|row| is_outside[row] = true);
        let fitting = nullif(&values, &BooleanArray::from(is_outside))?;
        Ok(match value {
            ColumnarValue::Array(_) => ColumnarValue::Array(fitting),
            ColumnarValue::Scalar(_) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&fitting, 0)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Decimal128Array, ListArray, StructArray, Time64MicrosecondArray,
        TimestampMicrosecondArray, TimestampSecondArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn values_outside_of_their_types_are_found_at_any_depth() {
        let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![
            Some(0),
            Some(-1),
            None,
            Some(86_400_000_000),
            Some(86_399_999_999),
        ]));
        assert_eq!(rows_out_of_range(&times), [1, 3]);
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![0, i32::MAX, i32::MIN, -719_528]));
        assert_eq!(rows_out_of_range(&dates), [1, 2]);
        let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]));
        assert_eq!(rows_out_of_range(&seconds), [1]);
        let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, 5]));
        assert_eq!(rows_out_of_range(&micros), [0]);
        let decimals = Decimal128Array::from(vec![9999, 10_000, -9999, i128::MAX]);
        let decimals: ArrayRef = Arc::new(decimals.with_data_type(DataType::Decimal128(4, 2)));
        assert_eq!(rows_out_of_range(&decimals), [1, 3]);

        let field = Arc::new(Field::new("t", times.data_type().clone(), true));
        let structs: ArrayRef = Arc::new(StructArray::from(vec![(field.clone(), times.clone())]));
        assert_eq!(rows_out_of_range(&structs), [1, 3]);
        let offsets = OffsetBuffer::from_lengths([1, 0, 2, 1, 1]);
        let lists: ArrayRef = Arc::new(ListArray::new(field, offsets, times, None));
        assert_eq!(rows_out_of_range(&lists), [2, 3]);
        assert_eq!(rows_out_of_range(&lists.slice(2, 1)), [0]);
    }
}
