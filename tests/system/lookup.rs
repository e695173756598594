//! `lookup`: fields from the row of a small file that has a record's key.

use std::collections::HashSet;
use std::fs;

use crate::harness::Site;
use crate::harness::output::{all_lines, files, hidden};

/// Runs a flow over one NDJSON file. Returns what it prints, its log, and whether it succeeded.
fn run(site: &Site, records: &str, options: &str, stages: &str) -> (Vec<String>, String, bool) {
    site.write("in.ndjson", records);
    let flow = format!(r#"(-> (files {{:path "in.ndjson" {options}}}) {stages} (stdout))"#);
    let output = site.pseidon().args(["run", "-e", &flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8(output.stderr).expect("text");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(str::to_owned).collect();
    (lines, log, output.status.success())
}

fn found(site: &Site, records: &str, options: &str, stages: &str) -> Vec<String> {
    let (lines, log, is_done) = run(site, records, options, stages);
    assert!(is_done, "{log}");
    lines
}

const COUNTRIES: &str = "\
code,name,region,calling code,area
no,Norway,Europe,0047,385207.5
pe,\"Peru, \"\"PE\"\"\",Americas,0051,
,nowhere,,,1
";

#[test]
fn fields_are_added_and_all_others_are_left_as_they_are() {
    let site = Site::new("lookup-fields");
    site.write("countries.csv", COUNTRIES);
    let records = concat!(
        "{\"id\":1, \"country\":\"no\", \"x\" : 1.50}\n",
        "{\"id\":2,\"country\":\"pe\",\"region\":\"old\"}\n",
        "{\"id\":3,\"country\":\"xx\"}\n{\"id\":4,\"country\":null}\n{\"id\":5}\n",
    );
    let stage = r#"(lookup "countries.csv" "code = country" "name as country_name, region, area")"#;
    let expected = [
        r#"{"id":1, "country":"no", "x" : 1.50,"country_name":"Norway","region":"Europe","area":385207.5}"#,
        r#"{"id":2,"country":"pe","region":"Americas","country_name":"Peru, \"PE\"","area":null}"#,
        r#"{"id":3,"country":"xx","country_name":null,"region":null,"area":null}"#,
        r#"{"id":4,"country":null,"country_name":null,"region":null,"area":null}"#,
        r#"{"id":5,"country_name":null,"region":null,"area":null}"#,
    ];
    assert_eq!(found(&site, records, "", stage), expected);
    // The sides of the condition may be in either order.
    let turned = stage.replace("code = country", "country = code");
    assert_eq!(found(&site, records, "", &turned), expected);
}

#[test]
fn keys_are_expressions_and_later_stages_use_the_fields() {
    let site = Site::new("lookup-keys");
    site.write("countries.csv", COUNTRIES);
    let records = "{\"o\":{\"c\":\"NO\"}}\n{\"o\":{\"c\":\"pe\"}}\n{\"o\":{}}\n";
    let stages = r#"(lookup "countries.csv" "code = lower(o.c)" "* except (area)")
        (where "region <> 'Americas'") (select "upper(name) as name, \"calling code\" as calling")"#;
    assert_eq!(
        found(&site, records, "", stages),
        [r#"{"name":"NORWAY","calling":"0047"}"#]
    );
}

#[test]
fn a_table_can_be_used_several_times() {
    let site = Site::new("lookup-twice");
    site.write("countries.csv", COUNTRIES);
    let records = "{\"from\":\"no\",\"to\":\"pe\"}\n";
    let stages = r#"(lookup "countries.csv" "code = from" "name as from_name")
        (lookup "countries.csv" "code = to" "name as to_name")"#;
    let expected = [r#"{"from":"no","to":"pe","from_name":"Norway","to_name":"Peru, \"PE\""}"#];
    assert_eq!(found(&site, records, "", stages), expected);
    let stages = format!("(select \"from, to\") {stages}");
    assert_eq!(found(&site, records, "", &stages), expected);
}

#[test]
fn numbers_are_found_by_their_value_in_json_and_in_columns() {
    let site = Site::new("lookup-numbers");
    let table =
        "{\"id\":7,\"tags\":[\"a\",\"b\"],\"at\":{\"x\":1}}\n{\"id\":12345678901234567890}\n";
    site.write("table.json", table);
    let records = "{\"id\":7}\n{\"id\":\"7\"}\n{\"id\":12345678901234567890}\n{\"id\":7.0}\n";
    let stage = r#"(lookup "table.json" "id" "tags, at")"#;
    let expected = [
        r#"{"id":7,"tags":["a","b"],"at":{"x":1}}"#,
        r#"{"id":"7","tags":["a","b"],"at":{"x":1}}"#,
        r#"{"id":12345678901234567890,"tags":null,"at":null}"#,
        r#"{"id":7.0,"tags":["a","b"],"at":{"x":1}}"#,
    ];
    assert_eq!(found(&site, records, "", stage), expected);
    let schema = ":schema {:id :int64}";
    assert_eq!(found(&site, "{\"id\":7}\n", schema, stage), expected[..1]);
    let stages = format!("(select \"id::int64 as id\") {stage}");
    assert_eq!(found(&site, "{\"id\":7}\n", "", &stages), expected[..1]);
}

#[test]
fn a_column_of_several_types_has_its_values() {
    let site = Site::new("lookup-mixed");
    let table = concat!(
        r#"{"code":"n\u006f","name":"Norway","more":{"a":[1.50]},"big":9007199254740993}"#,
        "\n",
        r#"{"code":47,"name":5,"more":true,"big":"x"}"#,
        "\n",
    );
    site.write("table.ndjson", table);
    let records = "{\"c\":\"no\"}\n{\"c\":47}\n{\"c\":\"47\"}\n";
    let stage = r#"(lookup "table.ndjson" "code = c" "name, more, big")"#;
    let expected = [
        r#"{"c":"no","name":"Norway","more":{"a":[1.50]},"big":9007199254740993}"#,
        r#"{"c":47,"name":5,"more":true,"big":"x"}"#,
        r#"{"c":"47","name":5,"more":true,"big":"x"}"#,
    ];
    assert_eq!(found(&site, records, "", stage), expected);
    // A later stage has them as fields without a type.
    let stages = format!(r#"{stage} (where "name = 'Norway'") (select "upper(name) as name")"#);
    assert_eq!(found(&site, records, "", &stages), [r#"{"name":"NORWAY"}"#]);
}

#[test]
fn tables_that_cannot_be_used_are_errors() {
    let site = Site::new("lookup-errors");
    site.write("countries.csv", COUNTRIES);
    site.write("twice.csv", "code,name\nno,Norway\npe,Peru\nno,Noreg\n");
    site.write("empty.csv", "code,name\n");
    let cases = [
        (r#""none.csv" "id" "name""#, "file not found: none.csv"),
        (
            r#""empty.csv" "code" "name""#,
            "no records yet in empty.csv",
        ),
        (r#""twice.csv" "code" "name""#, "two rows with the key `no`"),
        (
            r#""twice.csv" "code" "name""#,
            "rows 1 and 3 of `twice.csv`",
        ),
        (
            r#""countries.csv" "cod = country" "name""#,
            "did you mean `code`?",
        ),
        (
            r#""countries.csv" "code = country" "zzz""#,
            "its columns are `code`, `name`, `region`, `calling code`, `area`",
        ),
        (
            r#""countries.csv" "code > country" "name""#,
            "expected `column = key`",
        ),
        (
            r#""countries.csv" "code = country" "upper(name)""#,
            "compute with it in a `set`",
        ),
        (
            r#""countries.csv" "code" "name, region as name""#,
            "`name` is changed twice",
        ),
        (
            r#""countries.csv" "code" "name" {:reload "1s"}"#,
            "`:reload` requires a pipeline file",
        ),
    ];
    for (arguments, expected) in cases {
        let stage = format!("(lookup {arguments})");
        let (_, log, is_done) = run(&site, "{}\n", "", &stage);
        assert!(!is_done && log.contains(expected), "{arguments}: {log}");
    }
}

#[test]
fn a_crash_with_another_table_is_one_with_another_plan() {
    crash_with_another_table("lookup-crash", "t.csv", |site, table| {
        site.write("t.csv", table);
    });
}

#[test]
fn a_crash_with_another_table_of_columns_is_one_with_another_plan() {
    crash_with_another_table("lookup-crash-parquet", "t.parquet", |site, table| {
        site.write("table.csv", table);
        let flow = r#"(-> (files {:path "table.csv" :schema {:id :int64 :v :int64}})
            (files {:path "written" :codec :parquet}))"#;
        let output = site.pseidon().args(["run", "-e", flow]).output();
        let output = output.expect("the binary can be started");
        assert!(output.status.success(), "{output:?}");
        let written = files(&site.path("written"));
        fs::rename(&written[0], site.path("t.parquet")).expect("a file");
    });
}

fn crash_with_another_table(test: &str, file: &str, write: fn(&Site, String)) {
    let site = Site::new(test);
    const RECORDS: u64 = 50_000;
    // A lane with few records holds them while the other one commits.
    let lane = |id: u64| {
        if id.is_multiple_of(100) {
            "few"
        } else {
            "many"
        }
    };
    let record = |id: u64| format!("{{\"id\":{id},\"lane\":\"{}\"", lane(id));
    let records: Vec<String> = (0..RECORDS).map(|id| record(id) + "}\n").collect();
    site.write("in.ndjson", records.concat());
    let table = |version: u64| {
        let rows = (0..RECORDS).map(|id| format!("{id},{version}\n"));
        format!("id,v\n{}", rows.collect::<String>())
    };
    write(&site, table(1));
    site.write(
        "pipeline.edn",
        r#"{:name "lookup" :settings {:commit-interval "20ms"}
            in (files "in.ndjson")
            pipeline (-> in (lookup "FILE" "id" "v")
                         (files {:path "out/{lane}" :check-freq "10ms" :rollover {:size "20KB"}}))}"#
            .replace("FILE", file),
    );
    let kill = || {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", "committed:2");
        site.start(command).expect_death("committed", 60);
    };
    kill();
    // What was read and not committed gets the values that it had; the state has that table.
    write(&site, table(2));
    site.finish("pipeline.edn", 60);
    let lines = all_lines(&site.path("out"));
    let old = (0..RECORDS).map(|id| record(id) + ",\"v\":1}");
    let new = (0..RECORDS).map(|id| record(id) + ",\"v\":2}");
    let found: HashSet<&str> = lines.iter().map(String::as_str).collect();
    let versions: Vec<(bool, bool)> = old
        .zip(new)
        .map(|(old, new)| (found.contains(&*old), found.contains(&*new)))
        .collect();
    assert!(versions.iter().all(|(old, new)| old != new), "each once");
    assert!(
        versions.is_sorted_by_key(|(old, _)| !old),
        "first the old table"
    );
    assert_eq!(lines.len() as u64, RECORDS);
    assert!(hidden(&site.path("out")).is_empty());

    // After a run that has committed everything, any table will do.
    write(&site, table(3));
    fs::OpenOptions::new()
        .append(true)
        .open(site.path("in.ndjson"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"id\":7,\"lane\":\"few\"}\n"))
        .expect("appended");
    site.finish("pipeline.edn", 60);
    let all = all_lines(&site.path("out"));
    assert_eq!(all.len() as u64, RECORDS + 1);
    assert!(all.contains(&r#"{"id":7,"lane":"few","v":3}"#.to_owned()));
}
