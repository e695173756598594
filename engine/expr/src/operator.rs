//! SQL operators over compiled operands.
//!
//! NULL means unknown, as in SQL. An overflow, a division by zero and a failed cast are errors of
//! the record, never silent.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{
    CaseExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, NotExpr,
};
use pseidon_dsl::expr::{BinaryOp, IsPredicate, UnaryOp};
use pseidon_dsl::{Diagnostic, Span};

use crate::arithmetic::{arithmetic, negate};
use crate::bits::{self, Direction};
use crate::comparison::{comparable, comparable_with};
use crate::equality::{by_bits, item_by_bits};
use crate::json::StringsAs;
use crate::operand::{Operand, alternatives, operation, reason};

/// Compiles `op operand`.
pub(crate) fn unary(op: UnaryOp, operand: Operand, span: Span) -> Result<Operand, Diagnostic> {
    match op {
        UnaryOp::Neg => negate(operand, span),
        UnaryOp::BitNot => bits::inverted(operand, span),
        UnaryOp::Not => not(operand, span),
    }
}

/// Compiles `left op right`.
pub(crate) fn binary(
    left: Operand,
    op: BinaryOp,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    match op {
        BinaryOp::Or => logical(left, Operator::Or, right, span),
        BinaryOp::And => logical(left, Operator::And, right, span),
        BinaryOp::Eq => comparison(left, Operator::Eq, right, span),
        BinaryOp::NotEq => comparison(left, Operator::NotEq, right, span),
        BinaryOp::Lt => comparison(left, Operator::Lt, right, span),
        BinaryOp::LtEq => comparison(left, Operator::LtEq, right, span),
        BinaryOp::Gt => comparison(left, Operator::Gt, right, span),
        BinaryOp::GtEq => comparison(left, Operator::GtEq, right, span),
        BinaryOp::RegexMatch => regex(left, Operator::RegexMatch, right, span),
        BinaryOp::RegexNotMatch => regex(left, Operator::RegexNotMatch, right, span),
        BinaryOp::RegexIMatch => regex(left, Operator::RegexIMatch, right, span),
        BinaryOp::RegexNotIMatch => regex(left, Operator::RegexNotIMatch, right, span),
        BinaryOp::Distinct => comparison(left, Operator::IsDistinctFrom, right, span),
        BinaryOp::NotDistinct => comparison(left, Operator::IsNotDistinctFrom, right, span),
        BinaryOp::Concat => {
            let (left, right) = (left.cast(&DataType::Utf8)?, right.cast(&DataType::Utf8)?);
            operation(left, Operator::StringConcat, right, DataType::Utf8, span)
        }
        BinaryOp::BitAnd => bits::bitwise(left, Operator::BitwiseAnd, right, span),
        BinaryOp::BitOr => bits::bitwise(left, Operator::BitwiseOr, right, span),
        BinaryOp::BitXor => bits::bitwise(left, Operator::BitwiseXor, right, span),
        BinaryOp::ShiftLeft => bits::shift(left, Direction::Left, right, span),
        BinaryOp::ShiftRight => bits::shift(left, Direction::Right, right, span),
        BinaryOp::Add => arithmetic(left, Operator::Plus, right, span),
        BinaryOp::Sub => arithmetic(left, Operator::Minus, right, span),
        BinaryOp::Mul => arithmetic(left, Operator::Multiply, right, span),
        BinaryOp::Div => arithmetic(left, Operator::Divide, right, span),
        BinaryOp::Mod => arithmetic(left, Operator::Modulo, right, span),
    }
}

fn logical(left: Operand, op: Operator, right: Operand, span: Span) -> Result<Operand, Diagnostic> {
    operation(
        left.condition()?,
        op,
        right.condition()?,
        DataType::Boolean,
        span,
    )
}

fn comparison(
    left: Operand,
    op: Operator,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    if left.json && right.json {
        return json_comparison(left, op, right, span);
    }
    let [left, right] = comparable([left, right], span)?;
    operation(left, op, right, DataType::Boolean, span)
}

/// Compares JSON values: two numbers as numbers, others as strings.
fn json_comparison(
    left: Operand,
    op: Operator,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let left_number = left.clone().json_number(StringsAs::Strings)?;
    let right_number = right.clone().json_number(StringsAs::Strings)?;
    let are_numbers = logical(
        is_null(left_number.clone(), true, span)?,
        Operator::And,
        is_null(right_number.clone(), true, span)?,
        span,
    )?;
    let by_number = operation(left_number, op, right_number, DataType::Boolean, span)?;
    let (left, right) = (left.cast(&DataType::Utf8)?, right.cast(&DataType::Utf8)?);
    let by_text = operation(left, op, right, DataType::Boolean, span)?;
    case(None, vec![(are_numbers, by_number)], Some(by_text), span)
}

fn regex(left: Operand, op: Operator, pattern: Operand, span: Span) -> Result<Operand, Diagnostic> {
    let (left, pattern) = (left.text("~")?, pattern.text("~")?);
    check_regex(&pattern)?;
    operation(left, op, pattern, DataType::Boolean, span)
}

/// Checks a constant pattern of a regular expression. A pattern that is not a constant is accepted.
pub(crate) fn check_regex(pattern: &Operand) -> Result<(), Diagnostic> {
    let Some(ScalarValue::Utf8(Some(text))) = pattern.as_literal() else {
        return Ok(());
    };
    let probe = Operand::literal(ScalarValue::from(""), pattern.span);
    match operation(
        probe,
        Operator::RegexMatch,
        pattern.clone(),
        DataType::Boolean,
        pattern.span,
    ) {
        Ok(_) => Ok(()),
        Err(_) => Err(Diagnostic::new(
            pattern.span,
            format!("invalid regular expression '{text}'"),
            "cannot be parsed",
        )),
    }
}

/// Compiles `not operand`.
fn not(operand: Operand, span: Span) -> Result<Operand, Diagnostic> {
    let condition = operand.condition()?;
    Operand::computed(
        Arc::new(NotExpr::new(condition.physical)),
        DataType::Boolean,
        span,
    )
}

/// Compiles `operand [not] between low and high`.
pub(crate) fn between(
    operand: Operand,
    low: Operand,
    high: Operand,
    negated: bool,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let has_json = operand.json || low.json || high.json;
    let [operand, low, high] = if has_json {
        [operand, low, high]
    } else {
        comparable([operand, low, high], span)?
    };
    let above = comparison(operand.clone(), Operator::GtEq, low, span)?;
    let below = comparison(operand, Operator::LtEq, high, span)?;
    let inside = operation(above, Operator::And, below, DataType::Boolean, span)?;
    if negated {
        not(inside, span)
    } else {
        Ok(inside)
    }
}

/// Compiles `operand [not] in (list)`.
pub(crate) fn is_in(
    operand: Operand,
    list: Vec<Operand>,
    negated: bool,
    schema: &Schema,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let (operand, list) = comparable_with(operand, list, span)?;
    let operand = by_bits(operand)?;
    let list = list
        .into_iter()
        .map(|item| Ok(item_by_bits(item)?.physical));
    let list = list.collect::<Result<_, Diagnostic>>()?;
    let in_list = InListExpr::try_new(operand.physical, list, negated, schema)
        .map_err(|error| Diagnostic::new(span, reason(&error), "cannot compare with this list"))?;
    Operand::computed(Arc::new(in_list), DataType::Boolean, span)
}

/// The options of [`like`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LikeOptions {
    /// The character after `escape`. `None` means a backslash.
    pub(crate) escape: Option<char>,
    /// `ilike`
    pub(crate) case_insensitive: bool,
    /// `not like`
    pub(crate) negated: bool,
}

/// Compiles `operand [not] like pattern`.
pub(crate) fn like(
    operand: Operand,
    pattern: Operand,
    options: LikeOptions,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let operand = operand.text("like")?;
    let pattern = pattern.text("like")?;
    let pattern = match options.escape {
        Some(escape) => with_backslashes(pattern, escape)?,
        None => pattern,
    };
    let like = LikeExpr::new(
        options.negated,
        options.case_insensitive,
        operand.physical,
        pattern.physical,
    );
    Operand::computed(Arc::new(like), DataType::Boolean, span)
}

/// Rewrites a pattern from another escape character to the backslash, the only one that Arrow
/// supports.
fn with_backslashes(pattern: Operand, escape: char) -> Result<Operand, Diagnostic> {
    if pattern.is_null() {
        return Ok(pattern);
    }
    let Some(ScalarValue::Utf8(Some(text))) = pattern.as_literal() else {
        return Err(Diagnostic::new(
            pattern.span,
            "`escape` requires a constant pattern",
            "expected a string in quotes",
        ));
    };
    let mut rewritten = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != escape {
            if character == '\\' {
                rewritten.push('\\');
            }
            rewritten.push(character);
            continue;
        }
        let Some(escaped) = characters.next() else {
            let message = format!("the pattern ends with its escape character `{escape}`");
            return Err(Diagnostic::new(
                pattern.span,
                message,
                "expected a character after it",
            ));
        };
        rewritten.extend(['\\', escaped]);
    }
    Ok(Operand::literal(ScalarValue::from(rewritten), pattern.span))
}

/// Compiles `operand is [not] predicate`.
pub(crate) fn is(
    operand: Operand,
    predicate: IsPredicate,
    negated: bool,
    span: Span,
) -> Result<Operand, Diagnostic> {
    if predicate == IsPredicate::Null {
        return is_null(operand, negated, span);
    }
    let op = if negated {
        Operator::IsDistinctFrom
    } else {
        Operator::IsNotDistinctFrom
    };
    let wanted = Operand::literal(ScalarValue::from(predicate == IsPredicate::True), span);
    operation(operand.condition()?, op, wanted, DataType::Boolean, span)
}

fn is_null(operand: Operand, negated: bool, span: Span) -> Result<Operand, Diagnostic> {
    let operand = operand.json_to_string().physical;
    let physical: Arc<dyn PhysicalExpr> = if negated {
        Arc::new(IsNotNullExpr::new(operand))
    } else {
        Arc::new(IsNullExpr::new(operand))
    };
    Operand::computed(physical, DataType::Boolean, span)
}

/// Compiles `case [operand] when … then … [else …] end`.
pub(crate) fn case(
    operand: Option<Operand>,
    whens: Vec<(Operand, Operand)>,
    otherwise: Option<Operand>,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let (tests, results): (Vec<Operand>, Vec<Operand>) = whens.into_iter().unzip();
    let (operand, tests) = match operand {
        None => (
            None,
            tests
                .into_iter()
                .map(Operand::condition)
                .collect::<Result<Vec<_>, _>>()?,
        ),
        Some(operand) => {
            let (operand, tests) = comparable_with(operand, tests, span)?;
            let tests = tests.into_iter().map(by_bits);
            (Some(by_bits(operand)?), tests.collect::<Result<_, _>>()?)
        }
    };
    let has_otherwise = otherwise.is_some();
    let mut results = alternatives(results.into_iter().chain(otherwise).collect())?;
    let (data_type, json) = results.first().map_or((DataType::Null, false), |first| {
        (first.data_type.clone(), first.json)
    });
    let otherwise = if has_otherwise { results.pop() } else { None };
    let branches = tests
        .into_iter()
        .zip(results)
        .map(|(test, result)| (test.physical, result.physical))
        .collect();
    let case = CaseExpr::try_new(
        operand.map(|operand| operand.physical),
        branches,
        otherwise.map(|operand| operand.physical),
    )
    .map_err(|error| Diagnostic::new(span, reason(&error), "cannot be evaluated"))?;
    Ok(Operand {
        json,
        ..Operand::computed(Arc::new(case), data_type, span)?
    })
}

/// Compiles the functions that evaluate only the argument that is the result (`coalesce`, `nvl`,
/// `ifnull`, `nvl2`, `if`), and `nullif`.
pub(crate) fn conditional(
    name: &str,
    args: Vec<Operand>,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let count = args.len();
    let usage = match name {
        "coalesce" => "coalesce(first, second, …)",
        "nvl2" => "nvl2(tested, if_not_null, if_null)",
        "if" => "if(condition, then, else)",
        "nullif" => "nullif(value, null_value)",
        _ => "ifnull(tested, if_null)",
    };
    let misuse = || {
        Diagnostic::new(
            span,
            format!(
                "`{name}` does not accept {count} argument{}",
                if count == 1 { "" } else { "s" }
            ),
            "wrong number of arguments",
        )
        .with_help(format!("usage: {usage}"))
    };
    let mut args = args.into_iter();
    match (name, count) {
        ("coalesce", 1..) | ("nvl" | "ifnull", 2) => {
            let mut whens = Vec::new();
            let otherwise = args.next_back();
            for arg in args {
                whens.push((is_null(arg.clone(), true, arg.span)?, arg));
            }
            match otherwise {
                Some(only) if whens.is_empty() => Ok(only),
                otherwise => case(None, whens, otherwise, span),
            }
        }
        ("nvl2" | "if", 3) => {
            let (Some(tested), Some(then)) = (args.next(), args.next()) else {
                return Err(misuse());
            };
            let test = if name == "if" {
                tested
            } else {
                is_null(tested.clone(), true, tested.span)?
            };
            case(None, vec![(test, then)], args.next(), span)
        }
        ("nullif", 2) => {
            let (Some(value), Some(other)) = (args.next(), args.next()) else {
                return Err(misuse());
            };
            let test = comparison(value.clone(), Operator::Eq, other, span)?;
            case(
                None,
                vec![(test, Operand::literal(ScalarValue::Null, span))],
                Some(value),
                span,
            )
        }
        _ => Err(misuse()),
    }
}

/// Compiles `greatest` (`op` is `>=`) and `least` (`<=`) of values of which one has no known type.
/// NULL is ignored, as in PostgreSQL.
pub(crate) fn extreme(op: Operator, args: Vec<Operand>, span: Span) -> Result<Operand, Diagnostic> {
    let pick = |one: Operand, other: Operand| {
        let whens = vec![
            (is_null(one.clone(), false, span)?, other.clone()),
            (is_null(other.clone(), false, span)?, one.clone()),
            (comparison(one.clone(), op, other.clone(), span)?, one),
        ];
        case(None, whens, Some(other), span)
    };
    let mut args = args.into_iter();
    let Some(first) = args.next() else {
        let message = "`greatest` and `least` need an argument";
        return Err(Diagnostic::new(span, message, "wrong number of arguments"));
    };
    args.try_fold(first, pick)
}

/// Whether the expression always returns the same value for the same record.
pub(crate) fn is_deterministic(physical: &Arc<dyn PhysicalExpr>) -> bool {
    !physical.is_volatile_node() && physical.children().into_iter().all(is_deterministic)
}
