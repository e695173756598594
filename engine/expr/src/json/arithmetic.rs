//! Arithmetic with values without a known type.
//!
//! The type of the result is that of the values: integers stay integers, with all digits, and
//! anything else is a float64. The result is JSON again. A string that contains a number is that
//! number, as in a comparison, so fields of CSV can be computed with.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, exec_datafusion_err};
use datafusion_expr::{
    ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use pseidon_dsl::printable::beginning;

use super::MAX_SHOWN;

/// A function that computes `left op right` of two JSON values. NULL if one of them is NULL or
/// `null`.
///
/// # Errors
/// A value is not a number, a division by zero, or a result that is too large.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonArithmetic {
    op: Operator,
    signature: Signature,
}

/// A number of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// An integer, with all digits.
    Integer(i128),
    /// Any other number.
    Float(f64),
}

impl JsonArithmetic {
    /// `op` is one of `+ - * / %`.
    pub(crate) fn new(op: Operator) -> JsonArithmetic {
        let texts = vec![DataType::Utf8, DataType::Utf8];
        JsonArithmetic {
            op,
            signature: Signature::exact(texts, Volatility::Immutable),
        }
    }
}

/// `left op right`.
fn compute(left: Number, op: Operator, right: Number) -> Result<Number> {
    let (left, right) = match (left, right) {
        (Number::Integer(left), Number::Integer(right)) => {
            return of_integers(left, op, right).map(Number::Integer);
        }
        (left, right) => (left.as_float(), right.as_float()),
    };
    let result = match op {
        Operator::Plus => left + right,
        Operator::Minus => left - right,
        Operator::Multiply => left * right,
        _ if right == 0.0 => return Err(division_by_zero()),
        Operator::Divide => left / right,
        _ => left % right,
    };
    match result.is_finite() {
        true => Ok(Number::Float(result)),
        false => Err(overflow(left, op, right)),
    }
}

fn of_integers(left: i128, op: Operator, right: i128) -> Result<i128> {
    let result = match op {
        Operator::Plus => left.checked_add(right),
        Operator::Minus => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        _ if right == 0 => return Err(division_by_zero()),
        Operator::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.ok_or_else(|| overflow(left, op, right))
}

fn overflow(left: impl fmt::Debug, op: Operator, right: impl fmt::Debug) -> DataFusionError {
    exec_datafusion_err!("the result of {left:?} {op} {right:?} is too large")
}

fn division_by_zero() -> DataFusionError {
    exec_datafusion_err!("division by zero")
}

impl Number {
    /// The sum of both. A sum of integers that has too many digits is a float, and one of floats
    /// may be infinity.
    pub(crate) fn plus(self, other: Number) -> Number {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => match left.checked_add(right) {
                Some(sum) => Number::Integer(sum),
                None => Number::Float(left as f64 + right as f64),
            },
            (left, right) => Number::Float(left.as_float() + right.as_float()),
        }
    }

    /// Which of them is greater. Integers are compared with all digits.
    pub(crate) fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => left.cmp(&right),
            (left, right) => {
                let (left, right) = (left.as_float(), right.as_float());
                // -0.0 equals 0, and no number of JSON is NaN.
                left.partial_cmp(&right).unwrap_or(Ordering::Equal)
            }
        }
    }

    /// The number of a JSON value; `None` for `null`.
    ///
    /// # Errors
    /// It is not a number.
    pub(crate) fn of(json: &str) -> Result<Option<Number>> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        if json == "null" {
            return Ok(None);
        }
        let text = json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(json);
        let number = Number::parse(text);
        number
            .map(Some)
            .ok_or_else(|| exec_datafusion_err!("'{}' is not a number", beginning(text, MAX_SHOWN)))
    }

    fn parse(text: &str) -> Option<Number> {
        // Rust also parses `inf`, `nan` and `+1`.
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        let is_integer = text.bytes().skip(1).all(|byte| byte.is_ascii_digit());
        if is_integer {
            return text.parse().ok().map(Number::Integer);
        }
        let float = text.parse().ok().filter(|float: &f64| float.is_finite());
        float.map(Number::Float)
    }

    fn as_float(self) -> f64 {
        match self {
            Number::Integer(integer) => integer as f64,
            Number::Float(float) => float,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Integer(integer) => write!(f, "{integer}"),
            // The shortest digits that are this number, as JSON writes them.
            Number::Float(float) => write!(f, "{float:?}"),
        }
    }
}

impl ScalarUDFImpl for JsonArithmetic {
    fn name(&self) -> &str {
        "json_arithmetic"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        use std::fmt::Write;

        let rows = args.number_rows;
        let [left, right] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("expected two JSON values"));
        };
        let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
        let (left, right) = (left.as_string::<i32>(), right.as_string::<i32>());
        let mut out = StringBuilder::with_capacity(rows, left.values().len());
        for (left, right) in left.iter().zip(right) {
            let numbers = match (left, right) {
                (Some(left), Some(right)) => Number::of(left)?.zip(Number::of(right)?),
                _ => None,
            };
            match numbers {
                None => out.append_null(),
                Some((left, right)) => {
                    let result = compute(left, self.op, right)?;
                    write!(out, "{result}").map_err(|error| exec_datafusion_err!("{error}"))?;
                    out.append_value("");
                }
            }
        }
        let out: ArrayRef = Arc::new(out.finish());
        Ok(ColumnarValue::Array(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(left: &str, op: Operator, right: &str) -> String {
        let numbers = Number::of(left).and_then(|left| Ok(left.zip(Number::of(right)?)));
        let result = numbers.and_then(|numbers| {
            numbers
                .map(|(left, right)| compute(left, op, right))
                .transpose()
        });
        match result {
            Ok(None) => "NULL".to_owned(),
            Ok(Some(number)) => number.to_string(),
            Err(error) => error.message().into_owned(),
        }
    }

    #[test]
    fn integers_stay_integers_and_others_are_floats() {
        let cases = [
            ("7", Operator::Plus, "1", "8"),
            ("7.5", Operator::Plus, "1", "8.5"),
            ("12.34", Operator::Multiply, "2", "24.68"),
            ("\"12\"", Operator::Multiply, "\"2.5\"", "30.0"),
            (
                "18446744073709551615",
                Operator::Plus,
                "1",
                "18446744073709551616",
            ),
            ("9007199254740993", Operator::Minus, "2", "9007199254740991"),
            ("-7", Operator::Divide, "2", "-3"),
            ("-7.0", Operator::Divide, "2", "-3.5"),
            ("-7", Operator::Modulo, "4", "-3"),
            ("7.5", Operator::Modulo, "2", "1.5"),
            ("-1", Operator::Multiply, "0.0", "-0.0"),
            ("null", Operator::Plus, "1", "NULL"),
            ("1", Operator::Divide, "0", "division by zero"),
            ("1.5", Operator::Modulo, "0", "division by zero"),
            (
                "1e308",
                Operator::Multiply,
                "10",
                "the result of 1e308 * 10.0 is too large",
            ),
            ("\"free\"", Operator::Plus, "1", "'free' is not a number"),
            ("[1]", Operator::Plus, "1", "'[1]' is not a number"),
            ("true", Operator::Plus, "1", "'true' is not a number"),
            ("1e400", Operator::Plus, "1", "'1e400' is not a number"),
            ("-", Operator::Plus, "1", "'-' is not a number"),
        ];
        for (left, op, right, expected) in cases {
            let found = computed(left, op, right);
            assert_eq!(found, expected, "{left} {op} {right}");
        }
        let large = "170141183460469231731687303715884105727";
        let overflow = computed(large, Operator::Plus, "1");
        assert_eq!(overflow, format!("the result of {large} + 1 is too large"));
    }
}
