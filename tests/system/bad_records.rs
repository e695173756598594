//! Invalid records: quarantine, drop and stop.

use std::collections::BTreeSet;
use std::fs;

use pseidon_dsl::printable::is_printable;

use crate::harness::feed::Feeder;
use crate::harness::output::{all_lines, check, lines};
use crate::harness::pipeline::{Layout, Membership, Store, files_sink, kafka_source, settings};
use crate::harness::watch::Watcher;
use crate::harness::{Site, output};

const INPUT: &str = "{\"n\":0,\"v\":1}\nnot json\n{\"n\":1,\"v\":\"text\"}\n{\"n\":2,\"v\":2}\n{\"n\":3,\"v\":0}\n\u{fffd}\n{\"n\":4}\n";

fn pipeline(on_error: &str) -> String {
    format!(
        r#"{{:name "bad"
            in   (files {{:path "in/*" :format "json" :schema {{:n :int64 :v :int64}} {on_error}}})
            calc (select "n, 10 / v as w" {{{on_error}}})
            pipeline (-> in calc (files {{:path "out/good" :codec :json}}))}}"#
    )
}

/// Each is quarantined with the reason, its position and its bytes; the other records are
/// delivered.
#[test]
fn invalid_records_are_quarantined() {
    let site = Site::new("quarantine");
    let mut input = INPUT.as_bytes().to_vec();
    input.extend_from_slice(b"\xff\xfe broken\n");
    site.write("in/a.ndjson", &input);
    site.write("pipeline.edn", pipeline(""));
    let pseidon = site.finish("pipeline.edn", 60);
    assert_eq!(
        all_lines(&site.path("out/good")),
        [
            r#"{"n":0,"w":10}"#,
            r#"{"n":2,"w":5}"#,
            r#"{"n":4,"w":null}"#
        ]
    );
    for part in [
        "quarantined=5",
        "5 of 8 records are invalid; with `:max-invalid",
    ] {
        assert!(pseidon.log().contains(part), "{}", pseidon.log());
    }

    let bad: Vec<serde_json::Value> = all_lines(&site.path("out/quarantine"))
        .iter()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    let mut found: Vec<(u64, String, String)> = bad
        .iter()
        .map(|record| {
            assert!(
                record["reason"]
                    .as_str()
                    .is_some_and(|reason| !reason.is_empty()),
                "{record}"
            );
            assert_eq!(record["topic"], "in/a.ndjson", "{record}");
            let bytes = record["record"].as_str().map_or_else(
                || format!("base64 {}", record["record_base64"].as_str().unwrap_or("?")),
                str::to_owned,
            );
            (
                record["position"].as_u64().expect("a position"),
                record["stage"].as_str().expect("a stage").to_owned(),
                bytes,
            )
        })
        .collect();
    found.sort();
    let at = |part: &str| INPUT.find(part).expect("part of the input") as u64;
    let expected = [
        (at("not json"), "in", "not json"),
        (at("{\"n\":1"), "in", "{\"n\":1,\"v\":\"text\"}"),
        (at("{\"n\":3"), "calc", "{\"n\":3,\"v\":0}"),
        (at("\u{fffd}"), "in", "\u{fffd}"),
        (INPUT.len() as u64, "in", "base64 //4gYnJva2Vu"),
    ];
    assert_eq!(
        found,
        expected.map(|(position, stage, bytes)| (position, stage.to_owned(), bytes.to_owned()))
    );
}

#[test]
fn noop_drops_and_counts() {
    let site = Site::new("noop");
    site.write("in/a.ndjson", INPUT);
    site.write("pipeline.edn", pipeline(":on-error :noop"));
    let pseidon = site.finish("pipeline.edn", 60);
    assert_eq!(
        all_lines(&site.path("out")),
        [
            r#"{"n":0,"w":10}"#,
            r#"{"n":2,"w":5}"#,
            r#"{"n":4,"w":null}"#
        ]
    );
    assert!(pseidon.log().contains("dropped=4"), "{}", pseidon.log());
}

#[test]
fn throw_ends_the_run() {
    let site = Site::new("throw");
    site.write("in/a.ndjson", INPUT);
    site.write("pipeline.edn", pipeline(":on-error :throw"));
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    let is_error = |line: &str| {
        line.starts_with("error: stage `in` cannot process the record at position 14 of in:")
            && line.ends_with(": the record is not a JSON object")
    };
    assert!(log.lines().any(is_error), "{log}");
    assert_eq!(
        output::hidden(&site.path("out")),
        Vec::<std::path::PathBuf>::new(),
        "uncommitted files are removed"
    );
}

/// A value of a record is part of the reason why it is invalid. It is cut, and neither forges a
/// line nor changes a terminal.
#[test]
fn a_hostile_value_is_a_short_part_of_one_line() {
    let site = Site::new("hostile-value");
    let digits = "9".repeat(1 << 20);
    let value = format!("41\u{1b}]0;t\u{7}\r\nINFO forged\u{9b}2J\u{202e}{digits}");
    site.write("in/a.ndjson", serde_json::json!({ "v": value }).to_string());
    let fatal_errors = site.path("fatalerrors");
    let pipeline = |on_error: &str| {
        format!(
            r#"{{:name "hostile" :settings {{:fatal-errors "{}"}}
                in   (files {{:path "in/*" :format "json" :schema {{:v :utf8}}}})
                calc (select "cast(v as int) as w" {{:on-error {on_error}}})
                pipeline (-> in calc (files {{:path "out/good" :codec :json}}))}}"#,
            fatal_errors.display()
        )
    };
    let is_shown = |text: &str, length: usize| {
        text.chars().all(|c| c == '\n' || is_printable(c))
            && text.len() < length
            && !text.lines().any(|line| line.starts_with("INFO"))
    };
    site.write("pipeline.edn", pipeline(":throw"));
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    assert!(is_shown(&pseidon.log(), 5000), "{:?}", pseidon.log());
    let fatal = fs::read_to_string(&fatal_errors).expect("a file of fatal errors");
    assert!(
        is_shown(&fatal, 1000) && fatal.lines().count() == 1,
        "{fatal:?}"
    );

    site.write("pipeline.edn", pipeline(":quarantine"));
    let pseidon = site.finish("pipeline.edn", 60);
    assert!(is_shown(&pseidon.log(), 5000), "{:?}", pseidon.log());
    let bad = all_lines(&site.path("out/quarantine"));
    let bad: serde_json::Value = serde_json::from_str(&bad[0]).expect("json");
    let reason = bad["reason"].as_str().expect("a reason");
    assert!(reason.ends_with("99…' is not a valid int32"), "{reason}");
}

/// Invalid records are quarantined exactly once, even if the process is killed.
#[test]
fn invalid_records_are_quarantined_once() {
    let site = Site::new("quarantine-kills");
    let source = kafka_source(
        &site.name,
        Membership::Static,
        ":on-error {:quarantine \"aside\"}",
    );
    let text = crate::harness::pipeline::pipeline(
        &site.name,
        &settings(&site, Store::Redis),
        &source,
        &files_sink(Layout::GzipBySize),
    );
    site.write("pipeline.edn", text);
    let (watcher, aside_watcher) = (
        Watcher::start(&[site.path("out")]),
        Watcher::start(&[site.path("aside")]),
    );
    let mut feed = Feeder::new(&site.name, 3);
    let mut bad = BTreeSet::new();
    let mut send = |feed: &mut Feeder| {
        for _ in 0..5 {
            feed.send(100);
            let payload = format!("bad {}", bad.len());
            feed.send_other(bad.len() as u64 % 4, &payload);
            bad.insert(payload);
        }
    };
    for round in 0..8 {
        send(&mut feed);
        let before = watcher.records();
        let mut pseidon = site.run("pipeline.edn");
        // Half of them have committed something, however slow the machine is.
        if round % 2 == 0 {
            watcher.wait_for(before + 1, 60);
        }
        std::thread::sleep(site.random.millis(300..2000));
        send(&mut feed);
        std::thread::sleep(site.random.millis(50..300));
        pseidon.kill();
    }
    // In each partition, a valid record follows the last invalid one: when it is visible, the
    // invalid one was read.
    let fed = feed.send(60).fed();
    // A quarantine file stays open for long, so the last one is published by the graceful stop.
    let mut pseidon = site.run("pipeline.edn");
    watcher.wait_for(fed.total(), 90);
    pseidon.stop(40);
    watcher.finish();
    aside_watcher.finish();
    check(&site.path("out"), &fed);
    assert_eq!(
        output::hidden(&site.path("aside")),
        Vec::<std::path::PathBuf>::new()
    );
    let quarantined: Vec<String> = output::files(&site.path("aside"))
        .iter()
        .flat_map(|path| lines(path))
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(&line).expect("json");
            value["record"].as_str().expect("text").to_owned()
        })
        .collect();
    assert_eq!(
        quarantined.iter().cloned().collect::<BTreeSet<_>>(),
        bad,
        "all of them"
    );
    assert_eq!(quarantined.len(), bad.len(), "each once");
}

#[test]
fn a_run_with_more_invalid_records_than_allowed_has_an_exit_code_of_its_own() {
    let site = Site::new("max-invalid");
    site.write("in/a.ndjson", INPUT);
    // 4 of 7 are invalid.
    let limits = [("\"50%\"", 3), ("\"58%\"", 0), ("3", 3), ("4", 0)];
    for (number, (limit, code)) in limits.into_iter().enumerate() {
        let text = pipeline("").replace(
            "{:name \"bad\"",
            &format!("{{:name \"bad{number}\" :settings {{:max-invalid {limit}}}"),
        );
        site.write("pipeline.edn", text);
        let mut pseidon = site.run("pipeline.edn");
        pseidon.expect_exit(code, 60);
        let log = pseidon.log();
        let reason = format!(
            "error: 4 of 7 records are invalid, more than `:max-invalid` allows ({})",
            limit.trim_matches('"')
        );
        assert_eq!(log.contains(&reason), code == 3, "{log}");
        // Nothing is read again.
        site.finish("pipeline.edn", 60);
    }
}
