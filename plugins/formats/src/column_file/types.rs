//! The engine's types for the types of files.
//!
//! A file may have several types for one kind of values, which differ in how they are stored
//! (strings with long offsets, as views, in dictionaries, values of a fixed length). Expressions
//! get one of them. Timestamps are in UTC.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef, TimeUnit};
use pseidon_expr::types::map_parts;
use pseidon_plugin::format::{is_json, json_field};

use crate::parts::parts;

/// The fields of records with these columns.
pub(super) fn fields_of(columns: &Schema) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| field_of(field));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The column for a column of a file.
pub(super) fn field_of(field: &Field) -> FieldRef {
    if is_json(field) {
        return Arc::new(json_field(field.name()));
    }
    let data_type = match is_uuid(field) {
        true => DataType::Utf8,
        false => type_of(field.data_type()),
    };
    Arc::new(Field::new(field.name(), data_type, true))
}

/// The metadata of a column that has the name of its extension type.
pub(super) const EXTENSION_KEY: &str = "ARROW:extension:name";

/// The bytes of a UUID.
const UUID: DataType = DataType::FixedSizeBinary(16);

/// Whether the values of a column are UUIDs, which are read as text. Avro's have another mark than
/// those of Arrow and Parquet.
pub(super) fn is_uuid(field: &Field) -> bool {
    let mark = |key: &str| field.metadata().get(key).map(String::as_str);
    let is_marked =
        mark(EXTENSION_KEY) == Some("arrow.uuid") || mark("logicalType") == Some("uuid");
    is_marked && *field.data_type() == UUID
}

/// The column with the mark of UUIDs.
pub(super) fn as_uuid(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(EXTENSION_KEY.to_owned(), "arrow.uuid".to_owned());
    field.clone().with_metadata(metadata)
}

/// The type of values that a file has with this type.
pub(super) fn type_of(stored: &DataType) -> DataType {
    match stored {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some("UTC".into())),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, values) => type_of(values),
        DataType::RunEndEncoded(_, values) => type_of(values.data_type()),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => DataType::List(field_of(element)),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| field_of(field)).collect())
        }
        DataType::Map(entries, is_sorted) => DataType::Map(entries_of(entries), *is_sorted),
        other => other.clone(),
    }
}

/// The entries of a map, with names that do not depend on the program that wrote the file.
fn entries_of(entries: &Field) -> FieldRef {
    let entries = without_json(entries);
    let Some((key, value)) = map_parts(&entries) else {
        return Arc::new(entries);
    };
    let value = field_of(value).as_ref().clone().with_name("value");
    let fields = vec![Field::new("key", type_of(key.data_type()), false), value];
    Arc::new(Field::new(
        "entries",
        DataType::Struct(fields.into()),
        false,
    ))
}

/// A column whose `json` values are strings: those in a map are not checked, so they are not
/// written as JSON.
fn without_json(field: &Field) -> Field {
    let mut parts = parts(field)
        .into_iter()
        .map(|part| Arc::new(without_json(part)));
    let data_type = match field.data_type() {
        DataType::Struct(_) => DataType::Struct(parts.collect()),
        DataType::List(_) => parts.next().map_or(DataType::Null, DataType::List),
        DataType::Map(_, is_sorted) => {
            let map = |entries| DataType::Map(entries, *is_sorted);
            parts.next().map_or(DataType::Null, map)
        }
        other => other.clone(),
    };
    match is_json(field) {
        true => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
        false => field.clone().with_data_type(data_type),
    }
}
