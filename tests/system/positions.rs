//! `pseidon offsets`: positions that are shown while the pipeline is stopped and while it runs.

use std::process::Output;

use serde_json::Value;

use crate::golden::Goldens;
use crate::harness::pipeline::{Membership, Store, kafka_source, pipeline, settings};
use crate::harness::topics::{create, produce};
use crate::harness::{Site, wait_until};
use crate::kafka_source::numbers;
use crate::logs::gzip;

/// Runs `pseidon offsets pipeline.edn` with further arguments.
fn offsets(site: &Site, arguments: &[&str]) -> Output {
    let command = [&["offsets", "pipeline.edn"], arguments].concat();
    site.pseidon()
        .args(command)
        .output()
        .expect("the binary starts")
}

/// The positions as JSON.
pub(crate) fn positions(site: &Site) -> Value {
    let output = offsets(site, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The split of this name.
pub(crate) fn split<'a>(state: &'a Value, name: &str) -> &'a Value {
    let splits = state["splits"].as_array().expect("a list");
    let found = splits.iter().find(|split| split["split"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {state:#}"))
}

/// What a command printed, without the time at which the state was written.
pub(crate) fn without_time(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).expect("it prints UTF-8");
    let line = |line: &str| match line.split_once(", last written ") {
        Some((before, after)) => {
            let rest = after.split_once('Z').map_or("", |(_, rest)| rest);
            format!("{before}, last written TIME{rest}\n")
        }
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    let said = String::from_utf8(output.stderr.clone()).expect("it prints UTF-8");
    format!("{text}--- standard error\n{said}")
}

const FILES: &str = r#"{:name "shop" in (files "in/*")
    pipeline (-> in (files {:path "out" :codec :json}))}"#;

#[test]
fn files_are_listed_by_their_paths() {
    let site = Site::new("offsets-files");
    let mut goldens = Goldens::default();
    site.write("pipeline.edn", FILES);
    site.write("in/a.ndjson", "{\"a\":1}\n{\"a\":2}\n");
    site.write("in/b.ndjson.gz", gzip("{\"b\":1}\n{\"b\":2}\n"));
    let before = without_time(&offsets(&site, &[]));
    goldens.compare("offsets-none.txt", &before);
    site.finish("pipeline.edn", 30);
    site.write("in/a.ndjson", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    site.write("in/c.ndjson", "{\"c\":1}\n");
    goldens.compare("offsets.txt", &without_time(&offsets(&site, &[])));
    goldens.finish();

    std::fs::remove_file(site.path("in/b.ndjson.gz")).expect("it is there");
    // Another first line: it is another file now, of which nothing was read.
    site.write("in/a.ndjson", "{\"new\":1}\n");
    let state = positions(&site);
    assert_eq!(split(&state, "in/a.ndjson")["position"], Value::Null);
    let splits = state["splits"].as_array().expect("a list");
    let gone: Vec<&Value> = splits
        .iter()
        .filter(|split| split["exists"] == false)
        .collect();
    assert_eq!(gone.len(), 1, "{state:#}");
    assert_eq!(gone[0]["position"], 16);
}

/// The state is read again and again while a run commits to it, and the run is not disturbed.
fn read_during_a_run(test: &str, store: Store) {
    let site = Site::new(test);
    let source = "(generate {:record {:n \"n\"} :rate 5000})";
    let sink = "(files {:path \"out/{n % 4}\" :codec :json :rollover {:records 40 :idle \"100ms\"} :check-freq \"10ms\"})";
    let settings = settings(&site, store).replace("200ms", "10ms");
    site.write(
        "pipeline.edn",
        pipeline(&site.name, &settings, source, sink),
    );
    let mut pseidon = site.run("pipeline.edn");
    let position = |state: &Value| state["splits"][0]["position"].as_u64().unwrap_or(0);
    wait_until("it commits", 60, || {
        let output = offsets(&site, &["--json"]);
        position(&serde_json::from_slice(&output.stdout).unwrap_or_default()) > 0
    });
    let mut last = 0;
    for _ in 0..20 {
        let state = positions(&site);
        assert!(position(&state) >= last, "{state:#}");
        last = position(&state);
        assert_eq!(state["in_use"], store == Store::Embedded);
        let owners = state["splits"][0]["owners"].as_array();
        assert_eq!(owners.map(Vec::len), Some(1), "{state:#}");
    }
    assert!(pseidon.is_running());
    pseidon.stop(30);
    let state = positions(&site);
    assert!(position(&state) >= last);
    assert_eq!(state["in_use"], false);
    assert_eq!(state["splits"][0]["owners"], serde_json::json!([]));
    assert_eq!(state["staged"], serde_json::json!({}));
}

#[test]
fn positions_are_read_while_a_run_commits_to_a_file() {
    read_during_a_run("offsets-running", Store::Embedded);
}

#[test]
fn positions_are_read_while_a_run_commits_to_redis() {
    read_during_a_run("offsets-running-redis", Store::Redis);
}

#[test]
fn partitions_have_ends_and_lags() {
    let site = Site::new("offsets-kafka");
    let topic = site.name.as_str();
    create(topic, &[]);
    produce(topic, 0, numbers(10));
    let source = kafka_source(topic, Membership::Dynamic, ":until :latest");
    let source = source.replace(":schema {:p :int64 :n :int64 :bucket :utf8 :pad :utf8}", "");
    let sink = "(files {:path \"out\" :codec :json})";
    let settings = settings(&site, Store::Redis);
    site.write("pipeline.edn", pipeline(topic, &settings, &source, sink));
    site.finish("pipeline.edn", 60);
    produce(topic, 0, numbers(5));
    let state = positions(&site);
    let first = split(&state, &format!("{topic}/0"));
    assert_eq!(
        (&first["position"], &first["end"], &first["lag"]),
        (&10.into(), &15.into(), &5.into()),
        "{state:#}"
    );

    // The positions are shown without the brokers too.
    let text = pipeline(topic, &settings, &source, sink);
    let brokers = crate::harness::brokers();
    site.write("pipeline.edn", text.replace(&brokers, "127.0.0.1:1"));
    let output = offsets(&site, &[]);
    let (printed, said) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("cannot look up the partitions of `in`"),
        "{said}"
    );
    let row = format!("{topic}/0  10        -    -    0      -");
    assert!(printed.contains(&row), "{printed}");
}
