//! The seconds of a duration, such as the difference of two timestamps, with their fraction.
//!
//! DataFusion's `date_part('epoch', duration)` drops the fraction.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_expr::{Operator, ScalarUDF};
use pseidon_dsl::{Diagnostic, Span};

use crate::arithmetic::arithmetic;
use crate::operand::Operand;

/// The call of `date_part('epoch', …)` with a duration. `None` for any other call.
pub(super) fn seconds(
    function: &ScalarUDF,
    args: &[Operand],
    span: Span,
) -> Option<Result<Operand, Diagnostic>> {
    let [part, value] = args else { return None };
    let DataType::Duration(unit) = value.data_type else {
        return None;
    };
    let is_epoch = match part.as_literal() {
        Some(ScalarValue::Utf8(Some(part))) => part.eq_ignore_ascii_case("epoch"),
        _ => false,
    };
    let is_here = function.name() == "date_part" && is_epoch;
    is_here.then(|| divided(value.clone(), per_second(unit), span))
}

fn divided(duration: Operand, per_second: f64, span: Span) -> Result<Operand, Diagnostic> {
    let units = duration.cast(&DataType::Int64)?.cast(&DataType::Float64)?;
    let per_second = Operand::literal(ScalarValue::from(per_second), span);
    arithmetic(units, Operator::Divide, per_second, span)
}

fn per_second(unit: TimeUnit) -> f64 {
    match unit {
        TimeUnit::Second => 1.0,
        TimeUnit::Millisecond => 1e3,
        TimeUnit::Microsecond => 1e6,
        TimeUnit::Nanosecond => 1e9,
    }
}
