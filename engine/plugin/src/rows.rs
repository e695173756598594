//! Rows: the records of a batch that have not been filtered out, with the columns that the plan
//! needs.

mod bad;

use std::convert::Infallible;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::compute;
use arrow::error::ArrowError;
use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_dsl::expr::Meta;
use pseidon_expr::{CompiledExpr, Input};

pub use self::bad::{BadRow, BadRows};
use crate::batch::{Batch, NO_TIMESTAMP, Payloads};
use crate::memory::ArrayMemory;
use crate::places::{FieldPlaces, RecordPlaces};

/// Some records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Rows {
    batch: Arc<Batch>,
    /// For each row the number of its record in the batch; ascending, and repeated if one record
    /// became several rows.
    numbers: UInt32Array,
    /// Each column has one value for each row.
    columns: RecordBatch,
    record: Record,
}

/// What a row's record is.
#[derive(Clone, Debug)]
enum Record {
    /// The bytes of the batch, and where fields are in them, if that is known.
    Original(Option<KnownPlaces>),
    /// These bytes, of which some fields were changed.
    Edited(Box<EditedBytes>),
    /// The columns, as after a `select`.
    Columns,
}

/// The places of fields in the records of a batch from one on.
#[derive(Clone, Debug)]
struct KnownPlaces {
    places: Arc<FieldPlaces>,
    /// The number of the first of these records.
    first: usize,
}

/// The bytes of edited records.
#[derive(Clone, Debug)]
struct EditedBytes {
    payloads: Arc<Payloads>,
    /// For each row the number of its payload.
    numbers: UInt32Array,
}

impl Record {
    /// The records of some rows. `some` selects them from an array with one element for each row.
    fn select<E>(
        &self,
        some: impl FnOnce(&UInt32Array) -> Result<UInt32Array, E>,
    ) -> Result<Record, E> {
        Ok(match self {
            Record::Edited(edited) => Record::Edited(Box::new(EditedBytes {
                payloads: edited.payloads.clone(),
                numbers: some(&edited.numbers)?,
            })),
            other => other.clone(),
        })
    }
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
            record: Record::Original(None),
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
            record: Record::Original(None),
        }
    }

    /// The same rows with the places of fields in their records, which are the original ones: the
    /// first places are those of the first row.
    pub fn with_places(self, places: FieldPlaces) -> Rows {
        debug_assert!(matches!(self.record, Record::Original(None)));
        let first = self.numbers.values().first();
        let known = first.map(|first| KnownPlaces {
            places: Arc::new(places),
            first: *first as usize,
        });
        Rows {
            record: Record::Original(known),
            ..self
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
            record: Record::Columns,
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

    /// Whether the record is its columns now; otherwise it is bytes, see [`Rows::payload`].
    pub fn is_changed(&self) -> bool {
        matches!(self.record, Record::Columns)
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

    /// The value of `@offset`: the row's position in the split from which it was read first, which
    /// is another one if it is replayed.
    pub fn offset(&self, row: usize) -> Position {
        match &self.batch.origin {
            Some(origin) => origin.positions[self.number(row)],
            None => self.position(row),
        }
    }

    /// The bytes of the record: the original ones, or those of which some fields were changed. If
    /// the record is its columns, these are the original bytes.
    #[inline]
    pub fn payload(&self, row: usize) -> Option<&[u8]> {
        let (payloads, numbers) = self.bytes();
        payloads.get(numbers.value(row) as usize)
    }

    /// The places of fields in the bytes of records, if some are known.
    pub fn places(&self) -> Option<&FieldPlaces> {
        self.known_places().map(|known| &*known.places)
    }

    /// The [places](Rows::places) of fields in the bytes of a row, if they are known.
    #[inline]
    pub fn places_of(&self, row: usize) -> Option<RecordPlaces<'_>> {
        let known = self.known_places()?;
        known.places.of(self.number(row) - known.first)
    }

    fn known_places(&self) -> Option<&KnownPlaces> {
        match &self.record {
            Record::Original(known) => known.as_ref(),
            Record::Edited(_) | Record::Columns => None,
        }
    }

    /// The bytes of the records if fields of them were changed, otherwise 0.
    pub fn edited_bytes(&self) -> usize {
        match &self.record {
            Record::Edited(_) => self.record_bytes(),
            Record::Original(_) | Record::Columns => 0,
        }
    }

    /// The bytes of the records, estimated from those of all records in the same memory.
    pub fn record_bytes(&self) -> usize {
        let (payloads, _) = self.bytes();
        let all = payloads.bytes() as u128;
        (all * self.len() as u128 / payloads.len().max(1) as u128) as usize
    }

    /// The bytes of the records, and for each row the number of its payload.
    pub fn bytes(&self) -> (&Payloads, &UInt32Array) {
        match &self.record {
            Record::Edited(edited) => (&edited.payloads, &edited.numbers),
            Record::Original(_) | Record::Columns => (&self.batch.payloads, &self.numbers),
        }
    }

    /// The end of the run of rows from `row` on whose bytes follow each other in memory.
    pub fn end_of_run(&self, row: usize) -> usize {
        let (_, numbers) = self.bytes();
        let first = numbers.value(row) as usize;
        (row + 1..self.len())
            .find(|at| numbers.value(*at) as usize != first + (at - row))
            .unwrap_or(self.len())
    }

    /// The bytes of a run of rows as one piece, each followed by `\n`, if they have this layout.
    /// Does not copy.
    pub fn lines(&self, from: usize, to: usize) -> Option<Bytes> {
        let (payloads, numbers) = self.bytes();
        let last = to.checked_sub(1)?;
        payloads.lines(
            numbers.value(from) as usize,
            numbers.value(last) as usize + 1,
        )
    }

    /// Adds the memory that the rows use in addition to their batch.
    pub fn add_memory(&self, memory: &mut ArrayMemory) {
        memory.add(&self.numbers);
        if let Record::Edited(edited) = &self.record {
            memory.add(&edited.numbers);
            memory.add_shared(edited.payloads.address(), edited.payloads.memory());
        }
        if let Some(KnownPlaces { places, .. }) = self.known_places() {
            memory.add_shared(Arc::as_ptr(places).addr(), places.memory());
        }
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
            record: self.record.select(|of| {
                compute::take(of, rows, None).map(|some| some.as_primitive().clone())
            })?,
        })
    }

    /// The rows from `start` on, `len` of them. Does not copy.
    pub fn slice(&self, start: usize, len: usize) -> Rows {
        let (numbers, columns) = (
            self.numbers.slice(start, len),
            self.columns.slice(start, len),
        );
        let Ok(record) = self
            .record
            .select(|of| Ok::<_, Infallible>(of.slice(start, len)));
        Rows {
            batch: self.batch.clone(),
            numbers,
            columns,
            record,
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
            record: self
                .record
                .select(|of| predicate.filter(of).map(|some| some.as_primitive().clone()))?,
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
            record: Record::Columns,
        }
    }

    /// The same records with the columns that have these indexes, for expressions.
    pub fn keep(&self, columns: &[usize]) -> Result<Rows, ArrowError> {
        Ok(self.with_columns(self.columns.project(columns)?))
    }

    /// The same records with these columns for expressions.
    pub fn with_columns(&self, columns: RecordBatch) -> Rows {
        debug_assert_eq!(columns.num_rows(), self.len());
        Rows {
            columns,
            ..self.clone()
        }
    }

    /// The same rows with these bytes as their records, one payload for each row, and these columns
    /// for expressions.
    pub fn with_bytes(&self, payloads: Payloads, columns: RecordBatch) -> Rows {
        debug_assert_eq!(columns.num_rows(), self.len());
        debug_assert_eq!(payloads.len(), self.len());
        Rows {
            batch: self.batch.clone(),
            numbers: self.numbers.clone(),
            columns,
            record: Record::Edited(Box::new(EditedBytes {
                numbers: UInt32Array::from_iter_values(0..payloads.len() as u32),
                payloads: Arc::new(payloads),
            })),
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
                (0..rows).map(|row| self.offset(row) as i64),
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
