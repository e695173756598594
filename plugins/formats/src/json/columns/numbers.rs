//! JSON numbers, and columns of integers.

use std::fmt;
use std::str::FromStr;

use arrow::array::{ArrayBuilder, PrimitiveBuilder};
use arrow::datatypes::{ArrowPrimitiveType, DataType};

/// A number as the parser returns it. A number that fits neither 64-bit integer type is a float.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

/// Up to this number, floats represent every integer exactly.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

impl Number {
    /// The number as an integer; `None` if it has a fraction. `1.0` and `1e3` are integers.
    pub(super) fn as_integer(self) -> Option<i128> {
        match self {
            Number::Signed(value) => Some(value.into()),
            Number::Unsigned(value) => Some(value.into()),
            Number::Float(value) => {
                (value.fract() == 0.0 && value.abs() <= MAX_EXACT_INTEGER).then_some(value as i128)
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Signed(value) => value.fmt(f),
            Number::Unsigned(value) => value.fmt(f),
            Number::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// The float that is nearest to a JSON number; `None` if that is infinite, or `raw` is not a number.
pub(super) fn finite<T: FromStr + Copy>(raw: &str, is_finite: fn(T) -> bool) -> Option<T> {
    raw.parse().ok().filter(|value| is_finite(*value))
}

/// A builder for integers and timestamps.
pub(super) trait IntegerBuilder: ArrayBuilder {
    /// Appends a number. Returns `false`, and appends nothing, if it is out of range.
    fn add(&mut self, number: i128) -> bool;

    fn add_null(&mut self);
}

impl<T: ArrowPrimitiveType> IntegerBuilder for PrimitiveBuilder<T>
where
    T::Native: TryFrom<i128>,
{
    fn add(&mut self, number: i128) -> bool {
        T::Native::try_from(number)
            .map(|number| self.append_value(number))
            .is_ok()
    }

    fn add_null(&mut self) {
        self.append_null();
    }
}

pub(super) fn integer_builder<T: ArrowPrimitiveType>(
    data_type: &DataType,
) -> Box<dyn IntegerBuilder>
where
    T::Native: TryFrom<i128>,
{
    Box::new(PrimitiveBuilder::<T>::new().with_data_type(data_type.clone()))
}
