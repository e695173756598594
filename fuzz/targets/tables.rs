//! Tables of `lookup`s. The first byte chooses the name of the file.
//!
//! The modules of the program that read and keep tables are compiled here, since no other crate can
//! name what is in a program.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::Diagnostic;
use pseidon_fuzz::{plan_with_table, registry, run, setup};
use pseidon_plan::PlannedTable;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::Format;
use pseidon_plugin::registry::PluginRegistry;
use pseidon_plugin::source::Source;

use self::kept::{KeptPipeline, MAX_KEPT, MAX_OF_LOG, keep, tables_of};

#[path = "../../src/load/kept.rs"]
mod kept;
#[path = "../../src/load/table.rs"]
mod table;

static REGISTRY: LazyLock<PluginRegistry> = LazyLock::new(registry);

const NAMES: [&str; 7] = [
    "t.csv",
    "t.tsv",
    "t.json",
    "t.parquet",
    "t.avro",
    "t.arrow",
    "t.csv.gz",
];

fn as_sentence(error: &Diagnostic) -> String {
    error.message.clone()
}

/// Records of a source, as the program reads them.
fn sample(
    source: &dyn Source,
    format: &dyn Format,
    _settings: &str,
    base: &Path,
    count: usize,
) -> Result<Vec<Payloads>, String> {
    let samples = source.sample(&setup(base, format, source), count);
    samples.map_err(|error| error.to_string())
}

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let Some((first, content)) = data.split_first() else {
        return;
    };
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(name), content).expect("space");
    let read = || table::read(name, &REGISTRY, folder.path());
    let Ok(table) = read() else { return };
    let again = read().expect("the file is the same");
    assert_eq!((&again.rows, &again.digest), (&table.rows, &table.digest));
    let file = format!(
        "{{in (stdin) with (lookup \"{name}\" \"id = id\" \"name as other\") \
         pipeline (-> in with (stdout))}}"
    );
    if let Ok(plan) = plan_with_table(&file, &table) {
        assert_eq!(tables_of(&plan, |_| true).len(), 1);
        run(&plan, [b"{\"id\":1}".as_slice(), b"{\"id\":\"a\"}", b"{}"]);
    }
    let planned = PlannedTable {
        path: name.to_owned(),
        table,
        reload: None,
    };
    let planned = [planned];
    for largest in [MAX_KEPT, MAX_OF_LOG] {
        let kept = KeptPipeline::read(&keep("text", &planned, largest));
        assert_eq!(kept.text, "text");
        // A table that is too large is left out.
        let kept = kept.tables.get(name).map(|kept| &kept.rows);
        assert!(kept.is_none_or(|rows| *rows == planned[0].table.rows));
    }
});
