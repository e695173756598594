//! Decodes `txt` records without settings: the whole record is one string.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_dsl::expr::PathStep;
use pseidon_plugin::format::{DecodedColumns, Decoder, WantedColumn, is_json};
use pseidon_plugin::{BadRow, Payloads};

const LINE: &str = "line";

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(LINE, DataType::Utf8, true)]))
}

pub(super) fn decoder(columns: &[WantedColumn]) -> Result<Box<dyn Decoder>, String> {
    for column in columns {
        if !matches!(column.path.0.as_slice(), [PathStep::Field(name)] if name == LINE) {
            return Err(format!(
                "txt records have no field `{}`; expected `{LINE}`",
                column.path
            ));
        }
        if *column.field.data_type() != DataType::Utf8 || is_json(&column.field) {
            return Err(format!(
                "`{LINE}` is utf8 in txt records, not {}",
                column.field.data_type()
            ));
        }
    }
    Ok(Box::new(LineDecoder {
        columns: columns.len(),
    }))
}

struct LineDecoder {
    columns: usize,
}

impl Decoder for LineDecoder {
    fn decode(&mut self, payloads: &Payloads) -> DecodedColumns {
        if self.columns == 0 {
            return DecodedColumns::new(Vec::new(), Vec::new());
        }
        let mut bad = Vec::new();
        let mut lines = StringBuilder::new();
        for row in 0..payloads.len() {
            let line = payloads
                .get(row)
                .map(|record| text(record, lines.values_slice().len()))
                .transpose();
            match line {
                Ok(line) => lines.append_option(line),
                Err(reason) => {
                    lines.append_null();
                    bad.push(BadRow {
                        row: row as u32,
                        reason: reason.to_owned(),
                    });
                }
            }
        }
        let lines: ArrayRef = Arc::new(lines.finish());
        DecodedColumns::new(vec![lines; self.columns], bad)
    }
}

/// The record as a string. `before` is the number of bytes in the lines before it.
fn text(record: &[u8], before: usize) -> Result<&str, &'static str> {
    if i32::try_from(before + record.len()).is_err() {
        // Arrow's string columns are limited to 2 GiB.
        return Err("the batch is larger than 2 GiB");
    }
    simdutf8::basic::from_utf8(record).map_err(|_| "the record is not valid UTF-8")
}
