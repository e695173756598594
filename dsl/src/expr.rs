//! SQL expressions: their tree.
//!
//! Operators, `case`, `cast`, `between`, `in`, `like`, `is null`, nested paths and function calls,
//! as SQL means them. Keywords and function names are case-insensitive; paths are not.

mod check;
mod display;
mod parse;

pub use parse::{parse, parse_select};

use crate::Span;

/// An expression and its place in the pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its text.
    pub span: Span,
}

/// The forms of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `null`, `true`, `12`, `1.5`, `'text'`
    Literal(Literal),
    /// A field of the payload: `user.address[0].city`, `"odd name".x`
    Path(Path),
    /// Record metadata: `@topic`
    Meta(Meta),
    /// `-x`, `not x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`, `a and b`, `a || b` …
    Binary(Box<Expr>, BinaryOp, Box<Expr>),
    /// `x [not] between low and high`
    Between {
        /// `x`
        expr: Box<Expr>,
        /// The smallest value that is between.
        low: Box<Expr>,
        /// The largest one.
        high: Box<Expr>,
        /// Whether there is a `not`.
        negated: bool,
    },
    /// `x [not] in (a, b)`
    In {
        /// `x`
        expr: Box<Expr>,
        /// What it is compared with, never empty.
        list: Vec<Expr>,
        /// Whether there is a `not`.
        negated: bool,
    },
    /// `x [not] like|ilike 'pattern' [escape 'c']`
    Like {
        /// `x`
        expr: Box<Expr>,
        /// The pattern, in which `%` and `_` stand for any text and any character.
        pattern: Box<Expr>,
        /// The character that takes their meaning from these two.
        escape: Option<char>,
        /// `ilike`
        case_insensitive: bool,
        /// Whether there is a `not`.
        negated: bool,
    },
    /// `x is [not] null|true|false`
    Is {
        /// `x`
        expr: Box<Expr>,
        /// What is asked.
        what: IsWhat,
        /// Whether there is a `not`.
        negated: bool,
    },
    /// `case [operand] when a then b … [else c] end`
    Case {
        /// What each `when` is compared with; without it each is a condition.
        operand: Option<Box<Expr>>,
        /// `when` and `then`, never empty.
        whens: Vec<(Expr, Expr)>,
        /// `else`; null without it.
        otherwise: Option<Box<Expr>>,
    },
    /// `cast(x as type)`, `try_cast(x as type)`, `x::type`, `date 'x'`
    Cast {
        /// `x`
        expr: Box<Expr>,
        /// The type's name as written, in lower case and with single spaces between words:
        /// `bigint`, `decimal(10,2)`.
        to: String,
        /// Where the type stands.
        to_span: Span,
        /// Whether a value that does not fit becomes null.
        try_cast: bool,
    },
    /// `name(args)`
    Call {
        /// The function's name in lower case.
        name: String,
        /// Where the name stands.
        name_span: Span,
        /// Its arguments.
        args: Vec<Expr>,
    },
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits 64 bits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// `'text'`
    Str(String),
}

/// What `is` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsWhat {
    /// `is null`
    Null,
    /// `is true`
    True,
    /// `is false`
    False,
}

/// Operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// Operators with two operands, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `=`
    Eq,
    /// `<>`, `!=`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
    /// `~`: the regular expression on the right is found in the left
    RegexMatch,
    /// `!~`
    RegexNotMatch,
    /// `||`
    Concat,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
}

/// A field of the payload. Ordered, so that sets of paths have one order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// `.name`
    Field(String),
    /// `[0]`
    Index(u32),
}

/// Metadata that every record has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meta {
    /// `@topic`: utf8. The topic; for other sources the stage's name or the file's path.
    Topic,
    /// `@partition`: int32
    Partition,
    /// `@offset`: int64. The position in the split.
    Offset,
    /// `@timestamp`: timestamp in milliseconds, UTC; null where the source has none.
    Timestamp,
    /// `@key`: utf8; null where there is none. (Bytes that are not UTF-8 make the record bad.)
    Key,
    /// `@headers`: a JSON object of the headers' texts; `@headers.name` is one of them.
    Headers(Option<String>),
}

/// An item of `select`.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectItem {
    /// `*` with what it leaves out: `* except (a, b)`
    All {
        /// What is left out.
        except: Vec<(Path, Span)>,
        /// The whole item.
        span: Span,
    },
    /// `expr as name`; a path without `as` is named by its last field.
    Column {
        /// What the column holds.
        expr: Expr,
        /// What it is called, and where that is said.
        name: Option<(String, Span)>,
    },
}
