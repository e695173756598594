//! Generates records: evaluates expressions over their numbers and encodes the values as JSON.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use pseidon_delivery::{Position, Reason};
use pseidon_dsl::expr::Expr;
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::Scope;
use pseidon_formats::{OutputFormat, RecordEncoder};
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Batch, Payloads, Rows, Split};

use super::values::NumberExpr;

/// Generates the record of any number.
pub(super) struct RecordGenerator {
    fields: Vec<NumberExpr>,
    schema: SchemaRef,
    encoder: RecordEncoder,
}

/// The records of one batch, and those that could not be generated.
pub(super) struct GeneratedBatch {
    pub(super) batch: Batch,
    pub(super) failed: Vec<FailedRecord>,
}

/// Why no batch was generated.
#[derive(Debug)]
pub(super) enum GenerateError {
    /// The records together are too large; fewer may be possible.
    TooMany,
    /// The reason applies to all records.
    All(Reason),
}

/// A record that could not be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedRecord {
    pub(super) number: u64,
    pub(super) reason: String,
}

impl RecordGenerator {
    /// Compiles the fields of a record. `span` is the location of the record in the file.
    pub(super) fn new(
        record: &[(String, Expr)],
        span: Span,
        seed: u64,
    ) -> Result<RecordGenerator, Vec<Diagnostic>> {
        if record.is_empty() {
            return Err(vec![Diagnostic::new(
                span,
                "the record has no fields",
                "expected a map such as {:id \"n\"}",
            )]);
        }
        let (mut compiled, mut fields, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = HashSet::new();
        for (name, expr) in record {
            if !names.insert(name) {
                errors.push(Diagnostic::new(
                    expr.span,
                    format!("duplicate field `{name}`"),
                    "second occurrence",
                ));
            }
            match NumberExpr::new(expr, seed) {
                Ok(field) => {
                    fields.push(field.field().as_ref().clone().with_name(name));
                    compiled.push(field);
                }
                Err(more) => errors.extend(more),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let schema = Arc::new(Schema::new(fields));
        let input = SinkInput {
            scope: Scope::default(),
            record: RecordShape::Columns(schema.clone()),
        };
        let encoder = RecordEncoder::new(OutputFormat::Json, &input).map_err(|reason| {
            vec![Diagnostic::new(
                span,
                "these records cannot be written as JSON",
                reason,
            )]
        })?;
        Ok(RecordGenerator {
            fields: compiled,
            schema,
            encoder,
        })
    }

    /// The names and types of the records' fields.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether generating a record again yields the same record.
    pub(super) fn is_deterministic(&self) -> bool {
        self.fields.iter().all(NumberExpr::is_deterministic)
    }

    /// Generates the records of these ascending numbers. The batch covers every position below
    /// `next`. An error applies to all of them.
    pub(super) fn generate_batch(
        &self,
        split: &Arc<Split>,
        numbers: Vec<u64>,
        next: Position,
    ) -> Result<GeneratedBatch, GenerateError> {
        let (numbers, columns, mut failed) = self.columns(numbers)?;
        let rows = rows_of(split, numbers, columns, next);
        let bad = self.encoder.check(&rows);
        let rows_left = rows
            .without(&bad)
            .map_err(|error| GenerateError::All(Reason::of(error)))?;
        failed.extend(bad.into_iter().map(|BadRow { row, reason }| FailedRecord {
            number: rows.position(row as usize),
            reason,
        }));

        let mut lines = Vec::new();
        self.encoder
            .write_lines(&rows_left, &mut lines)
            .map_err(|error| GenerateError::All(Reason::of(error)))?;
        if u32::try_from(lines.len()).is_err() {
            return Err(GenerateError::TooMany);
        }
        let positions = (0..rows_left.len())
            .map(|row| rows_left.position(row))
            .collect();
        Ok(GeneratedBatch {
            batch: Batch::from_payloads(split.clone(), payloads(lines.into()), positions, next),
            failed,
        })
    }

    /// Evaluates the fields. Removes the numbers for which a field cannot be evaluated.
    fn columns(
        &self,
        mut numbers: Vec<u64>,
    ) -> Result<(Vec<u64>, RecordBatch, Vec<FailedRecord>), GenerateError> {
        match self.evaluate(&numbers) {
            Ok(columns) => return Ok((numbers, columns, Vec::new())),
            Err(error) if error.is_too_many && numbers.len() > 1 => {
                return Err(GenerateError::TooMany);
            }
            Err(_) => {}
        }
        // An error does not name the row that caused it, so each record is tried alone.
        let mut failed = Vec::new();
        numbers.retain(|number| match self.evaluate(&[*number]) {
            Ok(_) => true,
            Err(error) => {
                failed.push(FailedRecord {
                    number: *number,
                    reason: error.reason,
                });
                false
            }
        });
        let columns = self.evaluate(&numbers).map_err(|error| {
            match error.is_too_many && numbers.len() > 1 {
                true => GenerateError::TooMany,
                false => GenerateError::All(error.reason.into()),
            }
        })?;
        Ok((numbers, columns, failed))
    }

    fn evaluate(&self, numbers: &[u64]) -> Result<RecordBatch, EvaluateError> {
        let columns = self
            .fields
            .iter()
            .zip(self.schema.fields())
            .map(|(compiled, field)| {
                compiled.evaluate(numbers).map_err(|error| EvaluateError {
                    is_too_many: matches!(error, ArrowError::MemoryError(_)),
                    reason: format!("cannot evaluate `{}`: {error}", field.name()),
                })
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| {
            EvaluateError {
                is_too_many: false,
                reason: error.to_string(),
            }
        })
    }
}

/// An expression failed for some of the numbers, or there are too many numbers.
struct EvaluateError {
    is_too_many: bool,
    reason: String,
}

/// The records as rows of columns for the encoder. They have no bytes yet.
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

/// Splits lines into records. Encoded JSON has no line feed inside a value.
fn payloads(lines: Bytes) -> Payloads {
    let mut start = 0;
    let mut spans = Vec::new();
    for end in memchr::memchr_iter(b'\n', &lines) {
        spans.push((start as u32, (end - start) as u32));
        start = end + 1;
    }
    Payloads::new(lines, spans, true)
}
