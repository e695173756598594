//! What the columns of a Parquet file are, beyond what the library says.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, ConvertedType, LogicalType};
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;

use super::super::errors::refused;
use super::super::types::as_uuid;

/// Returns the metadata with the columns of UUIDs marked: the library has the type of their bytes
/// only.
pub(super) fn with_uuids(
    metadata: ArrowReaderMetadata,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let parquet = metadata.parquet_schema();
    let is_uuid = |leaf| parquet.column(leaf).logical_type_ref() == Some(&LogicalType::Uuid);
    if !(0..parquet.num_columns()).any(is_uuid) {
        return Ok(metadata);
    }
    let mut leaves = 0..parquet.num_columns();
    let fields = mark_all(metadata.schema().fields(), &mut leaves, &is_uuid);
    let schema = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
}

fn mark_all(
    fields: &Fields,
    leaves: &mut impl Iterator<Item = usize>,
    is_uuid: &impl Fn(usize) -> bool,
) -> Fields {
    fields
        .iter()
        .map(|field| Arc::new(mark(field, leaves, is_uuid)))
        .collect()
}

/// Marks the UUIDs in a field. `leaves` are the numbers of the columns without parts, in order.
fn mark(
    field: &Field,
    leaves: &mut impl Iterator<Item = usize>,
    is_uuid: &impl Fn(usize) -> bool,
) -> Field {
    let mut part = |part: &FieldRef| Arc::new(mark(part, leaves, is_uuid));
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(mark_all(fields, leaves, is_uuid)),
        DataType::List(element) => DataType::List(part(element)),
        DataType::LargeList(element) => DataType::LargeList(part(element)),
        DataType::FixedSizeList(element, len) => DataType::FixedSizeList(part(element), *len),
        DataType::Map(entries, is_sorted) => DataType::Map(part(entries), *is_sorted),
        _ => {
            return match leaves.next().is_some_and(is_uuid) {
                true => as_uuid(field),
                false => field.clone(),
            };
        }
    };
    field.clone().with_data_type(data_type)
}

/// Checks that the values of the used columns can be read as they are.
pub(super) fn check_used(
    metadata: &ArrowReaderMetadata,
    used: &ProjectionMask,
) -> Result<(), ParquetError> {
    let schema: &SchemaDescriptor = metadata.parquet_schema();
    for leaf in (0..schema.num_columns()).filter(|leaf| used.leaf_included(*leaf)) {
        let column = schema.column(leaf);
        let refuse = |what: &str| {
            let message = format!("the field `{}` {what}", column.path().string());
            Err(ParquetError::External(Box::new(refused(message))))
        };
        // The library reads an interval without its months.
        if column.converted_type() == ConvertedType::INTERVAL {
            return refuse(
                "is an interval, which cannot be read: list the other fields in :schema, or write it \
                 as a string",
            );
        }
        for group in metadata.metadata().row_groups() {
            let name = match group.column(leaf).compression() {
                Compression::BROTLI(_) => "brotli",
                Compression::LZO => "LZO",
                _ => continue,
            };
            return refuse(&format!(
                "is compressed with {name}, which is not supported: write the file with zstd, \
                 snappy, gzip or lz4"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
