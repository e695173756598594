//! Expressions as text again: [`parse`](super::parse()) gives back what was printed.

use std::fmt::{self, Display, Formatter, Write};

use super::parse::is_reserved;
use super::{BinaryOp, Expr, ExprKind, IsWhat, Literal, Meta, Path, Step, UnaryOp};

/// How strongly the parts of an expression hold together; what is weaker than its surroundings
/// stands in parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Or,
    And,
    Not,
    Comparison,
    Concat,
    Sum,
    Product,
    Negation,
    Primary,
}

impl BinaryOp {
    /// The operator as it is written.
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
            BinaryOp::Concat => "||",
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
        }
    }

    /// What the left side has to be, and the right one. Operators of one strength group to the
    /// left, so the right side has to be stronger; a comparison of comparisons would be read so
    /// too, but nobody could read it.
    fn sides(self) -> (Strength, Strength) {
        match self.strength() {
            Strength::Or => (Strength::Or, Strength::And),
            Strength::And => (Strength::And, Strength::Not),
            Strength::Concat => (Strength::Concat, Strength::Sum),
            Strength::Sum => (Strength::Sum, Strength::Product),
            Strength::Product => (Strength::Product, Strength::Negation),
            _ => (Strength::Concat, Strength::Concat),
        }
    }

    fn strength(self) -> Strength {
        match self {
            BinaryOp::Or => Strength::Or,
            BinaryOp::And => Strength::And,
            BinaryOp::Concat => Strength::Concat,
            BinaryOp::Add | BinaryOp::Sub => Strength::Sum,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Strength::Product,
            _ => Strength::Comparison,
        }
    }
}

impl Expr {
    fn strength(&self) -> Strength {
        match &self.kind {
            ExprKind::Binary(_, op, _) => op.strength(),
            ExprKind::Unary(UnaryOp::Not, _) => Strength::Not,
            ExprKind::Unary(UnaryOp::Neg, _) => Strength::Negation,
            ExprKind::Between { .. }
            | ExprKind::In { .. }
            | ExprKind::Like { .. }
            | ExprKind::Is { .. } => Strength::Comparison,
            ExprKind::Literal(Literal::Int(value)) if *value < 0 => Strength::Negation,
            ExprKind::Literal(Literal::Float(value)) if value.is_sign_negative() => {
                Strength::Negation
            }
            _ => Strength::Primary,
        }
    }
}

/// An expression as part of another one that needs it to be at least this strong.
struct Within<'a>(&'a Expr, Strength);

impl Display for Within<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.strength() < self.1 {
            write!(f, "({})", self.0)
        } else {
            self.0.fmt(f)
        }
    }
}

/// ` not` or nothing.
struct Not(bool);

impl Display for Not {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { " not" } else { "" })
    }
}

struct List<'a>(&'a [Expr]);

impl Display for List<'_> {
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
            ExprKind::Unary(UnaryOp::Not, operand) => {
                write!(f, "not {}", Within(operand, Strength::Not))
            }
            ExprKind::Unary(UnaryOp::Neg, operand) => match operand.kind {
                // Without parentheses this would be read as one negative number.
                ExprKind::Literal(Literal::Int(_) | Literal::Float(_)) => write!(f, "-({operand})"),
                _ => write!(f, "-{}", Within(operand, Strength::Primary)),
            },
            ExprKind::Binary(left, op, right) => {
                let (left_strength, right_strength) = op.sides();
                write!(
                    f,
                    "{} {} {}",
                    Within(left, left_strength),
                    op.symbol(),
                    Within(right, right_strength)
                )
            }
            ExprKind::Between {
                expr,
                low,
                high,
                negated,
            } => {
                let part = |expr| Within(expr, Strength::Concat);
                write!(
                    f,
                    "{}{} between {} and {}",
                    part(expr),
                    Not(*negated),
                    part(low),
                    part(high)
                )
            }
            ExprKind::In {
                expr,
                list,
                negated,
            } => write!(
                f,
                "{}{} in ({})",
                Within(expr, Strength::Concat),
                Not(*negated),
                List(list)
            ),
            ExprKind::Like {
                expr,
                pattern,
                escape,
                case_insensitive,
                negated,
            } => {
                let like = if *case_insensitive { "ilike" } else { "like" };
                let part = |expr| Within(expr, Strength::Concat);
                write!(
                    f,
                    "{}{} {like} {}",
                    part(expr),
                    Not(*negated),
                    part(pattern)
                )?;
                match escape {
                    Some(escape) => write!(f, " escape {}", Literal::Str(escape.to_string())),
                    None => Ok(()),
                }
            }
            ExprKind::Is {
                expr,
                what,
                negated,
            } => {
                let what = match what {
                    IsWhat::Null => "null",
                    IsWhat::True => "true",
                    IsWhat::False => "false",
                };
                write!(
                    f,
                    "{} is{} {what}",
                    Within(expr, Strength::Concat),
                    Not(*negated)
                )
            }
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => {
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
            ExprKind::Cast {
                expr, to, try_cast, ..
            } => write!(
                f,
                "{}cast({expr} as {to})",
                if *try_cast { "try_" } else { "" }
            ),
            ExprKind::Call { name, args, .. } => write!(f, "{name}({})", List(args)),
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Null => f.write_str("null"),
            Literal::Bool(value) => value.fmt(f),
            Literal::Int(value) => value.fmt(f),
            // `Debug` keeps the point of `1.0`, without which it would be read as a whole number.
            Literal::Float(value) => write!(f, "{value:?}"),
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
                Step::Field(name) => {
                    f.write_str(if at > 0 { "." } else { "" })?;
                    write_name(f, name, at == 0)?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A name, in double quotes unless it can do without. A reserved word needs them where it comes
/// `first`.
fn write_name(f: &mut Formatter<'_>, name: &str, first: bool) -> fmt::Result {
    let starts_name = |next: char| {
        next.is_ascii_alphabetic() || next == '_' || (!next.is_ascii() && !next.is_whitespace())
    };
    let goes_on = |next: char| starts_name(next) || next.is_ascii_digit() || next == '$';
    let is_plain =
        name.starts_with(starts_name) && name.chars().all(goes_on) && !(first && is_reserved(name));
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
