//! Evaluating the expressions of a step.

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pseidon_expr::unnest::elements;
use pseidon_expr::{CompiledExpr, at_one_time};
use pseidon_plan::LookupTable;
use pseidon_plan::chain::{ChainStep, JointEdit, RecordEdit};
use pseidon_plugin::memory::ArrayMemory;
use pseidon_plugin::rows::{BadRow, Rows};

use super::{ChainPass, Interruption};

impl ChainPass<'_> {
    /// Evaluates expressions for all rows. If that fails, the rows that cause it are found, and
    /// the others continue.
    pub(super) fn evaluate<T>(
        &mut self,
        step: &ChainStep,
        rows: Rows,
        evaluate: impl Fn(&Rows) -> Result<T, ArrowError>,
    ) -> Result<(Rows, T), Interruption> {
        let error = match evaluate(&rows) {
            Ok(value) => return Ok((rows, value)),
            Err(error) => error,
        };
        if self.is_divisible && is_too_large(&error) {
            return Err(Interruption::TooMany);
        }
        let bad = rows.failing(|rows| evaluate(rows).map(drop));
        if bad.is_empty() && self.is_divisible {
            return Err(Interruption::TooMany);
        }
        let rest = rows
            .without(&bad)
            .map_err(|error| self.internal_error(&step.stage, &error))?;
        let named = bad
            .into_iter()
            .map(|row| (rows.number(row.row as usize) as u32, row.reason))
            .collect::<Vec<_>>();
        self.note_bad(&step.stage, step.policy, named)?;
        match evaluate(&rest) {
            Ok(value) => Ok((rest, value)),
            Err(_) if self.is_divisible => Err(Interruption::TooMany),
            Err(error) => Err(self.internal_error(&step.stage, &error).into()),
        }
    }
}

/// The values of all expressions, which see one time, unless they become too large together.
pub(super) fn evaluate_all(
    exprs: &[CompiledExpr],
    rows: &Rows,
    largest: usize,
) -> Result<Vec<ArrayRef>, ArrowError> {
    at_one_time(|| evaluate_each(exprs, rows, largest))
}

fn evaluate_each(
    exprs: &[CompiledExpr],
    rows: &Rows,
    largest: usize,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = Vec::with_capacity(exprs.len());
    let mut memory = ArrayMemory::default();
    rows.add_memory(&mut memory);
    let before = memory.bytes();
    for expr in exprs {
        let column = rows.evaluate(expr)?;
        memory.add(&column);
        columns.push(column);
        // The results of one expression are already bounded.
        if columns.len() > 1 && memory.bytes() - before > largest {
            return Err(ArrowError::MemoryError(
                "the record would become too large".to_owned(),
            ));
        }
    }
    Ok(columns)
}

/// The bytes that rows have in addition to those from which they were derived.
pub(super) fn added_bytes(rows: &Rows, derived: &Rows) -> usize {
    let mut memory = ArrayMemory::default();
    rows.add_memory(&mut memory);
    let before = memory.bytes();
    derived.add_memory(&mut memory);
    memory.bytes() - before
}

/// The rows with changed fields, and those that cannot be changed.
pub(super) fn apply(
    edit: &RecordEdit,
    rows: &Rows,
    largest: usize,
) -> Result<(Rows, Vec<BadRow>), ArrowError> {
    let values = evaluate_all(&edit.exprs, rows, largest)?;
    let edited = edit.editor.edit(rows, &values)?;
    if edited.payloads.bytes() > largest {
        return Err(ArrowError::MemoryError(
            "the records would become too large together".to_owned(),
        ));
    }
    let columns = columns_after(edit, rows, values)?;
    Ok((rows.with_bytes(edited.payloads, columns), edited.bad))
}

/// The rows after these edits, which are made at once. `None` if one of them fails for some row, or
/// if the rows would become too large together.
pub(super) fn apply_at_once<'e>(
    joint: &JointEdit,
    edits: impl Iterator<Item = &'e RecordEdit>,
    rows: &Rows,
    largest: usize,
) -> Option<Rows> {
    let (mut all, mut edited) = (Vec::new(), rows.clone());
    for edit in edits {
        let values = evaluate_all(&edit.exprs, &edited, largest).ok()?;
        all.extend_from_slice(&values);
        edited = edited.with_columns(columns_after(edit, &edited, values).ok()?);
    }
    let records = joint.editor.edit(rows, &all).ok()?;
    let fits = records.bad.is_empty() && records.payloads.bytes() <= largest;
    fits.then(|| rows.with_bytes(records.payloads, edited.columns().clone()))
}

/// The columns after an edit that sets these values.
fn columns_after(
    edit: &RecordEdit,
    rows: &Rows,
    values: Vec<ArrayRef>,
) -> Result<RecordBatch, ArrowError> {
    let kept = edit
        .kept
        .iter()
        .map(|column| rows.columns().column(*column));
    let columns = kept.cloned().chain(values).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(edit.columns.clone(), columns, &options)
}

/// The rows, each repeated once for each element of its list, which is the last column.
pub(super) fn unnested(
    list: &CompiledExpr,
    schema: &SchemaRef,
    rows: &Rows,
    largest: usize,
) -> Result<Rows, ArrowError> {
    let elements = elements(&rows.evaluate(list)?)?;
    // Only the rows count, not the buffers that they may be a small part of.
    let sizes = rows.columns().columns().iter();
    let bytes: usize = sizes
        .map(|column| column.to_data().get_slice_memory_size())
        .sum::<Result<_, _>>()?;
    let each = bytes / rows.len().max(1);
    if elements.rows.len().saturating_mul(each) > largest {
        return Err(ArrowError::MemoryError(
            "the records would become too large together".to_owned(),
        ));
    }
    let repeated = rows.take(&elements.rows)?;
    let mut columns = repeated.columns().columns().to_vec();
    columns.push(elements.values);
    let options = RecordBatchOptions::new().with_row_count(Some(repeated.len()));
    let columns = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    Ok(repeated.with_columns(columns))
}

/// The rows with the values of their rows in a table as further columns.
pub(super) fn looked_up(
    key: &CompiledExpr,
    table: &LookupTable,
    schema: &SchemaRef,
    rows: &Rows,
    largest: usize,
) -> Result<Rows, ArrowError> {
    let keys = rows.evaluate(key)?;
    let mut columns = rows.columns().columns().to_vec();
    columns.extend(table.find(keys.as_string::<i32>(), largest)?);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    Ok(rows.with_columns(columns))
}

fn is_too_large(error: &ArrowError) -> bool {
    matches!(error, ArrowError::MemoryError(_))
}
