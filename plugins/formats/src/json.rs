//! The format `json`: one JSON object per record.
//!
//! The wanted paths, merged into a tree, determine which values of a record go into columns and which
//! are skipped. Skipped values are still validated, so a record that is malformed anywhere is bad,
//! even after the last wanted value. If no column is wanted, records are not parsed at all, and
//! malformed records pass.
//!
//! A [fast scan](scan), which expects the [layout] of the records before, finds the fields of a
//! record and validates them, and sonic-rs parses the values that are wanted. If the scan does not accept the record, sonic-rs parses all of it, and
//! says what is wrong.
//!
//! A path that does not exist (the key is missing, the list is too short, or a value on the path is
//! not an object or list) yields null. If a key is repeated, the first value counts.

mod check;
mod columns;
mod edit;
mod infer;
mod keys;
mod layout;
mod reasons;
mod scan;
mod tree;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use pseidon_plugin::format::{DecodedColumns, Decoder, Editor, FieldChange, Format, WantedColumn};
use pseidon_plugin::framing::Framing;
use pseidon_plugin::places::FieldPlaces;
use pseidon_plugin::{BadRow, Payloads};

use self::check::CheckedRecord;
use self::columns::{Column, Mismatch};
use self::edit::JsonEditor;
use self::layout::Layout;
use self::tree::{PathNode, RecordColumns, RootType};
use crate::texts::Texts;
pub(crate) use scan::has_special_bytes;

/// The format `json`.
pub(crate) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn summary(&self) -> &'static str {
        "One JSON object per record. `json:ts=path` (`ts_ms`, `ts_sec`) sets the path of the event \
         time, for logs from a table; it adds no field."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        crate::layout(self.name(), settings)?;
        Ok(None)
    }

    fn framing(&self, _: &str) -> Framing {
        Framing {
            is_json: true,
            ..Framing::default()
        }
    }

    fn infer(&self, _: &str, samples: &[Payloads]) -> Result<SchemaRef, String> {
        infer::infer(samples)
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        crate::layout(self.name(), settings)?;
        let mut root = PathNode::default();
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
            layout: Layout::default(),
            places: None,
        }))
    }

    fn editor(&self, changes: &[FieldChange]) -> Result<Arc<dyn Editor>, String> {
        JsonEditor::new(changes).map(|editor| Arc::new(editor) as Arc<dyn Editor>)
    }
}

struct JsonDecoder {
    root: PathNode,
    start: RootType,
    columns: Vec<Column>,
    layout: Layout,
    /// The places of the fields that are located.
    places: Option<FieldPlaces>,
}

impl Decoder for JsonDecoder {
    fn locate(&mut self, fields: &[String]) {
        for (number, name) in fields.iter().enumerate() {
            self.root.locate(name, number);
        }
        self.places = Some(FieldPlaces::new(fields.to_vec()));
    }

    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        if self.columns.is_empty() {
            return DecodedColumns::new(Vec::new(), Vec::new());
        }
        let mut bad = Vec::new();
        let mut total = 0;
        let texts = Texts::new(payloads, 0..payloads.len());
        self.layout.begin_batch();
        for row in 0..payloads.len() {
            if let Some(places) = &mut self.places {
                places.begin();
            }
            if let Some(record) = payloads.get(row) {
                total += record.len();
                if let Err(reason) = self.decode_record(row, record, texts.get(row), total) {
                    bad.push(BadRow {
                        row: row as u32,
                        reason,
                    });
                }
            }
            // The record may lack fields, or it was rejected before all its fields were read.
            for column in &mut self.columns {
                column.fill(row + 1);
            }
        }
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        DecodedColumns {
            columns: crate::null_bad_rows(columns, &bad, payloads.len()),
            bad,
            places: self.places.as_mut().map(FieldPlaces::take),
        }
    }
}

impl JsonDecoder {
    /// Appends a record's values to the columns. If the record is bad, some columns may already
    /// have a value. `text` is the record if it is UTF-8. `total` is the number of bytes in all
    /// records of the batch up to and including this one.
    fn decode_record(
        &mut self,
        row: usize,
        record: &[u8],
        text: Option<&str>,
        total: usize,
    ) -> Result<(), String> {
        if i32::try_from(total).is_err() {
            // Arrow's string columns are limited to 2 GiB.
            return Err("the batch is larger than 2 GiB".to_owned());
        }
        let mut values = RecordColumns {
            columns: &mut self.columns,
            layout: &mut self.layout,
            places: self.places.as_mut(),
            row,
            mismatch: Mismatch::default(),
        };
        let scanned = match text {
            Some(text) => self.root.read_scanned(text, &mut values),
            None => Ok(false),
        };
        if scanned != Ok(true) {
            // Values that were read stay, and so does what is wrong with them.
            let checked = CheckedRecord::new(record)?;
            self.start.check(checked.text())?;
            checked.parse(|text| {
                let mut parser = sonic_rs::Deserializer::from_str(text);
                self.root.read(&mut parser, &mut values)?;
                parser.end()
            })?;
            // The parser has skipped the value of a column that has a part of it, so it may have
            // found nothing wrong.
            scanned?;
        }
        values.mismatch.into_result()
    }
}

#[cfg(test)]
mod tests;
