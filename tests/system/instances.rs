//! Several instances of one pipeline.

use std::path::PathBuf;

use crate::harness::feed::{Feeder, PARTITIONS};
use crate::harness::output::{check, files};
use crate::harness::pipeline::{
    Layout, Membership, SESSION_MILLIS, Store, kafka_source, kafka_to_files, pipeline, settings,
};
use crate::harness::watch::Watcher;
use crate::harness::{Pseidon, Site, wait_until};
use crate::kills::settle;

/// The log message of an instance that has lost its splits to another one.
pub(crate) const FENCED: &str = "restarting from the committed positions";

/// The log message of an instance whose partitions the group has given to others.
pub(crate) const LOST: &str = "partitions lost";

/// One of two instances is frozen until the other has all partitions, and resumed: it still has
/// open files, and perhaps a commit in progress. All of that must be refused.
#[test]
fn a_frozen_instance_is_fenced() {
    let site = Site::new("frozen");
    site.write(
        "pipeline.edn",
        kafka_to_files(&site, Store::Redis, Membership::Dynamic, Layout::GzipBySize),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1000);
    let background = feed.in_background(1000);
    let mut instances = [site.run("pipeline.edn"), site.run("pipeline.edn")];
    for round in 0..2 {
        let [frozen, other] = &mut instances;
        wait_until("both instances have partitions", 60, || {
            held(&frozen.log()) > 0 && held(&other.log()) > 0
        });
        expect_progress(&watcher, other);
        std::thread::sleep(site.random.millis(0..700));
        let noticed_before = losses(&frozen.log());
        frozen.freeze();
        wait_until("the other instance has all partitions", 60, || {
            held(&other.log()) == PARTITIONS as usize
        });
        expect_progress(&watcher, other);
        frozen.wake();
        wait_until("the resumed instance notices what it has lost", 60, || {
            losses(&frozen.log()) > noticed_before
        });
        assert!(
            frozen.is_running() && other.is_running(),
            "both continue in round {round}"
        );
        instances.swap(0, 1);
    }
    let fed = background.finish().fed();
    watcher.wait_for(fed.total(), 90);
    for instance in &mut instances {
        instance.stop_beside_others(40);
    }
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// How many partitions an instance holds, by its log.
pub(crate) fn held(log: &str) -> usize {
    let since_restart = log.rfind(FENCED).map_or(log, |at| &log[at..]);
    assigned(since_restart)
}

/// How many partitions the group has assigned to an instance and not taken away.
pub(crate) fn assigned(log: &str) -> usize {
    log.lines().fold(0, |held, line| {
        let count = || {
            let digits = line.split("count=").nth(1).unwrap_or_default();
            let digits = digits.split_whitespace().next().unwrap_or_default();
            digits.parse::<usize>().expect("the line has a count")
        };
        if line.contains("partitions assigned") {
            held + count()
        } else if line.contains("partitions revoked") || line.contains(LOST) {
            held.saturating_sub(count())
        } else {
            held
        }
    })
}

/// How often an instance has noticed that others have its partitions: because a commit was refused,
/// or, if it had nothing to commit, from the group.
pub(crate) fn losses(log: &str) -> usize {
    log.matches(FENCED).count() + log.matches(LOST).count()
}

/// Waits until more records are visible.
fn expect_progress(watcher: &Watcher, instance: &mut Pseidon) {
    let before = watcher.records();
    wait_until("more records become visible", 60, || {
        watcher.records() > before + 200
    });
    assert!(instance.is_running());
}

/// A version of the test's pipeline whose files begin with this name. Its session is so long that it
/// does not end while the process is alive.
fn version(site: &Site, name: &str, rollover: &str) -> String {
    let rollover = format!(":rollover {{{rollover}}} :check-freq \"50ms\"");
    let sink =
        format!("(files {{:path \"out/{{bucket}}\" :name \"{name}\" :codec :json {rollover}}})");
    pipeline(
        &site.name,
        &settings(site, Store::Redis),
        &kafka_source(&site.name, Membership::Dynamic, "")
            .replace(&format!("\"{SESSION_MILLIS}\""), "\"6000\""),
        &sink,
    )
}

/// One version of a pipeline replaces another while both run, and the old one is killed with work
/// unfinished. The new one must not take that over: it commits its records of other partitions and
/// ends, the old version finishes its work, and then the new one continues.
#[test]
fn a_version_that_is_killed_is_finished_before_the_next_one() {
    let site = Site::new("versions");
    let version = |name: &str, rollover: &str| version(&site, name, rollover);
    // Whenever a file of the old version is full, others are still open, so its work is unfinished.
    site.write("old.edn", version("old", ":records 20 :idle \"1h\""));
    site.write("new.edn", version("new", ":records 150 :idle \"300ms\""));
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(500);
    let background = feed.in_background(2000);
    let mut old = site.run("old.edn");
    expect_progress(&watcher, &mut old);
    let mut new = site.run("new.edn");
    let is_new = |file: &PathBuf| {
        file.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"new"))
    };
    wait_until("the new version has partitions", 60, || {
        files(&site.path("out")).iter().any(is_new)
    });
    // It has committed files of the partitions that it still has and not all that it has read, so
    // lanes are ahead in them, or its sinks are at different positions.
    let old_files = || {
        let visible = files(&site.path("out"));
        visible.iter().filter(|file| !is_new(file)).count()
    };
    let before = old_files();
    wait_until("the old version commits more files", 60, || {
        old_files() > before + 10
    });
    assert!(old.is_running());
    old.kill();
    wait_until("the new version finishes the old one's work", 90, || {
        new.log()
            .contains("its own version finishes that run first")
    });
    wait_until("it has finished it", 90, || {
        new.log().contains("the earlier version has finished")
    });
    let fed = background.finish().fed();
    watcher.wait_for(fed.total(), 90);
    new.stop(40);
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// Two versions run side by side, and both are killed. Each has left work that only it can finish; a
/// third version finishes first the one and then the other, and reads no record of the one with the
/// other.
#[test]
fn two_versions_that_are_killed_are_finished_before_a_third_one() {
    let site = Site::new("two-versions");
    let version = |name: &str, rollover: &str| version(&site, name, rollover);
    for name in ["one", "two"] {
        let slow = version(name, ":records 20 :idle \"1h\"");
        site.write(&format!("{name}.edn"), slow);
    }
    let last = version("three", ":records 150 :idle \"300ms\"");
    site.write("three.edn", last);
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(500);
    let background = feed.in_background(2500);
    let count = |name: &str| {
        let is_named = |file: &&PathBuf| {
            let file = file.file_name().unwrap_or_default().as_encoded_bytes();
            file.starts_with(name.as_bytes())
        };
        files(&site.path("out")).iter().filter(is_named).count()
    };
    let mut one = site.run("one.edn");
    expect_progress(&watcher, &mut one);
    let mut two = site.run("two.edn");
    wait_until("the second version has committed files", 60, || {
        count("two") > 20
    });
    let before = count("one");
    wait_until("the first version commits more files", 60, || {
        count("one") > before + 20
    });
    assert!(one.is_running() && two.is_running());
    one.kill();
    two.kill();
    let mut three = site.run("three.edn");
    wait_until("both versions have finished", 120, || {
        let log = three.log();
        log.matches("the earlier version has finished").count() == 2
    });
    wait_until("the third version goes on", 60, || count("three") > 0);
    let fed = background.finish().fed();
    watcher.wait_for(fed.total(), 120);
    three.stop(40);
    watcher.finish();
    check(&site.path("out"), &fed);
}

#[test]
fn instances_come_and_go_redis() {
    come_and_go("come-and-go-redis", Store::Redis, Layout::GzipBySize);
}

#[test]
fn instances_come_and_go_redis_cluster() {
    come_and_go("come-and-go-cluster", Store::Cluster, Layout::Parquet);
}

fn come_and_go(test: &str, store: Store, layout: Layout) {
    let site = Site::new(test);
    site.write(
        "pipeline.edn",
        kafka_to_files(&site, store, Membership::Dynamic, layout),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1000);
    let background = feed.in_background(700);
    let mut running: Vec<Pseidon> = Vec::new();
    for _ in 0..24 {
        let one = if running.is_empty() {
            0
        } else {
            site.random.of(0..running.len() as u64) as usize
        };
        match site.random.of(0..10) {
            0..=1 if !running.is_empty() => running.swap_remove(one).kill(),
            2..=4 if !running.is_empty() => running.swap_remove(one).stop_beside_others(40),
            _ if running.len() < 3 => running.push(site.run("pipeline.edn")),
            _ => {}
        }
        std::thread::sleep(site.random.millis(100..1500));
        assert!(
            running.iter_mut().all(Pseidon::is_running),
            "an instance ended by itself"
        );
    }
    running
        .iter_mut()
        .for_each(|instance| instance.stop_beside_others(40));
    let fed = background.finish().fed();
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}
