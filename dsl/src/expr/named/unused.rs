//! Parameters that their definition does not use: most likely a misspelled name.

use std::collections::BTreeSet;

use crate::document::NamedExpression;
use crate::expr::{Expr, ExprKind, PathStep};
use crate::{Diagnostic, nearest};

/// The errors for the parameters that the body of a definition does not use.
pub(super) fn parameters(definition: &NamedExpression, body: Option<&Expr>) -> Vec<Diagnostic> {
    let Some(body) = body else {
        return Vec::new();
    };
    let mut used = BTreeSet::new();
    add_names(body, &mut used);
    let is_parameter = |name: &&str| definition.parameters.iter().any(|(known, _)| known == name);
    let fields: Vec<&str> = used
        .iter()
        .copied()
        .filter(|name| !is_parameter(name))
        .collect();
    let unused = definition.parameters.iter();
    let unused = unused.filter(|(name, _)| !used.contains(name.as_str()));
    let error = |(name, span): &(String, _)| {
        let message = format!("unused parameter `{name}`");
        let help = match nearest(name, fields.iter().copied()) {
            Some(field) => {
                format!("the field `{field}` is not a parameter; did you mean `{name}`?")
            }
            None => "remove it here and in the calls, or use it in the expression".to_owned(),
        };
        Diagnostic::new(*span, message, "not part of the expression").with_help(help)
    };
    unused.map(error).collect()
}

/// Adds the first name of each path.
fn add_names<'e>(expr: &'e Expr, names: &mut BTreeSet<&'e str>) {
    if let ExprKind::Path(path) = &expr.kind
        && let Some(PathStep::Field(name)) = path.0.first()
    {
        names.insert(name);
    }
    let parts = expr.parts().into_iter();
    parts.for_each(|part| add_names(part, names));
}
