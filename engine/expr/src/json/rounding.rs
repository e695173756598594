//! `abs`, `round`, `ceil`, `floor` and `trunc` of values without a known type: integers keep all of
//! their digits, and other numbers are computed as float64. The result is JSON again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::{DataFusionError, Result, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::Number;
use crate::scalar::ColumnFunction;

/// The functions whose result is an integer if their argument is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rounding {
    Abs,
    Ceil,
    Floor,
    Round,
    Trunc,
}

impl Rounding {
    /// The function with this name, which is not an alias.
    pub(crate) fn named(name: &str) -> Option<Rounding> {
        Some(match name {
            "abs" => Rounding::Abs,
            "ceil" => Rounding::Ceil,
            "floor" => Rounding::Floor,
            "round" => Rounding::Round,
            "trunc" => Rounding::Trunc,
            _ => return None,
        })
    }

    /// The result for an integer. `places` are decimal places, negative ones for tens.
    fn of_integer(self, value: i128, places: i64) -> Result<i128> {
        let too_large = || exec_datafusion_err!("the absolute value of {value} is too large");
        let tens = match (self, places) {
            (Rounding::Abs, _) => return value.checked_abs().ok_or_else(too_large),
            (Rounding::Round | Rounding::Trunc, ..0) => places.unsigned_abs(),
            _ => return Ok(value),
        };
        let unit = u32::try_from(tens)
            .ok()
            .and_then(|tens| 10_i128.checked_pow(tens));
        // A unit that has more digits than any value.
        let Some(unit) = unit else { return Ok(0) };
        let rest = value % unit;
        let is_away = self == Rounding::Round && rest.unsigned_abs() >= (unit / 2).unsigned_abs();
        let rounded = match is_away {
            true => (value - rest).checked_add(unit * rest.signum()),
            false => Some(value - rest),
        };
        rounded.ok_or_else(too_large)
    }
}

/// A function that returns the results for the integers among JSON values, and NULL for others. Its
/// second argument are the decimal places.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonIntegerRounding {
    rounding: Rounding,
    signature: Signature,
}

impl JsonIntegerRounding {
    pub(crate) fn new(rounding: Rounding) -> JsonIntegerRounding {
        JsonIntegerRounding {
            rounding,
            signature: Signature::any(2, Volatility::Immutable),
        }
    }

    fn result(&self, json: &str, places: i64) -> Result<Option<String>> {
        match Number::of(json) {
            Ok(Some(Number::Integer(value))) => {
                let rounded = self.rounding.of_integer(value, places)?;
                Ok(Some(rounded.to_string()))
            }
            // What is not a number is an error of the function of floats.
            _ => Ok(None),
        }
    }
}

impl ScalarUDFImpl for JsonIntegerRounding {
    fn name(&self) -> &str {
        "json_rounding"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values, places] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("expected a value and decimal places"));
        };
        let values = values.to_array(args.number_rows)?;
        let places = places.to_array(args.number_rows)?;
        let pairs = values.as_string::<i32>().iter();
        let mut out = StringBuilder::new();
        for (json, places) in pairs.zip(places.as_primitive::<Int64Type>()) {
            match json.zip(places) {
                Some((json, places)) => out.append_option(self.result(json, places)?),
                None => out.append_null(),
            }
        }
        let out: ArrayRef = Arc::new(out.finish());
        Ok(ColumnarValue::Array(out))
    }
}

/// A function that converts numbers to JSON values.
///
/// # Errors
/// A number is infinity or not a number.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FloatToJson;

impl ColumnFunction for FloatToJson {
    const NAME: &'static str = "float_to_json";

    fn result(&self) -> DataType {
        DataType::Utf8
    }

    fn call(&self, floats: &ArrayRef) -> Result<ArrayRef> {
        let mut out = StringBuilder::with_capacity(floats.len(), floats.len() * 8);
        for float in floats.as_primitive::<Float64Type>() {
            match float {
                Some(float) if !float.is_finite() => return Err(not_json(float)),
                float => out.append_option(float.map(|float| Number::Float(float).to_string())),
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

fn not_json(float: f64) -> DataFusionError {
    exec_datafusion_err!("the result {float} is not a number of JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_rounded_away_from_zero() {
        let cases = [
            (
                Rounding::Round,
                9_007_199_254_740_993,
                2,
                9_007_199_254_740_993,
            ),
            (Rounding::Round, 15, -1, 20),
            (Rounding::Round, -15, -1, -20),
            (Rounding::Round, 14, -1, 10),
            (Rounding::Round, 49, -2, 0),
            (Rounding::Round, 5, -400, 0),
            (Rounding::Trunc, -19, -1, -10),
            (Rounding::Ceil, 15, -1, 15),
            (Rounding::Abs, -15, 0, 15),
        ];
        for (rounding, value, places, expected) in cases {
            let rounded = rounding.of_integer(value, places).ok();
            assert_eq!(rounded, Some(expected), "{rounding:?} of {value}, {places}");
        }
        assert!(Rounding::Abs.of_integer(i128::MIN, 0).is_err());
        assert!(Rounding::Round.of_integer(i128::MAX, -1).is_err());
    }
}
