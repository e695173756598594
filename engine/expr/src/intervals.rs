//! The length of intervals and durations, by which they are compared.
//!
//! Arrow compares months, then days, then nanoseconds: 36 hours would be less than 1 day. As in
//! PostgreSQL, a month is 30 days here and a day 24 hours.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Int64Type, IntervalMonthDayNanoType, TimeUnit,
};
use datafusion_common::{Result, exec_datafusion_err};
use pseidon_dsl::Diagnostic;

use crate::operand::Operand;
use crate::scalar::{ColumnFunction, unary_call};

const DAYS_OF_MONTH: i128 = 30;
const NANOSECONDS_OF_DAY: i128 = 86_400_000_000_000;

/// Nanoseconds. The longest interval has 23 digits of them.
const LENGTH: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// The length of an operand that is an interval or a duration.
pub(crate) fn length(operand: Operand) -> Result<Operand, Diagnostic> {
    let call = unary_call(Length, operand.physical);
    Operand::computed(call, LENGTH, operand.span)
}

/// The length of an interval or a duration in nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length;

impl ColumnFunction for Length {
    const NAME: &'static str = "interval_length";

    fn result(&self) -> DataType {
        LENGTH
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let lengths = match values.data_type() {
            DataType::Duration(unit) => of_durations(values, *unit)?,
            _ => of_intervals(values)?,
        };
        Ok(Arc::new(lengths.with_data_type(LENGTH)))
    }
}

fn of_durations(values: &ArrayRef, unit: TimeUnit) -> Result<Decimal128Array> {
    let nanoseconds: i128 = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    let numbers = cast(values, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    Ok(numbers.unary(|number| i128::from(number) * nanoseconds))
}

fn of_intervals(values: &ArrayRef) -> Result<Decimal128Array> {
    let intervals = values.as_primitive_opt::<IntervalMonthDayNanoType>();
    let intervals = intervals.ok_or_else(|| exec_datafusion_err!("expected an interval"))?;
    Ok(intervals.unary(|interval| {
        let days = i128::from(interval.months) * DAYS_OF_MONTH + i128::from(interval.days);
        days * NANOSECONDS_OF_DAY + i128::from(interval.nanoseconds)
    }))
}
