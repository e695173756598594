//! Batches, rows and sink inputs for this crate's tests.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use pseidon_delivery::SplitId;
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::sink::{RecordShape, SinkInput};
use pseidon_plugin::{Batch, BatchBuilder, Payloads, Rows, Split};

/// A batch of these records. `None` is a record without a payload.
pub(crate) fn batch(records: &[Option<&[u8]>]) -> Batch {
    let split = Arc::new(Split {
        id: SplitId::from("test"),
        topic: "test".to_owned(),
        partition: 0,
    });
    let mut batch = BatchBuilder::new(split, WantedMetadata::default(), 1024);
    for (position, record) in records.iter().enumerate() {
        batch.push(position as u64, *record, RecordMeta::default());
    }
    batch.finish(records.len() as u64)
}

pub(crate) fn payloads(records: &[Option<&[u8]>]) -> Payloads {
    batch(records).payloads
}

/// Unchanged records without decoded columns, at positions from 0 on.
pub(crate) fn rows(records: &[Option<&[u8]>]) -> Rows {
    let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    Rows::new(Arc::new(batch(records)), columns)
}

/// Changed records, with these columns.
pub(crate) fn changed(columns: RecordBatch) -> Rows {
    rows(&vec![Some(b"{}".as_slice()); columns.num_rows()]).with_record(columns)
}

pub(crate) fn as_came(format: &str) -> SinkInput {
    SinkInput {
        scope: Default::default(),
        record: RecordShape::AsCame {
            format: format.to_owned(),
        },
    }
}

pub(crate) fn columns(columns: &RecordBatch) -> SinkInput {
    SinkInput {
        scope: Default::default(),
        record: RecordShape::Columns(columns.schema()),
    }
}
