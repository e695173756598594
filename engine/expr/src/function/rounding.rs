//! `abs`, `round`, `ceil`, `floor` and `trunc` of integers, which keep all of their digits.
//!
//! DataFusion computes most of them as float64. For values without a known type, each value decides.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use datafusion_expr::ScalarUDF;
use pseidon_dsl::{Diagnostic, Span};

use super::call;
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
    let is_same = value.data_type.is_integer() && places.is_none() && rounding != Rounding::Abs;
    is_same.then(|| Ok(value.clone()))
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
    let float = unary_call(FloatToJson::new(), float.physical, DataType::Utf8);
    conditional("coalesce", vec![json(integer), json(float)], span)
}
