//! `set`, `remove` and `rename`: changes of some fields of a record.
//!
//! The bytes of a record are changed in place if its format can do that. The columns of a `select`,
//! and the known fields of other formats, are selected again with the changes.

use arrow::datatypes::FieldRef;
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{Expr, ExprKind, PlacedPath};
use pseidon_plugin::format::FieldChange;

use super::flow_point::FlowPoint;
use super::select::check_known_field;
use super::{ChainCompiler, chain_step};
use crate::chain::{ChainStep, Operator, RecordEdit};
use crate::edits::{FieldEdit, apply, check, field, names};
use crate::resolve::ResolvedStep;

impl ChainCompiler<'_> {
    /// Compiles edits at this point. `None` if an error was added.
    pub(super) fn edit_step(
        &mut self,
        step: &ResolvedStep,
        edits: &[FieldEdit],
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        self.errors.value(check(edits))?;
        let are_bytes = point.selected().is_none();
        match self.format.editor(&[]) {
            Ok(_) if are_bytes => self.edit_bytes(step, edits, point),
            Err(reason) if point.all_fields().is_none() => {
                let message = format!("`{}` cannot change these records", step.stage);
                self.errors.add(Diagnostic::new(step.span, message, reason));
                None
            }
            _ => {
                let named = self.edited_columns(step, edits, point)?;
                let selection = self.columns(named, point)?;
                self.selected(step, selection, point)
            }
        }
    }

    /// Edits of the bytes of records.
    fn edit_bytes(
        &mut self,
        step: &ResolvedStep,
        edits: &[FieldEdit],
        point: &mut FlowPoint,
    ) -> Option<ChainStep> {
        let values: Vec<_> = edits
            .iter()
            .filter_map(|edit| match edit {
                FieldEdit::Set(assignment) => Some(self.expr(&assignment.value, point)),
                _ => None,
            })
            .collect();
        let exprs = values.into_iter().collect::<Option<Vec<_>>>()?;
        let fields: Vec<_> = exprs.iter().map(|expr| expr.field().clone()).collect();
        let mut types = fields.iter();
        let changes: Vec<FieldChange> = edits
            .iter()
            .filter_map(|edit| {
                Some(match edit {
                    FieldEdit::Set(assignment) => FieldChange::Set {
                        path: names(&assignment.to.path),
                        field: types.next()?.clone(),
                    },
                    FieldEdit::Remove(path) => FieldChange::Remove {
                        path: names(&path.path),
                    },
                    FieldEdit::Rename(renaming) => FieldChange::Rename {
                        from: names(&renaming.from.path),
                        to: names(&renaming.to.path),
                    },
                })
            })
            .collect();
        let editor = self.format.editor(&changes).map_err(|reason| {
            Diagnostic::new(
                step.span,
                "this value cannot be written into the records",
                reason,
            )
        });
        let editor = self.errors.value(editor)?;
        let policy = self.policy(&step.on_error)?;
        let kept = point.edit(edits, &fields);
        let operator = Operator::Edit(RecordEdit {
            exprs,
            editor,
            changes,
            kept,
            columns: point.columns(),
            joint: None,
        });
        Some(chain_step(step, operator, policy))
    }

    /// The columns after edits, each with the expression for it. `None` if an error was added.
    fn edited_columns(
        &mut self,
        step: &ResolvedStep,
        edits: &[FieldEdit],
        point: &FlowPoint,
    ) -> Option<Vec<(Expr, String)>> {
        for place in edits.iter().flat_map(FieldEdit::paths) {
            self.check_column(place)?;
        }
        let known = point.all_fields()?;
        for place in edits.iter().filter_map(FieldEdit::expected_path) {
            let found = check_known_field(&place.path, place.span, known, "change");
            self.errors.value(found)?;
        }
        let path_to = |known: &FieldRef| Expr {
            kind: ExprKind::Path(field(known.name())),
            span: step.span,
        };
        let columns = known
            .fields()
            .iter()
            .map(|known| (known.name().clone(), path_to(known)));
        let edited = apply(edits, columns.collect(), |set| set.value.clone());
        Some(
            edited
                .into_iter()
                .map(|(name, expr)| (expr, name))
                .collect(),
        )
    }

    /// Adds an error if the path is a part of a column.
    fn check_column(&mut self, place: &PlacedPath) -> Option<()> {
        if place.path.0.len() == 1 {
            return Some(());
        }
        let message = format!("`{}` is a part of a column", place.path);
        let error = Diagnostic::new(place.span, message, "expected a column");
        self.errors
            .add(error.with_help("change it before the `select`, or set the whole column"));
        None
    }
}
