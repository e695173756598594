//! Decimals of numbers in an expression: beside a decimal, and cast to one, `1.005` is the decimal
//! with its digits and not the float64 that is nearest to it.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion_common::ScalarValue;
use pseidon_dsl::expr::Literal;

/// The decimal with the digits of a constant. `None` for what is not a fraction or has too many.
pub(crate) fn exactly(literal: &Literal) -> Option<ScalarValue> {
    let text = match literal {
        Literal::Float(value) => value.to_string(),
        Literal::Decimal(digits) => digits.clone(),
        _ => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let scale = i8::try_from(fraction.len()).ok()?;
    let unscaled = format!("{whole}{fraction}");
    let digits = unscaled.trim_start_matches(['-', '0']).len();
    let precision = u8::try_from(digits).ok()?.max(scale.unsigned_abs()).max(1);
    if precision > DECIMAL128_MAX_PRECISION {
        return None;
    }
    let value = unscaled.parse().ok()?;
    Some(ScalarValue::Decimal128(Some(value), precision, scale))
}

/// The decimals with this many digits, of which `scale` are behind the point.
pub(crate) fn decimal(precision: u8, scale: i8) -> DataType {
    match precision <= DECIMAL128_MAX_PRECISION {
        true => DataType::Decimal128(precision, scale),
        false => DataType::Decimal256(precision, scale),
    }
}

pub(crate) fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// The type in which a float and a decimal are combined: a decimal has fewer digits before the
/// point than a float may need, and as few behind it. `None` for other types.
pub(crate) fn with_float(left: &DataType, right: &DataType) -> Option<DataType> {
    let is_mixed =
        (left.is_floating() && is_decimal(right)) || (is_decimal(left) && right.is_floating());
    is_mixed.then_some(DataType::Float64)
}
