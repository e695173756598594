//! What is written of a record, where that is not all of it.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use pseidon_dsl::expr::{Expr, ExprKind, Path, SelectItem, Step};
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_expr::Compiled;
use pseidon_plugin::Rows;
use pseidon_plugin::sink::{RecordShape, SinkInput};

/// The columns that are written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    exprs: Vec<Compiled>,
    pub(super) schema: SchemaRef,
    /// The first expression that does not always give the same.
    pub(super) nondeterminism: Option<String>,
}

impl Written {
    /// The columns that these items select from what the sink is given; `None` if there are
    /// mistakes.
    pub(super) fn new(
        items: &[SelectItem],
        input: &SinkInput,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Option<Written> {
        let before = mistakes.len();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut written = Written {
            exprs: Vec::new(),
            schema: Arc::new(Schema::empty()),
            nondeterminism: None,
        };
        for (expr, name, span) in items
            .iter()
            .flat_map(|item| columns(item, input, mistakes))
            .collect::<Vec<_>>()
        {
            let compiled = match pseidon_expr::compile(&expr, &input.scope) {
                Ok(compiled) => compiled,
                Err(more) => {
                    mistakes.extend(more);
                    continue;
                }
            };
            if fields.iter().any(|field| *field.name() == name) {
                let mistake = Diagnostic::new(
                    span,
                    format!("two columns are called `{name}`"),
                    "the second one",
                );
                mistakes.push(mistake.with_help("give one of them another name with `as`"));
                continue;
            }
            if !compiled.is_deterministic() {
                written
                    .nondeterminism
                    .get_or_insert_with(|| expr.to_string());
            }
            fields.push(Arc::new(
                compiled
                    .field()
                    .as_ref()
                    .clone()
                    .with_name(name)
                    .with_nullable(true),
            ));
            written.exprs.push(compiled);
        }
        written.schema = Arc::new(Schema::new(fields));
        (mistakes.len() == before).then_some(written)
    }

    /// The columns for these rows. An error means that some row has none; it does not say which.
    pub(super) fn record(&self, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let columns = self
            .exprs
            .iter()
            .map(|expr| rows.evaluate(expr))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

/// The expressions that an item stands for, each with its column's name.
fn columns(
    item: &SelectItem,
    input: &SinkInput,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(Expr, String, Span)> {
    let (except, span) = match item {
        SelectItem::Column { expr, name } => {
            return vec![(expr.clone(), column_name(expr, name.as_ref()), expr.span)];
        }
        SelectItem::All { except, span } => (except, *span),
    };
    let RecordShape::Columns(schema) = &input.record else {
        let mistake = Diagnostic::new(
            span,
            "the records are written as they came, so they have no columns",
            "`*` stands for columns",
        );
        mistakes.push(mistake.with_help(
            "select the columns first, in a `select` before this stage, or name them here",
        ));
        return Vec::new();
    };
    for (path, span) in except.iter().filter(|(path, _)| {
        !schema
            .fields()
            .iter()
            .any(|field| names(path, field.name()))
    }) {
        let mistake = Diagnostic::new(
            *span,
            format!("there is no column `{path}` to leave out"),
            "no such column",
        );
        mistakes.push(
            match nearest(
                &path.to_string(),
                schema.fields().iter().map(|field| field.name().as_str()),
            ) {
                Some(near) => mistake.with_help(format!("did you mean `{near}`?")),
                None => mistake,
            },
        );
    }
    let kept = schema
        .fields()
        .iter()
        .filter(|field| !except.iter().any(|(path, _)| names(path, field.name())));
    let column = |field: &FieldRef| {
        let path = Path(vec![Step::Field(field.name().clone())]);
        (
            Expr {
                kind: ExprKind::Path(path),
                span,
            },
            field.name().clone(),
            span,
        )
    };
    kept.map(column).collect()
}

fn names(path: &Path, column: &str) -> bool {
    matches!(path.0.as_slice(), [Step::Field(field)] if field == column)
}

/// As `select` names columns: by `as`, by a path's last field, else by the expression's text.
fn column_name(expr: &Expr, name: Option<&(String, Span)>) -> String {
    let last_field = |path: &Path| {
        path.0.iter().rev().find_map(|step| match step {
            Step::Field(name) => Some(name.clone()),
            Step::Index(_) => None,
        })
    };
    match (name, &expr.kind) {
        (Some((name, _)), _) => name.clone(),
        (None, ExprKind::Path(path)) => last_field(path).unwrap_or_default(),
        (None, _) => expr.to_string(),
    }
}
