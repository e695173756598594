//! Invalid records as rows of the quarantine.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_plan::{PlannedSource, quarantine};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::rows::Rows;

use crate::attempt::Attempt;
use crate::process::BadRecord;

/// Converts invalid records to rows of [`quarantine::schema`]. A replayed record keeps the place
/// where it was read first.
pub(crate) fn quarantined(
    attempt: &Attempt,
    source: &PlannedSource,
    batch: &Arc<Batch>,
    records: &[BadRecord],
) -> Result<Rows, ArrowError> {
    let count = records.len();
    let rows = || records.iter().map(|record| record.number as usize);
    let payloads = rows().map(|row| batch.payloads.printed(row));
    let payloads = payloads.collect::<Result<Vec<_>, _>>()?;
    let as_text = |payload: &Option<Cow<'_, [u8]>>| {
        let text = payload.as_deref().map(std::str::from_utf8);
        text.and_then(Result::ok).map(str::to_owned)
    };
    let as_base64 = |payload: &Option<Cow<'_, [u8]>>| match (payload, as_text(payload)) {
        (Some(bytes), None) => Some(STANDARD.encode(bytes)),
        _ => None,
    };
    let strings = |values: &mut dyn Iterator<Item = &str>| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    };
    let same = |value| strings(&mut std::iter::repeat_n(value, count));
    let metadata = rows().map(|row| batch.metadata(row, source.columns.meta));
    let columns: Vec<ArrayRef> = vec![
        strings(&mut records.iter().map(|record| record.stage.as_str())),
        strings(&mut records.iter().map(|record| record.reason.as_str())),
        same(batch.first_split().as_str()),
        same(&batch.split.topic),
        Arc::new(Int32Array::from_value(batch.split.partition, count)),
        Arc::new(UInt64Array::from_iter_values(
            rows().map(|row| batch.first_position(row)),
        )),
        Arc::new(StringArray::from_iter(payloads.iter().map(as_text))),
        Arc::new(StringArray::from_iter(payloads.iter().map(as_base64))),
        Arc::new(StringArray::from_iter(metadata)),
        same(&attempt.plan.version),
    ];
    let numbers = UInt32Array::from_iter_values(records.iter().map(|record| record.number));
    let columns = RecordBatch::try_new(quarantine::schema(), columns)?;
    Ok(Rows::derived(batch.clone(), numbers, columns))
}
