//! Killed at each named step of the protocol.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::Site;
use crate::harness::feed::Feed;
use crate::harness::output::check;
use crate::harness::pipeline::{Layout, Membership, Store, kafka_to_files};
use crate::harness::watch::Watcher;
use crate::kills::settle;

/// The steps that a run from Kafka to files comes past.
const STEPS_TO_FILES: &[&str] = &["opened", "written", "finished", "synced", "committed", "renamed", "published"];
/// The steps of the Kafka sink.
pub(crate) const STEPS_TO_KAFKA: &[&str] = &["kafka-produced", "kafka-positions-sent", "kafka-committed"];

/// A step that is added to the sources has to be added here.
#[test]
fn every_step_of_the_sources_is_tried() {
    let mut found = BTreeSet::new();
    for part in ["engine", "plugins", "src"] {
        steps_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut found);
    }
    let tried: BTreeSet<String> = STEPS_TO_FILES.iter().chain(STEPS_TO_KAFKA).map(|step| (*step).to_owned()).collect();
    assert_eq!(found, tried);
}

fn steps_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            steps_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let calls = text.split("reach(\"").skip(1);
            found.extend(calls.filter_map(|call| call.split('"').next()).map(str::to_owned));
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

/// At the first time that an instance comes past the step, and at a later one.
fn killed_at_each_step(test: &str, store: Store, layout: Layout) {
    let site = Site::new(test);
    site.write("pipeline.edn", kafka_to_files(&site, store, Membership::Static, layout));
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feed::new(&site.name, 4);
    feed.send(1500);
    let background = feed.in_background(600);
    for step in STEPS_TO_FILES {
        for time in [1, site.random.of(2..9)] {
            let mut command = site.command("pipeline.edn");
            command.env("PSEIDON_FAIL", format!("{step}:{time}"));
            site.start(command).expect_death(step, 60);
        }
    }
    let fed = background.finish().fed();
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}
