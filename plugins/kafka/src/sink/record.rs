//! Converts rows to what a producer accepts: key, value, partition, timestamp and headers.
//!
//! ETL threads do this work while rows are routed; the writer receives rows whose columns are
//! replaced by encoded bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, UInt32Array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use pseidon_dsl::Diagnostic;
use pseidon_expr::{CompiledExpr, compile};
use pseidon_formats::RecordEncoder;
use pseidon_plugin::batch::NO_TIMESTAMP;
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{BadRow, Options, Rows, raw_headers};

use super::producer::ClientLimit;
use super::refusals::Refusals;
use super::rules::TopicRules;
use super::size::{Compression, RecordParts, header};

/// The parts of an unchanged record that are copied because no option replaces them.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedParts {
    key: bool,
    timestamp: bool,
    headers: bool,
}

impl CopiedParts {
    /// The parts that these options do not replace.
    pub(super) fn from_options(options: &Options) -> CopiedParts {
        CopiedParts {
            key: options.expr("key").is_none(),
            timestamp: options.expr("timestamp").is_none(),
            headers: options.named_exprs("headers").is_none(),
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
    key: Option<CompiledExpr>,
    partition: Option<CompiledExpr>,
    timestamp: Option<CompiledExpr>,
    headers: Vec<(String, CompiledExpr)>,
    /// The source text of the first expression that is not deterministic.
    nondeterminism: Option<String>,
    /// The columns of converted rows.
    schema: SchemaRef,
}

/// What the topic and the client accept.
pub(super) struct RecordLimits<'a> {
    /// The topic's name.
    pub(super) topic: &'a str,
    pub(super) rules: &'a TopicRules,
    pub(super) client: ClientLimit,
    pub(super) compression: Compression,
    /// The records that the broker has refused before.
    pub(super) refusals: &'a Refusals,
    /// The current wall-clock time, in milliseconds since 1970.
    pub(super) now: i64,
}

impl RecordLimits<'_> {
    /// The reason why the record cannot be written, if it cannot.
    fn refusal(
        &self,
        rows: &Rows,
        messages: &Messages<'_>,
        row: usize,
        is_unchanged: bool,
    ) -> Option<String> {
        if let Some(reason) = self
            .refusals
            .reason(&rows.batch().split.id, rows.position(row))
        {
            return Some(format!("the broker refuses the record: {reason}"));
        }
        if self.rules.needs_key && messages.key(row).is_none() {
            return Some(format!(
                "the topic {} is compacted, so a record needs a key, and this one has none; set \
                 `:key`",
                self.topic
            ));
        }
        if let Some(timestamp) = messages.timestamp(row) {
            // The client replaces 0 by the time of writing.
            if timestamp == 0 {
                return Some(
                    "its timestamp is 0 (1970-01-01T00:00:00Z), which the Kafka client cannot write"
                        .to_owned(),
                );
            }
            if let Some(reason) = self.rules.time_refusal(timestamp, self.now) {
                return Some(format!(
                    "the topic {} refuses the record: {reason}",
                    self.topic
                ));
            }
        }
        let value = if is_unchanged {
            rows.payload(row)
        } else {
            messages.value(row)
        };
        let (mut headers, mut header_bytes) = (0, 0);
        for (name, value) in messages.headers(row) {
            if std::str::from_utf8(name).is_err() {
                return Some("the name of a header is not UTF-8".to_owned());
            }
            headers += 1;
            header_bytes += header(name, value);
        }
        self.size_refusal(&RecordParts {
            key: messages.key(row),
            value,
            headers,
            header_bytes,
        })
        .or_else(|| {
            messages
                .partition(row)
                .and_then(|partition| self.rules.partition_refusal(partition))
        })
    }

    fn size_refusal(&self, parts: &RecordParts<'_>) -> Option<String> {
        let size = parts.batch();
        let topic = self.topic;
        if let Some(limit) = self.rules.bytes.filter(|limit| size > *limit) {
            let least = self.compression.min_batch(parts);
            if least > limit {
                let compressed = if self.compression == Compression::None {
                    ""
                } else {
                    " after compression"
                };
                return Some(format!(
                    "the record takes {least} bytes{compressed}, but the topic {topic} accepts \
                     {limit} (max.message.bytes)"
                ));
            }
        }
        let ClientLimit {
            bytes, property, ..
        } = self.client;
        if size <= bytes {
            return None;
        }
        Some(match property {
            Some(property) => format!(
                "the record takes {size} bytes, but the property `{property}` of the sink allows \
                 {bytes}"
            ),
            None => format!(
                "the record takes {size} bytes, but the sink was opened with a limit of {bytes}, \
                 from what the topic {topic} accepted then"
            ),
        })
    }
}

impl RecordPlan {
    /// Compiles the options.
    pub(super) fn new(options: &Options, input: &SinkInput) -> Result<RecordPlan, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let wrong = |name: &str, reason: String| {
            Diagnostic::new(options.span_of(name), format!("invalid `:{name}`"), reason)
        };
        let is_unchanged = matches!(&input.record, RecordShape::AsCame { .. });
        let is_foreign =
            matches!(&input.record, RecordShape::AsCame { format } if format != "json");
        let unsaid = if is_foreign { "raw" } else { "json" };
        let format = options
            .string("format")
            .unwrap_or(unsaid)
            .parse()
            .map_err(|reason| vec![wrong("format", reason)])?;
        let encoder = RecordEncoder::new(format, input)
            .map_err(|reason| errors.push(wrong("format", reason)));
        let mut nondeterminism = None;
        let mut compiled =
            |expr, name: &str, errors: &mut Vec<Diagnostic>| match compile(expr, &input.scope) {
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
        let key = options
            .expr("key")
            .and_then(|expr| compiled(expr, "key", &mut errors));
        let partition = options
            .expr("partition")
            .and_then(|expr| compiled(expr, "partition", &mut errors));
        let timestamp = options
            .expr("timestamp")
            .and_then(|expr| compiled(expr, "timestamp", &mut errors));
        let mut headers = Vec::new();
        for (name, expr) in options.named_exprs("headers").unwrap_or_default() {
            headers.extend(
                compiled(expr, "headers", &mut errors).map(|compiled| (name.clone(), compiled)),
            );
        }
        if let Some(partition) = &partition
            && !partition.field().data_type().is_integer()
            && !partition.field().data_type().is_null()
        {
            errors.push(wrong(
                "partition",
                format!(
                    "expected an integer, found {}",
                    partition.field().data_type()
                ),
            ));
        }
        if let Some(timestamp) = &timestamp
            && !matches!(
                timestamp.field().data_type(),
                DataType::Timestamp(..) | DataType::Null
            )
            && !timestamp.field().data_type().is_integer()
        {
            errors.push(wrong(
                "timestamp",
                format!(
                    "expected a timestamp or milliseconds, found {}",
                    timestamp.field().data_type()
                ),
            ));
        }
        let Ok(encoder) = encoder else {
            return Err(errors);
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut fields = vec![
            Field::new("value", DataType::Binary, true),
            Field::new("key", DataType::Binary, true),
            Field::new("partition", DataType::Int32, true),
            Field::new("timestamp", DataType::Int64, true),
            Field::new("raw headers", DataType::Binary, true),
        ];
        fields.extend(
            headers
                .iter()
                .map(|(name, _)| Field::new(name, DataType::Binary, true)),
        );
        let encoder = (!is_unchanged).then_some(encoder);
        let is_copied = CopiedParts::from_options(options);
        let copied = CopiedParts {
            key: is_unchanged && is_copied.key,
            timestamp: is_unchanged && is_copied.timestamp,
            headers: is_unchanged && is_copied.headers,
        };
        Ok(RecordPlan {
            copied,
            encoder,
            key,
            partition,
            timestamp,
            headers,
            nondeterminism,
            schema: Arc::new(Schema::new(fields)),
        })
    }

    /// The source text of the first expression that is not deterministic.
    pub(super) fn nondeterminism(&self) -> Option<String> {
        self.nondeterminism.clone()
    }

    /// Whether records can have a key.
    pub(super) fn has_keys(&self) -> bool {
        self.key.is_some() || self.copied.key
    }

    /// Whether the value is copied.
    pub(super) fn copies_value(&self) -> bool {
        self.encoder.is_none()
    }

    /// Converts rows for [`Messages`]. Rows that cannot be written are left out and returned with
    /// their numbers among `rows`.
    pub(super) fn convert(
        &self,
        rows: &Rows,
        limits: &RecordLimits<'_>,
    ) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let mut bad = match &self.encoder {
            Some(encoder) => encoder.check(rows),
            None => Vec::new(),
        };
        let mut good = rows.without(&bad)?;
        let columns = match self.columns(&good) {
            Ok(columns) => columns,
            Err(_) => {
                self.find_failing(rows, &mut bad);
                good = rows.without(&bad)?;
                self.columns(&good)?
            }
        };
        let refused = refused_rows(&good, &columns, limits, self.encoder.is_none());
        let ready = good.with_record(columns).without(&refused)?;
        if !refused.is_empty() {
            let kept: Vec<u32> = (0..rows.len() as u32)
                .filter(|row| bad.iter().all(|bad| bad.row != *row))
                .collect();
            bad.extend(refused.into_iter().map(|refused| BadRow {
                row: kept[refused.row as usize],
                reason: refused.reason,
            }));
            bad.sort_by_key(|bad| bad.row);
        }
        Ok((ready, bad))
    }

    /// Finds the rows for which an expression fails, by trying each row that is not bad yet alone.
    fn find_failing(&self, rows: &Rows, bad: &mut Vec<BadRow>) {
        for row in 0..rows.len() as u32 {
            if bad.iter().all(|bad| bad.row != row)
                && let Err(error) = self.columns(&rows.slice(row as usize, 1))
            {
                bad.push(BadRow {
                    row,
                    reason: error.to_string(),
                });
            }
        }
        bad.sort_by_key(|bad| bad.row);
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
            evaluated(&self.key, DataType::Binary)?
        };
        let timestamp = match &batch.timestamps {
            Some(times) if self.copied.timestamp => {
                let time = |row| Some(times[rows.number(row)]).filter(|time| *time != NO_TIMESTAMP);
                Arc::new(Int64Array::from_iter((0..rows.len()).map(time)))
            }
            _ => evaluated(&self.timestamp, DataType::Int64)?,
        };
        let raw_headers = copy(batch.raw_headers.as_ref().filter(|_| self.copied.headers))?;
        let mut columns = vec![
            self.values(rows)?,
            key,
            evaluated(&self.partition, DataType::Int32)?,
            timestamp,
            raw_headers,
        ];
        for (_, expr) in &self.headers {
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

/// The rows that the topic or the client would not accept.
fn refused_rows(
    rows: &Rows,
    columns: &RecordBatch,
    limits: &RecordLimits<'_>,
    is_unchanged: bool,
) -> Vec<BadRow> {
    let messages = Messages::new(columns);
    let bad = |row: usize| {
        limits
            .refusal(rows, &messages, row, is_unchanged)
            .map(|reason| BadRow {
                row: row as u32,
                reason,
            })
    };
    (0..rows.len()).filter_map(bad).collect()
}

/// Access to the rows that [`RecordPlan::convert`] has converted, one by one.
pub(super) struct Messages<'a> {
    value: &'a BinaryArray,
    key: &'a BinaryArray,
    partition: &'a Int32Array,
    timestamp: &'a Int64Array,
    raw_headers: &'a BinaryArray,
    headers: Vec<(&'a str, &'a BinaryArray)>,
}

impl<'a> Messages<'a> {
    /// `columns` are the columns of converted rows.
    pub(super) fn new(columns: &'a RecordBatch) -> Messages<'a> {
        let names = columns
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().as_str());
        let headers = names
            .zip(columns.columns())
            .skip(5)
            .map(|(name, column)| (name, column.as_binary()))
            .collect();
        Messages {
            value: columns.column(0).as_binary(),
            key: columns.column(1).as_binary(),
            partition: columns.column(2).as_primitive::<Int32Type>(),
            timestamp: columns.column(3).as_primitive::<Int64Type>(),
            raw_headers: columns.column(4).as_binary(),
            headers,
        }
    }

    /// The encoded value; `None` if the value is copied.
    pub(super) fn value(&self, row: usize) -> Option<&'a [u8]> {
        self.value.is_valid(row).then(|| self.value.value(row))
    }

    /// The key; `None` if the record has none.
    pub(super) fn key(&self, row: usize) -> Option<&'a [u8]> {
        self.key.is_valid(row).then(|| self.key.value(row))
    }

    /// The partition; `None` if the key decides it.
    pub(super) fn partition(&self, row: usize) -> Option<i32> {
        self.partition
            .is_valid(row)
            .then(|| self.partition.value(row))
    }

    /// The timestamp in milliseconds since 1970; `None` for the time of writing.
    pub(super) fn timestamp(&self, row: usize) -> Option<i64> {
        self.timestamp
            .is_valid(row)
            .then(|| self.timestamp.value(row))
    }

    /// The headers of a row; Kafka's header names are UTF-8.
    pub(super) fn headers(&self, row: usize) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let raw = if self.raw_headers.is_valid(row) {
            self.raw_headers.value(row)
        } else {
            &[]
        };
        let named = self
            .headers
            .iter()
            .filter(move |(_, values)| values.is_valid(row));
        raw_headers::iter(raw)
            .chain(named.map(move |(name, values)| (name.as_bytes(), Some(values.value(row)))))
    }
}
