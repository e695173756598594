//! What the state keeps of a plan, so that a later version of the pipeline can make it again after
//! a crash: the text of the pipeline and the tables of its `lookup`s.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_plan::{Plan, PlannedTable, Table};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The largest compressed table that is kept with a pipeline, in bytes. Larger ones have to be put
/// back by hand.
pub(crate) const MAX_KEPT: usize = 16 << 20;
/// The same for the logs of a template, of which each keeps its own.
pub(crate) const MAX_OF_LOG: usize = 256 << 10;

/// Tables by their paths, as in the pipeline file.
pub(crate) type Tables = BTreeMap<String, Table>;

/// The tables of a plan by their paths, as far as `is_wanted` returns true.
pub(crate) fn tables_of(plan: &Plan, is_wanted: impl Fn(&PlannedTable) -> bool) -> Tables {
    let wanted = plan.tables.iter().filter(|table| is_wanted(table));
    wanted
        .map(|table| (table.path.clone(), table.table.clone()))
        .collect()
}

/// A pipeline with the tables that it had.
#[derive(Debug)]
pub(crate) struct KeptPipeline {
    pub(crate) text: String,
    pub(crate) tables: Tables,
}

impl KeptPipeline {
    /// Reads what [`keep`] has written. A table that cannot be read is left out: then it has to be
    /// put back.
    pub(crate) fn read(kept: &str) -> KeptPipeline {
        let Some((text, tables)) = with_tables(kept) else {
            return KeptPipeline {
                text: kept.to_owned(),
                tables: Tables::new(),
            };
        };
        let tables = tables.iter().filter_map(|(path, table)| {
            let decoded = decode(table);
            if decoded.is_none() {
                tracing::warn!(table = path, "the table in the state is damaged");
            }
            Some((path.clone(), decoded?))
        });
        KeptPipeline {
            text,
            tables: tables.collect(),
        }
    }
}

/// The text and the tables, if there are any. No pipeline file is a JSON object with these keys.
fn with_tables(kept: &str) -> Option<(String, Map<String, Value>)> {
    let Value::Object(mut object) = serde_json::from_str(kept).ok()? else {
        return None;
    };
    let text = object.get("pipeline")?.as_str()?.to_owned();
    match object.remove("tables")? {
        Value::Object(tables) => Some((text, tables)),
        _ => None,
    }
}

/// The text of a pipeline with its tables, as one string. Tables whose compressed size is larger
/// than this, in bytes, are left out.
pub(crate) fn keep(text: &str, tables: &[PlannedTable], largest: usize) -> String {
    if tables.is_empty() {
        return text.to_owned();
    }
    let tables: Map<String, Value> = tables
        .iter()
        .filter_map(|PlannedTable { path, table, .. }| {
            Some((path.clone(), encode(largest, path, table)?))
        })
        .collect();
    json!({ "pipeline": text, "tables": tables }).to_string()
}

/// A table as its digest and its rows in Arrow's stream format, with the digest of that; `None` if
/// it is too large.
fn encode(largest: usize, path: &str, table: &Table) -> Option<Value> {
    let compressed = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
        .and_then(|options| options.try_with_compression(Some(CompressionType::ZSTD)));
    let written = compressed.and_then(|options| {
        let schema = table.rows.schema();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
        writer.write(&table.rows)?;
        writer.into_inner()
    });
    match written {
        Ok(bytes) if bytes.len() <= largest => {
            let (rows, sum) = (STANDARD.encode(&bytes), sum(&bytes));
            Some(json!({ "digest": table.digest, "rows": rows, "sum": sum }))
        }
        Ok(bytes) => {
            tracing::warn!(
                table = path,
                bytes = bytes.len(),
                largest,
                "this table is too large to be kept in the state; after a crash it has to be as it \
                 was"
            );
            None
        }
        Err(error) => {
            tracing::warn!(
                table = path,
                error = error.to_string(),
                "cannot keep this table in the state"
            );
            None
        }
    }
}

/// A table that [`encode`] has written. Its bytes are decoded only if they are the same: Arrow's
/// reader allocates what damaged bytes ask for.
fn decode(kept: &Value) -> Option<Table> {
    let digest = kept.get("digest")?.as_str()?.to_owned();
    let bytes = STANDARD.decode(kept.get("rows")?.as_str()?).ok()?;
    if kept.get("sum")?.as_str()? != sum(&bytes) {
        return None;
    }
    let reader = StreamReader::try_new(bytes.as_slice(), None).ok()?;
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().ok()?;
    let rows = concat_batches(&schema, &batches).ok()?;
    Some(Table { rows, digest })
}

/// The SHA-256 digest of a table's bytes, in hexadecimal digits.
fn sum(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_pipeline_is_read_with_its_tables(
            text in "(\\{|\"|\\PC){0,12}",
            tables in prop::collection::btree_map("(/|\\PC){0,5}", 0..50_i64, 1..4),
        ) {
            let tables = tables.into_iter().map(|(path, rows)| planned(&path, table(rows)));
            let tables: Vec<PlannedTable> = tables.collect();
            let kept = KeptPipeline::read(&keep(&text, &tables, MAX_KEPT));
            prop_assert_eq!(kept.text, text);
            prop_assert_eq!(kept.tables.len(), tables.len());
            for PlannedTable { path, table, .. } in &tables {
                prop_assert_eq!(&kept.tables[path].rows, &table.rows, "{}", path);
            }
        }

        #[test]
        fn a_damaged_table_is_left_out(
            at in any::<prop::sample::Index>(),
            other in any::<u8>(),
            rows in 0..20_i64,
        ) {
            let written = encode(MAX_KEPT, "a", &table(rows)).unwrap();
            let mut bytes = STANDARD.decode(written["rows"].as_str().unwrap()).unwrap();
            let at = at.index(bytes.len());
            let is_same = bytes[at] == other;
            bytes[at] = other;
            let mut damaged = written.clone();
            damaged["rows"] = STANDARD.encode(&bytes).into();
            let kept = json!({ "pipeline": "text", "tables": { "a": damaged } });
            let kept = KeptPipeline::read(&kept.to_string());
            prop_assert_eq!(kept.tables.len(), usize::from(is_same));
        }

        #[test]
        fn any_string_is_a_pipeline(
            kept in r#"\{("(pipeline|tables|a)":("[a-z]{0,3}"|\{"a":\{\}\}|1|null),?){0,3}\}?|\PC{0,9}"#,
        ) {
            let read = KeptPipeline::read(&kept);
            prop_assert!(read.tables.is_empty());
            prop_assert!(read.text == kept || kept.contains("\"pipeline\""), "{}", kept);
        }
    }

    fn table(rows: i64) -> Table {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(0..rows));
        let names = (0..rows).map(|id| (id % 3 > 0).then(|| format!("name {id}")));
        let names: ArrayRef = Arc::new(names.collect::<StringArray>());
        let columns = [("id", ids, false), ("name", names, true)];
        Table {
            rows: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
            digest: format!("digest of {rows}"),
        }
    }

    fn planned(path: &str, table: Table) -> PlannedTable {
        PlannedTable {
            path: path.to_owned(),
            table,
            reload: None,
        }
    }

    #[test]
    fn a_pipeline_is_read_with_its_tables() {
        let text = "{in (stdin) pipeline (-> in \"quoted\")}";
        let tables =
            [("a.csv", 0), ("dir/b.parquet", 1000)].map(|(path, rows)| planned(path, table(rows)));
        let kept = KeptPipeline::read(&keep(text, &tables, MAX_KEPT));
        assert_eq!(kept.text, text);
        assert_eq!(kept.tables.len(), 2);
        for PlannedTable { path, table, .. } in &tables {
            assert_eq!(kept.tables[path].rows, table.rows, "{path}");
            assert_eq!(kept.tables[path].digest, table.digest);
        }
    }

    #[test]
    fn a_pipeline_without_tables_is_its_text() {
        for text in [
            "{in (stdin) pipeline (-> in (drop))}",
            "[in]\nplugin = \"stdin\"",
            "",
            "{\"pipeline\": 1}",
            "{\"pipeline\": \"x\"}",
        ] {
            assert_eq!(keep(text, &[], MAX_KEPT), text);
            let kept = KeptPipeline::read(text);
            assert_eq!((kept.text.as_str(), kept.tables.len()), (text, 0));
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_is_left_out() {
        let kept = json!({ "pipeline": "text", "tables": {
            "no base64": { "digest": "d", "rows": "?" },
            "no stream": { "digest": "d", "rows": STANDARD.encode("rows") },
            "no digest": { "rows": "" },
        }});
        let kept = KeptPipeline::read(&kept.to_string());
        assert_eq!((kept.text.as_str(), kept.tables.len()), ("text", 0));
    }

    #[test]
    fn a_large_table_is_not_kept() {
        let tables = [planned("large", table(10_000)), planned("small", table(3))];
        let kept = KeptPipeline::read(&keep("text", &tables, 2000));
        assert_eq!(kept.tables.keys().collect::<Vec<_>>(), ["small"]);
    }
}
