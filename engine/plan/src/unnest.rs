//! `unnest`: one record for each element of a list.
//!
//! The stage is two steps. The first repeats each record once for each element, which is a column
//! with a name that no field has; the second is an edit that puts the element in the place of the
//! list.

use pseidon_dsl::expr::{Assignment, Expr, ExprKind, PlacedPath, SelectItem};
use pseidon_dsl::{Diagnostic, Span};

use crate::edits::{FieldEdit, field};

/// The column with the elements. No field has this name.
pub(crate) const ELEMENT: &str = "(element)";

/// The list of an `unnest`, and the edits that follow. `span` is the position of the stage.
///
/// # Errors
/// There is not exactly one list, or it has no name.
pub(crate) fn steps(list: &[SelectItem], span: Span) -> Result<(Expr, Vec<FieldEdit>), Diagnostic> {
    let (expr, name) = match list {
        [SelectItem::Column { expr, name }] => (expr, name.as_ref()),
        [SelectItem::All { span, .. }, ..] => {
            return Err(Diagnostic::new(
                *span,
                "`*` is not a list",
                "expected a field",
            ));
        }
        [SelectItem::Column { expr, .. }, ..] => {
            let error = Diagnostic::new(expr.span, "`unnest` has one list", "there are several");
            return Err(error.with_help("use a stage for each"));
        }
        [] => {
            let error = Diagnostic::new(span, "`unnest` has no list", "expected a field");
            return Err(error);
        }
    };
    let whole = match &expr.kind {
        ExprKind::Path(path) => Some(PlacedPath {
            path: path.clone(),
            span: expr.span,
        }),
        _ => None,
    };
    let (to, removed) = match (name, whole) {
        (Some((name, span)), whole) => {
            let to = PlacedPath {
                path: field(name),
                span: *span,
            };
            let removed = whole.filter(|whole| whole.path != to.path);
            (to, removed)
        }
        (None, Some(whole)) => (whole, None),
        (None, None) => {
            let error = Diagnostic::new(expr.span, "the element has no name", "expected `as name`");
            return Err(error);
        }
    };
    let value = Expr {
        kind: ExprKind::Path(field(ELEMENT)),
        span: expr.span,
    };
    let set = FieldEdit::Set(Assignment { to, value });
    let edits = removed.map(FieldEdit::Remove).into_iter().chain([set]);
    Ok((expr.clone(), edits.collect()))
}
