//! Path templates: `out/{@topic}/date={at:%Y-%m-%d}`.
//!
//! `{expression}` inserts a value, `{expression:format}` a time in a strftime format. `{{` and `}}`
//! are literal braces.

mod parse;

pub use parse::parse;

use crate::Span;
use crate::expr::Expr;

/// A parsed path template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// The parts in order. Two literals are never adjacent.
    pub parts: Vec<TemplatePart>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum TemplatePart {
    /// Literal text, with `{{` and `}}` unescaped.
    Literal(String),
    /// `{expr}`, `{expr:format}`
    Value {
        /// The expression that computes the value.
        expr: Expr,
        /// The format of a time, in chrono's strftime syntax. `None` for other values.
        format: Option<String>,
        /// The whole part, including its braces.
        span: Span,
    },
}
