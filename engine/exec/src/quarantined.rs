//! Invalid records, which are dropped or become rows of the quarantine.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_delivery::Reason;
use pseidon_plan::chain::Policy;
use pseidon_plan::{PlannedSource, SinkIndex, quarantine};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::Chunk;
use sha2::{Digest, Sha256};

use crate::attempt::Attempt;
use crate::bad_records::{BadRecordExample, RecentBadRecord};
use crate::culprits::Culprits;
use crate::failure::Failure;
use crate::process::BadRecord;

/// How many invalid records of a batch are remembered for observers.
const MAX_NOTED: usize = 20;

/// Converts invalid records to chunks for the quarantine's lanes; dropped ones are only counted. Those
/// that a sink cannot write, as was found later, are written at once: the quarantine may have passed
/// their positions when nothing was known of them.
pub(crate) fn quarantine_bad(
    attempt: &Attempt,
    source: &PlannedSource,
    batch: &Arc<Batch>,
    bad: Vec<BadRecord>,
    culprits: &Culprits,
) -> Result<Vec<(SinkIndex, Chunk)>, Failure> {
    let mut by_sink: Vec<(SinkIndex, Vec<BadRecord>)> = Vec::new();
    // Only the last ones would be remembered.
    for record in bad.iter().rev().take(MAX_NOTED).rev() {
        let position = batch.first_position(record.number as usize);
        let (stage, split, reason) = (
            record.stage.clone(),
            batch.first_split().clone(),
            record.reason.clone(),
        );
        attempt.bad_records.note(RecentBadRecord {
            stage,
            split,
            position,
            reason,
        });
    }
    let counted = bad.iter().map(|record| {
        let (stage, reason) = (record.stage.as_str(), record.reason.as_str());
        (stage, reason, record.number)
    });
    let example = |number| BadRecordExample::of(&source.stage, batch, number);
    attempt.bad_records.count(counted, example);
    for record in bad {
        let Policy::Quarantine(sink) = record.policy else {
            attempt
                .metrics
                .bad_records
                .with_label_values(&[&record.stage, "dropped"])
                .inc();
            continue;
        };
        attempt
            .metrics
            .bad_records
            .with_label_values(&[&record.stage, "quarantined"])
            .inc();
        if culprits.contain(&record.stage, record.number) {
            write_single(attempt, source, batch, sink, record)?;
            continue;
        }
        match by_sink.iter_mut().find(|(known, _)| *known == sink) {
            Some((_, records)) => records.push(record),
            None => by_sink.push((sink, vec![record])),
        }
    }
    let mut chunks = Vec::new();
    for (sink, records) in by_sink {
        let routed = attempt.sinks[sink]
            .sink
            .route(quarantined(attempt, source, batch, &records).map_err(broken)?);
        if let Some(row) = routed.bad.first() {
            let what = format!("cannot quarantine an invalid record: {}", row.reason);
            return Err(Failure::Fatal(what.into()));
        }
        chunks.extend(routed.chunks.into_iter().map(|chunk| (sink, chunk)));
    }
    Ok(chunks)
}

fn broken(error: ArrowError) -> Failure {
    Failure::Fatal(Reason::caused_by(
        "cannot quarantine invalid records",
        error,
    ))
}

/// Quarantines a record that a sink cannot write, before that sink can pass it.
fn write_single(
    attempt: &Attempt,
    source: &PlannedSource,
    batch: &Arc<Batch>,
    quarantine: SinkIndex,
    record: BadRecord,
) -> Result<(), Failure> {
    let id = single_id(&record, batch).map_err(broken)?;
    let row = quarantined(attempt, source, batch, &[record]).map_err(broken)?;
    let open = &attempt.sinks[quarantine];
    let done = open.sink.write_single(row, &id);
    done.map_err(|error| Failure::of_sink(&open.stage, error))
}

/// What identifies a record in the quarantine. After a topic was recreated or a reset, another record
/// may have its position, so the content is a part of it.
fn single_id(record: &BadRecord, batch: &Batch) -> Result<String, ArrowError> {
    let row = record.number as usize;
    let (split, position) = (&batch.split.id, batch.positions[row]);
    let content = match batch.payloads.printed(row)? {
        Some(payload) => format!("{:x}", Sha256::digest(&payload)),
        None => "none".to_owned(),
    };
    Ok(format!("{} {position} {split} {content}", record.stage))
}

/// Converts invalid records to rows of [`quarantine::schema`]. A replayed record keeps the place
/// where it was read first.
fn quarantined(
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

#[cfg(test)]
mod tests {
    use pseidon_plugin::batch::{BatchBuilder, RecordMeta, Split, WantedMetadata};

    use super::*;

    /// The id of the record at position 7.
    fn id(stage: &str, split: &str, payload: Option<&[u8]>) -> String {
        let split = Arc::new(Split {
            id: split.into(),
            topic: "in".into(),
            partition: 0,
        });
        let mut batch = BatchBuilder::new(split, WantedMetadata::default(), 64);
        batch.push(7, payload, RecordMeta::default());
        let record = BadRecord {
            stage: stage.to_owned(),
            policy: Policy::Noop,
            number: 0,
            reason: "why".to_owned(),
        };
        single_id(&record, &batch.finish(8)).unwrap()
    }

    /// A topic that was recreated has other records at the same positions; the file of one must not
    /// stand for the other.
    #[test]
    fn records_at_one_position_are_told_apart() {
        let one = id("out", "s", Some(b"one"));
        assert_eq!(one, id("out", "s", Some(b"one")), "it is written once");
        for other in [
            id("out", "s", Some(b"two")),
            id("out", "s", Some(b"")),
            id("out", "s", None),
            id("other", "s", Some(b"one")),
            id("out", "t", Some(b"one")),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(id("out", "s", Some(b"")), id("out", "s", None));
    }
}
