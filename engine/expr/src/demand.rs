//! Type inference for payload paths from their use in expressions.
//!
//! If no schema defines the type of a payload field, its use does: a path that is added to `0.5` is
//! a `float64`, and the argument of `lower` is a string. A use that accepts every value (a
//! comparison, `like`, `is null`, `cast`, a bare `select a`) requires no type, nor does arithmetic
//! with integers or other such paths: the values decide whether the result is an integer. Such a
//! path is a JSON value unless another use requires a type.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_expr::Operator;
use datafusion_expr::type_coercion::binary::{BinaryTypeCoercer, comparison_coercion};
use pseidon_dsl::Span;
use pseidon_dsl::expr::{BinaryOp, Expr, ExprKind, IsPredicate, Literal, Path, UnaryOp};

use crate::compile::meta_field;
use crate::function;
use crate::types::{is_json, parse_type, timestamp, with_date};

/// A use of a payload path in an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The payload path.
    pub path: Path,
    /// The position of this use.
    pub span: Span,
    /// The type that this use requires. `None` if it accepts every value.
    pub wanted: Option<DataType>,
}

/// Appends a demand for every use of a payload path in `expr` to `out`, in source order. `wanted`
/// is the type required of the whole expression, such as boolean for a condition. `known` returns
/// the type of a path if it is already known.
pub fn collect(
    expr: &Expr,
    wanted: Option<&DataType>,
    known: &dyn Fn(&Path) -> Option<DataType>,
    out: &mut Vec<Demand>,
) {
    let mut demands = Demands { known, out };
    demands.expr(expr, wanted);
}

struct Demands<'a> {
    known: &'a dyn Fn(&Path) -> Option<DataType>,
    out: &'a mut Vec<Demand>,
}

impl Demands<'_> {
    fn expr(&mut self, expr: &Expr, wanted: Option<&DataType>) {
        match &expr.kind {
            ExprKind::Literal(_) | ExprKind::Meta(_) => {}
            ExprKind::Path(path) => self.out.push(Demand {
                path: path.clone(),
                span: expr.span,
                wanted: wanted.cloned(),
            }),
            ExprKind::Unary(UnaryOp::Not, operand) => self.expr(operand, Some(&DataType::Boolean)),
            ExprKind::Unary(UnaryOp::Neg, operand) => {
                self.expr(operand, wanted.filter(|wanted| wanted.is_numeric()));
            }
            ExprKind::Unary(UnaryOp::BitNot, operand) => self.expr(operand, Some(&DataType::Int64)),
            ExprKind::Binary(left, op, right) => self.binary(left, *op, right, wanted),
            ExprKind::Between {
                expr, low, high, ..
            } => self.compared(&[expr, low, high]),
            ExprKind::In { expr, list, .. } => {
                let all: Vec<&Expr> = std::iter::once(expr.as_ref()).chain(list).collect();
                self.compared(&all);
            }
            ExprKind::Like { expr, pattern, .. } => self.compared(&[expr, pattern]),
            ExprKind::Is {
                expr,
                predicate: IsPredicate::Null,
                ..
            } => self.expr(expr, None),
            ExprKind::Is { expr, .. } => self.expr(expr, Some(&DataType::Boolean)),
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => self.case(operand.as_deref(), whens, otherwise.as_deref(), wanted),
            // A cast converts the text of any JSON value: both `"12"` and `12` are a valid bigint.
            ExprKind::Cast { expr, .. } => self.expr(expr, None),
            ExprKind::Call { name, args, .. } => self.call(name, args, wanted),
        }
    }

    fn binary(&mut self, left: &Expr, op: BinaryOp, right: &Expr, wanted: Option<&DataType>) {
        match op {
            BinaryOp::And | BinaryOp::Or => {
                self.expr(left, Some(&DataType::Boolean));
                self.expr(right, Some(&DataType::Boolean));
            }
            BinaryOp::Eq
            | BinaryOp::NotEq
            | BinaryOp::Lt
            | BinaryOp::LtEq
            | BinaryOp::Gt
            | BinaryOp::GtEq
            | BinaryOp::RegexMatch
            | BinaryOp::RegexNotMatch
            | BinaryOp::RegexIMatch
            | BinaryOp::RegexNotIMatch
            | BinaryOp::Distinct
            | BinaryOp::NotDistinct
            | BinaryOp::Concat => self.compared(&[left, right]),
            BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor => {
                let integer = bits_type(self.type_of(left), self.type_of(right));
                self.expr(left, Some(&integer));
                self.expr(right, Some(&integer));
            }
            BinaryOp::ShiftLeft | BinaryOp::ShiftRight => {
                self.expr(left, Some(&DataType::Int64));
                self.expr(right, Some(&DataType::Int64));
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => {
                let (left_type, right_type) = (self.type_of(left), self.type_of(right));
                let left_wanted = operand_type(right_type.as_ref(), wanted);
                let right_wanted = operand_type(left_type.as_ref(), wanted);
                self.expr(left, left_wanted.as_ref());
                self.expr(right, right_wanted.as_ref());
            }
        }
    }

    /// Expressions that are compared. Any value can be compared, so a path requires no type, and
    /// neither do arithmetic and alternatives.
    fn compared(&mut self, exprs: &[&Expr]) {
        for expr in exprs {
            self.expr(expr, None);
        }
    }

    /// Expressions that must have one type, because they are alternatives.
    fn alike(&mut self, exprs: &[&Expr], wanted: Option<&DataType>) {
        let common = self.alternative_type(exprs);
        for expr in exprs {
            self.expr(expr, common.as_ref().or(wanted));
        }
    }

    /// The type that a path must have beside these alternatives. Integers and constant numbers
    /// require none: the values decide.
    fn alternative_type(&self, exprs: &[&Expr]) -> Option<DataType> {
        let common = self.common_type(exprs)?;
        if !common.is_numeric() {
            return Some(common);
        }
        let is_number = |expr: &Expr| match &expr.kind {
            ExprKind::Unary(UnaryOp::Neg, operand) => matches!(operand.kind, ExprKind::Literal(_)),
            kind => matches!(kind, ExprKind::Literal(_)),
        };
        let others: Vec<&Expr> = exprs
            .iter()
            .copied()
            .filter(|expr| !is_number(expr))
            .collect();
        let common = self.common_type(&others);
        common.filter(|common| !common.is_integer())
    }

    fn common_type(&self, exprs: &[&Expr]) -> Option<DataType> {
        let types = exprs.iter().filter_map(|expr| self.type_of(expr));
        types.reduce(|left, right| {
            with_date(&left, &right)
                .or_else(|| comparison_coercion(&left, &right))
                .unwrap_or(left)
        })
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        whens: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        wanted: Option<&DataType>,
    ) {
        let results: Vec<&Expr> = whens
            .iter()
            .map(|(_, then)| then)
            .chain(otherwise)
            .collect();
        // What is compared with the operand requires no type.
        let test_type = operand.is_none().then_some(DataType::Boolean);
        let common = self.alternative_type(&results);
        let result_type = common.or_else(|| wanted.cloned());
        if let Some(operand) = operand {
            self.expr(operand, None);
        }
        for (when, then) in whens {
            self.expr(when, test_type.as_ref());
            self.expr(then, result_type.as_ref());
        }
        if let Some(otherwise) = otherwise {
            self.expr(otherwise, result_type.as_ref());
        }
    }

    fn call(&mut self, name: &str, args: &[Expr], wanted: Option<&DataType>) {
        match (name, args) {
            ("coalesce" | "nvl" | "ifnull" | "nullif" | "greatest" | "least", _) => {
                self.alike(&args.iter().collect::<Vec<_>>(), wanted)
            }
            ("nvl2", [tested, rest @ ..]) => {
                self.expr(tested, None);
                self.alike(&rest.iter().collect::<Vec<_>>(), wanted);
            }
            ("if", [condition, rest @ ..]) => {
                self.expr(condition, Some(&DataType::Boolean));
                self.alike(&rest.iter().collect::<Vec<_>>(), wanted);
            }
            _ => {
                for (at, arg) in args.iter().enumerate() {
                    self.expr(arg, function::argument_type(name, at, args.len()).as_ref());
                }
            }
        }
    }

    /// The type of an expression. `None` if it depends on paths of unknown type.
    fn type_of(&self, expr: &Expr) -> Option<DataType> {
        match &expr.kind {
            ExprKind::Literal(Literal::Null) => None,
            ExprKind::Literal(Literal::Bool(_)) => Some(DataType::Boolean),
            ExprKind::Literal(Literal::Int(_)) => Some(DataType::Int64),
            ExprKind::Literal(Literal::UInt(_)) => Some(DataType::UInt64),
            ExprKind::Literal(Literal::Float(_) | Literal::Decimal(_)) => Some(DataType::Float64),
            ExprKind::Literal(Literal::Str(_)) => Some(DataType::Utf8),
            ExprKind::Path(path) => (self.known)(path),
            ExprKind::Meta(meta) => Some(meta_field(meta))
                .filter(|field| !is_json(field))
                .map(|field| field.data_type().clone()),
            ExprKind::Unary(UnaryOp::Neg, operand) => self.type_of(operand),
            ExprKind::Unary(UnaryOp::BitNot, operand) => {
                Some(bits_type(self.type_of(operand), None))
            }
            ExprKind::Binary(_, BinaryOp::Concat, _) => Some(DataType::Utf8),
            ExprKind::Binary(
                left,
                BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor,
                right,
            ) => Some(bits_type(self.type_of(left), self.type_of(right))),
            ExprKind::Binary(left, BinaryOp::ShiftLeft | BinaryOp::ShiftRight, _) => {
                Some(bits_type(self.type_of(left), None))
            }
            ExprKind::Binary(left, op, right) => match arithmetic(*op) {
                Some(op) => arithmetic_type(self.type_of(left), op, self.type_of(right)),
                None => Some(DataType::Boolean),
            },
            ExprKind::Unary(UnaryOp::Not, _)
            | ExprKind::Between { .. }
            | ExprKind::In { .. }
            | ExprKind::Like { .. }
            | ExprKind::Is { .. } => Some(DataType::Boolean),
            ExprKind::Case {
                whens, otherwise, ..
            } => {
                let results: Vec<&Expr> = whens
                    .iter()
                    .map(|(_, then)| then)
                    .chain(otherwise.as_deref())
                    .collect();
                self.common_type(&results)
            }
            ExprKind::Cast { to, .. } => parse_type(to).ok(),
            ExprKind::Call { name, args, .. } => self.call_type(name, args),
        }
    }

    fn call_type(&self, name: &str, args: &[Expr]) -> Option<DataType> {
        match (name, args) {
            ("coalesce" | "nvl" | "ifnull" | "nullif" | "greatest" | "least", _) => {
                self.common_type(&args.iter().collect::<Vec<_>>())
            }
            ("nvl2" | "if", [_, rest @ ..]) => self.common_type(&rest.iter().collect::<Vec<_>>()),
            ("abs" | "ceil" | "ceiling" | "floor" | "round" | "trunc", [value, ..])
                if self.type_of(value).is_none() =>
            {
                None
            }
            _ => {
                let types = args.iter().enumerate().map(|(at, arg)| {
                    let known = self
                        .type_of(arg)
                        .or_else(|| function::argument_type(name, at, args.len()));
                    known.unwrap_or(DataType::Utf8)
                });
                function::return_type(name, &types.collect::<Vec<_>>())
            }
        }
    }
}

/// The type in which operators compute with the bits of operands of these types.
fn bits_type(left: Option<DataType>, right: Option<DataType>) -> DataType {
    match (left, right) {
        (Some(DataType::UInt64), _) | (_, Some(DataType::UInt64)) => DataType::UInt64,
        _ => DataType::Int64,
    }
}

fn arithmetic(op: BinaryOp) -> Option<Operator> {
    match op {
        BinaryOp::Add => Some(Operator::Plus),
        BinaryOp::Sub => Some(Operator::Minus),
        BinaryOp::Mul => Some(Operator::Multiply),
        BinaryOp::Div => Some(Operator::Divide),
        BinaryOp::Mod => Some(Operator::Modulo),
        _ => None,
    }
}

/// The type of an operand of unknown type, if the other operand has the type `other`. Without one,
/// the values decide, unless the result has to be a number of a certain type.
fn operand_type(other: Option<&DataType>, wanted: Option<&DataType>) -> Option<DataType> {
    match other {
        None => wanted.filter(|wanted| wanted.is_numeric()).cloned(),
        Some(other) if other.is_integer() => wanted.filter(|wanted| wanted.is_numeric()).cloned(),
        Some(other) if other.is_numeric() => Some(other.clone()),
        Some(_) => None,
    }
}

fn arithmetic_type(
    left: Option<DataType>,
    op: Operator,
    right: Option<DataType>,
) -> Option<DataType> {
    let (left, right) = match (left, right) {
        (None, None) => return None,
        (Some(known), None) | (None, Some(known)) if known.is_integer() => return None,
        // A value without a type beside an interval is a time.
        (Some(DataType::Interval(_)), None) | (None, Some(DataType::Interval(_))) => {
            return Some(timestamp(TimeUnit::Microsecond));
        }
        // The value of the interval decides whether the result has a time.
        (Some(DataType::Date32), Some(DataType::Interval(_)))
        | (Some(DataType::Interval(_)), Some(DataType::Date32)) => return None,
        (Some(known), None) | (None, Some(known)) => (known.clone(), known),
        (Some(left), Some(right)) => (left, right),
    };
    BinaryTypeCoercer::new(&left, &op, &right)
        .get_result_type()
        .ok()
}
