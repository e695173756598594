//! Rows: the records of a batch that have not been filtered out, with the columns that the plan
//! needs.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::compute;
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_dsl::expr::Meta;
use pseidon_expr::{CompiledExpr, Input};

use crate::batch::{Batch, NO_TIMESTAMP};
use crate::memory::ArrayMemory;

/// Some records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Rows {
    batch: Arc<Batch>,
    /// For each row the number of its record in the batch; ascending, and repeated if one record
    /// became several rows.
    numbers: UInt32Array,
    /// Each column has one value for each row.
    columns: RecordBatch,
    /// Whether the columns are the record now, instead of the original bytes.
    changed: bool,
}

/// A record that cannot be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its number among the rows (or records) of the call.
    pub row: u32,
    /// The reason, as a short sentence.
    pub reason: String,
}

impl Rows {
    /// All records of a batch with columns decoded from them.
    pub fn new(batch: Arc<Batch>, columns: RecordBatch) -> Rows {
        let numbers = UInt32Array::from_iter_values(0..batch.len() as u32);
        debug_assert_eq!(columns.num_rows(), batch.len());
        Rows {
            batch,
            numbers,
            columns,
            changed: false,
        }
    }

    /// The records of a batch from number `first` on, with columns decoded from them.
    pub fn part(batch: Arc<Batch>, first: usize, columns: RecordBatch) -> Rows {
        debug_assert!(first + columns.num_rows() <= batch.len());
        let numbers = UInt32Array::from_iter_values(
            (first..first + columns.num_rows()).map(|number| number as u32),
        );
        Rows {
            batch,
            numbers,
            columns,
            changed: false,
        }
    }

    /// Rows whose record is `columns`; `numbers` says from which record of the batch each was
    /// derived, ascending.
    pub fn derived(batch: Arc<Batch>, numbers: UInt32Array, columns: RecordBatch) -> Rows {
        debug_assert_eq!(columns.num_rows(), numbers.len());
        Rows {
            batch,
            numbers,
            columns,
            changed: true,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The batch that the rows come from.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// The decoded or computed columns.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// Whether the record is its columns now; otherwise it is the original bytes.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The row's number in its batch.
    #[inline]
    pub fn number(&self, row: usize) -> usize {
        self.numbers.value(row) as usize
    }

    /// The row's position in its split.
    #[inline]
    pub fn position(&self, row: usize) -> Position {
        self.batch.positions[self.number(row)]
    }

    /// The original bytes, whether or not they are still the record.
    #[inline]
    pub fn payload(&self, row: usize) -> Option<&[u8]> {
        self.batch.payloads.get(self.number(row))
    }

    /// Adds the memory that the rows use in addition to their batch.
    pub fn add_memory(&self, memory: &mut ArrayMemory) {
        memory.add(&self.numbers);
        self.columns
            .columns()
            .iter()
            .for_each(|column| memory.add(column));
    }

    /// Whether the rows are all records of their batch.
    pub fn is_whole_batch(&self) -> bool {
        self.len() == self.batch.len()
    }

    /// The rows with these numbers, in their order.
    pub fn take(&self, rows: &UInt32Array) -> Result<Rows, ArrowError> {
        let numbers = compute::take(&self.numbers, rows, None)?
            .as_primitive()
            .clone();
        let columns = self
            .columns
            .columns()
            .iter()
            .map(|column| compute::take(column, rows, None))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Rows {
            batch: self.batch.clone(),
            columns: with_columns(&self.columns, columns, rows.len())?,
            numbers,
            changed: self.changed,
        })
    }

    /// The rows from `start` on, `len` of them. Does not copy.
    pub fn slice(&self, start: usize, len: usize) -> Rows {
        let (numbers, columns) = (
            self.numbers.slice(start, len),
            self.columns.slice(start, len),
        );
        Rows {
            batch: self.batch.clone(),
            numbers,
            columns,
            changed: self.changed,
        }
    }

    /// The rows for which the condition is true; null counts as false.
    pub fn filter(&self, condition: &BooleanArray) -> Result<Rows, ArrowError> {
        let condition = if condition.null_count() > 0 {
            &compute::prep_null_mask_filter(condition)
        } else {
            condition
        };
        let kept = condition.true_count();
        if kept == self.len() {
            return Ok(self.clone());
        }
        let predicate = compute::FilterBuilder::new(condition).optimize().build();
        let numbers = predicate.filter(&self.numbers)?.as_primitive().clone();
        let columns = self
            .columns
            .columns()
            .iter()
            .map(|column| predicate.filter(column))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Rows {
            batch: self.batch.clone(),
            columns: with_columns(&self.columns, columns, kept)?,
            numbers,
            changed: self.changed,
        })
    }

    /// The rows without the invalid ones.
    pub fn without(&self, bad: &[BadRow]) -> Result<Rows, ArrowError> {
        if bad.is_empty() {
            return Ok(self.clone());
        }
        let mut keep = vec![true; self.len()];
        for row in bad {
            keep[row.row as usize] = false;
        }
        self.filter(&BooleanArray::from(keep))
    }

    /// The same rows with these columns as their record.
    pub fn with_record(&self, columns: RecordBatch) -> Rows {
        debug_assert_eq!(columns.num_rows(), self.len());
        Rows {
            batch: self.batch.clone(),
            numbers: self.numbers.clone(),
            columns,
            changed: true,
        }
    }

    /// Evaluates an expression for each row. An error means that it failed for some row; it does
    /// not say which.
    pub fn evaluate(&self, expr: &CompiledExpr) -> Result<ArrayRef, ArrowError> {
        let input = |input: &Input| match input {
            Input::Column(column) => Ok(self.columns.column(*column).clone()),
            Input::Meta(meta) => self.meta(meta),
        };
        let inputs = expr
            .inputs()
            .iter()
            .map(input)
            .collect::<Result<Vec<_>, _>>()?;
        expr.evaluate(inputs, self.len())
    }

    /// A metadata column. Keys that are not UTF-8 are null here; if keys are used, the engine has
    /// already quarantined their records.
    pub fn meta(&self, meta: &Meta) -> Result<ArrayRef, ArrowError> {
        let batch = &self.batch;
        let rows = self.len();
        let column: ArrayRef = match meta {
            Meta::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                &batch.split.topic,
                rows,
            ))),
            Meta::Partition => Arc::new(Int32Array::from_value(batch.split.partition, rows)),
            Meta::Offset => Arc::new(Int64Array::from_iter_values(
                (0..rows).map(|row| self.position(row) as i64),
            )),
            Meta::Timestamp => {
                let timestamp = |row| {
                    batch
                        .timestamps
                        .as_ref()
                        .map(|all| all[self.number(row)])
                        .filter(|at| *at != NO_TIMESTAMP)
                };
                Arc::new(
                    TimestampMillisecondArray::from_iter((0..rows).map(timestamp))
                        .with_timezone("UTC"),
                )
            }
            Meta::Key => {
                let key = |row| {
                    let keys = batch.keys.as_ref()?;
                    let number = self.number(row);
                    (!keys.is_null(number))
                        .then(|| std::str::from_utf8(keys.value(number)).ok())
                        .flatten()
                };
                Arc::new(StringArray::from_iter((0..rows).map(key)))
            }
            Meta::Headers(None) => match &batch.headers {
                Some(headers) => compute::take(headers, &self.numbers, None)?,
                None => Arc::new(StringArray::new_null(rows)),
            },
            Meta::Headers(Some(name)) => {
                let header = |row| {
                    let headers = batch.headers.as_ref()?;
                    let number = self.number(row);
                    (!headers.is_null(number))
                        .then(|| header_value(headers.value(number), name))
                        .flatten()
                };
                Arc::new(StringArray::from_iter((0..rows).map(header)))
            }
        };
        Ok(column)
    }
}

fn with_columns(
    like: &RecordBatch,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(like.schema(), columns, &options)
}

fn header_value(headers: &str, name: &str) -> Option<String> {
    let headers: serde_json::Map<String, serde_json::Value> = serde_json::from_str(headers).ok()?;
    match headers.get(name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
