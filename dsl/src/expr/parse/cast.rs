//! Casts in their three notations: `cast(x as type)`, `x::type` and `date '2024-01-31'`.

use pest::iterators::Pair;

use super::{ParsedExpr, Reader, null};
use crate::Span;
use crate::expr::grammar::Rule;
use crate::expr::{Expr, ExprKind};

impl<'a> Reader<'a> {
    /// `cast(x as type)` or `try_cast(x as type)`.
    pub(super) fn cast(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let try_cast = pair
            .clone()
            .into_inner()
            .any(|part| part.as_rule() == Rule::kw_try_cast);
        let (to, to_span) = self.type_name(pair.clone());
        let (mut parts, levels) = self.inner_exprs(pair);
        let Some(expr) = parts.pop().map(Box::new) else {
            return null(span);
        };
        self.node(
            levels,
            ExprKind::Cast {
                expr,
                to,
                to_span,
                try_cast,
            },
            span,
        )
    }

    /// The cast of `expr` by `op`: `::type`.
    pub(super) fn cast_to(&self, expr: Box<Expr>, op: Pair<'a, Rule>) -> ExprKind {
        let (to, to_span) = self.type_name(op);
        ExprKind::Cast {
            expr,
            to,
            to_span,
            try_cast: false,
        }
    }

    /// A literal with its type before it: `date '2024-01-31'`.
    pub(super) fn typed_literal(&self, pair: Pair<'a, Rule>, span: Span) -> ParsedExpr<'a> {
        let mut parts = pair.into_inner();
        let (Some(type_pair), Some(value)) = (parts.next(), parts.next()) else {
            return null(span);
        };
        let value = self.primary(value);
        let to = type_pair.as_str().to_ascii_lowercase();
        self.node(
            value.levels,
            ExprKind::Cast {
                expr: Box::new(value.expr),
                to,
                to_span: self.span(&type_pair),
                try_cast: false,
            },
            span,
        )
    }

    /// The name of the type inside a cast and its position. The name is in lower case, with single
    /// spaces between words and none elsewhere.
    fn type_name(&self, cast: Pair<'a, Rule>) -> (String, Span) {
        let Some(pair) = cast
            .into_inner()
            .find(|part| part.as_rule() == Rule::type_name)
        else {
            return Default::default();
        };
        let span = self.span(&pair);
        let mut name = String::new();
        for part in pair.into_inner() {
            if part.as_rule() == Rule::zone {
                name.push(' ');
            }
            let words: Vec<&str> = part.as_str().split_whitespace().collect();
            name.push_str(&words.join(" ").to_ascii_lowercase());
        }
        (name, span)
    }
}
