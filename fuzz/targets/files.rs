//! Files as the source `files` finds them: compressions, their magic numbers, lines, and the files
//! of columns. The first byte chooses the name.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::document::from_edn;
use pseidon_fuzz::plan_document;

const NAMES: [&str; 12] = [
    "a.json",
    "a.json.gz",
    "a.json.zst",
    "a.json.bz2",
    "a.json.snappy",
    "a.csv",
    "a.txt",
    "a.parquet",
    "a.avro",
    "a.arrow",
    "a.json.xz",
    "a.json.lz4",
];

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let Some((first, content)) = data.split_first() else {
        return;
    };
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(name), content).expect("space");
    let file = format!(
        "{{in (files {{:path \"{name}\" :schema :infer}}) \
         pipeline (-> in (select \"*\") (stdout))}}"
    );
    let document = from_edn(&file).expect("the file is valid");
    let _ = plan_document(&document, &file, folder.path());
});
