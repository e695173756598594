//! The projection: the columns that are written of a record if it is not written as a whole.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use pseidon_dsl::expr::{Expr, ExprKind, Path, PathStep, SelectItem};
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_expr::CompiledExpr;
use pseidon_plugin::Rows;
use pseidon_plugin::sink::{RecordShape, SinkInput};

/// The expressions whose values are written, and the schema that they form.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    exprs: Vec<CompiledExpr>,
    pub(super) schema: SchemaRef,
    /// The first nondeterministic expression; `None` if all are deterministic.
    pub(super) nondeterminism: Option<String>,
}

impl Projection {
    /// Compiles the columns that these items select from the sink's input. `None` if this has added
    /// diagnostics to `errors`.
    pub(super) fn new(
        items: &[SelectItem],
        input: &SinkInput,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<Projection> {
        let before = errors.len();
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut projection = Projection {
            exprs: Vec::new(),
            schema: Arc::new(Schema::empty()),
            nondeterminism: None,
        };
        for (expr, name, span) in items
            .iter()
            .flat_map(|item| columns(item, input, errors))
            .collect::<Vec<_>>()
        {
            let compiled = match pseidon_expr::compile(&expr, &input.scope) {
                Ok(compiled) => compiled,
                Err(more) => {
                    errors.extend(more);
                    continue;
                }
            };
            if fields.iter().any(|field| *field.name() == name) {
                let error = Diagnostic::new(
                    span,
                    format!("duplicate column `{name}`"),
                    "second occurrence",
                );
                errors.push(error.with_help("rename one of them with `as`"));
                continue;
            }
            if !compiled.is_deterministic() {
                projection
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
            projection.exprs.push(compiled);
        }
        projection.schema = Arc::new(Schema::new(fields));
        (errors.len() == before).then_some(projection)
    }

    /// Evaluates the columns for these rows. An error means that the evaluation fails for at least
    /// one row, and does not say for which.
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

/// The expressions that an item expands to, each with its column's name and its place in the
/// pipeline file.
fn columns(
    item: &SelectItem,
    input: &SinkInput,
    errors: &mut Vec<Diagnostic>,
) -> Vec<(Expr, String, Span)> {
    let (except, span) = match item {
        SelectItem::Column { expr, name } => {
            return vec![(expr.clone(), expr.column_name(name.as_ref()), expr.span)];
        }
        SelectItem::All { except, span } => (except, *span),
    };
    let RecordShape::Columns(schema) = &input.record else {
        let error = Diagnostic::new(
            span,
            "the records are written unparsed, so they have no columns",
            "`*` requires columns",
        );
        errors.push(error.with_help(
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
        let error = Diagnostic::new(
            *span,
            format!("unknown column `{path}` in `except`"),
            "no column has this name",
        );
        errors.push(
            match nearest(
                &path.to_string(),
                schema.fields().iter().map(|field| field.name().as_str()),
            ) {
                Some(near) => error.with_help(format!("did you mean `{near}`?")),
                None => error,
            },
        );
    }
    let kept = schema
        .fields()
        .iter()
        .filter(|field| !except.iter().any(|(path, _)| names(path, field.name())));
    let column = |field: &FieldRef| {
        let path = Path(vec![PathStep::Field(field.name().clone())]);
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
    matches!(path.0.as_slice(), [PathStep::Field(field)] if field == column)
}
