//! A `select` with `*` of records whose fields are not known: it changes them in place.

use pseidon_dsl::expr::{Assignment, PlacedPath, SelectItem};

use crate::edits::{FieldEdit, field};
use crate::resolve::{ResolvedStep, ResolvedStepKind};

/// The same chain, in which each `select` with `*` is an edit up to the first other `select`, behind
/// which columns are known. For a format that can change fields in place.
pub(crate) fn in_place(chain: &[ResolvedStep]) -> Vec<ResolvedStep> {
    let mut has_columns = false;
    let mut steps = Vec::with_capacity(chain.len());
    for step in chain {
        let kind = match &step.kind {
            other if has_columns => other.clone(),
            ResolvedStepKind::Select(items) => match edits_of(items) {
                Some(edits) => ResolvedStepKind::Edit(edits),
                None => {
                    has_columns = true;
                    step.kind.clone()
                }
            },
            ResolvedStepKind::All(branches) => {
                ResolvedStepKind::All(branches.iter().map(|branch| in_place(branch)).collect())
            }
            ResolvedStepKind::Match {
                branches,
                otherwise,
            } => ResolvedStepKind::Match {
                branches: branches
                    .iter()
                    .map(|(pattern, branch)| (pattern.clone(), in_place(branch)))
                    .collect(),
                otherwise: otherwise.as_ref().map(|branch| in_place(branch)),
            },
            ResolvedStepKind::Route {
                branches,
                otherwise,
            } => ResolvedStepKind::Route {
                branches: branches
                    .iter()
                    .map(|(condition, branch)| (condition.clone(), in_place(branch)))
                    .collect(),
                otherwise: otherwise.as_ref().map(|branch| in_place(branch)),
            },
            other => other.clone(),
        };
        steps.push(ResolvedStep {
            kind,
            ..step.clone()
        });
    }
    steps
}

/// The edits that a `select` with `*` means; `None` without `*`. A column that is also excluded is
/// set.
fn edits_of(items: &[SelectItem]) -> Option<Vec<FieldEdit>> {
    let mut has_all = false;
    let (mut removed, mut set) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            SelectItem::All { except, .. } => {
                has_all = true;
                removed.extend(except.iter().map(|(path, span)| PlacedPath {
                    path: path.clone(),
                    span: *span,
                }));
            }
            SelectItem::Column { expr, name } => {
                let place = name.as_ref().map_or(expr.span, |(_, place)| *place);
                set.push(Assignment {
                    to: PlacedPath {
                        path: field(&expr.column_name(name.as_ref())),
                        span: place,
                    },
                    value: expr.clone(),
                });
            }
        }
    }
    let is_set = |path: &PlacedPath| set.iter().any(|item| item.to.path == path.path);
    removed.retain(|path| !is_set(path));
    let removed = removed.into_iter().map(FieldEdit::Remove);
    has_all.then(|| removed.chain(set.into_iter().map(FieldEdit::Set)).collect())
}
