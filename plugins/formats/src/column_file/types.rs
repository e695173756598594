//! The engine's types for the types of files.
//!
//! A file may have several types for one kind of values, which differ in how they are stored
//! (strings with long offsets, as views, in dictionaries, values of a fixed length). Expressions
//! get one of them. Timestamps are in UTC.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use pseidon_plugin::format::{is_json, json_field};

/// The fields of records with these columns.
pub(super) fn fields_of(columns: &Schema) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| field_of(field));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn field_of(field: &Field) -> FieldRef {
    if is_json(field) {
        return Arc::new(json_field(field.name()));
    }
    Arc::new(Field::new(field.name(), type_of(field.data_type()), true))
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
        other => other.clone(),
    }
}
