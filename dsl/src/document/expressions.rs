//! `:expressions`: named expressions.

use std::collections::HashSet;
use std::ops::Range;

use super::NamedExpression;
use super::build::Builder;
use crate::expr::parse_signature;
use crate::{Node, NodeKind};

impl NamedExpression {
    /// Whether a call of this name is one of it. Upper and lower case are the same.
    pub fn has_name(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

impl Builder {
    /// The entries of `:expressions`.
    pub(super) fn expressions(&mut self, value: Node) {
        let found = value.describe();
        let NodeKind::Map(entries) = value.kind else {
            self.report(
                value.span,
                "`:expressions` must be a map",
                format!("expected {{ … }}, found {found}"),
            );
            return;
        };
        let mut names = HashSet::new();
        for (key, value) in entries {
            let Some(named) = self.expression(&key, value) else {
                continue;
            };
            if names.insert(named.name.to_ascii_lowercase()) {
                self.expressions.push(named);
            } else {
                let message = format!("`{}` is defined twice", named.name);
                self.report(key.span, message, "another expression has this name");
            }
        }
    }

    fn expression(&mut self, key: &Node, body: Node) -> Option<NamedExpression> {
        let signature = match &key.kind {
            NodeKind::Str(text) => text.value.clone(),
            NodeKind::Symbol(name) | NodeKind::Keyword(name) => name.to_string(),
            _ => String::new(),
        };
        let Some((name, parameters)) = parse_signature(&signature) else {
            let message = match signature.as_str() {
                "" => format!("{} cannot name an expression", key.describe()),
                shown => format!("`{shown}` cannot name an expression"),
            };
            let label = "expected a name such as is_error or \"share(part, whole)\"";
            self.report(key.span, message, label);
            return None;
        };
        let mut known = HashSet::new();
        let twice = parameters.iter().find(|(name, _)| !known.insert(name));
        if let Some((parameter, _)) = twice {
            let message = format!("`{name}` has two parameters `{parameter}`");
            self.report(key.span, message, "each needs a name of its own");
            return None;
        }
        if !matches!(body.kind, NodeKind::Str(_) | NodeKind::Regex(_)) {
            let label = format!(
                "expected an SQL expression in quotes, found {}",
                body.describe()
            );
            self.report(body.span, format!("`{name}` must be a string"), label);
            return None;
        }
        // A key of TOML is not a text with positions.
        let place = |range: Range<usize>| match &key.kind {
            NodeKind::Str(text) => text.span_of(range.start, range.end),
            _ => key.span,
        };
        let parameters = parameters.into_iter();
        Some(NamedExpression {
            name,
            name_span: key.span,
            parameters: parameters.map(|(name, at)| (name, place(at))).collect(),
            body,
            included: false,
        })
    }
}
