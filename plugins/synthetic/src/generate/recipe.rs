//! How records are made: expressions over their numbers, then JSON.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_dsl::expr::Expr;
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::Scope;
use pseidon_formats::{RecordEncoder, RecordFormat};
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Batch, Payloads, Rows, Split};

use super::values::NumberExpr;

/// Makes the record of any number.
pub(super) struct Recipe {
    fields: Vec<NumberExpr>,
    schema: SchemaRef,
    encoder: RecordEncoder,
}

/// Records of one split, and those that could not be made.
pub(super) struct Made {
    pub(super) batch: Batch,
    pub(super) failed: Vec<Failure>,
}

/// Why no batch was made.
#[derive(Debug)]
pub(super) enum NotMade {
    /// So many records are too large together: fewer at once may be possible.
    TooMany,
    /// This concerns all of them.
    All(String),
}

/// A record that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) number: u64,
    pub(super) reason: String,
}

impl Recipe {
    /// Compiles the fields of a record, which stand at `span` in the file.
    pub(super) fn new(
        record: &[(String, Expr)],
        span: Span,
        seed: u64,
    ) -> Result<Recipe, Vec<Diagnostic>> {
        if record.is_empty() {
            return Err(vec![Diagnostic::new(
                span,
                "the record has no fields",
                "expected a map such as {:id \"n\"}",
            )]);
        }
        let (mut compiled, mut fields, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = HashSet::new();
        for (name, expr) in record {
            if !names.insert(name) {
                mistakes.push(Diagnostic::new(
                    expr.span,
                    format!("the field `{name}` is given twice"),
                    "here again",
                ));
            }
            match NumberExpr::new(expr, seed) {
                Ok(field) => {
                    fields.push(field.field().as_ref().clone().with_name(name));
                    compiled.push(field);
                }
                Err(more) => mistakes.extend(more),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let schema = Arc::new(Schema::new(fields));
        let input = SinkInput {
            scope: Scope::default(),
            record: RecordShape::Columns(schema.clone()),
        };
        let encoder = RecordEncoder::new(RecordFormat::Json, &input).map_err(|reason| {
            vec![Diagnostic::new(
                span,
                "these records cannot be written as JSON",
                reason,
            )]
        })?;
        Ok(Recipe {
            fields: compiled,
            schema,
            encoder,
        })
    }

    /// The records' fields with their types.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether a record that is made again is the same.
    pub(super) fn is_deterministic(&self) -> bool {
        self.fields.iter().all(NumberExpr::is_deterministic)
    }

    /// Makes the records of these ascending numbers; the batch covers everything below `next`. An
    /// error concerns all of them.
    pub(super) fn make(
        &self,
        split: &Arc<Split>,
        numbers: Vec<u64>,
        next: Position,
    ) -> Result<Made, NotMade> {
        let all = |error: &dyn std::fmt::Display| NotMade::All(error.to_string());
        let (numbers, columns, mut failed) = self.columns(numbers)?;
        let rows = rows_of(split, numbers, columns, next);
        let bad = self.encoder.check(&rows);
        let rows_left = rows.without(&bad).map_err(|error| all(&error))?;
        failed.extend(bad.into_iter().map(|BadRow { row, reason }| Failure {
            number: rows.position(row as usize),
            reason,
        }));

        let mut lines = Vec::new();
        self.encoder
            .write_lines(&rows_left, &mut lines)
            .map_err(|error| all(&error))?;
        if u32::try_from(lines.len()).is_err() {
            return Err(NotMade::TooMany);
        }
        let positions = (0..rows_left.len())
            .map(|row| rows_left.position(row))
            .collect();
        Ok(Made {
            batch: Batch::from_payloads(split.clone(), payloads(lines.into()), positions, next),
            failed,
        })
    }

    /// The fields' values, after leaving out the numbers for which there are none.
    fn columns(
        &self,
        mut numbers: Vec<u64>,
    ) -> Result<(Vec<u64>, RecordBatch, Vec<Failure>), NotMade> {
        match self.evaluate(&numbers) {
            Ok(columns) => return Ok((numbers, columns, Vec::new())),
            Err(error) if error.is_too_many && numbers.len() > 1 => return Err(NotMade::TooMany),
            Err(_) => {}
        }
        // An error does not say which row it comes from, so each is tried alone.
        let mut failed = Vec::new();
        numbers.retain(|number| match self.evaluate(&[*number]) {
            Ok(_) => true,
            Err(error) => {
                failed.push(Failure {
                    number: *number,
                    reason: error.reason,
                });
                false
            }
        });
        let columns = self.evaluate(&numbers).map_err(|error| {
            match error.is_too_many && numbers.len() > 1 {
                true => NotMade::TooMany,
                false => NotMade::All(error.reason),
            }
        })?;
        Ok((numbers, columns, failed))
    }

    fn evaluate(&self, numbers: &[u64]) -> Result<RecordBatch, NoValue> {
        let columns = self
            .fields
            .iter()
            .zip(self.schema.fields())
            .map(|(compiled, field)| {
                compiled.evaluate(numbers).map_err(|error| NoValue {
                    is_too_many: matches!(error, ArrowError::MemoryError(_)),
                    reason: format!("no value for `{}`: {error}", field.name()),
                })
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| {
            NoValue {
                is_too_many: false,
                reason: error.to_string(),
            }
        })
    }
}

/// Some numbers have no value for a field, or are too many.
struct NoValue {
    is_too_many: bool,
    reason: String,
}

/// The records as columns, as the encoder takes them: they have no bytes yet.
fn rows_of(
    split: &Arc<Split>,
    positions: Vec<Position>,
    columns: RecordBatch,
    next: Position,
) -> Rows {
    let no_bytes = Payloads::new(Bytes::new(), positions.iter().map(|_| (0, 0)), false);
    let batch = Batch::from_payloads(split.clone(), no_bytes, positions, next);
    Rows::new(Arc::new(batch), columns.clone()).with_record(columns)
}

/// Lines as records. JSON has no line feed inside a value.
fn payloads(lines: Bytes) -> Payloads {
    let mut start = 0;
    let mut spans = Vec::new();
    for end in memchr::memchr_iter(b'\n', &lines) {
        spans.push((start as u32, (end - start) as u32));
        start = end + 1;
    }
    Payloads::new(lines, spans, true)
}
