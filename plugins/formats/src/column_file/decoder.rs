//! Takes the wanted columns out of those that were read.

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, UInt64Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, is_null, nullif, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pseidon_dsl::expr::PathStep;
use pseidon_expr::floats::overflowed;
use pseidon_expr::ranges::rows_out_of_range;
use pseidon_expr::types::type_name;
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use super::types::type_of;
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
    let stored = match value_at(columns, &wanted.path.0) {
        Ok(Some(stored)) => stored,
        Ok(None) => return (new_null_array(to, rows), Vec::new()),
        Err(error) => return all_bad(wanted, rows, &error),
    };
    let (values, mut bad) = match cast_with_options(&stored, to, &STRICT) {
        Ok(values) => (values, Vec::new()),
        Err(_) => cast_each(&stored, wanted),
    };
    let mut out_of_range = rows_out_of_range(&values);
    match overflowed(&stored, &values) {
        Ok(overflowed) => out_of_range.extend(overflowed.values().set_indices()),
        Err(error) => return all_bad(wanted, rows, &error),
    }
    bad.extend(out_of_range.into_iter().map(|row| BadRow {
        row: row as u32,
        reason: format!("`{}` is out of range for {}", wanted.path, type_name(to)),
    }));
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

/// Casts that fail if a value does not fit, also inside of lists and structs.
const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// The values that fit the wanted type, and the rows of the others.
fn cast_each(stored: &ArrayRef, wanted: &WantedColumn) -> (ArrayRef, Vec<BadRow>) {
    let to = wanted.field.data_type();
    // A cast of lists casts all that their buffer has, so the rows are taken out of it.
    let cast_rows = |rows: &UInt64Array| cast_with_options(&take(stored, rows, None)?, to, &STRICT);
    let fits = |row: &u64| cast_rows(&UInt64Array::from(vec![*row])).is_ok();
    let rows = 0..stored.len() as u64;
    let fitting: UInt64Array = rows.map(|row| Some(row).filter(fits)).collect();
    let is_bad = |row: &usize| fitting.is_null(*row);
    let bad = (0..stored.len()).filter(is_bad).map(|row| BadRow {
        row: row as u32,
        reason: format!(
            "`{}` is not {}: {}",
            wanted.path,
            type_name(to),
            shown(stored, row)
        ),
    });
    let bad = bad.collect();
    match cast_rows(&fitting) {
        Ok(values) => (values, bad),
        // Each value fits, and all together do not: strings of one dictionary may be huge.
        Err(error) => all_bad(wanted, stored.len(), &error),
    }
}

/// The values at a path; `None` if there are none.
fn value_at(columns: &RecordBatch, path: &[PathStep]) -> Result<Option<ArrayRef>, ArrowError> {
    let Some((PathStep::Field(name), rest)) = path.split_first() else {
        return Ok(None);
    };
    let Some(mut values) = columns.column_by_name(name).cloned() else {
        return Ok(None);
    };
    for step in rest {
        let inner = match step {
            PathStep::Field(name) => field_of(&values, name)?,
            PathStep::Index(index) => element_of(&values, *index as usize)?,
        };
        let Some(inner) = inner else {
            return Ok(None);
        };
        values = inner;
    }
    Ok(Some(values))
}

/// The values of a field of structs. Those of structs that are null are null.
fn field_of(values: &ArrayRef, name: &str) -> Result<Option<ArrayRef>, ArrowError> {
    let Some(structs) = values.as_struct_opt() else {
        return Ok(None);
    };
    let Some(field) = structs.column_by_name(name) else {
        return Ok(None);
    };
    match structs.null_count() {
        0 => Ok(Some(field.clone())),
        _ => nullif(field, &is_null(values)?).map(Some),
    }
}

/// The elements of lists at an index, which counts from 0.
fn element_of(values: &ArrayRef, index: usize) -> Result<Option<ArrayRef>, ArrowError> {
    let lists @ DataType::List(_) = type_of(values.data_type()) else {
        return Ok(None);
    };
    let lists = cast_with_options(values, &lists, &CastOptions::default())?;
    let lists: &ListArray = lists.as_list();
    let place = |row: usize| {
        let has_element = lists.is_valid(row) && index < lists.value_length(row) as usize;
        has_element.then(|| lists.value_offsets()[row] as u64 + index as u64)
    };
    let places: UInt64Array = (0..lists.len()).map(place).collect();
    take(lists.values(), &places, None).map(Some)
}

/// A value, for messages.
fn shown(values: &ArrayRef, row: usize) -> String {
    let formatter = ArrayFormatter::try_new(values, &FormatOptions::default());
    formatter.map_or_else(
        |_| "a value".to_owned(),
        |formatter| abbreviate(&formatter.value(row).to_string()),
    )
}
