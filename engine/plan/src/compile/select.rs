//! `select`: the columns of a new record.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pseidon_dsl::expr::{Expr, ExprKind, Path, PathStep, SelectItem};
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_expr::CompiledExpr;

use super::ChainCompiler;
use super::flow_point::FlowPoint;
use crate::columns::{fields_except, is_field, unknown_fields};

/// The compiled columns of a `select`.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) exprs: Vec<CompiledExpr>,
    fields: Vec<FieldRef>,
}

impl Selection {
    /// The columns as a schema.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    /// Adds a column. A second column of the same name is an error.
    fn add(&mut self, value: CompiledExpr, name: String, span: Span) -> Result<(), Diagnostic> {
        if self.fields.iter().any(|field| *field.name() == name) {
            let message = format!("duplicate column `{name}`");
            return Err(Diagnostic::new(span, message, "second occurrence")
                .with_help("rename one of them with `as`"));
        }
        let field = value.field().as_ref().clone();
        self.fields
            .push(Arc::new(field.with_name(name).with_nullable(true)));
        self.exprs.push(value);
        Ok(())
    }
}

impl ChainCompiler<'_> {
    /// Compiles the columns of a `select` at this point. `None` if an error was added.
    pub(super) fn select(
        &mut self,
        items: &[SelectItem],
        point: &mut FlowPoint,
    ) -> Option<Selection> {
        let mut named = Vec::new();
        for item in items {
            named.extend(self.named_exprs(item, point)?);
        }
        self.columns(named, point)
    }

    /// Compiles columns with their names at this point. `None` if an error was added.
    pub(super) fn columns(
        &mut self,
        named: Vec<(Expr, String)>,
        point: &mut FlowPoint,
    ) -> Option<Selection> {
        let mut selection = Selection::default();
        let mut is_complete = true;
        for (expr, name) in named {
            let column = self.expr(&expr, point).and_then(|value| {
                let added = selection.add(value, name, expr.span);
                self.errors.value(added)
            });
            is_complete &= column.is_some();
        }
        is_complete.then_some(selection)
    }

    /// The expressions of an item with the names of their columns: one, or all that `*` stands for.
    fn named_exprs(&mut self, item: &SelectItem, point: &FlowPoint) -> Option<Vec<(Expr, String)>> {
        let (except, span) = match item {
            SelectItem::Column { expr, name } => {
                return Some(vec![(expr.clone(), expr.column_name(name.as_ref()))]);
            }
            SelectItem::All { except, span } => (except, *span),
        };
        let Some(schema) = point.all_fields() else {
            self.errors.add(unknown_fields(span));
            return None;
        };
        for (path, place) in except {
            self.errors
                .value(check_known_field(path, *place, schema, "exclude"));
        }
        let named = |field: &FieldRef| {
            let path = Path(vec![PathStep::Field(field.name().clone())]);
            let kind = ExprKind::Path(path);
            (Expr { kind, span }, field.name().clone())
        };
        Some(fields_except(schema, except).iter().map(named).collect())
    }
}

/// Checks that a field exists that is left out or changed, as `action` says.
pub(super) fn check_known_field(
    path: &Path,
    span: Span,
    schema: &SchemaRef,
    action: &str,
) -> Result<(), Diagnostic> {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    if names().any(|name| is_field(path, name)) {
        return Ok(());
    }
    let name = path.to_string();
    let error = Diagnostic::new(
        span,
        format!("the record has no field `{name}` to {action}"),
        "unknown field",
    );
    Err(match nearest(&name, names()) {
        Some(near) => error.with_help(format!("did you mean `{near}`?")),
        None => error,
    })
}
