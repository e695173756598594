//! Records of one schema.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;

/// Decodes records of one schema.
pub(super) struct SchemaDecoder {
    id: u32,
    schema: AvroSchema,
    /// Holds no rows between two batches.
    decoder: Decoder,
}

impl SchemaDecoder {
    /// The error says why nothing can be decoded with this schema.
    pub(super) fn new(id: u32, schema: &str) -> Result<SchemaDecoder, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("schema {id} cannot be used: {error}");
        let mut json: Value = serde_json::from_str(schema).map_err(|error| cannot(&error))?;
        without_uuids(&mut json);
        let schema = AvroSchema::new(json.to_string());
        let decoder = decoder(id, &schema).map_err(|error| cannot(&error))?;
        Ok(SchemaDecoder {
            id,
            schema,
            decoder,
        })
    }

    /// Gives batches with the numbers of their rows. Records that are broken come into `broken`,
    /// with the reason.
    pub(super) fn decode(
        &mut self,
        records: &[(usize, &[u8])],
        broken: &mut Vec<(usize, String)>,
    ) -> Vec<(Vec<usize>, RecordBatch)> {
        let together = records
            .iter()
            .try_for_each(|(_, record)| self.push(record))
            .and_then(|()| self.flush());
        match together {
            Ok(Some(batch)) => return vec![(records.iter().map(|(row, _)| *row).collect(), batch)],
            Ok(None) => return Vec::new(),
            Err(_) => {}
        }
        // One of them is broken, and its first fields are among the rows already: begin anew, one
        // by one.
        let mut rows = Vec::new();
        let mut batches = Vec::new();
        let mut clean = false;
        for (row, record) in records {
            if !clean && let Err(reason) = self.renew() {
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
                Ok(None) => broken.push((*row, "the record ends too early".to_owned())),
                Err(reason) => broken.push((*row, reason)),
            }
        }
        if !clean && let Err(reason) = self.renew() {
            // It was made once, so it can be made again; if not, the next records find out.
            broken.extend(records.iter().map(|(row, _)| (*row, reason.clone())));
            return Vec::new();
        }
        match batches
            .first()
            .map(|first| concat_batches(&first.schema(), &batches))
        {
            Some(Ok(batch)) => vec![(rows, batch)],
            // Dictionaries that are too large together, for example.
            Some(Err(_)) => rows
                .into_iter()
                .zip(batches)
                .map(|(row, batch)| (vec![row], batch))
                .collect(),
            None => Vec::new(),
        }
    }

    /// Adds a record, with its head. After an error the decoder holds a part of it.
    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        let before = self.decoder.capacity();
        let read = self
            .decoder
            .decode(record)
            .map_err(|error| format!("the record does not fit schema {}: {error}", self.id))?;
        match (
            before.saturating_sub(self.decoder.capacity()),
            record.len() - read,
        ) {
            (1, 0) => Ok(()),
            (0, _) => Err("the record ends too early".to_owned()),
            _ => Err(format!(
                "the record goes on behind the fields of schema {}",
                self.id
            )),
        }
    }

    fn flush(&mut self) -> Result<Option<RecordBatch>, String> {
        self.decoder
            .flush()
            .map_err(|error| format!("the record does not fit schema {}: {error}", self.id))
    }

    fn renew(&mut self) -> Result<(), String> {
        self.decoder = decoder(self.id, &self.schema).map_err(|error| error.to_string())?;
        Ok(())
    }
}

fn decoder(id: u32, schema: &AvroSchema) -> Result<Decoder, arrow::error::ArrowError> {
    let id = Fingerprint::Id(id);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(id, schema.clone())?;
    // Rows are taken out batch by batch, whatever their number.
    let builder = ReaderBuilder::new()
        .with_batch_size(usize::MAX)
        .with_writer_schema_store(store)
        .with_active_fingerprint(id);
    builder.build_decoder()
}

/// Leaves UUIDs the texts that they are; arrow-avro would make 16 bytes of each.
fn without_uuids(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("logicalType").is_some_and(|kind| kind == "uuid") {
                object.remove("logicalType");
            }
            object.values_mut().for_each(without_uuids);
        }
        Value::Array(parts) => parts.iter_mut().for_each(without_uuids),
        _ => {}
    }
}
