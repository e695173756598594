//! `unnest`: one record for each element of a list, delivered exactly once.

use std::collections::BTreeMap;

use crate::harness::Site;
use crate::harness::output::{all_lines, hidden};

/// The output of a flow over one NDJSON file, and its log.
fn unnested(site: &Site, records: &str, options: &str, stages: &str) -> (Vec<String>, String) {
    site.write("in.ndjson", records);
    let flow = format!(r#"(-> (files {{:path "in.ndjson" {options}}}) {stages} (stdout))"#);
    let output = site.pseidon().args(["run", "-e", &flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{log}");
    let text = String::from_utf8(output.stdout).expect("text");
    (text.lines().map(str::to_owned).collect(), log)
}

const RECORDS: &str = concat!(
    "{\"id\":1, \"items\":[{\"sku\":\"a\",\"n\":1.50}, 12345678901234567890, null], \"x\" : true}\n",
    "{\"id\":2,\"items\":[]}\n{\"id\":3,\"items\":null}\n{\"id\":4}\n",
    "{\"id\":5,\"items\":\"a,b\"}\n{\"items\":[[7]]}\n",
);

#[test]
fn an_element_takes_the_place_of_the_list() {
    let site = Site::new("unnest-place");
    let (records, log) = unnested(&site, RECORDS, "", r#"(unnest "items")"#);
    assert_eq!(
        records,
        [
            r#"{"id":1, "items":{"sku":"a","n":1.50}, "x" : true}"#,
            r#"{"id":1, "items":12345678901234567890, "x" : true}"#,
            r#"{"id":1, "items":null, "x" : true}"#,
            r#"{"items":[7]}"#,
        ]
    );
    let reason = "stage=\"unnest\" count=1 reason=\"the value is not a list\"";
    assert!(log.contains(reason), "{log}");
}

#[test]
fn an_element_has_a_name_for_later_stages() {
    let site = Site::new("unnest-name");
    let stages = r#"(unnest "items as item") (where "item.sku = 'a' or item[0] > 5")"#;
    assert_eq!(
        unnested(&site, RECORDS, "", stages).0,
        [
            r#"{"id":1, "x" : true,"item":{"sku":"a","n":1.50}}"#,
            r#"{"item":[7]}"#,
        ]
    );
    let stages = format!("{stages} (select \"id, item.n * 2 as twice\")");
    assert_eq!(
        unnested(&site, RECORDS, "", &stages).0,
        [r#"{"id":1,"twice":3.0}"#, r#"{"id":null,"twice":null}"#]
    );
}

#[test]
fn typed_lists_and_columns() {
    let site = Site::new("unnest-typed");
    let records = "{\"o\":{\"id\":1,\"tags\":[\"a\",null,\"b\"]}}\n{\"o\":{\"id\":2}}\n{\"o\":{\"id\":3,\"tags\":[\"c\"]}}\n";
    let schema = ":schema {:o {:id :int64 :tags [:utf8]}}";
    let expected = [
        r#"{"id":1,"tag":"a"}"#,
        r#"{"id":1,"tag":null}"#,
        r#"{"id":1,"tag":"b"}"#,
        r#"{"id":3,"tag":"c"}"#,
    ];
    for stages in [
        r#"(select "o.id as id, o.tags as tag") (unnest "tag")"#,
        r#"(select "o.id as id, o.tags as tags") (unnest "tags as tag")"#,
        r#"(unnest "o.tags as tag") (select "o.id as id, tag")"#,
    ] {
        let (records, log) = unnested(&site, records, schema, stages);
        assert_eq!(records, expected, "{stages}\n{log}");
    }
    // Lists of lists.
    let (records, _) = unnested(
        &site,
        "{\"a\":[[1,2],[3]]}\n",
        ":schema {:a [[:int64]]}",
        r#"(select "a") (unnest "a as b") (unnest "b as c")"#,
    );
    assert_eq!(records, [r#"{"c":1}"#, r#"{"c":2}"#, r#"{"c":3}"#]);
}

const ORDERS: u64 = 20_000;

/// The records of one order have one position. Files that are full inside of it wait for its end,
/// and a run that is killed resumes behind whole orders.
#[test]
fn elements_are_delivered_once_under_kills() {
    let site = Site::new("unnest-kills");
    let orders: String = (0..ORDERS)
        .map(|id| {
            let items: Vec<String> = (0..id % 7).map(|n| format!("{{\"n\":{n}}}")).collect();
            format!("{{\"id\":{id},\"items\":[{}]}}\n", items.join(","))
        })
        .collect();
    site.write("in/orders.ndjson", orders);
    site.write(
        "pipeline.edn",
        r#"{:name "orders" :settings {:commit-interval "50ms"}
            in (files {:path "in/*.ndjson" :format "json"})
            pipeline (-> in (unnest "items as item") (files {:path "out/{item.n}" :codec :json :check-freq "10ms" :rollover {:records 100}}))}"#,
    );
    for commits in [1, 2, 3] {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", format!("committed:{commits}"));
        site.start(command).expect_death("committed", 60);
    }
    site.finish("pipeline.edn", 120);
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for line in all_lines(&site.path("out")) {
        *found.entry(line).or_default() += 1;
    }
    let expected: BTreeMap<String, u64> = (0..ORDERS)
        .flat_map(|id| (0..id % 7).map(move |n| format!("{{\"id\":{id},\"item\":{{\"n\":{n}}}}}")))
        .map(|line| (line, 1))
        .collect();
    assert!(
        found == expected,
        "{} of {} records",
        found.len(),
        expected.len()
    );
    assert!(hidden(&site.path("out")).is_empty());
}
