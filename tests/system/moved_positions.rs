//! `pseidon offsets --to` and `pseidon reset`: positions that are moved and state that is forgotten.
//! After a kill in between there is the old state or the new one.

mod effects;

use std::process::Output;

use serde_json::Value;

use crate::golden::Goldens;
use crate::harness::feed::Feeder;
use crate::harness::output::{all_lines, files};
use crate::harness::pipeline::{Membership, Store, kafka_source, pipeline, settings};
use crate::harness::topics::{create, delete, group_offset, produce};
use crate::harness::{Site, wait_until};
use crate::kafka_source::numbers;
use crate::logs::gzip;
use crate::positions::{positions, split, without_time};

/// The steps of a change by an operator.
pub(crate) const STEPS_OF_OPERATORS: &[&str] = &[
    "offsets-withdrawn",
    "offsets-moved",
    "reset-withdrawn",
    "reset-decided",
    "reset-groups-removed",
];

fn pseidon(site: &Site, arguments: &[&str]) -> Output {
    site.pseidon()
        .args(arguments)
        .output()
        .expect("the binary starts")
}

/// The arguments of a change that is executed.
const TO_EARLIEST: &[&str] = &["offsets", "pipeline.edn", "--to", "earliest", "--execute"];
const RESET: &[&str] = &["reset", "pipeline.edn", "--execute"];

/// Runs a command that must succeed.
fn done(site: &Site, arguments: &[&str]) {
    let output = pseidon(site, arguments);
    assert!(output.status.success(), "{output:?}");
}

/// Runs a command that must be refused; returns what it said.
fn refused(site: &Site, arguments: &[&str]) -> String {
    let output = pseidon(site, arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("it prints UTF-8")
}

/// Runs a command until it is killed at a step.
fn killed(site: &Site, step: &str, arguments: &[&str]) {
    let mut command = site.pseidon();
    command.args(arguments).env("PSEIDON_FAIL", step);
    site.start(command).expect_death(step, 60);
}

/// How often each line was delivered, in order of the lines.
fn counts(site: &Site) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for line in all_lines(&site.path("out")) {
        *counts.entry(line).or_default() += 1;
    }
    counts.into_iter().collect()
}

const LINES: &str = r#"{:name "shop" in (files "in/*")
    pipeline (-> in (files {:path "out" :codec :txt}))}"#;

fn with_files(test: &str) -> Site {
    let site = Site::new(test);
    site.write("pipeline.edn", LINES);
    site.write("in/a.log", "a1\na2\n");
    site.write("in/b.log.gz", gzip("b1\nb2\n"));
    site
}

#[test]
fn what_is_moved_is_shown_and_then_done() {
    let site = with_files("move-files");
    let mut shown = String::new();
    let mut show = |arguments: &[&str]| {
        let code = pseidon(&site, arguments).status.code();
        let printed = without_time(&pseidon(&site, arguments));
        shown.push_str(&format!("$ pseidon {}\n{printed}", arguments.join(" ")));
        shown.push_str(&format!("--- exit code {code:?}\n\n"));
    };
    let to = |place, more: &[&'static str]| -> Vec<&str> {
        [&["offsets", "pipeline.edn", "--to", place], more].concat()
    };
    show(&to("earliest", &[]));
    site.finish("pipeline.edn", 30);
    site.write("in/c.log", "c1\nc2");
    show(&to("earliest", &[]));
    show(&to("latest", &[]));
    show(&to("3", &["--split", "in/a.log"]));
    show(&to("4", &["--split", "in/a.log"]));
    show(&to("7", &["--split", "in/a.log", "--split", "in/b.log.gz"]));
    show(&to("2026-01-31T00:00:00Z", &[]));
    show(&to("earliest", &["--split", "in/a.lg"]));
    show(&to("earliest", &["--source", "inn"]));
    show(&["reset", "pipeline.edn"]);
    assert_eq!(split(&positions(&site), "in/a.log")["position"], 6);

    done(&site, &to("3", &["--split", "in/a.log", "--execute"]));
    show(&["offsets", "pipeline.edn"]);
    let mut goldens = Goldens::default();
    goldens.compare("offsets-move.txt", &shown);
    goldens.finish();
}

#[test]
fn moved_files_are_read_from_there() {
    let site = with_files("read-moved-files");
    site.finish("pipeline.edn", 30);
    let expect = |expected: &[(&str, usize)]| {
        site.finish("pipeline.edn", 30);
        let expected = expected
            .iter()
            .map(|(line, count)| ((*line).to_owned(), *count));
        assert_eq!(counts(&site), expected.collect::<Vec<_>>());
    };
    expect(&[("a1", 1), ("a2", 1), ("b1", 1), ("b2", 1)]);
    done(
        &site,
        &[
            "offsets",
            "pipeline.edn",
            "--to",
            "3",
            "--split",
            "in/a.log",
            "--execute",
        ],
    );
    expect(&[("a1", 1), ("a2", 2), ("b1", 1), ("b2", 1)]);
    done(&site, TO_EARLIEST);
    expect(&[("a1", 2), ("a2", 3), ("b1", 2), ("b2", 2)]);
    // What is there now is skipped, also of files that were never read; what is added is read.
    site.write("in/c.log.gz", gzip("c1\n"));
    site.write("in/d.log", "d1\n");
    done(
        &site,
        &["offsets", "pipeline.edn", "--to", "latest", "--execute"],
    );
    site.write("in/d.log", "d1\nd2\n");
    expect(&[("a1", 2), ("a2", 3), ("b1", 2), ("b2", 2), ("d2", 1)]);
    done(&site, RESET);
    let all = [
        ("a1", 3),
        ("a2", 4),
        ("b1", 3),
        ("b2", 3),
        ("c1", 1),
        ("d1", 1),
        ("d2", 2),
    ];
    expect(&all);
    expect(&all);
}

/// A pipeline from a topic to lines, with state in this store.
fn from_topic(site: &Site, store: Store) {
    let source = kafka_source(&site.name, Membership::Dynamic, ":until :latest")
        .replace(":schema {:p :int64 :n :int64 :bucket :utf8 :pad :utf8}", "");
    let sink = "(files {:path \"out\" :codec :json})";
    let text = pipeline(&site.name, &settings(site, store), &source, sink);
    site.write("pipeline.edn", text);
}

fn partitions_are_moved(test: &str, store: Store) {
    let site = Site::new(test);
    let topic = site.name.as_str();
    let partition = format!("{topic}/0");
    create(topic, &[]);
    produce(topic, 0, numbers(10));
    from_topic(&site, store);
    site.finish("pipeline.edn", 60);
    assert_eq!(group_offset(topic, topic), Some(10));
    let delivered = || all_lines(&site.path("out")).len();
    let expect = |records: usize| {
        site.finish("pipeline.edn", 60);
        assert_eq!(delivered(), records);
    };
    let to = |place: &str| {
        done(
            &site,
            &[
                "offsets",
                "pipeline.edn",
                "--to",
                place,
                "--split",
                &partition,
                "--execute",
            ],
        )
    };
    // The group's offset is evidence of what the state has held: it must be withdrawn.
    to("4");
    expect(16);
    to("earliest");
    expect(26);
    produce(topic, 0, numbers(5));
    to("latest");
    expect(26);
    to("1970-01-01T00:00:01Z");
    expect(41);
    to("2100-01-01T00:00:00Z");
    expect(41);
    let output = pseidon(&site, &["offsets", "pipeline.edn", "--to", "16"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("offset 16 is not between 0 and 15"), "{said}");
    done(&site, RESET);
    assert_eq!(group_offset(topic, topic), None);
    expect(56);

    // A topic that was recreated is refused until its positions are moved.
    delete(topic);
    create(topic, &[]);
    produce(topic, 0, numbers(3));
    site.run("pipeline.edn").expect_exit(1, 60);
    to("earliest");
    expect(59);
}

#[test]
fn partitions_are_moved_in_a_file() {
    partitions_are_moved("move-topic", Store::Embedded);
}

#[test]
fn partitions_are_moved_in_redis() {
    partitions_are_moved("move-topic-redis", Store::Redis);
}

fn refused_while_it_runs(test: &str, store: Store, reason: &str) {
    let site = Site::new(test);
    let source = "(files {:path \"in/*\" :follow true :poll \"20ms\"})";
    let sink =
        "(files {:path \"out\" :codec :txt :rollover {:idle \"50ms\"} :check-freq \"20ms\"})";
    site.write(
        "pipeline.edn",
        pipeline(&site.name, &settings(&site, store), source, sink),
    );
    site.write("in/a.log", "a1\n");
    let mut run = site.run("pipeline.edn");
    wait_until("it delivers", 60, || !files(&site.path("out")).is_empty());
    let to_earliest: &[&str] = &TO_EARLIEST[..4];
    for arguments in [to_earliest, TO_EARLIEST, &RESET[..2], RESET] {
        let said = refused(&site, arguments);
        assert!(said.contains(reason) && said.contains("stop"), "{said}");
    }
    run.stop(30);
    let before = positions(&site);
    assert_eq!(split(&before, "in/a.log")["position"], 3);
    done(&site, to_earliest);
    assert_eq!(positions(&site)["splits"], before["splits"]);
    done(&site, TO_EARLIEST);
    assert_eq!(split(&positions(&site), "in/a.log")["position"], 0);
}

#[test]
fn a_running_pipeline_with_a_state_file_is_refused() {
    refused_while_it_runs("move-running", Store::Embedded, "");
}

#[test]
fn a_running_pipeline_with_state_in_redis_is_refused() {
    refused_while_it_runs("move-running-redis", Store::Redis, "has not released it");
}

/// Files that a crashed run has committed are published first.
fn refused_after_a_crash(test: &str, store: Store, reason: [&str; 2]) {
    let site = Site::new(test);
    let sink = "(files {:path \"out\" :codec :txt})";
    let source = "(files \"in/*\")";
    site.write(
        "pipeline.edn",
        pipeline(&site.name, &settings(&site, store), source, sink),
    );
    site.write("in/a.log", "a1\na2\n");
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FAIL", "committed:1");
    site.start(command).expect_death("committed", 60);
    for arguments in [TO_EARLIEST, RESET] {
        let said = refused(&site, arguments);
        assert!(reason.iter().all(|part| said.contains(part)), "{said}");
    }
    site.finish("pipeline.edn", 60);
    assert_eq!(counts(&site), [("a1".to_owned(), 1), ("a2".to_owned(), 1)]);
    done(&site, RESET);
    site.finish("pipeline.edn", 60);
    assert_eq!(counts(&site), [("a1".to_owned(), 2), ("a2".to_owned(), 2)]);
}

#[test]
fn committed_files_in_a_state_file_are_published_first() {
    let reason = [
        "committed files of `out` are not visible yet",
        "publish them first: pseidon run pipeline.edn",
    ];
    refused_after_a_crash("move-crashed", Store::Embedded, reason);
}

#[test]
fn committed_files_in_redis_are_published_first() {
    // Whether the instance is dead is not known.
    let reason = [
        "has not released it",
        "if it has crashed, run pipeline.edn and stop it gracefully",
    ];
    refused_after_a_crash("move-crashed-redis", Store::Redis, reason);
}

/// A kill before the step of the store leaves the old positions, and one after it the new ones.
fn killed_while_moving(test: &str, store: Store) {
    let site = Site::new(test);
    let mut feed = Feeder::new(&site.name, 3);
    feed.send(300);
    from_topic(&site, store);
    site.finish("pipeline.edn", 60);
    let splits = || positions(&site)["splits"].clone();
    let before = splits();
    killed(&site, "offsets-withdrawn", TO_EARLIEST);
    assert_eq!(splits(), before, "the old state");
    killed(&site, "reset-withdrawn", RESET);
    assert_eq!(splits(), before, "the old state");
    feed.send(100);
    site.finish("pipeline.edn", 60);
    let fed = feed.fed();
    assert_eq!(all_lines(&site.path("out")).len() as u64, fed.total());
    assert!(
        counts(&site).iter().all(|(_, count)| *count == 1),
        "each record once"
    );

    killed(&site, "offsets-moved", TO_EARLIEST);
    let moved = splits();
    let moved = moved.as_array().expect("a list");
    assert!(
        moved.iter().all(|split| split["position"] == 0),
        "{moved:?}"
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(all_lines(&site.path("out")).len() as u64, 2 * fed.total());
    assert!(
        counts(&site).iter().all(|(_, count)| *count == 2),
        "each record twice"
    );
}

#[test]
fn a_kill_while_a_state_file_is_changed() {
    killed_while_moving("move-killed", Store::Embedded);
}

#[test]
fn a_kill_while_redis_is_changed() {
    killed_while_moving("move-killed-redis", Store::Redis);
}

/// The groups are in a file of their own. Whatever step is interrupted, the state and the groups are
/// forgotten together.
#[test]
fn a_kill_while_groups_are_forgotten() {
    for step in ["reset-decided", "reset-groups-removed", ""] {
        let site = Site::new("reset-groups");
        site.write(
            "pipeline.edn",
            r#"{:name "grouped" :settings {:commit-interval "20ms"}
                in (files "in/*.ndjson")
                pipeline (-> in (group "user" "count(*) as n") (files {:path "out" :codec :json}))}"#,
        );
        site.write("in/a.ndjson", "{\"user\":\"a\"}\n{\"user\":\"a\"}\n");
        // The run collects groups and dies before it writes their results.
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", "released:1");
        site.start(command).expect_death("released", 60);
        let said = refused(&site, TO_EARLIEST);
        assert!(
            said.contains("has counted what was read of `in` already"),
            "{said}"
        );
        assert_eq!(split(&positions(&site), "in/a.ndjson")["position"], 26);
        match step {
            "" => done(&site, RESET),
            step => killed(&site, step, RESET),
        }
        // The files of the groups are removed by the next process that opens the state, which is
        // shown as it will be then.
        let state = positions(&site);
        assert_eq!(split(&state, "in/a.ndjson")["position"], Value::Null);
        std::fs::remove_file(site.path("in/a.ndjson")).expect("it is there");
        site.write("in/b.ndjson", "{\"user\":\"b\"}\n");
        site.finish("pipeline.edn", 60);
        let lines = all_lines(&site.path("out"));
        assert_eq!(lines, ["{\"user\":\"b\",\"n\":1}"], "after `{step}`");
        let state = positions(&site);
        let splits = state["splits"].as_array().map(Vec::len);
        assert_eq!(splits, Some(1), "{state:#}");
        assert_ne!(split(&state, "in/b.ndjson")["position"], Value::Null);
    }
}

/// The positions of a transactional sink are in its target.
#[test]
fn positions_in_a_target_are_refused() {
    let site = Site::new("move-target");
    create(&site.name, &[]);
    let sink = format!(
        "(kafka {{:brokers \"{}\" :topic \"{}\"}})",
        crate::harness::brokers(),
        site.name
    );
    let source = "(files \"in/*\")";
    site.write(
        "pipeline.edn",
        pipeline(&site.name, &settings(&site, Store::Embedded), source, &sink),
    );
    site.write("in/a.log", "a1\n");
    site.finish("pipeline.edn", 60);
    for arguments in [TO_EARLIEST, RESET] {
        let said = refused(&site, arguments);
        assert!(
            said.contains("`out` holds its positions in its target"),
            "{said}"
        );
    }
}
