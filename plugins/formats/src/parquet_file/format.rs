//! The format `parquet`, as a pipeline names it.

use arrow::datatypes::SchemaRef;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Decoder, Format, WantedColumn};

use super::ParquetReader;
use super::decoder::ColumnDecoder;
use super::types::fields_of;

/// The format `parquet`, whose records are columns.
pub(crate) struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        ParquetReader::FORMAT
    }

    fn summary(&self) -> &'static str {
        "Parquet files, of which only the used columns are read. Their fields are known."
    }

    fn has_bytes(&self) -> bool {
        false
    }

    fn schema(&self, settings: &str) -> Result<Option<SchemaRef>, String> {
        match settings {
            "" => Ok(None),
            _ => Err(format!("{} has no settings", self.name())),
        }
    }

    fn infer(&self, _: &str, samples: &[Payloads]) -> Result<SchemaRef, String> {
        let columns = samples.iter().find_map(Payloads::columns);
        let columns = columns.ok_or_else(|| format!("there is no {} file", self.name()))?;
        Ok(fields_of(columns.schema_ref()))
    }

    fn decoder(&self, _: &str, columns: &[WantedColumn]) -> Result<Box<dyn Decoder>, String> {
        Ok(Box::new(ColumnDecoder {
            wanted: columns.to_vec(),
        }))
    }
}
