//! The tables of `lookup`: small files that are read as a whole.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use pseidon_dsl::expr::PathStep;
use pseidon_dsl::node::Text;
use pseidon_dsl::{Diagnostic, Node, NodeKind, Span};
use pseidon_plan::Table;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::registry::PluginRegistry;
use pseidon_plugin::source::Source;
use sha2::{Digest, Sha256};

use super::{as_sentence, sample};

/// The source that reads the file.
const FILES: &str = "files";
/// The most rows of a table, which is kept in memory.
const MAX_ROWS: usize = 1_000_000;

/// Reads a table whose path begins at `base`. An error says why it cannot be read.
pub(super) fn read(path: &str, registry: &PluginRegistry, base: &Path) -> Result<Table, String> {
    let source = files(path, registry)?;
    let facts = source.facts();
    let (name, settings) = (facts.format.name(), facts.format.settings());
    let format = registry
        .format(name)
        .ok_or_else(|| format!("unknown format `{name}`"))?;
    let records = sample(&*source, &**format, settings, base, MAX_ROWS + 1)?;
    if records.iter().map(Payloads::len).sum::<usize>() > MAX_ROWS {
        return Err(format!("it has more than {MAX_ROWS} rows"));
    }
    let schema = format.infer(settings, &records)?;
    Ok(Table {
        rows: decode(&**format, settings, &schema, &records)?,
        digest: digest(&records)?,
    })
}

/// The source of the file.
fn files(path: &str, registry: &PluginRegistry) -> Result<Arc<dyn Source>, String> {
    let span = Span::default();
    let path = Node {
        kind: NodeKind::Str(Text::plain(path, 0)),
        span,
    };
    let Some(plugin) = registry.source(FILES) else {
        return Err(format!("the source `{FILES}` is missing"));
    };
    let source = plugin.clone().configure(&[path], span);
    let source = source.and_then(|stage| stage.prepare());
    source.map_err(|errors: Vec<Diagnostic>| {
        let sentences: Vec<String> = errors.iter().map(as_sentence).collect();
        sentences.join("; ")
    })
}

fn decode(
    format: &dyn Format,
    settings: &str,
    schema: &SchemaRef,
    records: &[Payloads],
) -> Result<RecordBatch, String> {
    let wanted = schema.fields().iter().map(|field| WantedColumn {
        path: pseidon_dsl::expr::Path(vec![PathStep::Field(field.name().clone())]),
        field: field.clone(),
    });
    let mut decoder = format.decoder(settings, &wanted.collect::<Vec<_>>())?;
    let (mut batches, mut before) = (Vec::new(), 0);
    for payloads in records {
        let decoded = decoder.decode(payloads);
        if let Some(bad) = decoded.bad.first() {
            let row = before + bad.row as usize + 1;
            return Err(format!("row {row} is invalid: {}", bad.reason));
        }
        before += payloads.len();
        let batch = RecordBatch::try_new(schema.clone(), decoded.columns);
        batches.push(batch.map_err(|error| error.to_string())?);
    }
    concat_batches(schema, &batches).map_err(|error| error.to_string())
}

/// The SHA-256 digest of the records and their headers, in hexadecimal digits.
fn digest(records: &[Payloads]) -> Result<String, String> {
    let mut digest = Sha256::new();
    let mut header = None;
    for payloads in records {
        // A file's header comes with each of its batches.
        if payloads.header() != header {
            header = payloads.header();
            digest.update(header.map_or(&[][..], |header| header));
            digest.update(b"\n");
        }
        for row in 0..payloads.len() {
            let record = payloads.printed(row).map_err(|error| error.to_string())?;
            digest.update(record.unwrap_or_default());
            digest.update(b"\n");
        }
    }
    let bytes = digest.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
