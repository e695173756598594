//! Takes the wanted columns out of those that were read.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{is_null, nullif, take};
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pseidon_dsl::expr::PathStep;
use pseidon_expr::floats::overflowed;
use pseidon_expr::ranges::rows_out_of_range;
use pseidon_expr::types::field_type_name;
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use super::convert::{Conversion, convert, element, lists_of};
use crate::abbreviate;
use crate::json::Json;

/// Takes columns out of records of columns, in the wanted types.
pub(super) struct ColumnDecoder {
    pub(super) wanted: Vec<WantedColumn>,
}

impl Decoder for ColumnDecoder {
    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        let Some(columns) = payloads.columns() else {
            return self.decode_json(payloads);
        };
        let mut bad = Vec::new();
        let decoded = self.wanted.iter().map(|column| {
            let (values, invalid) = decode_column(columns, column);
            bad.extend(invalid);
            values
        });
        let decoded = decoded.collect();
        bad.sort_by_key(|row| row.row);
        bad.dedup_by_key(|row| row.row);
        DecodedColumns::new(crate::null_bad_rows(decoded, &bad, payloads.len()), bad)
    }
}

impl ColumnDecoder {
    /// Decodes records that have bytes: those of a pipeline's `:tests` are JSON objects.
    fn decode_json(&self, payloads: &Payloads) -> DecodedColumns {
        let mut decoder = match Json.decoder("", &self.wanted) {
            Ok(decoder) => decoder,
            Err(reason) => return self.all_bad(payloads.len(), &reason),
        };
        decoder.decode(payloads)
    }

    fn all_bad(&self, rows: usize, reason: &str) -> DecodedColumns {
        let none = |column: &WantedColumn| new_null_array(column.field.data_type(), rows);
        let bad = (0..rows as u32).map(|row| BadRow {
            row,
            reason: reason.to_owned(),
        });
        DecodedColumns::new(self.wanted.iter().map(none).collect(), bad.collect())
    }
}

/// The values of a wanted column, and the rows whose value does not fit its type.
fn decode_column(columns: &RecordBatch, wanted: &WantedColumn) -> (ArrayRef, Vec<BadRow>) {
    let (to, rows) = (wanted.field.data_type(), columns.num_rows());
    let (stored, from) = match value_at(columns, &wanted.path.0) {
        Ok(Some(stored)) => stored,
        Ok(None) => return (new_null_array(to, rows), Vec::new()),
        Err(error) => return all_bad(wanted, rows, &error),
    };
    let Conversion {
        values,
        mut misfits,
    } = match convert(&stored, &from, &wanted.field) {
        Ok(converted) => converted,
        Err(error) => return all_bad(wanted, rows, &error),
    };
    let type_name = field_type_name(&wanted.field);
    let mut bad = Vec::new();
    for row in (0..rows).filter(|row| misfits[*row]) {
        bad.push(BadRow {
            row: row as u32,
            reason: format!(
                "`{}` is not {type_name}: {}",
                wanted.path,
                shown(&stored, row)
            ),
        });
    }
    let mut out_of_range = rows_out_of_range(&values);
    match overflowed(&stored, &values) {
        Ok(overflowed) => out_of_range.extend(overflowed.values().set_indices()),
        Err(error) => return all_bad(wanted, rows, &error),
    }
    for row in out_of_range {
        if !std::mem::replace(&mut misfits[row], true) {
            bad.push(BadRow {
                row: row as u32,
                reason: format!("`{}` is out of range for {type_name}", wanted.path),
            });
        }
    }
    (values, bad)
}

/// No values: none of the rows can be decoded.
fn all_bad(wanted: &WantedColumn, rows: usize, reason: &ArrowError) -> (ArrayRef, Vec<BadRow>) {
    let bad = (0..rows as u32).map(|row| BadRow {
        row,
        reason: format!("`{}`: {reason}", wanted.path),
    });
    (
        new_null_array(wanted.field.data_type(), rows),
        bad.collect(),
    )
}

/// The values at a path, with their column; `None` if there are none.
fn value_at(
    columns: &RecordBatch,
    path: &[PathStep],
) -> Result<Option<(ArrayRef, FieldRef)>, ArrowError> {
    let Some((PathStep::Field(name), rest)) = path.split_first() else {
        return Ok(None);
    };
    let schema = columns.schema_ref();
    let Some((number, field)) = schema.fields().find(name) else {
        return Ok(None);
    };
    let mut found = (columns.column(number).clone(), field.clone());
    for step in rest {
        let inner = match step {
            PathStep::Field(name) => field_of(&found.0, name)?,
            PathStep::Index(index) => element_of(&found.0, *index as usize)?,
        };
        let Some(inner) = inner else {
            return Ok(None);
        };
        found = inner;
    }
    Ok(Some(found))
}

/// The values of a field of structs. Those of structs that are null are null.
fn field_of(values: &ArrayRef, name: &str) -> Result<Option<(ArrayRef, FieldRef)>, ArrowError> {
    let Some(structs) = values.as_struct_opt() else {
        return Ok(None);
    };
    let Some((number, field)) = structs.fields().find(name) else {
        return Ok(None);
    };
    let inner = structs.column(number);
    let inner = match structs.null_count() {
        0 => inner.clone(),
        _ => nullif(inner, &is_null(values)?)?,
    };
    Ok(Some((inner, field.clone())))
}

/// The elements of lists at an index, which counts from 0.
fn element_of(values: &ArrayRef, index: usize) -> Result<Option<(ArrayRef, FieldRef)>, ArrowError> {
    let (Some(field), Some(lists)) = (element(values.data_type()), lists_of(values)?) else {
        return Ok(None);
    };
    let place = |row: usize| {
        let has_element = lists.is_valid(row) && index < lists.value_length(row) as usize;
        has_element.then(|| lists.value_offsets()[row] as u64 + index as u64)
    };
    let places: UInt64Array = (0..lists.len()).map(place).collect();
    Ok(Some((take(lists.values(), &places, None)?, field.clone())))
}

/// A value, for messages.
fn shown(values: &ArrayRef, row: usize) -> String {
    let formatter = ArrayFormatter::try_new(values, &FormatOptions::default());
    let text = formatter.and_then(|formatter| formatter.value(row).try_to_string());
    // A value outside of its type has no text.
    text.map_or_else(
        |_| "a value out of range".to_owned(),
        |text| abbreviate(&text),
    )
}
