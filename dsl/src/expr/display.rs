//! A printer for expressions. [`parse`](super::parse()) returns the same expression for its output.

use std::fmt::{self, Display, Formatter, Write};

use super::grammar::{clock, is_reserved};
use super::parse::is_refused;
use super::{BinaryOp, COUNT, Expr, ExprKind, IsPredicate, Literal, Meta, Path, PathStep, UnaryOp};

/// The precedence of an expression, in increasing order. An operand with a lower precedence than
/// its position requires is printed in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    Or,
    And,
    Not,
    Comparison,
    Concat,
    BitNot,
    Sum,
    Product,
    Negation,
    Primary,
}

impl BinaryOp {
    /// The operator as written in an expression.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Or => "or",
            BinaryOp::And => "and",
            BinaryOp::Eq => "=",
            BinaryOp::NotEq => "<>",
            BinaryOp::Lt => "<",
            BinaryOp::LtEq => "<=",
            BinaryOp::Gt => ">",
            BinaryOp::GtEq => ">=",
            BinaryOp::RegexMatch => "~",
            BinaryOp::RegexNotMatch => "!~",
            BinaryOp::RegexIMatch => "~*",
            BinaryOp::RegexNotIMatch => "!~*",
            BinaryOp::Distinct => "is distinct from",
            BinaryOp::NotDistinct => "is not distinct from",
            BinaryOp::Concat => "||",
            BinaryOp::BitAnd => "&",
            BinaryOp::BitOr => "|",
            BinaryOp::BitXor => "#",
            BinaryOp::ShiftLeft => "<<",
            BinaryOp::ShiftRight => ">>",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
        }
    }

    /// The lowest precedence that the left and the right side may have without parentheses.
    /// Operators of equal precedence associate to the left, so the right side needs a higher one.
    /// For readability, a comparison inside a comparison always has parentheses.
    fn sides(self) -> (Precedence, Precedence) {
        match self.precedence() {
            Precedence::Or => (Precedence::Or, Precedence::And),
            Precedence::And => (Precedence::And, Precedence::Not),
            Precedence::Concat => (Precedence::Concat, Precedence::BitNot),
            Precedence::Sum => (Precedence::Sum, Precedence::Product),
            Precedence::Product => (Precedence::Product, Precedence::Negation),
            _ => (Precedence::Concat, Precedence::Concat),
        }
    }

    fn precedence(self) -> Precedence {
        match self {
            BinaryOp::Or => Precedence::Or,
            BinaryOp::And => Precedence::And,
            BinaryOp::Concat
            | BinaryOp::BitAnd
            | BinaryOp::BitOr
            | BinaryOp::BitXor
            | BinaryOp::ShiftLeft
            | BinaryOp::ShiftRight => Precedence::Concat,
            BinaryOp::Add | BinaryOp::Sub => Precedence::Sum,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Precedence::Product,
            _ => Precedence::Comparison,
        }
    }
}

impl IsPredicate {
    fn word(self) -> &'static str {
        match self {
            IsPredicate::Null => "null",
            IsPredicate::True => "true",
            IsPredicate::False => "false",
        }
    }
}

impl Expr {
    fn precedence(&self) -> Precedence {
        match &self.kind {
            ExprKind::Binary(_, op, _) => op.precedence(),
            ExprKind::Unary(UnaryOp::Not, _) => Precedence::Not,
            ExprKind::Unary(UnaryOp::Neg, _) => Precedence::Negation,
            ExprKind::Unary(UnaryOp::BitNot, _) => Precedence::BitNot,
            ExprKind::Between { .. }
            | ExprKind::In { .. }
            | ExprKind::Like { .. }
            | ExprKind::Is { .. } => Precedence::Comparison,
            ExprKind::Literal(Literal::Int(value)) if *value < 0 => Precedence::Negation,
            ExprKind::Literal(Literal::Float(value)) if value.is_sign_negative() => {
                Precedence::Negation
            }
            ExprKind::Literal(Literal::Decimal(digits)) if digits.starts_with('-') => {
                Precedence::Negation
            }
            _ => Precedence::Primary,
        }
    }
}

/// An operand, printed in parentheses if its precedence is lower than the given one.
struct OperandDisplay<'a>(&'a Expr, Precedence);

impl Display for OperandDisplay<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.precedence() < self.1 {
            write!(f, "({})", self.0)
        } else {
            self.0.fmt(f)
        }
    }
}

/// Expressions separated by commas.
struct ListDisplay<'a>(&'a [Expr]);

impl Display for ListDisplay<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { ", " } else { "" })?;
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Literal(literal) => literal.fmt(f),
            ExprKind::Path(path) => path.fmt(f),
            ExprKind::Meta(meta) => meta.fmt(f),
            ExprKind::Unary(op, operand) => write_unary(f, *op, operand),
            ExprKind::Binary(left, op, right) => write_binary(f, left, *op, right),
            ExprKind::Between {
                expr,
                low,
                high,
                negated,
            } => {
                write_tested(f, expr, *negated)?;
                write!(f, " between {} and {}", comparand(low), comparand(high))
            }
            ExprKind::In {
                expr,
                list,
                negated,
            } => {
                write_tested(f, expr, *negated)?;
                write!(f, " in ({})", ListDisplay(list))
            }
            ExprKind::Like {
                expr,
                pattern,
                escape,
                case_insensitive,
                negated,
            } => {
                write_tested(f, expr, *negated)?;
                write_like(f, pattern, *escape, *case_insensitive)
            }
            ExprKind::Is {
                expr,
                predicate,
                negated,
            } => {
                let not = if *negated { " not" } else { "" };
                write!(f, "{} is{not} {}", comparand(expr), predicate.word())
            }
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => write_case(f, operand.as_deref(), whens, otherwise.as_deref()),
            ExprKind::Cast {
                expr, to, try_cast, ..
            } => {
                let cast = if *try_cast { "try_cast" } else { "cast" };
                write!(f, "{cast}({expr} as {to})")
            }
            ExprKind::Call { name, args, .. } if name == COUNT && args.is_empty() => {
                write!(f, "{name}(*)")
            }
            ExprKind::Call {
                name,
                distinct,
                args,
                ..
            } => {
                let distinct = if *distinct { "distinct " } else { "" };
                write!(f, "{name}({distinct}{})", ListDisplay(args))
            }
        }
    }
}

fn write_unary(f: &mut Formatter<'_>, op: UnaryOp, operand: &Expr) -> fmt::Result {
    match (op, &operand.kind) {
        (UnaryOp::Not, _) => write!(f, "not {}", OperandDisplay(operand, Precedence::Not)),
        // Without parentheses, this would be parsed as a negative number.
        (
            UnaryOp::Neg,
            ExprKind::Literal(
                Literal::Int(_) | Literal::UInt(_) | Literal::Float(_) | Literal::Decimal(_),
            ),
        ) => {
            write!(f, "-({operand})")
        }
        (UnaryOp::Neg, _) => write!(f, "-{}", OperandDisplay(operand, Precedence::Primary)),
        // A sum would need no parentheses, but reads as if it did.
        (UnaryOp::BitNot, _) => write!(f, "~{}", OperandDisplay(operand, Precedence::Negation)),
    }
}

fn write_binary(f: &mut Formatter<'_>, left: &Expr, op: BinaryOp, right: &Expr) -> fmt::Result {
    let (left_precedence, right_precedence) = op.sides();
    write!(
        f,
        "{} {} {}",
        OperandDisplay(left, left_precedence),
        op.symbol(),
        OperandDisplay(right, right_precedence)
    )
}

/// An operand of a comparison or a test.
fn comparand(expr: &Expr) -> OperandDisplay<'_> {
    OperandDisplay(expr, Precedence::Concat)
}

/// Writes what is before the keyword of a test: `expr` or `expr not`.
fn write_tested(f: &mut Formatter<'_>, expr: &Expr, negated: bool) -> fmt::Result {
    let not = if negated { " not" } else { "" };
    write!(f, "{}{not}", comparand(expr))
}

fn write_like(
    f: &mut Formatter<'_>,
    pattern: &Expr,
    escape: Option<char>,
    case_insensitive: bool,
) -> fmt::Result {
    let like = if case_insensitive { "ilike" } else { "like" };
    write!(f, " {like} {}", comparand(pattern))?;
    match escape {
        Some(escape) => write!(f, " escape {}", Literal::Str(escape.to_string())),
        None => Ok(()),
    }
}

fn write_case(
    f: &mut Formatter<'_>,
    operand: Option<&Expr>,
    whens: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
) -> fmt::Result {
    f.write_str("case ")?;
    if let Some(operand) = operand {
        write!(f, "{operand} ")?;
    }
    for (when, then) in whens {
        write!(f, "when {when} then {then} ")?;
    }
    if let Some(otherwise) = otherwise {
        write!(f, "else {otherwise} ")?;
    }
    f.write_str("end")
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("null"),
            Literal::Bool(value) => value.fmt(f),
            Literal::Int(value) => value.fmt(f),
            Literal::UInt(value) => value.fmt(f),
            // `Debug` keeps the point of `1.0`. Without the point it would be parsed as an integer.
            Literal::Float(value) => write!(f, "{value:?}"),
            Literal::Decimal(digits) => f.write_str(digits),
            Literal::Str(value) => write_quoted(f, value, '\''),
        }
    }
}

impl Display for Meta {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.name())?;
        match self {
            Meta::Headers(Some(header)) => {
                f.write_char('.')?;
                write_name(f, header, false)
            }
            _ => Ok(()),
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Field(name) => {
                    f.write_str(if at > 0 { "." } else { "" })?;
                    write_name(f, name, at == 0)?;
                }
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Writes a name, in double quotes if they are required. A reserved word requires them only as the
/// `first` step of a path.
fn write_name(f: &mut Formatter<'_>, name: &str, first: bool) -> fmt::Result {
    let starts_name = |next: char| {
        let is_other = !next.is_ascii() && !next.is_whitespace() && !is_refused(next);
        next.is_ascii_alphabetic() || next == '_' || is_other
    };
    let continues_name = |next: char| starts_name(next) || next.is_ascii_digit() || next == '$';
    let is_plain = name.starts_with(starts_name)
        && name.chars().all(continues_name)
        && !(first && (is_reserved(name) || clock(name).is_some()));
    if is_plain {
        f.write_str(name)
    } else {
        write_quoted(f, name, '"')
    }
}

fn write_quoted(f: &mut Formatter<'_>, text: &str, quote: char) -> fmt::Result {
    f.write_char(quote)?;
    for next in text.chars() {
        f.write_char(next)?;
        if next == quote {
            f.write_char(quote)?;
        }
    }
    f.write_char(quote)
}
