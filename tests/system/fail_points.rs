//! Kills and freezes at each named step of the protocol.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::group::STEPS_OF_GROUPS;
use crate::harness::feed::Feeder;
use crate::harness::output::{check, files};
use crate::harness::pipeline::{
    Layout, Membership, SESSION_MILLIS, Store, kafka_source, kafka_to_files, pipeline, settings,
};
use crate::harness::watch::Watcher;
use crate::harness::{Site, wait_until};
use crate::instances::{FENCED, LOST, losses};
use crate::kills::settle;
use crate::moved_positions::STEPS_OF_OPERATORS;

/// The steps of the `files` sink, which a run passes repeatedly.
pub(crate) const STEPS_TO_FILES: &[&str] = &[
    "opened",
    "written",
    "finished",
    "synced",
    "committed",
    "renamed",
    "published",
];
/// The steps of the `files` sink as a quarantine of records that a sink cannot write.
pub(crate) const STEPS_OF_SINGLE_RECORDS: &[&str] = &["single-synced", "single-published"];
/// The steps after a file is published, if the sink has `:move-to` and `:on-close`.
const STEPS_AFTER_FILES: &[&str] = &["moved", "hooked"];
/// The steps of the Kafka sink.
pub(crate) const STEPS_TO_KAFKA: &[&str] =
    &["kafka-produced", "kafka-positions-sent", "kafka-committed"];
/// The steps of the first start, if the state is in a file.
const STEPS_OF_STATE_FILES: &[&str] = &["state-created"];
/// The steps of a start after a crash.
const STEPS_OF_RECOVERY: &[&str] = &[
    "republished",
    "buried",
    "taken",
    "recovered",
    "held",
    "begun",
];
/// The steps of a graceful stop.
const STEPS_OF_STOP: &[&str] = &["flushed", "released"];

/// Steps outside of the protocol, which must survive a panic.
pub(crate) const STEPS_OF_LOGS: &[&str] = &["planned", "kafka-fetched"];

/// A step that is added to the code has to be added here.
#[test]
fn every_step_in_the_code_is_tested() {
    let mut found = BTreeSet::new();
    for part in ["engine", "plugins", "src"] {
        steps_below(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(part),
            &mut found,
        );
    }
    let tried: BTreeSet<String> = [
        STEPS_TO_FILES,
        STEPS_OF_SINGLE_RECORDS,
        STEPS_AFTER_FILES,
        STEPS_TO_KAFKA,
        STEPS_OF_STATE_FILES,
        STEPS_OF_RECOVERY,
        STEPS_OF_STOP,
        STEPS_OF_LOGS,
        STEPS_OF_GROUPS,
        STEPS_OF_OPERATORS,
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    assert_eq!(found, tried);
}

fn steps_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the code") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            steps_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let calls = text.split("reach(\"").skip(1);
            found.extend(
                calls
                    .filter_map(|call| call.split('"').next())
                    .map(str::to_owned),
            );
        }
    }
}

#[test]
fn embedded_by_size() {
    killed_at_each_step("steps-embedded-size", Store::Embedded, Layout::GzipBySize);
}

#[test]
fn embedded_parquet() {
    killed_at_each_step("steps-embedded-parquet", Store::Embedded, Layout::Parquet);
}

#[test]
fn redis_by_records() {
    killed_at_each_step("steps-redis-records", Store::Redis, Layout::GzipByRecords);
}

#[test]
fn redis_by_size() {
    killed_at_each_step("steps-redis-size", Store::Redis, Layout::GzipBySize);
}

/// Kills the run at each step when it is reached for the first time, and at a later time.
fn killed_at_each_step(test: &str, store: Store, layout: Layout) {
    let site = Site::new(test);
    site.write(
        "pipeline.edn",
        kafka_to_files(&site, store, Membership::Static, layout),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1500);
    let background = feed.in_background(600);
    let start = |step: &str, time: u64| {
        let mut command = site.command("pipeline.edn");
        command
            .env("PSEIDON_FAIL", format!("{step}:{time}"))
            .env("PSEIDON_LOG", "info,pseidon_kafka=debug");
        site.start(command)
    };
    if matches!(store, Store::Embedded) {
        for step in STEPS_OF_STATE_FILES {
            start(step, 1).expect_death(step, 60);
        }
    }
    for step in STEPS_TO_FILES {
        start(step, 1).expect_death(step, 60);
        start(step, site.random.of(2..9)).expect_death(step, 60);
    }
    for step in STEPS_OF_RECOVERY {
        // Recovery needs a file that is committed and not published.
        start("committed", 1).expect_death("committed", 60);
        start(step, 1).expect_death(step, 60);
    }
    for step in STEPS_OF_STOP {
        let mut stopped = start(step, 1);
        // It is killed earlier if it loses its partitions, since it releases them then.
        wait_until("it has read partitions", 60, || {
            stopped.log().contains("reading partitions") || !stopped.is_running()
        });
        let before = watcher.records();
        wait_until("more is visible", 60, || {
            watcher.records() > before || !stopped.is_running()
        });
        if stopped.is_running() {
            stopped.terminate();
        }
        stopped.expect_death(step, 60);
    }
    let fed = background.finish().fed();
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// Files are moved after they are published, and a program is called: each record is in one moved
/// file, and the program was called for each file.
#[test]
fn killed_while_files_are_moved_and_programs_called() {
    let site = Site::new("steps-after");
    let sink =
        "(files {:path \"out/{bucket}\" :codec :json :compression :gzip :rollover {:size \"8KB\" :idle \"300ms\"} :check-freq \"50ms\"
                        :move-to {:path \"moved/{bucket}\"} :on-close {:command [\"sh\" \"-c\" \"cat >> calls; echo >> calls\"]}})";
    let source = kafka_source(&site.name, Membership::Static, "");
    site.write(
        "pipeline.edn",
        pipeline(&site.name, &settings(&site, Store::Redis), &source, sink),
    );
    let watcher = Watcher::start(&[site.path("moved")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1500);
    let background = feed.in_background(600);
    for round in 1..4 {
        for step in [STEPS_TO_FILES, STEPS_AFTER_FILES].concat() {
            let mut command = site.command("pipeline.edn");
            command.env("PSEIDON_FAIL", format!("{step}:{round}"));
            site.start(command).expect_death(step, 60);
        }
    }
    let fed = background.finish().fed();
    settle(&site, &watcher, fed.total());
    watcher.finish();
    let checked = check(&site.path("moved"), &fed);
    assert!(
        files(&site.path("out")).is_empty(),
        "no file stays where it was first published"
    );
    let calls = fs::read_to_string(site.path("calls")).expect("the input of the program");
    for file in &checked.files {
        assert!(
            calls.contains(&format!("\"{}\"", file.display())),
            "the program was not called for {}",
            file.display()
        );
    }
}

/// One of two instances freezes at each step until the other has its partitions, and is resumed:
/// what it was about to do must be refused, and what it had committed must be visible once.
#[test]
fn frozen_at_each_step_to_files() {
    let site = Site::new("freeze-steps");
    site.write(
        "pipeline.edn",
        kafka_to_files(&site, Store::Redis, Membership::Dynamic, Layout::GzipBySize),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1000);
    let background = feed.in_background(800);
    let mut other = site.run("pipeline.edn");
    for step in STEPS_TO_FILES {
        let before = watcher.records();
        watcher.wait_for(before + 100, 60);
        freeze_and_wake(&site, step, || {
            let before = watcher.records();
            watcher.wait_for(before + 300, 60);
        });
        assert!(other.is_running());
    }
    let fed = background.finish().fed();
    watcher.wait_for(fed.total(), 90);
    other.stop(40);
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// Starts an instance that freezes at the step, lets the others continue without it, and resumes
/// it: it must notice what it has lost, and continue.
pub(crate) fn freeze_and_wake(site: &Site, step: &str, others_continue: impl Fn()) {
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FREEZE", format!("{step}:{}", site.random.of(1..6)));
    let mut frozen = site.start(command);
    wait_until(&format!("it freezes at `{step}`"), 60, || {
        frozen.is_frozen()
    });
    std::thread::sleep(Duration::from_millis(SESSION_MILLIS * 2));
    others_continue();
    let before = losses(&frozen.log());
    frozen.wake();
    wait_until(
        &format!("the instance that froze at `{step}` notices what it has lost"),
        60,
        || losses(&frozen.log()) > before,
    );
    wait_until("it reads again", 60, || {
        let log = frozen.log();
        let lost = [FENCED, LOST].map(|said| log.rfind(said));
        let since = lost.into_iter().max().flatten().unwrap_or_default();
        log[since..].contains("partitions assigned")
    });
    assert!(frozen.is_running());
    frozen.stop_beside_others(40);
}
