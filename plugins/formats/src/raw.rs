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
    use proptest::prelude::*;
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

    proptest! {
        #[test]
        fn any_record_is_valid_and_any_settings_are_valid_or_refused(
            records in prop::collection::vec(
                prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
                0..5,
            ),
            settings in "([a-z]{1,5}(=[a-z0-9]{0,3})?:?){0,2}|\\PC{0,6}",
        ) {
            let records: Vec<Option<&[u8]>> = records.iter().map(Option::as_deref).collect();
            let is_valid = Raw.schema(&settings).is_ok();
            let decoder = Raw.decoder(&settings, &[]);
            prop_assert_eq!(decoder.is_ok(), is_valid, "{}", settings);
            let Ok(mut decoder) = decoder else { return Ok(()) };
            let decoded = decoder.decode(&payloads(&records));
            prop_assert!(decoded.columns.is_empty() && decoded.bad.is_empty());
            // Where records end does not matter to them: a record is what the source has.
            let framing = Raw.framing(&settings);
            for record in records.into_iter().flatten() {
                prop_assert!(framing.ends(record).all(|end| end <= record.len()));
            }
        }
    }
}
