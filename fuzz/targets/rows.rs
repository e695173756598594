//! Rows of the table of logs, as they are read and as they are stored, and Hive's schema files.
//!
//! The module of the program that stores them is compiled here, since no other crate can name what
//! is in a program.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{parts, plan_log, run};
use pseidon_logs::Log;
use pseidon_mysql::LogRow;

use self::stored::{print_plan, print_rows, read_plan, read_rows};

#[path = "../../src/supervisor/stored.rs"]
mod stored;

/// A template that uses what is derived of a row.
const TEMPLATE: &str = r#"{in (mysql-logs {:url "mysql://a/b" :group "etl" :kafka {:brokers "b:1"}})
    written (select "${log:write}")
    out (files {:path "/tmp/a/${log:log}/${log:date}" :time "${log:time}"
                :codec "${log:codec}" :compression "${log:compression}"})
    pipeline (-> in written out)}"#;
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
    let row = LogRow::new(columns.collect());
    let _ = row.plan();
    if let Ok(log) = Log::without_consumer(&row) {
        match plan_log(TEMPLATE, log) {
            Ok(plan) => run(&plan, [b"1\ta".as_slice(), b"{\"a\":1}", b""]),
            Err(errors) => assert!(!errors.is_empty()),
        }
    }
    if let Some(rows) = read_rows(&text) {
        assert_eq!(read_rows(&print_rows(&rows)), Some(rows));
    }
    if let Some((row, pipeline)) = read_plan(&text) {
        let printed = print_plan(&row.to_text(), &pipeline);
        assert_eq!(read_plan(&printed), Some((row, pipeline)));
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("d.t.edn"), data).expect("space");
    if let Ok(schema) = pseidon_hive::read_file(folder.path(), "d.t") {
        assert!(schema.is_some_and(|schema| !schema.fields().is_empty()));
    }
});
