//! The type in which operands are compared.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion_common::ScalarValue;
use datafusion_expr::type_coercion::binary::comparison_coercion;
use pseidon_dsl::{Diagnostic, Span};

use crate::decimal::{is_decimal, with_float};
use crate::intervals::length;
use crate::operand::{Operand, is_exactly};
use crate::types::{canonical, is_text, type_name, with_date};

/// The least number of decimal places of numbers in JSON that are compared as decimals.
const JSON_SCALE: i8 = 9;

/// The integers up to this one are all float64 values.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Casts operands that are compared with each other to one type. `span` is the position of the
/// comparison.
pub(crate) fn comparable<const N: usize>(
    operands: [Operand; N],
    span: Span,
) -> Result<[Operand; N], Diagnostic> {
    let is_exact = compares_exactly(&operands.each_ref());
    let operands = operands.map(|operand| if is_exact { operand.exact() } else { operand });
    let target = comparison_type(&operands.each_ref(), span)?;
    let mut cast = operands.clone();
    for (cast, operand) in cast.iter_mut().zip(operands) {
        *cast = compared(operand, &target)?;
    }
    Ok(cast)
}

/// Casts an operand and all operands that it is compared with to one type. `span` is the position
/// of the comparison.
pub(crate) fn comparable_with(
    operand: Operand,
    others: Vec<Operand>,
    span: Span,
) -> Result<(Operand, Vec<Operand>), Diagnostic> {
    let all: Vec<&Operand> = std::iter::once(&operand).chain(&others).collect();
    let (operand, others) = match compares_exactly(&all) {
        true => (
            operand.exact(),
            others.into_iter().map(Operand::exact).collect(),
        ),
        false => (operand, others),
    };
    let all: Vec<&Operand> = std::iter::once(&operand).chain(&others).collect();
    let target = comparison_type(&all, span)?;
    let others = others
        .into_iter()
        .map(|other| compared(other, &target))
        .collect::<Result<_, _>>()?;
    Ok((compared(operand, &target)?, others))
}

/// The operand in the type in which it is compared, and an interval as its length.
fn compared(operand: Operand, target: &DataType) -> Result<Operand, Diagnostic> {
    match (target, &operand.data_type) {
        (DataType::Interval(_), DataType::Duration(_)) => length(operand),
        (DataType::Interval(_), _) => length(operand.compared_as(target)?),
        _ => operand.compared_as(target),
    }
}

/// Whether constant fractions are compared as decimals: with a decimal, and with integers or JSON
/// values from which a float64 does not distinguish them.
fn compares_exactly(operands: &[&Operand]) -> bool {
    let others = || operands.iter().filter(|operand| operand.exact.is_none());
    let is_large = operands.iter().any(|operand| {
        let value = operand.exact.as_ref().and(operand.as_literal());
        matches!(value, Some(ScalarValue::Float64(Some(value))) if value.abs() >= EXACT_INTEGERS)
    });
    others().any(|other| is_decimal(&other.data_type))
        || (is_large && others().any(|other| other.json || other.data_type.is_integer()))
}

fn comparison_type(operands: &[&Operand], span: Span) -> Result<DataType, Diagnostic> {
    let mut target: Option<(DataType, &Operand)> = None;
    for operand in operands
        .iter()
        .copied()
        .filter(|operand| !operand.json && operand.as_literal().is_none())
    {
        target = Some(match target {
            None => (canonical(&operand.data_type), operand),
            Some((known, first)) => (common_type(&known, operand, first, span)?, first),
        });
    }
    let has_json = operands.iter().any(|operand| operand.json);
    let literals = || {
        operands
            .iter()
            .copied()
            .filter(|operand| operand.as_literal().is_some() && !operand.is_null())
    };
    if target.is_none() && has_json && literals().any(|literal| is_text(&literal.data_type)) {
        return Ok(DataType::Utf8);
    }
    for literal in literals() {
        target = Some(match target {
            None => (literal.data_type.clone(), literal),
            Some((known, first)) if accepts(&known, literal)? => (known, first),
            Some((known, first)) => (common_type(&known, literal, first, span)?, first),
        });
    }
    let target = target.map_or(DataType::Utf8, |(data_type, _)| data_type);
    if has_json && target.is_numeric() {
        // A column may contain any integer of its type.
        let has_large = operands.iter().any(|operand| match operand.as_literal() {
            Some(value) => is_large(value),
            None => !operand.json,
        });
        return Ok(type_of_numbers(&target, has_large));
    }
    Ok(target)
}

/// Whether another integer may be the same float64 as this one.
fn is_large(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Int64(Some(value)) => value.unsigned_abs() >= 1 << f64::MANTISSA_DIGITS,
        ScalarValue::UInt64(Some(value)) => *value >= 1 << f64::MANTISSA_DIGITS,
        _ => false,
    }
}

/// The type in which numbers in JSON are compared with values of type `other`. It represents both
/// exactly, apart from digits after the ninth decimal place. `has_large`: whether there may be
/// integers that float64 does not represent.
fn type_of_numbers(other: &DataType, has_large: bool) -> DataType {
    match other {
        DataType::Decimal128(_, scale) => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, (*scale).max(JSON_SCALE))
        }
        DataType::Decimal256(_, scale) => {
            DataType::Decimal256(DECIMAL256_MAX_PRECISION, (*scale).max(JSON_SCALE))
        }
        DataType::Int64 | DataType::UInt64 if has_large => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, JSON_SCALE)
        }
        _ => DataType::Float64,
    }
}

/// Whether a constant can be used as a value of `data_type`. A string that is not a valid value of
/// it is an error.
fn accepts(data_type: &DataType, literal: &Operand) -> Result<bool, Diagnostic> {
    if literal.data_type == *data_type {
        return Ok(true);
    }
    if is_text(&literal.data_type) && !data_type.is_nested() {
        return literal.clone().cast(data_type).map(|_| true);
    }
    Ok(is_exactly(data_type, literal))
}

/// The type to which values of two types are cast for a comparison. Strings are not compared with
/// other types, because `'10' < '9'`, but `10 > 9`.
fn common_type(
    known: &DataType,
    operand: &Operand,
    first: &Operand,
    span: Span,
) -> Result<DataType, Diagnostic> {
    let mixed = is_text(known) != is_text(&operand.data_type);
    let common = if mixed {
        None
    } else {
        with_float(known, &operand.data_type)
            .or_else(|| with_date(known, &operand.data_type))
            .or_else(|| comparison_coercion(known, &operand.data_type))
    };
    common.map(|common| canonical(&common)).ok_or_else(|| {
        let (known, other) = (type_name(known), operand.type_name());
        // An argument of a named expression and a part of its definition are no range.
        let place = match first.span.expansion == operand.span.expansion {
            true => first.span.to(operand.span),
            false => span,
        };
        let diagnostic = Diagnostic::new(
            place,
            format!("cannot compare {known} with {other}"),
            "incompatible types",
        );
        diagnostic.with_help(format!(
            "cast one side, for example: cast(x as {})",
            if mixed && known == "utf8" {
                other
            } else {
                known
            }
        ))
    })
}
