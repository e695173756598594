//! `json`: one JSON object for each record.
//!
//! A record is gone through once. sonic-rs parses; the wanted paths, put together into a tree, say
//! where a value goes into a column and what is skipped. What is skipped is still validated, so a
//! record that is broken anywhere is bad, also behind the last wanted value. A plan that wants no
//! column at all looks into no record, and then broken ones pass.
//!
//! A path that ends in nothing (the key is missing, the list is too short, or there is no object or
//! list where the path goes through one) gives null. When a key is repeated, the first value
//! counts.

mod check;
mod columns;
mod infer;
mod nested;
mod tree;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use pseidon_plugin::format::{Decoded, Decoder, Format, WantedColumn};
use pseidon_plugin::{BadRow, Payloads};

use self::check::Checked;
use self::columns::{Column, Misfit};
use self::tree::{Node, Record, Start};

pub use self::infer::infer_json_schema;

/// The format.
pub(crate) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn summary(&self) -> &'static str {
        "One JSON object for each record. `json:ts=path` (`ts_ms`, `ts_sec`) says where the event time is, for logs from a table; it adds no field."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        crate::layout(self.name(), settings)?;
        Ok(None)
    }

    fn infer(&self, samples: &[Bytes]) -> Result<SchemaRef, String> {
        infer_json_schema(samples)
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        crate::layout(self.name(), settings)?;
        let mut root = Node::default();
        for (number, column) in columns.iter().enumerate() {
            root.add(&column.path.0, number);
        }
        let columns = columns
            .iter()
            .map(|column| Column::new(&column.field, column.path.to_string()))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(JsonDecoder {
            start: root.start(),
            root,
            columns,
        }))
    }
}

struct JsonDecoder {
    root: Node,
    start: Start,
    columns: Vec<Column>,
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, payloads: &Payloads) -> Decoded {
        if self.columns.is_empty() {
            return Decoded {
                columns: Vec::new(),
                bad: Vec::new(),
            };
        }
        let mut bad = Vec::new();
        let mut total = 0;
        for row in 0..payloads.len() {
            if let Some(record) = payloads.get(row) {
                total += record.len();
                if let Err(reason) = self.record(row, record, total) {
                    bad.push(BadRow {
                        row: row as u32,
                        reason,
                    });
                }
            }
            // What the record did not have, or what was not reached before it turned out to be bad.
            for column in &mut self.columns {
                column.fill(row + 1);
            }
        }
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        Decoded {
            columns: crate::without_bad(columns, &bad, payloads.len()),
            bad,
        }
    }
}

impl JsonDecoder {
    /// Adds a record's values to the columns; of a bad one perhaps some. `total` is the bytes of
    /// all records of the batch up to this.
    fn record(&mut self, row: usize, record: &[u8], total: usize) -> Result<(), String> {
        if i32::try_from(total).is_err() {
            // Arrow's text columns hold 2 GiB.
            return Err("the batch is larger than 2 GiB".to_owned());
        }
        let checked = Checked::new(record)?;
        self.start.check(checked.text())?;
        let mut record = Record {
            columns: &mut self.columns,
            row,
            misfit: Misfit::default(),
        };
        checked.parse(|text| {
            let mut parser = sonic_rs::Deserializer::from_str(text);
            self.root.read(&mut parser, &mut record)?;
            parser.end()
        })?;
        record.misfit.into_result()
    }
}

#[cfg(test)]
mod tests;
