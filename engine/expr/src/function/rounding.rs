//! `abs`, `round`, `ceil`, `floor` and `trunc` of integers, which keep all of their digits, and of
//! decimals, whose result has no decimal places.
//!
//! DataFusion computes most of them of integers as float64. For values without a known type, each
//! value decides. DataFusion's `ceil` and `floor` of decimals have the type of their argument,
//! which may have too few digits for the result: 99.5 is a decimal(3,1), and 100.0 is not.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType};
use datafusion_common::ScalarValue;
use datafusion_expr::ScalarUDF;
use pseidon_dsl::{Diagnostic, Span};

use super::{call, call_as_is};
use crate::decimal::decimal;
use crate::json::{FloatToJson, JsonIntegerRounding, Rounding};
use crate::operand::Operand;
use crate::operator::conditional;
use crate::scalar::{own_call, unary_call};

/// The call of one of these functions with an integer or a value without a known type. `None` for
/// any other call.
pub(super) fn of_integer(
    function: &Arc<ScalarUDF>,
    args: &[Operand],
    span: Span,
) -> Option<Result<Operand, Diagnostic>> {
    let rounding = Rounding::named(function.name())?;
    let (value, places) = match args {
        [value] => (value, None),
        [value, places] if matches!(rounding, Rounding::Round | Rounding::Trunc) => {
            (value, Some(places))
        }
        _ => return None,
    };
    if value.json {
        return Some(of_json(function, rounding, (value, places), span));
    }
    if places.is_none()
        && matches!(rounding, Rounding::Ceil | Rounding::Floor | Rounding::Trunc)
        && let Some((wide, result)) = decimals(&value.data_type)
    {
        return Some(of_decimal(function, value, &wide, &result, span));
    }
    let is_same = value.data_type.is_integer() && places.is_none() && rounding != Rounding::Abs;
    is_same.then(|| Ok(value.clone()))
}

/// The type in which a decimal with decimal places is rounded, and that of the result, which has
/// one digit more before the point. `None` for other types.
fn decimals(data_type: &DataType) -> Option<(DataType, DataType)> {
    let (DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)) =
        *data_type
    else {
        return None;
    };
    let places = u8::try_from(scale).ok().filter(|places| *places > 0)?;
    let wide = precision.saturating_add(1).min(DECIMAL256_MAX_PRECISION);
    let whole = wide.saturating_sub(places).max(1);
    Some((decimal(wide, scale), decimal(whole, 0)))
}

fn of_decimal(
    function: &Arc<ScalarUDF>,
    value: &Operand,
    wide: &DataType,
    result: &DataType,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let value = value.clone().cast(wide)?;
    call_as_is(function.name(), function, vec![value], span)?.cast(result)
}

fn of_json(
    function: &Arc<ScalarUDF>,
    rounding: Rounding,
    (value, places): (&Operand, Option<&Operand>),
    span: Span,
) -> Result<Operand, Diagnostic> {
    let float = value.clone().cast(&DataType::Float64)?;
    let args = std::iter::once(float).chain(places.cloned()).collect();
    let float = call(function.name(), function, args, span)?.cast(&DataType::Float64)?;
    let places = match places {
        Some(places) => places.clone().cast(&DataType::Int64)?,
        None => Operand::literal(ScalarValue::from(0_i64), span),
    };
    let arguments = vec![value.physical.clone(), places.physical];
    let integer = own_call(
        JsonIntegerRounding::new(rounding),
        arguments,
        DataType::Utf8,
    );
    let json = |physical| Operand {
        physical,
        data_type: DataType::Utf8,
        json: true,
        exact: None,
        span,
    };
    let float = unary_call(FloatToJson, float.physical);
    conditional("coalesce", vec![json(integer), json(float)], span)
}
