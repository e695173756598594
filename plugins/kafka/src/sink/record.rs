//! Converts rows to what a producer accepts: key, value, partition, timestamp and headers.
//!
//! ETL threads do this work while rows are routed; the writer receives rows whose columns are
//! replaced by encoded bytes.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, UInt32Array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_expr::{CompiledExpr, Scope, compile};
use pseidon_formats::{OutputFormat, RecordEncoder};
use pseidon_plugin::batch::NO_TIMESTAMP;
use pseidon_plugin::options::SpannedValue;
use pseidon_plugin::rows::BadRows;
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Rows};

use super::KafkaSinkOptions;
use super::limits::RecordLimits;
use super::messages;

/// Rows for [`Messages`](super::messages::Messages), and those that cannot be written, with their
/// numbers among the rows that were converted.
pub(super) struct ConvertedRows {
    pub(super) ready: Rows,
    /// Those that cannot be written, each time that they are read.
    pub(super) bad: Vec<BadRow>,
    /// Those that are refused, although they were not when they were read before.
    pub(super) refused: Vec<BadRow>,
}

impl ConvertedRows {
    /// Whether all rows can be written.
    pub(super) fn is_all(&self) -> bool {
        self.bad.is_empty() && self.refused.is_empty()
    }
}

/// The parts of an unchanged record that are copied because no option replaces them.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedParts {
    key: bool,
    timestamp: bool,
    headers: bool,
}

impl CopiedParts {
    /// The parts that these options do not replace.
    pub(super) fn of(options: &KafkaSinkOptions) -> CopiedParts {
        CopiedParts {
            key: options.key.is_none(),
            timestamp: options.timestamp.is_none(),
            headers: options.headers.is_none(),
        }
    }

    /// Whether any part is copied.
    pub(super) fn any(self) -> bool {
        self.key || self.timestamp || self.headers
    }
}

/// How rows are converted to messages.
pub(super) struct RecordPlan {
    copied: CopiedParts,
    /// `None` if the value is copied.
    encoder: Option<RecordEncoder>,
    exprs: RecordExprs,
    /// The columns of converted rows.
    schema: SchemaRef,
}

/// The compiled expressions of the options that replace a part of a record.
struct RecordExprs {
    key: Option<CompiledExpr>,
    partition: Option<CompiledExpr>,
    timestamp: Option<CompiledExpr>,
    headers: Vec<(String, CompiledExpr)>,
    /// The source text of the first expression that is not deterministic.
    nondeterminism: Option<String>,
}

impl RecordExprs {
    fn compile(
        options: &KafkaSinkOptions,
        scope: &Scope,
        errors: &mut Vec<Diagnostic>,
    ) -> RecordExprs {
        let mut nondeterminism = None;
        let mut compiled = |expr, name: &str| match compile(expr, scope) {
            Ok(compiled) => {
                if !compiled.is_deterministic() && nondeterminism.is_none() {
                    nondeterminism = Some(format!(":{name} {}", compiled.field().name()));
                }
                Some(compiled)
            }
            Err(more) => {
                errors.extend(more);
                None
            }
        };
        let key = options.key.as_ref();
        let key = key.and_then(|key| compiled(key, "key"));
        let partition = options.partition.as_ref();
        let partition = partition.and_then(|option| compiled(&option.value, "partition"));
        let timestamp = options.timestamp.as_ref();
        let timestamp = timestamp.and_then(|option| compiled(&option.value, "timestamp"));
        let mut headers = Vec::new();
        for (name, expr) in options.headers.iter().flat_map(|headers| &headers.0) {
            headers.extend(compiled(expr, "headers").map(|compiled| (name.clone(), compiled)));
        }
        RecordExprs {
            key,
            partition,
            timestamp,
            headers,
            nondeterminism,
        }
    }

    /// The errors of expressions whose type cannot be converted.
    fn type_errors(&self, options: &KafkaSinkOptions) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        if let (Some(option), Some(compiled)) = (&options.partition, &self.partition) {
            let found = compiled.field().data_type();
            if !found.is_integer() && !found.is_null() {
                let reason = format!("expected an integer, found {found}");
                errors.push(option.error("invalid `:partition`", reason));
            }
        }
        if let (Some(option), Some(compiled)) = (&options.timestamp, &self.timestamp) {
            let found = compiled.field().data_type();
            if !matches!(found, DataType::Timestamp(..) | DataType::Null) && !found.is_integer() {
                let reason = format!("expected a timestamp or milliseconds, found {found}");
                errors.push(option.error("invalid `:timestamp`", reason));
            }
        }
        errors
    }
}

impl RecordPlan {
    /// Compiles the options for rows of this input. Fails with all errors in them.
    pub(super) fn new(
        options: &KafkaSinkOptions,
        input: &SinkInput,
    ) -> Result<RecordPlan, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let is_unchanged = matches!(&input.record, RecordShape::AsCame { .. });
        let is_foreign =
            matches!(&input.record, RecordShape::AsCame { format } if format != "json");
        let default = if is_foreign {
            OutputFormat::Raw
        } else {
            OutputFormat::Json
        };
        let format = options.format.unwrap_or(SpannedValue {
            value: default,
            span: options.span,
        });
        let encoder = RecordEncoder::new(format.value, input)
            .map_err(|reason| errors.push(format.error("invalid `:format`", reason)));
        let exprs = RecordExprs::compile(options, &input.scope, &mut errors);
        errors.extend(exprs.type_errors(options));
        let (Ok(encoder), true) = (encoder, errors.is_empty()) else {
            return Err(errors);
        };
        let is_copied = CopiedParts::of(options);
        let copied = CopiedParts {
            key: is_unchanged && is_copied.key,
            timestamp: is_unchanged && is_copied.timestamp,
            headers: is_unchanged && is_copied.headers,
        };
        Ok(RecordPlan {
            copied,
            encoder: (!is_unchanged).then_some(encoder),
            schema: messages::schema(exprs.headers.iter().map(|(name, _)| name)),
            exprs,
        })
    }

    /// The source text of the first expression that is not deterministic.
    pub(super) fn nondeterminism(&self) -> Option<String> {
        self.exprs.nondeterminism.clone()
    }

    /// Whether records can have a key.
    pub(super) fn has_keys(&self) -> bool {
        self.exprs.key.is_some() || self.copied.key
    }

    /// Whether the value is copied.
    pub(super) fn copies_value(&self) -> bool {
        self.encoder.is_none()
    }

    /// Converts rows.
    pub(super) fn convert(
        &self,
        rows: &Rows,
        limits: &RecordLimits<'_>,
    ) -> Result<ConvertedRows, ArrowError> {
        let mut bad = BadRows::new(rows.len());
        let invalid = match &self.encoder {
            Some(encoder) => encoder.check(rows),
            None => Vec::new(),
        };
        let mut good = rows.without(&invalid)?;
        bad.add(invalid);
        let columns = match self.columns(&good) {
            Ok(columns) => columns,
            Err(_) => {
                let failing = good.failing(|rows| self.columns(rows).map(drop));
                good = good.without(&failing)?;
                bad.add(failing);
                self.columns(&good)?
            }
        };
        let refused = limits.refused_rows(&good, &columns, self.encoder.is_none());
        let ready = match &self.encoder {
            // The value is copied from the record, whose fields may have been changed.
            None => good.with_columns(columns),
            Some(_) => good.with_record(columns),
        };
        let ready = ready.without(&refused)?;
        let split = &rows.batch().split.id;
        let late: HashSet<Position> = refused
            .iter()
            .map(|bad| good.position(bad.row as usize))
            .filter(|position| limits.is_late(split, *position))
            .collect();
        bad.add(refused);
        let is_late = |bad: &BadRow| late.contains(&rows.position(bad.row as usize));
        let (refused, bad) = bad.into_sorted().into_iter().partition(is_late);
        Ok(ConvertedRows {
            ready,
            bad,
            refused,
        })
    }

    fn columns(&self, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let evaluated = |expr: &Option<CompiledExpr>, to: DataType| match expr {
            Some(expr) => converted(&rows.evaluate(expr)?, &to),
            None => Ok(arrow::array::new_null_array(&to, rows.len())),
        };
        let batch = rows.batch();
        let copy = |array: Option<&BinaryArray>| match array {
            Some(array) => take(
                array,
                &UInt32Array::from_iter_values((0..rows.len()).map(|row| rows.number(row) as u32)),
                None,
            ),
            None => Ok(arrow::array::new_null_array(&DataType::Binary, rows.len())),
        };
        let key = if self.copied.key {
            copy(batch.keys.as_ref())?
        } else {
            evaluated(&self.exprs.key, DataType::Binary)?
        };
        let timestamp = match &batch.timestamps {
            Some(times) if self.copied.timestamp => {
                let time = |row| Some(times[rows.number(row)]).filter(|time| *time != NO_TIMESTAMP);
                Arc::new(Int64Array::from_iter((0..rows.len()).map(time)))
            }
            _ => evaluated(&self.exprs.timestamp, DataType::Int64)?,
        };
        let raw_headers = copy(batch.raw_headers.as_ref().filter(|_| self.copied.headers))?;
        let mut columns = vec![
            self.values(rows)?,
            key,
            evaluated(&self.exprs.partition, DataType::Int32)?,
            timestamp,
            raw_headers,
        ];
        for (_, expr) in &self.exprs.headers {
            columns.push(converted(&rows.evaluate(expr)?, &DataType::Binary)?);
        }
        RecordBatch::try_new_with_options(
            self.schema.clone(),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(rows.len())),
        )
    }

    fn values(&self, rows: &Rows) -> Result<ArrayRef, ArrowError> {
        let Some(encoder) = &self.encoder else {
            return Ok(arrow::array::new_null_array(&DataType::Binary, rows.len()));
        };
        let mut values = encoder
            .values(rows)
            .map_err(|error| ArrowError::ComputeError(error.to_string()))?;
        let mut built = BinaryBuilder::with_capacity(rows.len(), rows.len() * 128);
        let mut value = Vec::new();
        for row in 0..rows.len() {
            value.clear();
            values.encode(row, &mut value);
            built.append_value(&value);
        }
        Ok(Arc::new(built.finish()))
    }
}

/// Converts strings to their bytes, timestamps to milliseconds, and other values by a cast.
fn converted(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = |column: &ArrayRef, to: &DataType| cast_with_options(column, to, &strict);
    match (column.data_type(), to) {
        (DataType::Null, _) => Ok(arrow::array::new_null_array(to, column.len())),
        (DataType::Binary | DataType::LargeBinary | DataType::BinaryView, DataType::Binary) => {
            cast(column, to)
        }
        (_, DataType::Binary) => cast(&cast(column, &DataType::Utf8)?, to),
        (DataType::Timestamp(_, zone), DataType::Int64) => cast(
            &cast(
                column,
                &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
            )?,
            to,
        ),
        // A number that does not fit becomes -1, a partition that does not exist.
        (_, DataType::Int32) => {
            let numbers = cast(column, &DataType::Int64)?;
            let narrow = numbers
                .as_primitive::<Int64Type>()
                .iter()
                .map(|number| number.map(|number| i32::try_from(number).unwrap_or(-1)));
            Ok(Arc::new(Int32Array::from_iter(narrow)))
        }
        _ => cast(column, to),
    }
}
