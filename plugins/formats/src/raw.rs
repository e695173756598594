//! The format `raw`: bytes that no stage decodes.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{DecodedColumns, Decoder, Format, WantedColumn};

/// The format `raw`.
pub(crate) struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn summary(&self) -> &'static str {
        "Unparsed bytes without fields: records are passed on unchanged."
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        crate::layout(self.name(), settings)?;
        Ok(Some(Arc::new(Schema::empty())))
    }

    fn infer(&self, _: &str, _: &[Payloads]) -> Result<SchemaRef, String> {
        Err("raw records have no fields; remove :schema".to_owned())
    }

    fn decoder(
        &self,
        settings: &str,
        columns: &[WantedColumn],
    ) -> Result<Box<dyn Decoder>, String> {
        crate::layout(self.name(), settings)?;
        match columns.first() {
            Some(column) => Err(format!(
                "raw records have no field `{}`; use :format \"json\" or \"txt\"",
                column.path
            )),
            None => Ok(Box::new(RawDecoder)),
        }
    }
}

struct RawDecoder;

impl Decoder for RawDecoder {
    fn decode(&mut self, _: &Payloads) -> DecodedColumns {
        DecodedColumns::new(Vec::new(), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use pseidon_dsl::expr::{Path, PathStep};

    use super::*;
    use crate::testing::payloads;

    #[test]
    fn there_are_no_fields() {
        let column = WantedColumn {
            path: Path(vec![PathStep::Field("a".to_owned())]),
            field: Arc::new(Field::new("a", DataType::Utf8, true)),
        };
        let refused = Raw.decoder("", &[column]).err().unwrap();
        assert_eq!(
            refused,
            "raw records have no field `a`; use :format \"json\" or \"txt\""
        );
        assert!(Raw.schema("").unwrap().unwrap().fields().is_empty());
        let decoded = Raw
            .decoder("", &[])
            .unwrap()
            .decode(&payloads(&[Some(b"\xff"), None]));
        assert!(decoded.columns.is_empty() && decoded.bad.is_empty());
    }
}
