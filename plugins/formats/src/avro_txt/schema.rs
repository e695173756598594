//! Decodes records that share one schema.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;

/// A decoder for one schema.
pub(super) struct SchemaDecoder {
    id: u32,
    schema: AvroSchema,
    /// Has no buffered rows between two batches.
    decoder: Decoder,
}

impl SchemaDecoder {
    /// The error says why the schema cannot be used.
    pub(super) fn new(id: u32, schema: &str) -> Result<SchemaDecoder, String> {
        let unusable =
            |error: &dyn std::fmt::Display| format!("schema {id} cannot be used: {error}");
        let mut json: Value = serde_json::from_str(schema).map_err(|error| unusable(&error))?;
        without_uuids(&mut json);
        let schema = AvroSchema::new(json.to_string());
        let decoder = decoder(id, &schema).map_err(|error| unusable(&error))?;
        Ok(SchemaDecoder {
            id,
            schema,
            decoder,
        })
    }

    /// Decodes records into batches, each with the row numbers of its records. Appends malformed
    /// records to `broken`, with the reasons.
    pub(super) fn decode(
        &mut self,
        records: &[(usize, &[u8])],
        broken: &mut Vec<(usize, String)>,
    ) -> Vec<(Vec<usize>, RecordBatch)> {
        let all_at_once = records
            .iter()
            .try_for_each(|(_, record)| self.push(record))
            .and_then(|()| self.flush());
        match all_at_once {
            Ok(Some(batch)) => return vec![(records.iter().map(|(row, _)| *row).collect(), batch)],
            Ok(None) => return Vec::new(),
            Err(_) => {}
        }
        // One record is malformed, and its first fields are already in the decoder: start over,
        // record by record.
        let mut rows = Vec::new();
        let mut batches = Vec::new();
        let mut clean = false;
        for (row, record) in records {
            if !clean && let Err(reason) = self.reset() {
                broken.push((*row, reason));
                continue;
            }
            let decoded = self.push(record).and_then(|()| self.flush());
            clean = decoded.is_ok();
            match decoded {
                Ok(Some(batch)) => {
                    rows.push(*row);
                    batches.push(batch);
                }
                Ok(None) => broken.push((*row, "unexpected end of the record".to_owned())),
                Err(reason) => broken.push((*row, reason)),
            }
        }
        if !clean && let Err(reason) = self.reset() {
            // The decoder could be created before, so creating it should succeed again. If not, the
            // next batch reports the error.
            broken.extend(records.iter().map(|(row, _)| (*row, reason.clone())));
            return Vec::new();
        }
        match batches
            .first()
            .map(|first| concat_batches(&first.schema(), &batches))
        {
            Some(Ok(batch)) => vec![(rows, batch)],
            // For example, because the merged dictionaries are too large.
            Some(Err(_)) => rows
                .into_iter()
                .zip(batches)
                .map(|(row, batch)| (vec![row], batch))
                .collect(),
            None => Vec::new(),
        }
    }

    /// Decodes a record, including its header. After an error the decoder has a part of it
    /// buffered.
    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let before = self.decoder.capacity();
        let read = self
            .decoder
            .decode(record)
            .map_err(|error| format!("the record does not match schema {}: {error}", self.id))?;
        match (
            before.saturating_sub(self.decoder.capacity()),
            record.len() - read,
        ) {
            (1, 0) => Ok(()),
            (0, _) => Err("unexpected end of the record".to_owned()),
            _ => Err(format!(
                "the record has extra bytes after the fields of schema {}",
                self.id
            )),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, String> {
        self.decoder
            .flush()
            .map_err(|error| format!("the record does not match schema {}: {error}", self.id))
    }

    fn reset(&mut self) -> Result<(), String> {
        self.decoder = decoder(self.id, &self.schema).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn decoder(id: u32, schema: &AvroSchema) -> Result<Decoder, arrow::error::ArrowError> {
    let id = Fingerprint::Id(id);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(id, schema.clone())?;
    // Batches are flushed explicitly, so their size is not limited here.
    let builder = ReaderBuilder::new()
        .with_batch_size(usize::MAX)
        .with_writer_schema_store(store)
        .with_active_fingerprint(id);
    builder.build_decoder()
}

/// Removes the logical type `uuid`, so that UUIDs stay strings; arrow-avro would convert them to 16
/// bytes.
fn without_uuids(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("logicalType").is_some_and(|kind| kind == "uuid") {
                object.remove("logicalType");
            }
            object.values_mut().for_each(without_uuids);
        }
        Value::Array(pieces) => pieces.iter_mut().for_each(without_uuids),
        _ => {}
    }
}
