//! The quarantine of invalid records, next to the output. The registry's
//! [`QuarantineFactory`](pseidon_plugin::registry::QuarantineFactory) decides what it is, such as
//! files of JSON objects.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_expr::types::json_field;
use pseidon_plugin::registry::QuarantinePlace;

use crate::resolve::{ResolvedStep, ResolvedStepKind};

/// The column with the name of the stage for which a record is invalid.
const STAGE: &str = "stage";

/// The columns of a quarantined record. `record` is its text, or null if it is not UTF-8; then
/// `record_base64` has its bytes. `metadata` is
/// [`Batch::metadata`](pseidon_plugin::batch::Batch::metadata), and `version` the
/// [`Plan::version`](crate::Plan::version) that found the record invalid.
pub fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text(STAGE),
        text("reason"),
        text("split"),
        text("topic"),
        Field::new("partition", DataType::Int32, true),
        Field::new("position", DataType::UInt64, true),
        text("record"),
        text("record_base64"),
        json_field("metadata"),
        text("version"),
    ]))
}

/// The default folder for invalid records: `quarantine`, next to the folder of the first sink that
/// has one.
pub(crate) fn folder(chain: &[ResolvedStep]) -> String {
    match first_folder(chain) {
        Some(folder) => match folder.trim_end_matches('/').rsplit_once('/') {
            Some((parent, _)) => format!("{parent}/quarantine"),
            None => "quarantine".to_owned(),
        },
        None => "quarantine".to_owned(),
    }
}

/// The folder of the first sink in the chain that has one.
fn first_folder(chain: &[ResolvedStep]) -> Option<String> {
    chain.iter().find_map(|step| match &step.kind {
        ResolvedStepKind::Sink(sink) => sink.facts.folder.clone(),
        other => {
            let mut chains = other.chains().into_iter();
            chains.find_map(first_folder)
        }
    })
}

/// Where the invalid records of this pipeline are, below the folder of a quarantine.
pub(crate) fn place(folder: &str, pipeline: &str) -> QuarantinePlace {
    QuarantinePlace {
        folder: format!("{folder}/{pipeline}"),
        subfolder: STAGE,
    }
}
