//! `set`, `remove`, `rename`, and `select` with `*`: fields are changed, and the rest of a record
//! stays as it is.

use std::fs;

use crate::harness::output::{all_lines, files, lines, rows};
use crate::harness::{Random, Site};

/// Runs a flow over the records of one file, and returns the lines of the output, in the order of
/// the records.
fn output(site: &Site, records: &str, source: &str, chain: &str) -> Vec<String> {
    site.write("in/records.ndjson", records);
    let _ = fs::remove_dir_all(site.path("out"));
    let _ = fs::remove_dir_all(site.path(".pseidon"));
    site.write(
        "pipeline.edn",
        format!(
            r#"{{in (files {{:path "in/records.ndjson" {source}}})
                pipeline (-> in {chain} (files {{:path "out" :codec :json}}))}}"#
        ),
    );
    site.finish("pipeline.edn", 30);
    files(&site.path("out"))
        .iter()
        .flat_map(|path| lines(path))
        .collect()
}

#[test]
fn fields_are_changed_and_all_others_stay_byte_for_byte() {
    let site = Site::new("edits");
    let records = concat!(
        "{ \"type\" : \"click\", \"big\": 12345678901234567890123, \"f\": 1.50e+3, \"password\": \"x\" }\n",
        "{\"usr\":{\"name\":\"é\",\"email\":\"a@b\"},\"type\":null,\"password\":1,\"password\":2}\n",
    );
    let chain = r#"(set "kind = upper(type), usr.email = null, n = @offset = 0")
        (remove "password, nothing.there") (rename "usr as customer, big as more.big")"#;
    assert_eq!(
        output(&site, records, "", chain),
        [
            "{ \"type\" : \"click\", \"f\": 1.50e+3,\"kind\":\"CLICK\",\"customer\":{\"email\":null},\
             \"n\":true,\"more\":{\"big\":12345678901234567890123} }",
            "{\"customer\":{\"name\":\"é\",\"email\":null},\"type\":null,\"kind\":null,\"n\":false}",
        ]
    );
}

#[test]
fn later_stages_see_the_changed_fields() {
    let site = Site::new("edits-later");
    let records = (0..20)
        .map(|n| format!("{{\"n\":{n},\"user\":{{\"id\":\"u{n}\"}},\"x\":[{n}]}}\n"))
        .collect::<String>();
    let chain = r#"(set "even = n % 2 = 0, user.id = upper(user.id)") (where "even and n < 8")
        (rename "n as number") (where "number >= 2 and user.id <> 'U4'") (remove "even")"#;
    assert_eq!(
        output(&site, &records, "", chain),
        [
            r#"{"number":2,"user":{"id":"U2"},"x":[2]}"#,
            r#"{"number":6,"user":{"id":"U6"},"x":[6]}"#,
        ]
    );
    let chain = r#"(set "double = n * 2") (where "n in (3, 5)") (select "double, x[0] as first")"#;
    assert_eq!(
        output(&site, &records, "", chain),
        [r#"{"double":6,"first":3}"#, r#"{"double":10,"first":5}"#]
    );
    // The columns of a `select` are changed too.
    let chain =
        r#"(select "n, x") (set "m = n + 1") (remove "x") (rename "n as k") (where "k = 7")"#;
    assert_eq!(output(&site, &records, "", chain), [r#"{"k":7,"m":8}"#]);
}

#[test]
fn branches_may_change_different_fields() {
    let site = Site::new("edits-match");
    let records = "{\"n\":1,\"s\":\"a\"}\n{\"n\":2,\"s\":\"b\"}\n";
    // The topic of a file is its path.
    let chain =
        r##"(match #r"records" (-> (set "kind = 'x', m = n * 2") (remove "s"))) (where "n > 1")"##;
    assert_eq!(
        output(&site, records, "", chain),
        [r#"{"n":2,"kind":"x","m":4}"#]
    );
    let chain = r##"(match #r"other" (-> (set "kind = 'x'") (remove "s"))) (where "n > 1")"##;
    assert_eq!(output(&site, records, "", chain), [r#"{"n":2,"s":"b"}"#]);
}

#[test]
fn fields_of_other_formats_are_changed_as_columns() {
    let site = Site::new("edits-text");
    let chain = r#"(set "length = length(line)") (where "length > 2") (rename "line as text")"#;
    assert_eq!(
        output(&site, "abc\nab\n", ":format :txt", chain),
        [r#"{"text":"abc","length":3}"#]
    );
}

#[test]
fn a_star_stands_for_fields_that_are_not_known() {
    let site = Site::new("edits-star");
    let records = "{\"a\": 1,\"city\":\"oslo\",\"late\":{ }}\n{\"password\":\"x\"}\n";
    let chain = r#"(select "*, upper(city) as city, a as b, * except (password, a)")"#;
    assert_eq!(
        output(&site, records, "", chain),
        [
            r#"{"city":"OSLO","late":{ },"b":1}"#,
            r#"{"city":null,"b":null}"#
        ]
    );
}

#[test]
fn a_typed_file_has_the_columns_after_the_changes() {
    let site = Site::new("edits-typed");
    site.write(
        "in/a.ndjson",
        "{\"n\":1,\"s\":\"a\",\"t\":\"x\",\"unknown\":0}\n",
    );
    site.write(
        "pipeline.edn",
        r#"{in (files {:path "in/*.ndjson" :schema {:n :int64 :s :utf8 :t :utf8}})
            edited (set "m = n + 1, s = upper(s)")
            pipeline (-> in edited (remove "t") (rename "n as number")
                         (all (files {:path "out/parquet" :codec :parquet})
                              (files {:path "out/json/{s}" :codec :json})))}"#,
    );
    site.finish("pipeline.edn", 30);
    let row = rows(&files(&site.path("out/parquet"))[0]).remove(0);
    let row: Vec<String> = row
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(row, ["m=2", "number=1", "s=A"]);
    assert_eq!(
        all_lines(&site.path("out/json/A")),
        [r#"{"number":1,"s":"A","unknown":0,"m":2}"#]
    );
}

#[test]
fn records_that_cannot_be_changed_are_quarantined() {
    let site = Site::new("edits-bad");
    let records = "{\"u\":{\"a\":1}}\n{\"u\":\"text\"}\nno json\n{\"u\":{\"a\":0}}\n{\"u\":null}\n";
    let chain = r#"(set "u.b = 6 / u.a::int64")"#;
    assert_eq!(
        output(&site, records, "", chain),
        [r#"{"u":{"a":1,"b":6}}"#, r#"{"u":{"b":null}}"#]
    );
    let mut quarantined: Vec<(String, String)> = all_lines(&site.path("quarantine"))
        .iter()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let field = |name| row[name].as_str().expect("a string").to_owned();
            (field("record"), field("reason"))
        })
        .collect();
    quarantined.sort();
    assert_eq!(
        quarantined,
        [
            ("no json", "the record is not a JSON object"),
            (r#"{"u":"text"}"#, "`u` is a string; expected an object"),
            (r#"{"u":{"a":0}}"#, "division by zero"),
        ]
        .map(|(record, reason)| (record.to_owned(), reason.to_owned()))
    );
}

/// A random object, with keys that are repeated, escaped and missing.
fn some_record(random: &Random) -> String {
    let one = |of: &[&str]| of[random.of(0..of.len() as u64) as usize].to_owned();
    let space = one(&["", "", " "]);
    let entries = (0..random.of(0..7)).map(|_| {
        let key = one(&["a", "b", "c", "u", "u", "x", "d", r"\u0061", "other"]);
        let value = match key.as_str() {
            "d" => one(&[r#""text""#, "null"]),
            "u" | "x" => one(&[
                r#"{"b":"q","a":[1],"v":{"a":null,"z":0}}"#,
                r#"{ "v" : {} , "a":1.50}"#,
                "{}",
                "null",
                "\"s\"",
            ]),
            _ => one(&["1e3", r#""t\n""#, "null", r#"[1, {"a":2}]"#]),
        };
        format!("{space}\"{key}\":{value}{space}")
    });
    format!("{{{}}}\n", entries.collect::<Vec<_>>().join(","))
}

fn some_edit(random: &Random) -> String {
    let one = |of: &[&str]| of[random.of(0..of.len() as u64) as usize].to_owned();
    let field = || one(&["a", "b", "u.a", "u.b", "u.v.a", "x", "x.y"]);
    match random.of(0..8) {
        0..4 => {
            let to = if random.of(0..3) == 0 {
                "c".to_owned()
            } else {
                field()
            };
            let value = one(&["'k'", "c", "upper(d)", "12 / (@offset % 3 - 1)", "null"]);
            format!("(set \"{to} = {value}\")")
        }
        4..6 => format!("(remove \"{}\")", field()),
        _ => loop {
            let (from, to) = (field(), field());
            if !from.starts_with(&to) && !to.starts_with(&from) {
                break format!("(rename \"{from} as {to}\")");
            }
        },
    }
}

/// Edits that follow each other are made at once, if that is possible. With another stage between
/// them, they are made one by one.
#[test]
fn edits_in_a_row_are_what_they_are_one_by_one() {
    const CHAINS: u64 = 16;
    let site = Site::new("edits-in-a-row");
    let random = Random::new("edits-in-a-row");
    // A batch in which a record is invalid passes the stages one by one: most batches have few.
    for file in 0..60 {
        let records: String = (0..3).map(|_| some_record(&random)).collect();
        site.write(&format!("in/{file}.ndjson"), records);
    }
    let (mut stages, mut branches) = (String::new(), String::new());
    for chain in 0..CHAINS {
        let edits: Vec<_> = (0..random.of(2..5)).map(|_| some_edit(&random)).collect();
        for (kind, between) in [("row", " "), ("one", " (where \"true\") ")] {
            let name = |number| format!("{kind}{chain}-{number}");
            let names: Vec<_> = (0..edits.len()).map(name).collect();
            for (name, edit) in names.iter().zip(&edits) {
                stages.push_str(&format!("{name} {edit}\n"));
            }
            let path = format!("out/{kind}{chain}");
            let steps = names.join(between);
            branches.push_str(&format!(
                "(-> {steps} (files {{:path \"{path}\" :codec :json}}))\n"
            ));
        }
    }
    let pipeline =
        format!("{{in (files \"in/*.ndjson\")\n{stages}pipeline (-> in (all {branches}))}}");
    site.write("pipeline.edn", &pipeline);
    site.finish("pipeline.edn", 60);
    let mut count = 0;
    for chain in 0..CHAINS {
        let [row, one] = ["row", "one"].map(|kind| {
            let written = all_lines(&site.path(&format!("out/{kind}{chain}")));
            let stage = format!("\"stage\":\"{kind}{chain}-");
            let mut bad = all_lines(&site.path("out/quarantine"));
            bad.retain(|record| record.contains(&stage));
            let bad = bad.into_iter().map(|record| record.replace(&stage, ""));
            (written, bad.collect::<Vec<_>>())
        });
        assert_eq!(row, one, "chain {chain} of {pipeline}");
        count += row.0.len().min(row.1.len());
    }
    assert!(count > 0, "no chain has both valid and invalid records");
}

#[test]
fn each_stage_of_edits_in_a_row_can_be_observed() {
    let site = Site::new("edits-observed");
    site.write(
        "pipeline.edn",
        r#"{in (files "in/*.ndjson")
            typed (set "kind = upper(type)")
            reduced (remove "password")
            pipeline (-> in typed reduced (files {:path "out" :codec :json}))
            :tests [{:name "typed" :at typed :input [{:type "a" :password 1}]
                     :output [{:type "a" :password 1 :kind "A"}]}
                    {:name "reduced" :at reduced :input [{:type "a" :password 1}]
                     :output [{:type "a" :kind "A"}]}]}"#,
    );
    let output = site.pseidon().args(["test", "pipeline.edn"]).output();
    let output = output.expect("the binary can be started");
    assert!(output.status.success(), "{output:?}");
}
