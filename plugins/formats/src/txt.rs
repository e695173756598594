//! `txt`: one text for each record, its field `line`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
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

    fn infer(&self, _samples: &[Bytes]) -> Result<SchemaRef, String> {
        Err("txt records have the same fields always; leave :schema out".to_owned())
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

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use pseidon_plugin::format::json_field;

    use super::*;
    use crate::testing::payloads;

    fn wanted(name: &str, data_type: DataType) -> WantedColumn {
        WantedColumn {
            path: pseidon_dsl::expr::Path(vec![Step::Field(name.to_owned())]),
            field: Arc::new(Field::new(name, data_type, true)),
        }
    }

    #[test]
    fn a_record_is_its_line() {
        let mut decoder = Txt.decoder("", &[wanted("line", DataType::Utf8)]).unwrap();
        let decoded = decoder.decode(&payloads(&[Some("é\r".as_bytes()), None, Some(b"\xff"), Some(b"")]));
        let lines: Vec<_> = decoded.columns[0].as_string::<i32>().iter().collect();
        assert_eq!(lines, [Some("é\r"), None, None, Some("")]);
        assert_eq!(decoded.bad, [BadRow { row: 2, reason: "the record is not utf-8".to_owned() }]);
        assert!(decoded.columns[0].is_null(2));
    }

    #[test]
    fn nothing_else_can_be_had() {
        let refused = |column| Txt.decoder("", &[column]).err().unwrap();
        assert_eq!(refused(wanted("user", DataType::Utf8)), "txt records have one field, `line`, and no `user`");
        assert_eq!(refused(wanted("line", DataType::Int64)), "`line` is utf8 in txt records, not Int64");
        let json = WantedColumn { field: Arc::new(json_field("line")), ..wanted("line", DataType::Utf8) };
        assert!(Txt.decoder("", &[json]).is_err());
        assert_eq!(Txt.schema("sep=pipe").unwrap_err(), "txt takes no settings, but `sep=pipe` follows the colon");
        assert!(Txt.decoder("", &[]).unwrap().decode(&payloads(&[Some(b"\xff")])).bad.is_empty());
    }
}
