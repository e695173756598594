//! The format `avro-txt`: Avro after the header that Confluent's serializers write: a 0 byte, the
//! schema ID in 4 bytes, big-endian, then the record.
//!
//! Each schema is fetched from a registry once. The records of a batch that share a schema are
//! decoded together into Arrow columns; the event time, the message and the named fields are taken
//! from these.

mod columns;
mod registry;
mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use pseidon_delivery::Reason;
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use self::columns::ColumnBuilder;
use self::registry::{Registries, SchemaLookup, SchemaRegistry};
use self::schema::SchemaDecoder;
use crate::event;
use crate::record_format::{AvroLayout, RecordLayout};

/// The format `avro-txt`, with the registries that its decoders have used.
#[derive(Default)]
pub(crate) struct AvroTxt {
    registries: Registries,
}

impl Format for AvroTxt {
    fn name(&self) -> &'static str {
        "avro-txt"
    }

    fn summary(&self) -> &'static str {
        "Avro after the header that Confluent's serializers write. \
         `avro-txt:ts=0;msg=-1;registry=http://registry:8081` decodes it into `ts`, `msg` and the \
         fields that `fields=a,b` names."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        Ok(Some(event::schema(&layout(settings)?.event)))
    }

    fn infer(&self, _: &str, _: &[Payloads]) -> Result<SchemaRef, String> {
        Err("the fields of avro-txt records are defined by their format; remove :schema".to_owned())
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        let layout = layout(settings)?;
        let Some(address) = &layout.registry else {
            return Err(
                "missing setting `registry` of avro-txt; expected an address such as \
                 `registry=http://host:8081`"
                    .to_owned(),
            );
        };
        let wanted = columns
            .iter()
            .map(|column| ColumnBuilder::new(&layout.event, column))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(AvroDecoder {
            registry: self.registries.at(address.expose()),
            wanted,
            schemas: HashMap::new(),
            unknown: HashMap::new(),
        }))
    }
}

fn layout(settings: &str) -> Result<AvroLayout, String> {
    match crate::layout("avro-txt", settings)? {
        RecordLayout::AvroTxt(layout) => Ok(layout),
        _ => Err("expected the settings of avro-txt".to_owned()),
    }
}

struct AvroDecoder {
    registry: Arc<SchemaRegistry>,
    wanted: Vec<ColumnBuilder>,
    /// The decoders by schema ID, or the reason why a schema cannot be used.
    schemas: HashMap<u32, Result<SchemaDecoder, String>>,
    /// The schema IDs of the batch that the registry does not have, each with the reason. They are
    /// looked up again for the next batch, because they may be registered later.
    unknown: HashMap<u32, String>,
}

impl Decoder for AvroDecoder {
    fn prepare_locally(&mut self, payloads: &Payloads) -> bool {
        self.unknown.clear();
        for id in self.missing_ids(payloads) {
            match self.registry.cached(id) {
                Some(lookup) => self.add(id, lookup),
                None => return false,
            }
        }
        true
    }

    fn prepare(&mut self, payloads: &Payloads) -> Result<(), Reason> {
        self.unknown.clear();
        for id in self.missing_ids(payloads) {
            let lookup = self.registry.schema(id)?;
            self.add(id, lookup);
        }
        Ok(())
    }

    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        if self.wanted.is_empty() {
            return DecodedColumns::new(Vec::new(), Vec::new());
        }
        let mut bad = BadRecords::default();
        let mut groups: BTreeMap<u32, Vec<(usize, &[u8])>> = BTreeMap::new();
        let mut total = 0;
        for row in 0..payloads.len() {
            let Some(record) = payloads.get(row) else {
                continue;
            };
            total += record.len();
            match schema_id(record) {
                _ if i32::try_from(total).is_err() => {
                    bad.add(row, "the batch is larger than 2 GiB".to_owned())
                }
                Ok(id) => groups.entry(id).or_default().push((row, record)),
                Err(reason) => bad.add(row, reason),
            }
        }
        let mut pieces = ColumnPieces::new(payloads.len());
        for (id, records) in groups {
            self.decode_group(id, &records, &mut pieces, &mut bad);
        }
        let bad = bad.in_order();
        let columns = self
            .wanted
            .iter()
            .enumerate()
            .map(|(number, wanted)| pieces.column(number, wanted.data_type()))
            .collect();
        match columns {
            Ok(columns) => {
                let columns = crate::null_bad_rows(columns, &bad, payloads.len());
                DecodedColumns::new(columns, bad)
            }
            Err(error) => self.all_bad(payloads.len(), &error),
        }
    }
}

impl AvroDecoder {
    /// The ids of schemas that these records need and that are not known.
    fn missing_ids(&self, payloads: &Payloads) -> BTreeSet<u32> {
        if self.wanted.is_empty() {
            return BTreeSet::new();
        }
        (0..payloads.len())
            .filter_map(|row| schema_id(payloads.get(row)?).ok())
            .filter(|id| !self.schemas.contains_key(id))
            .collect()
    }

    /// Adds a schema, or the reason why the registry does not have it.
    fn add(&mut self, id: u32, lookup: SchemaLookup) {
        match lookup {
            SchemaLookup::Schema(schema) => {
                _ = self.schemas.insert(id, SchemaDecoder::new(id, &schema))
            }
            SchemaLookup::Unknown(reason, _) | SchemaLookup::Unusable(reason) => {
                _ = self.unknown.insert(id, reason)
            }
        }
    }

    /// Decodes the records that share one schema.
    fn decode_group(
        &mut self,
        id: u32,
        records: &[(usize, &[u8])],
        pieces: &mut ColumnPieces,
        bad: &mut BadRecords,
    ) {
        let decoder = match self.schemas.get_mut(&id) {
            Some(Ok(decoder)) => decoder,
            other => {
                let reason = other
                    .and_then(|unusable| unusable.as_ref().err())
                    .or(self.unknown.get(&id));
                let reason = reason.map_or(
                    "its schema was not fetched from the schema registry",
                    String::as_str,
                );
                return records
                    .iter()
                    .for_each(|(row, _)| bad.add(*row, reason.to_owned()));
            }
        };
        let mut broken = Vec::new();
        for (rows, batch) in decoder.decode(records, &mut broken) {
            let mut mismatches = Vec::new();
            let columns = self
                .wanted
                .iter()
                .map(|wanted| wanted.column(&batch, &mut mismatches))
                .collect();
            mismatches
                .into_iter()
                .for_each(|(at, reason): (usize, String)| {
                    if let Some(row) = rows.get(at) {
                        bad.add(*row, reason);
                    }
                });
            pieces.add(&rows, columns);
        }
        broken
            .into_iter()
            .for_each(|(row, reason)| bad.add(row, reason));
    }

    /// Marks all rows as bad, for columns that cannot be assembled.
    fn all_bad(&self, rows: usize, error: &ArrowError) -> DecodedColumns {
        let columns = self
            .wanted
            .iter()
            .map(|wanted| arrow::array::new_null_array(wanted.data_type(), rows))
            .collect();
        let bad = (0..rows)
            .map(|row| BadRow {
                row: row as u32,
                reason: error.to_string(),
            })
            .collect();
        DecodedColumns::new(columns, bad)
    }
}

/// The schema ID in a record's header. The error says why the header is invalid. A registry counts
/// its schemas with 31 bits.
fn schema_id(record: &[u8]) -> Result<u32, String> {
    let Some(([0, id @ ..], _)) = record.split_first_chunk::<5>() else {
        return Err("the record does not start with a 0 byte and a 4-byte schema ID".to_owned());
    };
    let id = u32::from_be_bytes(*id);
    match i32::try_from(id) {
        Ok(_) => Ok(id),
        Err(_) => Err(format!("the schema ID {id} is larger than {}", i32::MAX)),
    }
}

/// The bad rows, each with its first reason.
#[derive(Default)]
struct BadRecords(BTreeMap<usize, String>);

impl BadRecords {
    fn add(&mut self, row: usize, reason: String) {
        self.0.entry(row).or_insert(reason);
    }

    fn in_order(self) -> Vec<BadRow> {
        self.0
            .into_iter()
            .map(|(row, reason)| BadRow {
                row: row as u32,
                reason,
            })
            .collect()
    }
}

/// Assembles columns from pieces that each hold some of the rows.
struct ColumnPieces {
    /// The index of each row in the concatenated pieces; `None` for a null row.
    places: Vec<Option<u32>>,
    pieces: Vec<Vec<ArrayRef>>,
    len: u32,
}

impl ColumnPieces {
    fn new(rows: usize) -> ColumnPieces {
        ColumnPieces {
            places: vec![None; rows],
            pieces: Vec::new(),
            len: 0,
        }
    }

    fn add(&mut self, rows: &[usize], columns: Vec<ArrayRef>) {
        for row in rows {
            if let Some(place) = self.places.get_mut(*row) {
                *place = Some(self.len);
            }
            self.len += 1;
        }
        self.pieces.push(columns);
    }

    /// A column in the order of the rows. `number` is its index in a piece.
    fn column(&self, number: usize, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let pieces: Vec<_> = self
            .pieces
            .iter()
            .filter_map(|columns| columns.get(number))
            .map(AsRef::as_ref)
            .collect();
        let all = match pieces.as_slice() {
            [] => new_empty_array(data_type),
            pieces => compute::concat(pieces)?,
        };
        let in_order = self
            .places
            .iter()
            .zip(0..)
            .all(|(place, row)| *place == Some(row));
        if in_order {
            Ok(all)
        } else {
            compute::take(&all, &UInt32Array::from(self.places.clone()), None)
        }
    }
}

#[cfg(test)]
mod tests;
