//! Expressions as they are shown: with `${env:NAME}` in place of its value.

use super::{Expr, ExprKind, Literal};
use crate::{Document, Span};

/// The strings of a pipeline file in which values are substituted.
#[derive(Clone, Debug, Default)]
pub struct Substitutions {
    strings: Vec<Span>,
    text: String,
}

impl Substitutions {
    /// Those of a document, whose file has this text.
    pub fn new(document: &Document, text: &str) -> Substitutions {
        Substitutions {
            strings: document
                .substituted
                .iter()
                .map(|filled| filled.span)
                .collect(),
            text: text.to_owned(),
        }
    }

    /// The text of the file at this position.
    pub fn written(&self, span: Span) -> &str {
        let range = span.start as usize..span.end as usize;
        self.text.get(range).unwrap_or_default()
    }

    /// Whether an expression is written with a substituted value in a literal.
    pub fn is_in(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Literal(literal) => self.instead_of(literal, expr.span).is_some(),
            _ => expr.parts().into_iter().any(|part| self.is_in(part)),
        }
    }

    /// The text of an expression, without substituted values.
    pub fn shown(&self, expr: &Expr) -> String {
        let mut shown = expr.clone();
        self.hide(&mut shown);
        shown.to_string()
    }

    fn hide(&self, expr: &mut Expr) {
        if let ExprKind::Literal(literal) = &mut expr.kind {
            if let Some(written) = self.instead_of(literal, expr.span) {
                *literal = Literal::Str(written);
            }
            return;
        }
        expr.parts_mut()
            .into_iter()
            .for_each(|part| self.hide(part));
    }

    /// What is shown instead of a literal; `None` if it is written in the file as it is. In a string
    /// with a substituted value, it is written like that if the file has it at its place.
    fn instead_of(&self, literal: &Literal, span: Span) -> Option<String> {
        let contains = |outer: &&Span| outer.start <= span.start && span.end <= outer.end;
        self.strings.iter().find(contains)?;
        let written = self.written(span);
        if written.contains("${") {
            return Some(written.trim_matches('\'').to_owned());
        }
        let value = match literal {
            Literal::Str(value) => value.clone(),
            Literal::Null | Literal::Bool(_) => return None,
            other => other.to_string(),
        };
        (!written.contains(&value)).then(|| "…".to_owned())
    }
}
