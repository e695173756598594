//! The syntax tree of SQL expressions.
//!
//! It has operators, `case`, `cast`, `between`, `in`, `like`, `is null`, nested paths and function
//! calls, with the semantics of SQL. Keywords and function names are case-insensitive; paths are
//! case-sensitive.

mod check;
mod display;
mod grammar;
mod named;
mod parse;
mod parts;
mod substitutions;

pub use named::NamedExpressions;
pub(crate) use parse::parse_signature;
pub use parse::{parse, parse_assignments, parse_paths, parse_renamings, parse_select};
pub use substitutions::Substitutions;

use crate::Span;

/// An expression with its position in the pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// The form of the expression, with its operands.
    pub kind: ExprKind,
    /// The position of its text.
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
    /// `-x`, `~x`, `not x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`, `a and b`, `a || b` …
    Binary(Box<Expr>, BinaryOp, Box<Expr>),
    /// `x [not] between low and high`
    Between {
        /// `x`
        expr: Box<Expr>,
        /// The lower bound, inclusive.
        low: Box<Expr>,
        /// The upper bound, inclusive.
        high: Box<Expr>,
        /// Whether it has a `not`.
        negated: bool,
    },
    /// `x [not] in (a, b)`
    In {
        /// `x`
        expr: Box<Expr>,
        /// The values that `x` is compared with; never empty.
        list: Vec<Expr>,
        /// Whether it has a `not`.
        negated: bool,
    },
    /// `x [not] like|ilike 'pattern' [escape 'c']`
    Like {
        /// `x`
        expr: Box<Expr>,
        /// The pattern. `%` matches any string, and `_` matches any character.
        pattern: Box<Expr>,
        /// The character that makes a following `%` or `_` literal.
        escape: Option<char>,
        /// `ilike`
        case_insensitive: bool,
        /// Whether it has a `not`.
        negated: bool,
    },
    /// `x is [not] null|true|false`
    Is {
        /// `x`
        expr: Box<Expr>,
        /// The value that `x` is tested for.
        predicate: IsPredicate,
        /// Whether it has a `not`.
        negated: bool,
    },
    /// `case [operand] when a then b … [else c] end`
    Case {
        /// The value that each `when` is compared with. Without it, each `when` is a condition.
        operand: Option<Box<Expr>>,
        /// The pairs of `when` and `then`; never empty.
        whens: Vec<(Expr, Expr)>,
        /// The value after `else`. Without it, the result is null if no `when` applies.
        otherwise: Option<Box<Expr>>,
    },
    /// `cast(x as type)`, `try_cast(x as type)`, `x::type`, `date 'x'`
    Cast {
        /// `x`
        expr: Box<Expr>,
        /// The name of the type as written, but in lower case and with single spaces between words:
        /// `bigint`, `decimal(10,2)`.
        to: String,
        /// The position of the type.
        to_span: Span,
        /// Whether a value that cannot be cast becomes null.
        try_cast: bool,
    },
    /// `name(args)`
    Call {
        /// The name of the function, in lower case.
        name: String,
        /// The position of the name.
        name_span: Span,
        /// Whether the arguments follow `distinct`, as in `count(distinct x)`.
        distinct: bool,
        /// The arguments in the order of `name`. `position(a in b)`, `extract(unit from x)`,
        /// `substring(x from n)` and `trim(both a from x)` are calls of `strpos`, `date_part`,
        /// `substr` and `btrim`. `count(*)` has none.
        args: Vec<Expr>,
    },
}

/// The function that may have `*` as its argument.
const COUNT: &str = "count";

/// A constant. The number `-5` is one too, and not the negation of 5.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer that fits in an int64.
    Int(i64),
    /// A larger integer, which fits in a uint64.
    UInt(u64),
    /// Any other number.
    Float(f64),
    /// A number whose digits are more than a float64 has, as written.
    Decimal(String),
    /// `'text'`
    Str(String),
}

/// The value that `is` tests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsPredicate {
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
    /// `~`: each bit inverted
    BitNot,
    /// `not`
    Not,
}

/// Operators with two operands, in order of increasing precedence.
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
    /// `~`: whether the left side contains a match of the regular expression on the right
    RegexMatch,
    /// `!~`
    RegexNotMatch,
    /// `~*`: `~` without regard to case
    RegexIMatch,
    /// `!~*`
    RegexNotIMatch,
    /// `is distinct from`: `<>`, but NULL is a value
    Distinct,
    /// `is not distinct from`
    NotDistinct,
    /// `||`
    Concat,
    /// `&`: of the same precedence as `||`, as the four operators below
    BitAnd,
    /// `|`
    BitOr,
    /// `#`: exclusive or
    BitXor,
    /// `<<`
    ShiftLeft,
    /// `>>`
    ShiftRight,
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

impl BinaryOp {
    /// Whether it compares by order or equality: `=`, `<>`, `<`, `<=`, `>`, `>=`.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        matches!(self, Eq | NotEq | Lt | LtEq | Gt | GtEq)
    }
}

/// The path of a field of the payload. Paths are ordered, so that a set of paths has a stable
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<PathStep>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathStep {
    /// `.name`
    Field(String),
    /// `[0]`
    Index(u32),
}

/// A metadata field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meta {
    /// `@topic`: utf8. The topic; for other sources, the name of the stage or the path of the file.
    Topic,
    /// `@partition`: int32
    Partition,
    /// `@offset`: int64. The position in the split.
    Offset,
    /// `@timestamp`: timestamp in milliseconds, UTC. Null if the source has no timestamps.
    Timestamp,
    /// `@key`: utf8. Null if the record has no key. A key that is not UTF-8 makes the record
    /// invalid.
    Key,
    /// `@headers`: a JSON object with the header values as strings. `@headers.name` is one value.
    Headers(Option<String>),
}

impl Meta {
    const NAMES: [&'static str; 6] = [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        "headers",
    ];

    /// The name without the `@`, such as `topic`.
    pub fn name(&self) -> &'static str {
        match self {
            Meta::Topic => "topic",
            Meta::Partition => "partition",
            Meta::Offset => "offset",
            Meta::Timestamp => "timestamp",
            Meta::Key => "key",
            Meta::Headers(_) => "headers",
        }
    }
}

/// A path with its position in the pipeline file.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedPath {
    /// The path from the outermost object: `user.email`.
    pub path: Path,
    /// Where it is written, for errors.
    pub span: Span,
}

/// An item of `set`: `user.email = lower(user.email)`
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The field that is set.
    pub to: PlacedPath,
    /// The expression that computes its value.
    pub value: Expr,
}

/// An item of `rename`: `usr as user`
#[derive(Clone, Debug, PartialEq)]
pub struct Renaming {
    /// The field's place before the stage: `usr`.
    pub from: PlacedPath,
    /// Its new place: `user`, or a path in another object, such as `contact.mail`.
    pub to: PlacedPath,
}

impl Expr {
    /// The name of the column that it computes in a `select`: the `name` after `as`, the last field
    /// of a path, or else the text of the expression.
    pub fn column_name(&self, name: Option<&(String, Span)>) -> String {
        let last_field = |path: &Path| {
            path.0.iter().rev().find_map(|step| match step {
                PathStep::Field(name) => Some(name.clone()),
                PathStep::Index(_) => None,
            })
        };
        match (name, &self.kind) {
            (Some((name, _)), _) => name.clone(),
            (None, ExprKind::Path(path)) => last_field(path).unwrap_or_default(),
            (None, _) => self.to_string(),
        }
    }

    /// This expression, cast to a string.
    #[must_use]
    pub fn as_text(self) -> Expr {
        let span = self.span;
        let kind = ExprKind::Cast {
            expr: Box::new(self),
            to: "utf8".to_owned(),
            to_span: span,
            try_cast: false,
        };
        Expr { kind, span }
    }
}

/// An item of `select`.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectItem {
    /// `*` or `* except (a, b)`
    All {
        /// The excluded fields with their positions. Empty without `except`.
        except: Vec<(Path, Span)>,
        /// The position of the whole item.
        span: Span,
    },
    /// `expr as name`
    Column {
        /// The expression that computes the column.
        expr: Expr,
        /// The name and its position. Without `as`, a path is named by its last field, and any
        /// other expression has no name here.
        name: Option<(String, Span)>,
    },
}
