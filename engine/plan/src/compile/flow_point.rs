//! A point of the flow, and what is known there about the records.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::{Column, Scope};
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::sink::{RecordShape, SinkFacts, SinkInput};

use crate::chain::Operator;
use crate::edits::{FieldEdit, apply};

/// The records at a point of the flow.
#[derive(Clone)]
pub(super) struct FlowPoint {
    /// The records as a sink at this point receives them.
    pub(super) input: SinkInput,
    /// Whether the records of the source have bytes.
    has_bytes: bool,
    /// The fields of the record, if they are known and the record is not columns.
    pub(super) fields: Option<SchemaRef>,
    /// The nondeterministic expressions that decide which records get here, and with which values.
    pub(super) nondeterminism: Vec<String>,
}

impl FlowPoint {
    /// The point after a source with records of this format, of which these columns are decoded.
    /// `fields` are all fields of the record, if they are known.
    pub(super) fn after_source(
        format: &dyn Format,
        columns: &[WantedColumn],
        fields: Option<SchemaRef>,
    ) -> FlowPoint {
        let column = |wanted: &WantedColumn| Column {
            path: wanted.path.clone(),
            field: wanted.field.clone(),
        };
        FlowPoint {
            input: SinkInput {
                scope: Scope {
                    columns: columns.iter().map(column).collect(),
                },
                record: RecordShape::AsCame {
                    format: format.name().to_owned(),
                },
            },
            has_bytes: format.has_bytes(),
            fields,
            nondeterminism: Vec::new(),
        }
    }

    /// Whether the fields of the record have to become columns for a sink at this point.
    pub(super) fn needs_columns(&self, sink: &SinkFacts) -> bool {
        match &self.input.record {
            RecordShape::AsCame { format } => {
                let needs = sink.needs_columns;
                needs.of(format, self.has_bytes, self.fields.as_ref())
            }
            RecordShape::Columns(_) => false,
        }
    }

    /// All columns of the record here, if they are known.
    pub(super) fn all_fields(&self) -> Option<&SchemaRef> {
        self.selected().or(self.fields.as_ref())
    }

    /// Adds a column for expressions, which is not a field of the record.
    pub(super) fn add_column(&mut self, path: Path, field: FieldRef) {
        self.input.scope.columns.push(Column { path, field });
    }

    /// Moves to the point after edits of a record that is bytes. `values` are the types of the
    /// fields that are set. Returns the columns that are still valid, as indexes of those before;
    /// the values follow them.
    pub(super) fn edit(&mut self, edits: &[FieldEdit], values: &[FieldRef]) -> Vec<usize> {
        let (mut kept, mut columns) = (Vec::new(), Vec::new());
        for (number, column) in self.input.scope.columns.iter().enumerate() {
            if let Some(path) = path_after(edits, &column.path) {
                let field = column.field.as_ref().clone().with_name(path.to_string());
                kept.push(number);
                columns.push(Column {
                    path,
                    field: Arc::new(field),
                });
            }
        }
        let mut types = values.iter();
        for edit in edits {
            if let FieldEdit::Set(assignment) = edit
                && let Some(field) = types.next()
            {
                let path = assignment.to.path.clone();
                let field = field.as_ref().clone().with_name(path.to_string());
                columns.push(Column {
                    path,
                    field: Arc::new(field.with_nullable(true)),
                });
            }
        }
        self.fields = self
            .fields
            .as_ref()
            .map(|fields| fields_after(edits, values, fields));
        self.input.scope.columns = columns;
        kept
    }

    /// The columns for expressions as a schema.
    pub(super) fn columns(&self) -> SchemaRef {
        schema_of(&self.input.scope.columns)
    }

    /// The operator that keeps these of the columns for expressions; `None` if there are no others.
    pub(super) fn keep(&self, columns: &[Column]) -> Option<Operator> {
        let known = &self.input.scope.columns;
        let index = |column: &Column| known.iter().position(|known| known == column);
        (known != columns).then(|| {
            Operator::Keep(
                columns.iter().filter_map(index).collect(),
                schema_of(columns),
            )
        })
    }

    /// Moves to the point after a `select` of these columns.
    pub(super) fn select(&mut self, schema: SchemaRef) {
        self.input = input_with_columns(schema);
        self.fields = None;
    }

    /// The columns of the last `select`. `None` if the records are those of the source.
    pub(super) fn selected(&self) -> Option<&SchemaRef> {
        match &self.input.record {
            RecordShape::Columns(schema) => Some(schema),
            RecordShape::AsCame { .. } => None,
        }
    }

    /// Moves to the point where these ways come together, with these columns for expressions.
    pub(super) fn join(&mut self, ways: &[FlowPoint], columns: Vec<Column>) {
        if let Some((first, others)) = ways.split_first() {
            let is_same = |other: &FlowPoint| other.fields == first.fields;
            self.fields = first.fields.clone().filter(|_| others.iter().all(is_same));
            self.input = first.input.clone();
            self.input.scope.columns = columns;
        }
        ways.iter().for_each(|way| self.add_nondeterminism(way));
    }

    /// Adds the nondeterminism of another way to this point.
    fn add_nondeterminism(&mut self, other: &FlowPoint) {
        for expr in &other.nondeterminism {
            if !self.nondeterminism.contains(expr) {
                self.nondeterminism.push(expr.clone());
            }
        }
    }
}

/// The input of a sink that receives records with these columns.
pub(super) fn input_with_columns(schema: SchemaRef) -> SinkInput {
    let column = |field: &FieldRef| Column {
        path: Path(vec![PathStep::Field(field.name().clone())]),
        field: field.clone(),
    };
    SinkInput {
        scope: Scope {
            columns: schema.fields().iter().map(column).collect(),
        },
        record: RecordShape::Columns(schema),
    }
}

fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields = columns.iter().map(|column| column.field.clone());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The path that a decoded column has after edits; `None` if the edits change its value.
fn path_after(edits: &[FieldEdit], path: &Path) -> Option<Path> {
    for edit in edits {
        if let FieldEdit::Rename(renaming) = edit
            && path.0.starts_with(&renaming.from.path.0)
        {
            let mut steps = renaming.to.path.0.clone();
            steps.extend_from_slice(&path.0[renaming.from.path.0.len()..]);
            return Some(Path(steps));
        }
        let touches =
            |changed: &[PathStep]| path.0.starts_with(changed) || changed.starts_with(&path.0);
        if edit.paths().any(|changed| touches(&changed.path.0)) {
            return None;
        }
    }
    Some(path.clone())
}

/// The fields of the record after edits; `values` are the types of those that are set. A field of
/// which a part is changed keeps its type.
fn fields_after(edits: &[FieldEdit], values: &[FieldRef], fields: &SchemaRef) -> SchemaRef {
    let mut types = values.iter().cloned();
    let known = fields.fields().iter();
    let known = known.map(|field| (field.name().clone(), Some(field.clone())));
    let after = apply(edits, known.collect(), |_| types.next());
    let named =
        |(name, field): (String, Option<FieldRef>)| Some(field?.as_ref().clone().with_name(name));
    Arc::new(Schema::new(
        after.into_iter().filter_map(named).collect::<Vec<_>>(),
    ))
}
