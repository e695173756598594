//! Access to rows that were converted to what a producer accepts.

use arrow::array::{Array, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use pseidon_plugin::raw_headers;

/// The number of columns before those of single headers.
const FIXED_COLUMNS: usize = 5;

/// The columns of converted rows, of which each message is a row. `headers` are the names of the
/// headers that have a column of their own.
pub(super) fn schema<'a>(headers: impl Iterator<Item = &'a String>) -> SchemaRef {
    let mut fields = vec![
        Field::new("value", DataType::Binary, true),
        Field::new("key", DataType::Binary, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("timestamp", DataType::Int64, true),
        Field::new("raw headers", DataType::Binary, true),
    ];
    fields.extend(headers.map(|name| Field::new(name, DataType::Binary, true)));
    Schema::new(fields).into()
}

/// The columns of converted rows, read row by row.
pub(super) struct Messages<'a> {
    value: &'a BinaryArray,
    key: &'a BinaryArray,
    partition: &'a Int32Array,
    timestamp: &'a Int64Array,
    raw_headers: &'a BinaryArray,
    headers: Vec<(&'a str, &'a BinaryArray)>,
}

impl<'a> Messages<'a> {
    /// `columns` has the [`schema`] of converted rows.
    pub(super) fn new(columns: &'a RecordBatch) -> Messages<'a> {
        let names = columns
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().as_str());
        let headers = names
            .zip(columns.columns())
            .skip(FIXED_COLUMNS)
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
