//! Path templates: `out/{@topic}/date={at:%Y-%m-%d}`.
//!
//! `{expression}` stands for a value, `{expression:format}` for a time in a format of strftime's.
//! `{{` and `}}` are braces.

mod parse;

pub use parse::parse;

use crate::Span;
use crate::expr::Expr;

/// A path with values in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its parts in order. No two literals follow each other.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text, braces resolved.
    Literal(String),
    /// `{expr}`, `{expr:format}`
    Value {
        /// What the value is.
        expr: Expr,
        /// How a time is written, in the letters of chrono's strftime.
        format: Option<String>,
        /// The whole part, braces included.
        span: Span,
    },
}
