//! A point of the flow, and what is known there about the records.

use arrow::datatypes::{FieldRef, SchemaRef};
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::{Column, Scope};
use pseidon_plugin::format::WantedColumn;
use pseidon_plugin::sink::{RecordShape, SinkInput};

/// The records at a point of the flow.
#[derive(Clone)]
pub(super) struct FlowPoint {
    /// The records as a sink at this point receives them.
    pub(super) input: SinkInput,
    /// The nondeterministic expressions that decide which records get here, and with which values.
    pub(super) nondeterminism: Vec<String>,
}

impl FlowPoint {
    /// The point after a source with records of this format, of which these columns are decoded.
    pub(super) fn after_source(format: &str, columns: &[WantedColumn]) -> FlowPoint {
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
                    format: format.to_owned(),
                },
            },
            nondeterminism: Vec::new(),
        }
    }

    /// Moves to the point after a `select` of these columns.
    pub(super) fn select(&mut self, schema: SchemaRef) {
        self.input = input_with_columns(schema);
    }

    /// The columns of the last `select`. `None` if the records are those of the source.
    pub(super) fn selected(&self) -> Option<&SchemaRef> {
        match &self.input.record {
            RecordShape::Columns(schema) => Some(schema),
            RecordShape::AsCame { .. } => None,
        }
    }

    /// Adds the nondeterminism of another way to this point.
    pub(super) fn add_nondeterminism(&mut self, other: &FlowPoint) {
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
