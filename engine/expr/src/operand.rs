//! Operands, the compiled parts of an expression, and their type coercion.
//!
//! There are three kinds of operands. A column or a computed value has a fixed type. A literal is
//! cast to the type of the other operands if its value fits, once, at compile time. A JSON value is
//! converted to a string and cast to the type of the other operands.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::type_coercion::binary::type_union_coercion;
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr, Literal, TryCastExpr};
use pseidon_dsl::{Diagnostic, Span};

use crate::decimal::{is_decimal, with_float};
use crate::floats::{FloatCast, may_overflow};
use crate::json::{JsonNumber, JsonOf, JsonParse, JsonText, StringsAs};
use crate::ranges::{RangeCheck, has_range};
use crate::scalar::{own_call, unary_call};
use crate::types::{canonical, is_text, json_field, type_name, with_date};

/// A compiled part of an expression.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) physical: Arc<dyn PhysicalExpr>,
    pub(crate) data_type: DataType,
    /// Whether the values are JSON source text.
    pub(crate) json: bool,
    /// The decimal with the digits of a constant fraction, which is a float64 by itself.
    pub(crate) exact: Option<Box<ScalarValue>>,
    /// The position in the pipeline file.
    pub(crate) span: Span,
}

impl Operand {
    /// The result of an operator or a function. It is computed immediately if all arguments are
    /// constants.
    pub(crate) fn computed(
        physical: Arc<dyn PhysicalExpr>,
        data_type: DataType,
        span: Span,
    ) -> Result<Operand, Diagnostic> {
        let folded = fold(physical).map_err(|error| {
            Diagnostic::new(
                span,
                format!("this expression always fails: {}", reason(&error)),
                "fails for every record",
            )
        })?;
        Ok(Operand {
            physical: folded,
            data_type,
            json: false,
            exact: None,
            span,
        })
    }

    /// A constant operand.
    pub(crate) fn literal(value: ScalarValue, span: Span) -> Operand {
        Operand {
            data_type: value.data_type(),
            physical: Arc::new(Literal::new(value)),
            json: false,
            exact: None,
            span,
        }
    }

    /// The value of a constant. `None` for other operands.
    pub(crate) fn as_literal(&self) -> Option<&ScalarValue> {
        self.physical.downcast_ref::<Literal>().map(Literal::value)
    }

    /// The decimal of a constant fraction. Other operands are returned unchanged.
    pub(crate) fn exact(self) -> Operand {
        match self.exact {
            Some(decimal) => Operand::literal(*decimal, self.span),
            None => self,
        }
    }

    /// Whether this is the constant NULL.
    pub(crate) fn is_null(&self) -> bool {
        self.as_literal().is_some_and(ScalarValue::is_null)
    }

    /// The name of the type for users.
    pub(crate) fn type_name(&self) -> String {
        if self.json {
            "json".to_owned()
        } else {
            type_name(&self.data_type)
        }
    }

    /// Converts JSON values to strings. Other operands are returned unchanged.
    pub(crate) fn json_to_string(self) -> Operand {
        if !self.json {
            return self;
        }
        let text = unary_call(JsonText, self.physical);
        Operand {
            physical: text,
            data_type: DataType::Utf8,
            json: false,
            exact: None,
            span: self.span,
        }
    }

    /// Converts integers and constant fractions to JSON values. JSON values and NULL are returned
    /// unchanged.
    pub(crate) fn number_to_json(self) -> Result<Operand, Diagnostic> {
        if self.json {
            return Ok(self);
        }
        Ok(Operand {
            json: true,
            ..self.cast(&DataType::Utf8)?
        })
    }

    /// Writes values of any type as JSON values.
    pub(crate) fn into_json(self) -> Result<Operand, Diagnostic> {
        if self.json {
            return Ok(self);
        }
        let field = Arc::new(field_of("value", &self));
        let json = unary_call(JsonOf { field }, self.physical);
        Ok(Operand {
            json: true,
            ..Operand::computed(json, DataType::Utf8, self.span)?
        })
    }

    /// The JSON values in strings. With `is_try`, what is not JSON is NULL.
    pub(crate) fn parse_json(self, is_try: bool) -> Result<Operand, Diagnostic> {
        let text = self.text("parse_json")?;
        let json = unary_call(JsonParse { is_try }, text.physical);
        Ok(Operand {
            json: true,
            ..Operand::computed(json, DataType::Utf8, text.span)?
        })
    }

    /// Casts the operand to `to`. A constant that cannot be cast, and types without a cast between
    /// them, are errors.
    pub(crate) fn cast(self, to: &DataType) -> Result<Operand, Diagnostic> {
        let operand = match is_decimal(to) {
            true => self.json_to_string().exact(),
            false => self.json_to_string(),
        };
        if operand.data_type == *to {
            return Ok(operand);
        }
        if *to == DataType::Utf8 && operand.data_type.is_nested() {
            return Ok(Operand {
                json: false,
                ..operand.into_json()?
            });
        }
        operand.check_cast(to)?;
        let (shown, span) = (operand.shown(), operand.span);
        let cast: Arc<dyn PhysicalExpr> = match may_overflow(&operand.data_type, to) {
            true => float_cast(operand.physical, to, false),
            false => Arc::new(CastExpr::new(operand.physical, to.clone(), None)),
        };
        let checks = may_leave_range(&operand.data_type, to);
        let folded = fold(cast).and_then(|cast| match checks {
            true => fold(checked(cast, to, false)),
            false => Ok(cast),
        });
        let folded = folded.map_err(|_| {
            Diagnostic::new(
                span,
                format!("{shown} is not a valid {}", type_name(to)),
                format!("expected {}", type_name(to)),
            )
        })?;
        Ok(Operand {
            physical: folded,
            data_type: to.clone(),
            json: false,
            exact: None,
            span,
        })
    }

    /// Checks that times and decimals are in the range of their type. Other values are returned
    /// unchanged.
    pub(crate) fn in_range(self) -> Result<Operand, Diagnostic> {
        if !has_range(&self.data_type) {
            return Ok(self);
        }
        let check = checked(self.physical, &self.data_type, false);
        Operand::computed(check, self.data_type, self.span)
    }

    /// Casts the operand to `to`, with NULL for values that cannot be cast.
    pub(crate) fn try_cast(self, to: &DataType) -> Result<Operand, Diagnostic> {
        let operand = match is_decimal(to) {
            true => self.json_to_string().exact(),
            false => self.json_to_string(),
        };
        if operand.data_type.is_nested() && *to == DataType::Utf8 {
            return operand.cast(to);
        }
        operand.check_cast(to)?;
        let span = operand.span;
        let cast: Arc<dyn PhysicalExpr> = match may_overflow(&operand.data_type, to) {
            true => float_cast(operand.physical, to, true),
            false => Arc::new(TryCastExpr::new(operand.physical, to.clone())),
        };
        let cast = Operand::computed(cast, to.clone(), span)?;
        match may_leave_range(&operand.data_type, to) {
            true => Operand::computed(checked(cast.physical, to, true), to.clone(), span),
            false => Ok(cast),
        }
    }

    fn check_cast(&self, to: &DataType) -> Result<(), Diagnostic> {
        if can_cast_types(&self.data_type, to) {
            return Ok(());
        }
        let message = format!("cannot cast {} to {}", self.type_name(), type_name(to));
        Err(Diagnostic::new(
            self.span,
            message,
            format!("this is {}", self.type_name()),
        ))
    }

    /// Casts the operand to the type in which it is compared. A JSON value that is not of this type
    /// becomes NULL: comparing it does not make its record invalid.
    pub(crate) fn compared_as(self, to: &DataType) -> Result<Operand, Diagnostic> {
        if !self.json || is_text(to) {
            return self.cast(to);
        }
        if *to != DataType::Float64 {
            return self.try_cast(to);
        }
        self.json_number(StringsAs::Numbers)
    }

    /// Converts JSON values to numbers. NULL is the result for values that are not numbers.
    pub(crate) fn json_number(self, strings: StringsAs) -> Result<Operand, Diagnostic> {
        let span = self.span;
        let number = unary_call(JsonNumber(strings), self.physical);
        Operand::computed(number, DataType::Float64, span)
    }

    /// Casts the operand to boolean. Types other than boolean and JSON are errors.
    pub(crate) fn condition(self) -> Result<Operand, Diagnostic> {
        if self.json || self.is_null() || self.data_type == DataType::Boolean {
            return self.cast(&DataType::Boolean);
        }
        let message = format!("expected a condition, found {}", self.type_name());
        Err(Diagnostic::new(self.span, message, "expected boolean")
            .with_help("compare it with a value, for example: x <> 0"))
    }

    /// Casts the operand to a string. Types other than strings and JSON are errors. `what` names
    /// the operator that requires a string.
    pub(crate) fn text(self, what: &str) -> Result<Operand, Diagnostic> {
        if self.json || self.is_null() || is_text(&self.data_type) {
            return self.cast(&DataType::Utf8);
        }
        let name = self.type_name();
        Err(Diagnostic::new(
            self.span,
            format!("`{what}` requires a string, found {name}"),
            "expected a string",
        )
        .with_help("convert it to a string: cast(x as text)"))
    }

    /// The operand for messages: the value of a constant, or the type.
    fn shown(&self) -> String {
        match self.as_literal() {
            Some(ScalarValue::Utf8(Some(text))) => format!("'{text}'"),
            Some(value) => value.to_string(),
            None => format!("this {}", self.type_name()),
        }
    }
}

/// Whether Arrow's cast of a value of the first type may make one that is outside of the second.
fn may_leave_range(from: &DataType, to: &DataType) -> bool {
    // Arrow parses a string of digits as the number of a time.
    (from.is_numeric() || is_text(from)) && to.is_temporal() && has_range(to)
}

/// Values that are in the range of their type.
fn checked(values: Arc<dyn PhysicalExpr>, to: &DataType, is_try: bool) -> Arc<dyn PhysicalExpr> {
    own_call(
        RangeCheck::new(to.clone(), is_try),
        vec![values],
        to.clone(),
    )
}

/// Values as floats of a type that may be too small for them.
fn float_cast(values: Arc<dyn PhysicalExpr>, to: &DataType, is_try: bool) -> Arc<dyn PhysicalExpr> {
    let to = to.clone();
    unary_call(FloatCast { to, is_try }, values)
}

/// An operation whose operands have the types that it needs.
pub(crate) fn operation(
    left: Operand,
    op: Operator,
    right: Operand,
    result: DataType,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let physical = BinaryExpr::new(left.physical, op, right.physical).with_fail_on_overflow(true);
    Operand::computed(Arc::new(physical), result, span)
}

/// Replaces an expression by its value if all of its arguments are constants.
fn fold(physical: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let children = physical.children();
    let constant = !children.is_empty() && children.iter().all(|child| child.is::<Literal>());
    if !constant || physical.is_volatile_node() {
        return Ok(physical);
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    let value = match physical.evaluate(&batch)? {
        ColumnarValue::Scalar(value) => value,
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
    };
    Ok(Arc::new(Literal::new(value)))
}

/// The root cause of an error in one line, without the wrappers around it.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let message = match error.find_root() {
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let message = message
        .split(DataFusionError::BACK_TRACE_SEP)
        .next()
        .unwrap_or_default();
    let known = [
        "Divide by zero error",
        "Cast error: ",
        "Arithmetic overflow: ",
        "Compute error: ",
        "Parser error: ",
        "Invalid argument error: ",
    ];
    let short = known
        .iter()
        .skip(1)
        .find_map(|prefix| message.strip_prefix(prefix))
        .unwrap_or(message);
    if short == known[0] {
        "division by zero".to_owned()
    } else {
        short.to_owned()
    }
}

/// Whether a number is exactly representable in `data_type`.
pub(crate) fn is_exactly(data_type: &DataType, literal: &Operand) -> bool {
    if !data_type.is_numeric() || !literal.data_type.is_numeric() {
        return false;
    }
    let Some(value) = literal.as_literal() else {
        return false;
    };
    let back = value
        .cast_to(data_type)
        .and_then(|there| there.cast_to(&literal.data_type));
    back.is_ok_and(|back| back == *value)
}

/// Whether this is a constant number that JSON has.
fn is_fraction(operand: &Operand) -> bool {
    match operand.as_literal() {
        Some(ScalarValue::Float64(Some(value))) => value.is_finite(),
        Some(ScalarValue::Decimal128(Some(_), ..)) => true,
        _ => false,
    }
}

/// The constants among operands as decimals, if one of the others is a decimal.
fn exact_beside_decimals(operands: Vec<Operand>) -> Vec<Operand> {
    let is_column = |operand: &Operand| !operand.json && operand.exact.is_none();
    let is_exact = operands
        .iter()
        .any(|operand| is_column(operand) && is_decimal(&operand.data_type));
    match is_exact {
        true => operands.into_iter().map(Operand::exact).collect(),
        false => operands,
    }
}

/// Casts operands of which one is the result (`case`, `coalesce`) to one type. If all of them are
/// JSON, integers, constant numbers or NULL, they become JSON.
pub(crate) fn alternatives(operands: Vec<Operand>) -> Result<Vec<Operand>, Diagnostic> {
    let is_json = |operand: &Operand| {
        operand.json || operand.is_null() || operand.data_type.is_integer() || is_fraction(operand)
    };
    if operands.iter().any(|operand| operand.json) && operands.iter().all(is_json) {
        return operands.into_iter().map(Operand::number_to_json).collect();
    }
    let beside_json = type_beside_json(&operands)?;
    let operands: Vec<Operand> = operands.into_iter().map(Operand::json_to_string).collect();
    let operands = exact_beside_decimals(operands);
    let target = match beside_json {
        Some(known) => known,
        None => common_alternative(&operands)?,
    };
    operands
        .into_iter()
        .map(|operand| operand.cast(&target))
        .collect()
}

/// The type of JSON values that are alternatives to others: that of the others, as if the fields
/// had been decoded with it. `None` if there are no JSON values, or the others are strings or
/// nested.
fn type_beside_json(operands: &[Operand]) -> Result<Option<DataType>, Diagnostic> {
    if !operands.iter().any(|operand| operand.json) {
        return Ok(None);
    }
    let others = operands.iter().filter(|operand| !operand.json).cloned();
    let others = exact_beside_decimals(others.collect());
    let known = common_alternative(&others)?;
    let is_simple = known.is_numeric() || known.is_temporal() || known == DataType::Boolean;
    Ok(is_simple.then_some(known))
}

/// The type of operands of which one is the result.
fn common_alternative(operands: &[Operand]) -> Result<DataType, Diagnostic> {
    let (literals, others): (Vec<&Operand>, Vec<&Operand>) = operands
        .iter()
        .partition(|operand| operand.as_literal().is_some());
    let mut target: Option<DataType> = None;
    for operand in others
        .into_iter()
        .chain(literals.into_iter().filter(|literal| !literal.is_null()))
    {
        target = Some(match target {
            None => canonical(&operand.data_type),
            Some(known) if is_exactly(&known, operand) => known,
            // `case … then a_date else '2024-01-01' end`
            Some(known)
                if known.is_temporal()
                    && operand.as_literal().is_some()
                    && is_text(&operand.data_type) =>
            {
                known
            }
            Some(known) => with_float(&known, &operand.data_type)
                .or_else(|| with_date(&known, &operand.data_type))
                .or_else(|| type_union_coercion(&known, &operand.data_type))
                .map(|common| canonical(&common))
                .ok_or_else(|| {
                    let message = format!(
                        "the result is {} here, but {} in another branch",
                        operand.type_name(),
                        type_name(&known)
                    );
                    Diagnostic::new(
                        operand.span,
                        message,
                        format!("this is {}", operand.type_name()),
                    )
                })?,
        });
    }
    // A constant NULL may have a type: `case … then cast(null as text) end`.
    let of_null = operands
        .iter()
        .map(|operand| &operand.data_type)
        .find(|data_type| **data_type != DataType::Null);
    let target = target.or(of_null.map(canonical));
    Ok(target.unwrap_or(DataType::Null))
}

/// The column for the values of the operand.
pub(crate) fn field_of(name: &str, operand: &Operand) -> Field {
    if operand.json {
        json_field(name)
    } else {
        Field::new(name, operand.data_type.clone(), true)
    }
}
