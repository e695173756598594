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

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use arrow::util::display::array_value_to_string;
    use parquet::arrow::ArrowWriter;
    use proptest::prelude::*;
    use pseidon_plan::PlannedTable;

    use super::super::kept::{KeptPipeline, MAX_KEPT, keep};
    use super::*;
    use crate::registry::registry;

    /// A row of a table.
    type TableRow = (i64, Option<String>);

    const NAMES: [&str; 5] = ["t.csv", "t.tsv", "t.json", "t.parquet", "t.json.gz"];

    fn read_table(name: &str, content: &[u8]) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        read(name, &registry(), folder.path())
    }

    /// A file of one of the first four names with these rows.
    fn content(name: &str, rows: &[TableRow]) -> Vec<u8> {
        let lines = |line: &dyn Fn(&TableRow) -> String| -> String {
            rows.iter().map(|row| line(row) + "\n").collect()
        };
        let separated = |by: char| {
            let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let name = |name: &Option<String>| name.as_deref().map(quoted).unwrap_or_default();
            format!(
                "id{by}name\n{}",
                lines(&|(id, text)| format!("{id}{by}{}", name(text)))
            )
        };
        match name {
            "t.csv" => separated(',').into_bytes(),
            "t.tsv" => separated('\t').into_bytes(),
            "t.json" => {
                lines(&|(id, name)| serde_json::json!({"id": id, "name": name}).to_string())
                    .into_bytes()
            }
            _ => {
                let ids: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
                let names = rows.iter().map(|row| row.1.as_deref());
                let names: ArrayRef = Arc::new(names.collect::<StringArray>());
                let batch = RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap();
                let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
                writer.write(&batch).unwrap();
                writer.into_inner().unwrap()
            }
        }
    }

    fn rows() -> impl Strategy<Value = Vec<(i64, Option<String>)>> {
        let name = prop::option::of("[a-z][a-z,\"é]{0,4}");
        prop::collection::vec((any::<i64>(), name), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_table_has_its_rows_in_any_format(rows in rows()) {
            for name in &NAMES[..4] {
                let table = read_table(name, &content(name, &rows)).unwrap();
                prop_assert_eq!(table.rows.num_rows(), rows.len(), "{}", name);
                let ids = table.rows.column(0).as_primitive::<Int64Type>();
                let names = table.rows.column(1);
                for (row, (id, text)) in rows.iter().enumerate() {
                    prop_assert_eq!(ids.value(row), *id, "{}", name);
                    let found = names.is_valid(row).then(|| array_value_to_string(names, row));
                    prop_assert_eq!(&found.transpose().unwrap(), text, "{}", name);
                }
            }
        }

        #[test]
        fn a_damaged_table_is_refused_or_read_as_the_same_again(
            rows in rows(),
            from in prop::sample::select(&NAMES[..4]),
            name in prop::sample::select(&NAMES[..]),
            at in any::<prop::sample::Index>(),
            piece in prop::collection::vec(any::<u8>(), 0..3),
            removed in 0..9_usize,
        ) {
            let mut content = content(from, &rows);
            let at = at.index(content.len());
            let end = content.len().min(at + removed);
            content.splice(at..end, piece);
            match read_table(name, &content) {
                Err(reason) => prop_assert!(!reason.is_empty()),
                Ok(table) => {
                    let again = read_table(name, &content).unwrap();
                    prop_assert_eq!(&again.rows, &table.rows);
                    prop_assert_eq!(&again.digest, &table.digest);
                    let path = name.to_owned();
                    let planned = PlannedTable { path, table: table.clone(), reload: None };
                    let mut kept = KeptPipeline::read(&keep("text", &[planned], MAX_KEPT));
                    let kept = kept.tables.remove(name);
                    prop_assert_eq!(kept.map(|kept| kept.rows), Some(table.rows));
                }
            }
        }
    }
}
