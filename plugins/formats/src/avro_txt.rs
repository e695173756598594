//! `avro-txt:`: Avro behind the head that Confluent's serializers write: a byte 0, the schema's id
//! in 4 bytes, big end first, then the record.
//! <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>
//!
//! The schemas come from a registry, each once. The records of a batch that have one schema are
//! decoded together, into Arrow columns; from these come the event time, the message and the named
//! fields.

mod columns;
mod registry;
mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::compute;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use pseidon_plugin::format::{Decoded, Decoder, Format, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use self::columns::Wanted;
use self::registry::{Answer, Registries, Registry};
use self::schema::SchemaDecoder;
use crate::event;
use crate::record_format::{AvroLayout, RecordLayout};

/// The format, with the registries that it has met.
#[derive(Default)]
pub(crate) struct AvroTxt {
    registries: Registries,
}

impl Format for AvroTxt {
    fn name(&self) -> &'static str {
        "avro-txt"
    }

    fn summary(&self) -> &'static str {
        "Avro with the head that Confluent's serializers write. `avro-txt:ts=0;msg=-1;registry=http://registry:8081` makes `ts`, `msg` and the \
         fields that `fields=a,b` names of it."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        Ok(Some(event::schema(&layout(settings)?.event)))
    }

    fn infer(&self, _samples: &[Bytes]) -> Result<SchemaRef, String> {
        Err("avro-txt records have the fields that their format says; leave :schema out".to_owned())
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        let layout = layout(settings)?;
        let Some(address) = &layout.registry else {
            return Err(
                "avro-txt needs `registry=http://host:8081`: the address of the schema registry"
                    .to_owned(),
            );
        };
        let wanted = columns
            .iter()
            .map(|column| Wanted::new(&layout.event, column))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(AvroDecoder {
            registry: self.registries.at(address),
            wanted,
            schemas: HashMap::new(),
            unknown: HashMap::new(),
        }))
    }
}

fn layout(settings: &str) -> Result<AvroLayout, String> {
    match crate::layout("avro-txt", settings)? {
        RecordLayout::AvroTxt(layout) => Ok(layout),
        _ => Err("these are not the settings of avro-txt".to_owned()),
    }
}

struct AvroDecoder {
    registry: Arc<Registry>,
    wanted: Vec<Wanted>,
    /// By id. A schema that nothing can be decoded with is the reason why.
    schemas: HashMap<u32, Result<SchemaDecoder, String>>,
    /// The ids in the batch that the registry does not know, each with what it said. It may know
    /// them later.
    unknown: HashMap<u32, String>,
}

impl Decoder for AvroDecoder {
    fn prepare(&mut self, payloads: &Payloads) -> Result<(), String> {
        self.unknown.clear();
        if self.wanted.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<u32> = (0..payloads.len())
            .filter_map(|row| head(payloads.get(row)?))
            .collect();
        for id in ids {
            if self.schemas.contains_key(&id) {
                continue;
            }
            match self.registry.schema(id)? {
                Answer::Schema(schema) => {
                    _ = self.schemas.insert(id, SchemaDecoder::new(id, &schema))
                }
                Answer::None(reason, _) => _ = self.unknown.insert(id, reason),
            }
        }
        Ok(())
    }

    fn decode(&mut self, payloads: &Payloads) -> Decoded {
        if self.wanted.is_empty() {
            return Decoded {
                columns: Vec::new(),
                bad: Vec::new(),
            };
        }
        let mut bad = Bad::default();
        let mut groups: BTreeMap<u32, Vec<(usize, &[u8])>> = BTreeMap::new();
        let mut total = 0;
        for row in 0..payloads.len() {
            let Some(record) = payloads.get(row) else {
                continue;
            };
            total += record.len();
            match head(record) {
                _ if i32::try_from(total).is_err() => {
                    bad.add(row, "the batch is larger than 2 GiB".to_owned())
                }
                Some(id) => groups.entry(id).or_default().push((row, record)),
                None => bad.add(
                    row,
                    "the record does not begin with a byte 0 and the 4 bytes of a schema's id"
                        .to_owned(),
                ),
            }
        }
        let mut parts = Parts::new(payloads.len());
        for (id, records) in groups {
            self.group(id, &records, &mut parts, &mut bad);
        }
        let bad = bad.in_order();
        let columns = self
            .wanted
            .iter()
            .enumerate()
            .map(|(number, wanted)| parts.column(number, wanted.data_type()))
            .collect();
        match columns {
            Ok(columns) => Decoded {
                columns: crate::without_bad(columns, &bad, payloads.len()),
                bad,
            },
            Err(error) => self.nothing(payloads.len(), &error),
        }
    }
}

impl AvroDecoder {
    /// Decodes the records that have one schema.
    fn group(&mut self, id: u32, records: &[(usize, &[u8])], parts: &mut Parts, bad: &mut Bad) {
        let decoder = match self.schemas.get_mut(&id) {
            Some(Ok(decoder)) => decoder,
            other => {
                let reason = other
                    .and_then(|unusable| unusable.as_ref().err())
                    .or(self.unknown.get(&id));
                let reason = reason.map_or(
                    "the schema registry was not asked for its schema",
                    String::as_str,
                );
                return records
                    .iter()
                    .for_each(|(row, _)| bad.add(*row, reason.to_owned()));
            }
        };
        let mut broken = Vec::new();
        for (rows, batch) in decoder.decode(records, &mut broken) {
            let mut misfits = Vec::new();
            let columns = self
                .wanted
                .iter()
                .map(|wanted| wanted.column(&batch, &mut misfits))
                .collect();
            misfits
                .into_iter()
                .for_each(|(at, reason): (usize, String)| {
                    if let Some(row) = rows.get(at) {
                        bad.add(*row, reason);
                    }
                });
            parts.add(&rows, columns);
        }
        broken
            .into_iter()
            .for_each(|(row, reason)| bad.add(row, reason));
    }

    /// All rows bad, for what cannot be put together.
    fn nothing(&self, rows: usize, error: &ArrowError) -> Decoded {
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
        Decoded { columns, bad }
    }
}

/// The schema's id.
fn head(record: &[u8]) -> Option<u32> {
    let (head, _) = record.split_first_chunk::<5>()?;
    let [0, id @ ..] = head else { return None };
    Some(u32::from_be_bytes(*id))
}

/// Bad rows with the first reason of each.
#[derive(Default)]
struct Bad(BTreeMap<usize, String>);

impl Bad {
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

/// Columns of some of the rows, piece by piece.
struct Parts {
    /// Where each row's values are in the pieces put together.
    places: Vec<Option<u32>>,
    pieces: Vec<Vec<ArrayRef>>,
    len: u32,
}

impl Parts {
    fn new(rows: usize) -> Parts {
        Parts {
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

    /// A column in the order of the rows.
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
