//! `txt`: one text for each record, its field `line`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_dsl::expr::Step;
use pseidon_plugin::format::{Decoded, Decoder, Format, WantedColumn, is_json};
use pseidon_plugin::{BadRow, Payloads};

/// The format.
pub(crate) struct Txt;

const LINE: &str = "line";

impl Format for Txt {
    fn name(&self) -> &'static str {
        "txt"
    }

    fn summary(&self) -> &'static str {
        "Text: the record is its only field, `line`."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        crate::no_settings(self.name(), settings)?;
        Ok(Some(Arc::new(Schema::new(vec![Field::new(LINE, DataType::Utf8, true)]))))
    }

    fn decoder(&self, settings: &str, columns: &[WantedColumn]) -> Result<Box<dyn Decoder>, String> {
        crate::no_settings(self.name(), settings)?;
        for column in columns {
            if !matches!(column.path.0.as_slice(), [Step::Field(name)] if name == LINE) {
                return Err(format!("txt records have one field, `{LINE}`, and no `{}`", column.path));
            }
            if *column.field.data_type() != DataType::Utf8 || is_json(&column.field) {
                return Err(format!("`{LINE}` is utf8 in txt records, not {}", column.field.data_type()));
            }
        }
        Ok(Box::new(TxtDecoder { columns: columns.len() }))
    }
}

struct TxtDecoder {
    columns: usize,
}

impl Decoder for TxtDecoder {
    fn decode(&mut self, payloads: &Payloads) -> Decoded {
        if self.columns == 0 {
            return Decoded { columns: Vec::new(), bad: Vec::new() };
        }
        let mut bad = Vec::new();
        let mut lines = StringBuilder::new();
        for row in 0..payloads.len() {
            let line = payloads.get(row).map(|record| line(record, lines.values_slice().len())).transpose();
            match line {
                Ok(line) => lines.append_option(line),
                Err(reason) => {
                    lines.append_null();
                    bad.push(BadRow { row: row as u32, reason: reason.to_owned() });
                }
            }
        }
        let lines: ArrayRef = Arc::new(lines.finish());
        Decoded { columns: vec![lines; self.columns], bad }
    }
}

/// The record's text. `before` is the bytes of the lines before it.
fn line(record: &[u8], before: usize) -> Result<&str, &'static str> {
    if i32::try_from(before + record.len()).is_err() {
        // Arrow's text columns hold 2 GiB.
        return Err("the batch is larger than 2 GiB");
    }
    simdutf8::basic::from_utf8(record).map_err(|_| "the record is not utf-8")
}
