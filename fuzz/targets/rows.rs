//! Rows of the table of logs, as they are read and as they are stored, and Hive's schema files.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::parts;
use pseidon_mysql::LogRow;

const COLUMNS: [&str; 6] = [
    "log",
    "format",
    "output_format",
    "date_format",
    "hive_table_name",
    "hive_url",
];

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Ok(row) = LogRow::from_text(&text) {
        assert_eq!(LogRow::from_text(&row.to_text()).as_ref(), Ok(&row));
        let _ = row.plan();
    }
    let values = parts(data).map(|value| Some(String::from_utf8_lossy(value).into_owned()));
    let columns = COLUMNS.iter().map(|name| (*name).to_owned()).zip(values);
    let _ = LogRow::new(columns.collect()).plan();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("d.t.edn"), data).expect("space");
    if let Ok(schema) = pseidon_hive::read_file(folder.path(), "d.t") {
        assert!(schema.is_some_and(|schema| !schema.fields().is_empty()));
    }
});
