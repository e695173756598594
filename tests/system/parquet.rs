//! Parquet as a source: columns from the file's pages to the sink.

use std::fs;

use crate::column_files::{FIELDS, KillTest, place, printed, records, run, written};
use crate::harness::output::{all_lines, files, rows};
use crate::harness::{Site, wait_until};

/// Writes records as a Parquet file of small row groups.
fn write_parquet(site: &Site, path: &str, schema: &str, records: &str) {
    let options = r#":codec :parquet :row-group "16KB""#;
    place(site, written(site, schema, records, options), path);
}

const SCHEMA: &str = ":id :int64 :name :utf8 :price :float64 :at :timestamp_ms \
                      :u {:x :int32} :tags [:utf8]";
const RECORDS: &str = r#"{"id":1,"name":"a","price":1.5,"at":"2024-05-01T10:00:00Z","u":{"x":7},"tags":["p","q"]}
{"id":2,"name":null,"price":50.5,"at":null,"u":{"x":null},"tags":[]}
{"id":9007199254740993,"name":"ü \"q\"","price":-0.25,"at":"1969-12-31T23:59:59.999Z","u":null,"tags":null}
"#;

#[test]
fn all_fields_are_known_and_written_in_each_format() {
    let site = Site::new("parquet-fields");
    write_parquet(&site, "a.parquet", SCHEMA, RECORDS);
    let expected = [
        r#"{"id":1,"name":"a","price":1.5,"at":"2024-05-01T10:00:00.000Z","u":{"x":7},"tags":["p","q"]}"#,
        r#"{"id":2,"name":null,"price":50.5,"at":null,"u":{"x":null},"tags":[]}"#,
        r#"{"id":9007199254740993,"name":"ü \"q\"","price":-0.25,"at":"1969-12-31T23:59:59.999Z","u":null,"tags":null}"#,
    ];
    assert_eq!(
        printed(&site, r#"(-> (files "a.parquet") (stdout))"#),
        expected
    );
    let flow = r#"(-> (files "a.parquet") (select "id, name") (stdout {:format :csv}))"#;
    let csv = ["id,name", "1,a", "2,", "9007199254740993,\"ü \"\"q\"\"\""];
    assert_eq!(printed(&site, flow), csv);
    let flow =
        r#"(-> (files "a.parquet") (where "id < 2") (files {:path "copy" :codec :parquet}))"#;
    printed(&site, flow);
    let [copy] = &files(&site.path("copy"))[..] else {
        panic!("one file is written");
    };
    let copied = rows(copy);
    assert_eq!(copied.len(), 1);
    assert_eq!(copied[0]["tags"], "[p, q]");
}

#[test]
fn stages_use_columns_and_change_them() {
    let site = Site::new("parquet-stages");
    write_parquet(&site, "in/a.parquet", SCHEMA, RECORDS);
    write_parquet(
        &site,
        "in/b.parquet",
        ":id :int64 :name :utf8",
        "{\"id\":4,\"name\":\"b\"}\n",
    );
    site.write("names.ndjson", "{\"name\":\"a\",\"long\":\"alpha\"}\n");
    let flow = r#"(-> (files "in/a.parquet") (where "price > 1 and u.x is not null")
        (lookup "names.ndjson" "name" "long") (set "price = price * 2") (remove "at, u")
        (unnest "tags") (stdout))"#;
    let expected = [
        r#"{"id":1,"name":"a","price":3.0,"tags":"p","long":"alpha"}"#,
        r#"{"id":1,"name":"a","price":3.0,"tags":"q","long":"alpha"}"#,
    ];
    assert_eq!(printed(&site, flow), expected);
    // A file without a column that the first one has.
    let flow = r#"(-> (files "in/*.parquet") (select "id, price, tags[1] as second, @offset as row") (stdout))"#;
    let mut found = printed(&site, flow);
    found.sort();
    let expected = [
        r#"{"id":1,"price":1.5,"second":"q","row":0}"#,
        r#"{"id":2,"price":50.5,"second":null,"row":1}"#,
        r#"{"id":4,"price":null,"second":null,"row":0}"#,
        r#"{"id":9007199254740993,"price":-0.25,"second":null,"row":2}"#,
    ];
    assert_eq!(found, expected);
    // As a table of `lookup`.
    site.write("ids.ndjson", "{\"id\":2}\n{\"id\":3}\n");
    let flow = r#"(-> (files "ids.ndjson") (lookup "in/a.parquet" "id" "price") (stdout))"#;
    let expected = [r#"{"id":2,"price":50.5}"#, r#"{"id":3,"price":null}"#];
    assert_eq!(printed(&site, flow), expected);
}

#[test]
fn a_value_that_does_not_fit_is_quarantined_as_json() {
    let site = Site::new("parquet-invalid");
    write_parquet(
        &site,
        "a.parquet",
        ":id :int64 :name :utf8",
        "{\"id\":1,\"name\":\"a\"}\n{\"id\":3000000000,\"name\":\"b\"}\n",
    );
    site.write(
        "pipeline.edn",
        r#"{:name "invalid"
            in (files {:path "a.parquet" :schema {:id :int32 :name :utf8} })
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("out")), [r#"{"id":1,"name":"a"}"#]);
    let bad = all_lines(&site.path("quarantine"));
    assert_eq!(bad.len(), 1, "{bad:?}");
    let bad: serde_json::Value = serde_json::from_str(&bad[0]).expect("JSON");
    assert_eq!(bad["reason"], "`id` is not int32: 3000000000");
    assert_eq!(bad["record"], r#"{"id":3000000000,"name":"b"}"#);
    assert_eq!(bad["position"], 1);
}

/// The schema is that of the first file.
#[test]
fn values_and_fields_that_only_a_later_file_has_are_reported() {
    let site = Site::new("parquet-later");
    write_parquet(&site, "in/a.parquet", ":id :int64", "{\"id\":1}\n");
    let later = "{\"id\":1.5,\"late\":\"x\"}\n{\"id\":2,\"late\":\"y\"}\n";
    write_parquet(&site, "in/b.parquet", ":id :float64 :late :utf8", later);
    let (mut lines, log, code) = run(&site, r#"(-> (files "in/*.parquet") (stdout))"#);
    lines.sort();
    assert_eq!(
        (code, &lines[..]),
        (Some(0), &["{\"id\":1}".into(), "{\"id\":2}".into()][..])
    );
    assert!(log.contains("reason=\"`id` is not int64: 1.5\""), "{log}");
    let reported = "the inferred schema does not have stage=\"files\" records=1 fields=\"late\"";
    assert!(log.contains(reported), "{log}");
    let (_, log, _) = run(
        &site,
        r#"(-> (files "in/*.parquet") (select "id") (stdout))"#,
    );
    assert!(!log.contains("the inferred schema"), "{log}");
}

#[test]
fn a_text_that_becomes_json_adds_no_field() {
    let site = Site::new("parquet-json");
    let texts = r#"{"x":"1,\"admin\":true"}
{"x":"abc"}
{"x":""}
{"x":"{\"y\": [1.50]}"}
"#;
    write_parquet(&site, "a.parquet", ":x :utf8", texts);
    let flow = r#"(-> (files {:path "a.parquet" :schema {:x :json}}) (stdout))"#;
    let (lines, log, code) = run(&site, flow);
    assert_eq!(
        (code, &lines[..]),
        (Some(0), &[r#"{"x":{"y": [1.50]}}"#.to_owned()][..])
    );
    assert!(log.contains("dropped=3"), "{log}");
}

#[test]
fn a_damaged_file_keeps_no_other_from_being_read() {
    let site = Site::new("parquet-damaged");
    for name in ["a", "b", "c"] {
        let record = format!("{{\"id\":1,\"name\":\"{name}\"}}\n");
        write_parquet(
            &site,
            &format!("in/{name}.parquet"),
            ":id :int64 :name :utf8",
            &record,
        );
    }
    let whole = fs::read(site.path("in/b.parquet")).expect("a file");
    site.write("in/b.parquet", &whole[..whole.len() - 1]);
    site.write("in/d.parquet", "{\"id\":1}\n{\"id\":2}\n");
    let flow = r#"(-> (files "in/*.parquet") (select "name") (stdout))"#;
    let (mut lines, log, code) = run(&site, flow);
    lines.sort();
    assert_eq!(lines, [r#"{"name":"a"}"#, r#"{"name":"c"}"#]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("in/b.parquet"), "{log}");
    assert!(log.contains("it has no end"), "{log}");
    assert!(!log.contains("were read"), "{log}");
    assert!(log.contains("and 1 more cannot be read"), "{log}");
}

#[test]
fn what_cannot_be_read_is_an_error_of_the_file() {
    let site = Site::new("parquet-errors");
    write_parquet(&site, "a.parquet", SCHEMA, RECORDS);
    for (flow, reason) in [
        (
            r#"(-> (stdin {:format "parquet"}) (stdout))"#,
            "this source has no parquet records",
        ),
        (
            r#"(-> (files {:path "a.parquet" :compression :gzip}) (stdout))"#,
            "leave out :compression",
        ),
        (
            r#"(-> (files "a.parquet") (where "pric > 1") (stdout))"#,
            "did you mean `price`",
        ),
        (
            r#"(-> (files "none.parquet") (stdout))"#,
            "file not found: none.parquet",
        ),
        (
            r#"(-> (files {:path "a.parquet" :format "parquet:x=1"}) (stdout))"#,
            "parquet has no settings",
        ),
        (r#"(-> (files "a.parquet") (stdout {:format :txt}))"#, "txt"),
    ] {
        let (_, log, code) = run(&site, flow);
        assert_eq!(code, Some(2), "{flow}: {log}");
        assert!(log.contains(reason), "{flow}: {log}");
    }
}

/// The records that are read while runs are killed.
const COUNT: u64 = 100_000;

const KILL_TEST: KillTest<'static> = KillTest {
    extension: "parquet",
    count: COUNT,
    used: 0..COUNT,
    write: &|site, path, records| write_parquet(site, path, FIELDS, records),
};

#[test]
fn files_are_read_once() {
    KILL_TEST.read_once("parquet-kills");
}

#[test]
fn files_are_read_once_if_groups_are_left_out() {
    let some = KillTest {
        count: 2 * COUNT,
        used: 30_000..170_000,
        ..KILL_TEST
    };
    some.read_once("parquet-groups-kills");
}

/// The rows at the end of the file are not read, and yet the file is done.
#[test]
fn groups_without_a_used_row_are_not_read() {
    let site = Site::new("parquet-groups");
    write_parquet(&site, "in/a.parquet", FIELDS, &records(0..20_000));
    site.write(
        "pipeline.edn",
        r#"{:name "groups" in (files "in/*.parquet")
            pipeline (-> in (where "id between 9000 and 9009") (files {:path "out" :codec :json}))}"#,
    );
    let expected: Vec<String> = records(9000..9010).lines().map(str::to_owned).collect();
    for is_first in [true, false] {
        let mut pseidon = site.run("pipeline.edn");
        pseidon.expect_exit(0, 60);
        let mut found = all_lines(&site.path("out"));
        found.sort();
        assert_eq!(found, expected);
        let log = pseidon.log();
        assert!(!log.contains("20000"), "{log}");
        assert_eq!(log.contains("nothing is new"), !is_first, "{log}");
    }
}

#[test]
fn followed_files_are_read_once() {
    KILL_TEST.follow("parquet-follow", write_late_files);
}

/// Writes a file in two parts, and another one between them. Waits until both are read.
fn write_late_files(site: &Site, expected: &mut Vec<String>) {
    let (late, before) = ("{\"id\":0,\"s\":\"late\"}".to_owned(), expected.len());
    write_parquet(site, "late.parquet", FIELDS, &format!("{late}\n"));
    let whole = fs::read(site.path("late.parquet")).expect("a file");
    site.write("in/late.parquet", &whole[..whole.len() - 4]);
    write_parquet(
        site,
        "in/next.parquet",
        FIELDS,
        "{\"id\":0,\"s\":\"next\"}\n",
    );
    expected.push("{\"id\":0,\"s\":\"next\"}".to_owned());
    wait_until("the next file is read", 60, || {
        all_lines(&site.path("out")).len() > before
    });
    site.write("in/late.parquet", &whole);
    expected.push(late);
    expected.sort();
    wait_until("the late file is read", 60, || {
        all_lines(&site.path("out")).len() >= expected.len()
    });
}

#[test]
fn a_rewritten_file_is_another_one() {
    let site = Site::new("parquet-rewritten");
    let names = ":id :int64 :name :utf8";
    write_parquet(&site, "in/a.parquet", names, "{\"id\":1,\"name\":\"a\"}\n");
    site.write(
        "pipeline.edn",
        r#"{:name "rewritten" in (files "in/*.parquet")
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    let mut expected = vec![r#"{"id":1,"name":"a"}"#];
    for (record, is_new) in [
        (r#"{"id":1,"name":"a"}"#, false),
        (r#"{"id":2,"name":"b"}"#, true),
        (r#"{"id":3,"name":"longer"}"#, true),
    ] {
        site.run("pipeline.edn").expect_exit(0, 60);
        write_parquet(&site, "b.parquet", names, &format!("{record}\n"));
        // The inode stays, as with `cp`.
        let content = fs::read(site.path("b.parquet")).expect("a file");
        if is_new {
            site.write("in/a.parquet", content);
            expected.push(record);
        }
        site.run("pipeline.edn").expect_exit(0, 60);
        assert_eq!(all_lines(&site.path("out")), expected);
    }
}

#[test]
fn the_records_of_tests_are_json() {
    let site = Site::new("parquet-tests");
    write_parquet(&site, "a.parquet", SCHEMA, RECORDS);
    site.write(
        "pipeline.edn",
        r#"{:name "tests" in (files "a.parquet") cheap (where "price < 10")
            pipeline (-> in cheap (select "id, u.x as x") (files {:path "out" :codec :json}))
            :tests [{:name "prices" :at cheap
                     :input [{:id 1 :price 1.5} {:id 2 :price 20.0}]
                     :output [{:id 1 :price 1.5}]}]}"#,
    );
    let output = site.pseidon().args(["test", "pipeline.edn"]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{log}{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
