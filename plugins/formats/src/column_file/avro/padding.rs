//! Values without bytes: null, an empty record, a `fixed` of length 0.
//!
//! arrow-avro decodes such a value only as a field of the file's records. Elsewhere it refuses the
//! columns that it has made of them, because it declares null as a type without nulls and cannot
//! tell how long an empty record's column is. So the record that it decodes has a boolean in the
//! place of each of them, and the columns of these booleans are replaced afterwards.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, MapArray, NullArray, RecordBatch,
    RecordBatchOptions, StructArray,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;

use super::schema::{AvroType, Fields, Kind};

/// Writes a record that has values without bytes.
pub(super) struct PaddedRecord<'a> {
    out: &'a mut Vec<u8>,
    /// How many bytes of the record were written or replaced.
    copied: usize,
}

impl<'a> PaddedRecord<'a> {
    /// What stands for a value without bytes: the boolean false.
    pub(super) const VALUE: &'static [u8] = &[0];

    /// Begins a record after those that were written.
    pub(super) fn at_end_of(out: &'a mut Vec<u8>) -> PaddedRecord<'a> {
        PaddedRecord { out, copied: 0 }
    }

    /// Copies a record up to a range of it, which is replaced by other bytes.
    pub(super) fn replace(&mut self, record: &[u8], range: Range<usize>, by: &[u8]) {
        let before = record.get(self.copied..range.start);
        self.out.extend_from_slice(before.unwrap_or_default());
        self.out.extend_from_slice(by);
        self.copied = range.end;
    }

    /// The number of items of a block that does not declare its length.
    pub(super) fn count(items: u64) -> Vec<u8> {
        // Zigzag encoding of a positive number.
        let (mut rest, mut bytes) = (u128::from(items) << 1, Vec::new());
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    }
}

/// Replaces the booleans in these fields by the values that they stand for.
pub(super) fn without_padding(
    rows: &RecordBatch,
    fields: &Fields,
) -> Result<RecordBatch, ArrowError> {
    let types = fields.iter().map(|(_, value)| value.as_ref());
    let replaced = replace_columns(rows.schema_ref().fields(), rows.columns(), types)?;
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = replaced.into_iter().unzip();
    let schema = Schema::new(fields).with_metadata(rows.schema_ref().metadata().clone());
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &count)
}

/// Columns with their fields, without padding.
fn replace_columns<'a>(
    fields: &[FieldRef],
    columns: &[ArrayRef],
    types: impl Iterator<Item = &'a AvroType>,
) -> Result<Vec<(FieldRef, ArrayRef)>, ArrowError> {
    let columns = fields.iter().zip(columns).zip(types);
    let replaced = columns.map(|((field, values), of)| replace(field, values, of));
    replaced.collect()
}

/// A column with its field, without padding.
fn replace(
    field: &FieldRef,
    values: &ArrayRef,
    of: &AvroType,
) -> Result<(FieldRef, ArrayRef), ArrowError> {
    if !of.is_padded {
        return Ok((field.clone(), values.clone()));
    }
    let values = replace_values(values, of)?;
    let is_nullable = field.is_nullable() || *values.data_type() == DataType::Null;
    let field = field.as_ref().clone().with_nullable(is_nullable);
    let field = field.with_data_type(values.data_type().clone());
    Ok((Arc::new(field), values))
}

fn replace_values(values: &ArrayRef, of: &AvroType) -> Result<ArrayRef, ArrowError> {
    let (len, nulls) = (values.len(), values.nulls().cloned());
    Ok(match &of.kind {
        Kind::Null => Arc::new(NullArray::new(len)),
        Kind::Fixed(_) => {
            let offsets = OffsetBuffer::new_zeroed(len);
            Arc::new(BinaryArray::try_new(offsets, Buffer::default(), nulls)?)
        }
        Kind::Record { fields, .. } if fields.is_empty() => {
            Arc::new(StructArray::new_empty_fields(len, nulls))
        }
        Kind::Record { fields, .. } => {
            let (named, columns, nulls) = values.as_struct().clone().into_parts();
            let types = fields.iter().map(|(_, value)| value.as_ref());
            let replaced = replace_columns(&named, &columns, types)?;
            let (named, columns): (Vec<FieldRef>, Vec<ArrayRef>) = replaced.into_iter().unzip();
            Arc::new(StructArray::try_new(named.into(), columns, nulls)?)
        }
        Kind::Array(item) => {
            let lists = values.as_list::<i32>().clone();
            let (field, offsets, items, nulls) = lists.into_parts();
            let (field, items) = replace(&field, &items, item)?;
            Arc::new(ListArray::try_new(field, offsets, items, nulls)?)
        }
        Kind::Map(value) => {
            let maps = values.as_map().clone();
            let (field, offsets, entries, nulls, is_sorted) = maps.into_parts();
            let (mut named, mut columns, _) = entries.into_parts();
            if let ([key, of_values], [_, values]) = (&named[..], &mut columns[..]) {
                let (of_values, replaced) = replace(of_values, values, value)?;
                *values = replaced;
                named = vec![key.clone(), of_values].into();
            }
            let entries = StructArray::try_new(named, columns, None)?;
            let field = field.as_ref().clone();
            let field = field.with_data_type(entries.data_type().clone());
            Arc::new(MapArray::try_new(
                Arc::new(field),
                offsets,
                entries,
                nulls,
                is_sorted,
            )?)
        }
        Kind::Nullable { value, .. } => replace_values(values, value)?,
        _ => values.clone(),
    })
}
