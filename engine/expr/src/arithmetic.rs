//! `+ - * / %` and the sign: the type in which operands are computed.
//!
//! Known types decide it as in SQL. If one operand has no known type, and the other has none either
//! or is an integer, each value decides ([`JsonArithmetic`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_physical_expr::expressions::NegativeExpr;
use pseidon_dsl::{Diagnostic, Span};

use crate::decimal::{is_decimal, with_float};
use crate::json::JsonArithmetic;
use crate::operand::{Operand, operation};
use crate::scalar::own_call;
use crate::types::{is_text, timestamp, with_date};

/// The type of SQL intervals: months, days and nanoseconds.
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Compiles `left op right` for one of `+ - * / %`.
pub(crate) fn arithmetic(
    left: Operand,
    op: Operator,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let message = format!(
        "cannot compute {} {op} {}",
        left.type_name(),
        right.type_name()
    );
    if computes_as_json(&left, &right) {
        return json_arithmetic(left, op, right, span);
    }
    let undefined = || Diagnostic::new(span, message, "not defined for these types");
    let (left, right) = computable(left, right)?;
    let (left, right) = with_common_kind(left, right)?;
    let types = (left.data_type.clone(), right.data_type.clone());
    let Ok((left_type, right_type)) =
        BinaryTypeCoercer::new(&types.0, &op, &types.1).get_input_types()
    else {
        return Err(undefined());
    };
    let Ok(result) = BinaryTypeCoercer::new(&left_type, &op, &right_type).get_result_type() else {
        return Err(undefined());
    };
    operation(
        left.cast(&left_type)?,
        op,
        right.cast(&right_type)?,
        result,
        span,
    )?
    .in_range()
}

/// A constant fraction beside a decimal is a decimal, and any other float makes the result a float.
/// A date beside a timestamp, or beside hours, is a timestamp.
fn with_common_kind(left: Operand, right: Operand) -> Result<(Operand, Operand), Diagnostic> {
    let (left, right) = match (left.exact.is_some(), right.exact.is_some()) {
        (true, false) if is_decimal(&right.data_type) => (left.exact(), right),
        (false, true) if is_decimal(&left.data_type) => (left, right.exact()),
        _ => (left, right),
    };
    let types = (&left.data_type, &right.data_type);
    let common = with_float(types.0, types.1).or_else(|| with_date(types.0, types.1));
    match common {
        Some(common) => Ok((left.cast(&common)?, right.cast(&common)?)),
        None if right.data_type == DataType::Date32 => {
            let right = with_time(right, &left)?;
            Ok((left, right))
        }
        None => Ok((with_time(left, &right)?, right)),
    }
}

/// A date beside an interval that may have hours is a timestamp, as in PostgreSQL. Arrow would drop
/// the hours. Beside a constant of days and months it stays a date. Other operands are returned
/// unchanged.
fn with_time(date: Operand, interval: &Operand) -> Result<Operand, Diagnostic> {
    let has_hours = match interval.as_literal() {
        Some(ScalarValue::IntervalMonthDayNano(Some(interval))) => interval.nanoseconds != 0,
        Some(value) => !value.is_null(),
        None => true,
    };
    match date.data_type == DataType::Date32 && interval.data_type == INTERVAL && has_hours {
        true => date.cast(&timestamp(TimeUnit::Microsecond)),
        false => Ok(date),
    }
}

/// Whether the values decide about the type of the result. A float or a decimal decides it itself.
fn computes_as_json(left: &Operand, right: &Operand) -> bool {
    let has_any_type = |operand: &Operand| operand.json || operand.data_type.is_integer();
    (left.json || right.json) && has_any_type(left) && has_any_type(right)
}

fn json_arithmetic(
    left: Operand,
    op: Operator,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let (left, right) = (left.number_to_json()?, right.number_to_json()?);
    let function = JsonArithmetic::new(op);
    let physical = own_call(
        function,
        vec![left.physical, right.physical],
        DataType::Utf8,
    );
    Ok(Operand {
        json: true,
        ..Operand::computed(physical, DataType::Utf8, span)?
    })
}

/// Compiles `-operand`.
pub(crate) fn negate(operand: Operand, span: Span) -> Result<Operand, Diagnostic> {
    if operand.json {
        // The sign of a zero counts, so this is not a difference.
        let minus_one = Operand::literal(ScalarValue::from(-1_i64), span);
        return json_arithmetic(minus_one, Operator::Multiply, operand, span);
    }
    match &operand.data_type {
        // DataFusion's negation of the smallest integer silently overflows. A difference is
        // checked.
        integer if integer.is_integer() || *integer == DataType::Null => arithmetic(
            Operand::literal(ScalarValue::from(0_i64), span),
            Operator::Minus,
            operand,
            span,
        ),
        number
            if number.is_numeric()
                || matches!(number, DataType::Interval(_) | DataType::Duration(_)) =>
        {
            let data_type = operand.data_type.clone();
            Operand::computed(
                Arc::new(NegativeExpr::new(operand.physical)),
                data_type,
                span,
            )
        }
        _ => Err(Diagnostic::new(
            span,
            format!("cannot negate {}", operand.type_name()),
            "expected a number",
        )),
    }
}

/// Casts the operands of `+ - * / %`: JSON values to numbers, or next to an interval to times, and
/// a constant string next to a time to an interval.
fn computable(left: Operand, right: Operand) -> Result<(Operand, Operand), Diagnostic> {
    let left_type = left.data_type.clone();
    let right_type = right.data_type.clone();
    let (left_json, right_json) = (left.json, right.json);
    let left = computable_with(left, &right_type, right_json)?;
    let right = computable_with(right, &left_type, left_json)?;
    Ok((left, right))
}

fn computable_with(
    operand: Operand,
    other: &DataType,
    other_is_json: bool,
) -> Result<Operand, Diagnostic> {
    if operand.json {
        return match other {
            // An interval is added to a time.
            DataType::Interval(_) => operand.cast(&timestamp(TimeUnit::Microsecond)),
            known if !other_is_json && (known.is_numeric() || known.is_temporal()) => {
                operand.cast(known)
            }
            _ => operand.cast(&DataType::Float64),
        };
    }
    let is_text_literal = is_text(&operand.data_type) && operand.as_literal().is_some();
    if is_text_literal
        && matches!(
            other,
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Time64(_)
        )
    {
        return operand.cast(&INTERVAL);
    }
    if is_text(&operand.data_type) && !operand.is_null() {
        let diagnostic = Diagnostic::new(
            operand.span,
            "cannot compute with a string",
            "this is a string",
        );
        return Err(diagnostic.with_help("convert it to a number: cast(x as double)"));
    }
    Ok(operand)
}
