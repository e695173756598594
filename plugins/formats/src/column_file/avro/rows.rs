//! From records to columns.

use std::io;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::errors::AvroError;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use pseidon_expr::panics::catch_panic;

use super::super::MAX_ROWS;
use super::super::errors::damaged;
use super::padding::without_padding;
use super::schema::{Fields, RecordType};

/// What precedes a message of a schema registry: the format's version, and the number of its schema.
/// By it arrow-avro decodes one record at a time.
const PREFIX: [u8; 5] = [0; 5];

/// The number of the schema in [`PREFIX`].
const SCHEMA: Fingerprint = Fingerprint::Id(0);

/// Turns records into columns.
pub(super) struct RowDecoder {
    schema: AvroSchema,
    /// The numbers of the fields that are read.
    fields: Vec<usize>,
    /// The fields, if some of their values are padded.
    padded: Option<Fields>,
    decoder: Decoder,
    columns: SchemaRef,
}

impl RowDecoder {
    /// Creates a decoder of the fields with these names, or of all. An error says why there is none.
    pub(super) fn new(types: &RecordType, fields: Option<&[String]>) -> Result<RowDecoder, String> {
        let is_read = |name: &String| fields.is_none_or(|fields| fields.contains(name));
        let numbered = types.fields.iter().enumerate();
        let read = numbered.filter(|(_, (name, _))| is_read(name));
        let fields: Vec<usize> = read.map(|(number, _)| number).collect();
        let schema = AvroSchema::new(types.json.clone());
        let cannot_read = |error| format!("its schema cannot be read: {error}");
        let decoder = decoder(&schema, &fields).map_err(cannot_read)?;
        let padded = fields.iter().map(|number| types.fields[*number].clone());
        let padded: Option<Fields> = types.is_padded.then(|| padded.collect());
        let mut columns = decoder.schema();
        if let Some(padded) = &padded {
            let empty = RecordBatch::new_empty(columns);
            columns = without_padding(&empty, padded)
                .map_err(cannot_read)?
                .schema();
        }
        Ok(RowDecoder {
            columns,
            schema,
            fields,
            padded,
            decoder,
        })
    }

    /// The columns.
    pub(super) fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The columns of these records, up to the first that cannot be decoded, and why it cannot.
    /// There are at most [`MAX_ROWS`].
    pub(super) fn decode(&mut self, records: &[&[u8]]) -> (Option<RecordBatch>, Option<io::Error>) {
        let failure = match self.try_decode(records) {
            Ok(rows) => return (rows, None),
            Err(failure) => failure,
        };
        // A decoder that failed is not used again. How many records can be decoded is between these
        // two.
        let (mut decoded, mut failed, mut rows) = (0, records.len(), None);
        while failed - decoded > 1 {
            let middle = decoded + (failed - decoded) / 2;
            match self.try_decode(&records[..middle]) {
                Ok(found) => (decoded, rows) = (middle, found),
                Err(_) => failed = middle,
            }
        }
        (rows, Some(failure))
    }

    fn try_decode(&mut self, records: &[&[u8]]) -> io::Result<Option<RecordBatch>> {
        let outcome = catch_panic(|| {
            let rows = decode_all(&mut self.decoder, records)?;
            match (rows, &self.padded) {
                (Some(rows), Some(fields)) => Ok(Some(without_padding(&rows, fields)?)),
                (rows, _) => Ok::<_, AvroError>(rows),
            }
        });
        let outcome = outcome.and_then(|outcome| outcome.map_err(|error| error.to_string()));
        if outcome.is_err() {
            let another = catch_panic(|| decoder(&self.schema, &self.fields)).map_err(damaged)?;
            self.decoder = another.map_err(damaged)?;
        }
        outcome.map_err(damaged)
    }
}

fn decoder(schema: &AvroSchema, fields: &[usize]) -> Result<Decoder, arrow::error::ArrowError> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(SCHEMA, schema.clone())?;
    ReaderBuilder::new()
        .with_batch_size(MAX_ROWS + 1)
        .with_writer_schema_store(store)
        .with_active_fingerprint(SCHEMA)
        .with_projection(fields.to_vec())
        .build_decoder()
}

fn decode_all(decoder: &mut Decoder, records: &[&[u8]]) -> Result<Option<RecordBatch>, AvroError> {
    for record in records {
        let read = decoder.decode(&PREFIX)? + decoder.decode(record)?;
        if read != PREFIX.len() + record.len() {
            let what = "a record has other values than its schema says";
            return Err(AvroError::ParseError(what.to_owned()));
        }
    }
    decoder.flush()
}
