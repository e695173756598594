//! Decoding the records of a batch.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use pseidon_plan::chain::PlannedSource;
use pseidon_plugin::batch::{Batch, Payloads};
use pseidon_plugin::format::{DecodedColumns, Decoder};
use pseidon_plugin::rows::{BadRow, Rows};

use super::Processor;

impl Processor {
    /// The decoded records, and the invalid ones by their numbers in the batch.
    pub(super) fn decode(
        &mut self,
        source: &PlannedSource,
        batch: &Arc<Batch>,
        records: Range<usize>,
    ) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let (first, count) = (records.start, records.len());
        let DecodedColumns {
            columns,
            mut bad,
            places,
        } = match &mut self.decoder {
            Some(decoder) => decoder.decode(&of_records(batch, records.clone())),
            None => DecodedColumns::new(Vec::new(), Vec::new()),
        };
        if source.columns.meta.key {
            bad.extend(keys_that_are_not_text(batch, records.clone()));
        }
        let of_these = |(record, _): &&(u32, String)| records.contains(&(*record as usize));
        bad.extend(
            batch
                .invalid
                .iter()
                .filter(of_these)
                .map(|(record, reason)| BadRow {
                    row: record - first as u32,
                    reason: reason.clone(),
                }),
        );
        // A record is listed once, even if several things are wrong with it.
        bad.sort_by_key(|row| row.row);
        bad.dedup_by_key(|row| row.row);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let columns = RecordBatch::try_new_with_options(source.schema.clone(), columns, &options)?;
        let mut rows = Rows::part(batch.clone(), first, columns);
        if let Some(places) = places {
            rows = rows.with_places(places);
        }
        let rows = rows.without(&bad)?;
        bad.iter_mut().for_each(|bad| bad.row += first as u32);
        Ok((rows, bad))
    }
}

/// How many fields of each record are located at most. The places of a field take 20 bytes, also in
/// a record that does not have it.
const MAX_LOCATED: usize = 16;

/// The decoder for the records of a source; `None` if nothing of them is used.
pub(super) fn decoder_of(source: &PlannedSource) -> Result<Option<Box<dyn Decoder>>, String> {
    let wanted = &source.columns.wanted;
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut decoder = source.format.decoder(&source.format_settings, wanted)?;
    let edited = source.chain.edited_fields();
    if (1..=MAX_LOCATED).contains(&edited.len()) {
        decoder.locate(&edited);
    }
    Ok(Some(decoder))
}

/// These records of a batch with the reasons why they are invalid, if all of them are invalid as the
/// source has them: then there is nothing to decode.
pub(super) fn all_invalid(batch: &Batch, records: &Range<usize>) -> Option<Vec<(u32, String)>> {
    let of_these = |(record, _): &&(u32, String)| records.contains(&(*record as usize));
    let invalid: Vec<_> = batch.invalid.iter().filter(of_these).cloned().collect();
    (invalid.len() == records.len()).then_some(invalid)
}

/// The payloads of some records of a batch.
pub(super) fn of_records(batch: &Batch, records: Range<usize>) -> Cow<'_, Payloads> {
    if records.len() == batch.len() {
        Cow::Borrowed(&batch.payloads)
    } else {
        Cow::Owned(batch.payloads.part(records))
    }
}

/// If an expression uses keys, they must be UTF-8.
fn keys_that_are_not_text(batch: &Batch, records: Range<usize>) -> Vec<BadRow> {
    let Some(keys) = &batch.keys else {
        return Vec::new();
    };
    let is_bad = |record: &usize| {
        !keys.is_null(*record) && std::str::from_utf8(keys.value(*record)).is_err()
    };
    let first = records.start;
    records
        .filter(is_bad)
        .map(|record| BadRow {
            row: (record - first) as u32,
            reason: "the key is not UTF-8 text".into(),
        })
        .collect()
}
