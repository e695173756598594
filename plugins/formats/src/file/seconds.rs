//! Timestamps in seconds, which Avro and Parquet do not have: they are written in milliseconds.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampSecondType};
use pseidon_plugin::BadRow;

use crate::parts::{contains, parts};

/// The rows whose timestamps in seconds are out of range in milliseconds; `codec` is for the
/// reason.
pub(super) fn out_of_range(codec: &str, rows: &RecordBatch) -> Vec<BadRow> {
    let mut bad = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(seconds) = column.as_primitive_opt::<TimestampSecondType>() else {
            continue;
        };
        let overflows =
            |row: &usize| seconds.is_valid(*row) && seconds.value(*row).checked_mul(1000).is_none();
        bad.extend((0..seconds.len()).filter(overflows).map(|row| BadRow {
            row: row as u32,
            reason: format!(
                "`{}` is out of range for a timestamp of {codec} in milliseconds",
                field.name()
            ),
        }));
    }
    bad.sort_by_key(|bad| bad.row);
    bad.dedup_by_key(|bad| bad.row);
    bad
}

/// Checks that a column has no timestamps in seconds inside its values.
pub(super) fn check_nested(codec: &str, field: &Field) -> Result<(), String> {
    let has_seconds = |part: &Field| contains(part, is_seconds);
    if !parts(field).into_iter().any(has_seconds) {
        return Ok(());
    }
    Err(format!(
        "{codec} has no nested timestamps in seconds; cast `{}` to a timestamp in milliseconds",
        field.name()
    ))
}

fn is_seconds(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Timestamp(TimeUnit::Second, _))
}

/// The schema with milliseconds in place of seconds.
pub(super) fn in_milliseconds(schema: &Schema) -> Schema {
    let field = |field: &Field| match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            let to = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            field.clone().with_data_type(to)
        }
        _ => field.clone(),
    };
    let fields = schema.fields().iter().map(|known| field(known));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}
