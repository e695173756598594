//! Instances that read the same folder share its files through the state store, and do not fence
//! each other.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use crate::harness::output::{count_gapless, hidden, numbers};
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::{Pseidon, Site, wait_until};
use crate::instances::FENCED;
use crate::positions::positions;

const FILES: u64 = 40;
const LINES: u64 = 50;

fn pipeline(site: &Site, redis: &Redis, more: &str) -> String {
    let state = state_in(site, &redis.url());
    format!(
        r#"{{:name "shared" :settings {{:memory "32MB" :commit-interval "200ms" {state}}}
            in (files {{:path "in/*.json" :format "json" {more}}})
            pipeline (-> in (select "n") (files {{:path "out" :codec :json :rollover {{:idle "300ms"}} :check-freq "50ms"}}))}}"#
    )
}

/// Appends lines to each file; the numbers continue from file to file.
fn add(site: &Site, round: u64) {
    fs::create_dir_all(site.path("in")).expect("a folder");
    for number in 0..FILES {
        let first = (round * FILES + number) * LINES;
        let lines: String = (first..first + LINES)
            .map(|n| format!("{{\"n\":{n}}}\n"))
            .collect();
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(site.path(&format!("in/{number}.json")))
            .expect("a file");
        file.write_all(lines.as_bytes()).expect("written");
    }
}

fn reads_some(pseidon: &Pseidon) -> bool {
    let count = pseidon.log().lines().rev().find_map(|line| {
        line.split("records_in=")
            .nth(1)?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    });
    count.is_some_and(|count| count > 0)
}

#[test]
fn two_followers_share_a_folder() {
    let site = Site::new("shared-follow");
    let redis = Redis::start(&site);
    site.write(
        "pipeline.edn",
        pipeline(&site, &redis, ":follow true :poll \"50ms\""),
    );
    let mut instances = [site.run("pipeline.edn"), site.run("pipeline.edn")];
    wait_until("both handle signals", 60, || {
        instances.iter().all(Pseidon::is_listening)
    });
    for round in 0..6 {
        add(&site, round);
        let all = (round + 1) * FILES * LINES;
        wait_until("everything is visible", 90, || {
            numbers(&site.path("out")).len() as u64 >= all
        });
        if round == 3 {
            // The other one takes over its files.
            instances[0].kill();
            instances[0] = site.run("pipeline.edn");
        }
    }
    // On a busy machine, the other one may have read all files before the new one had a part of them.
    wait_until("both have files", 60, || {
        let state = positions(&site);
        let splits = state["splits"].as_array().cloned().unwrap_or_default();
        let owners = splits.iter().filter_map(|split| split["owners"].as_array());
        let owners: BTreeSet<String> = owners.flatten().map(|owner| owner.to_string()).collect();
        owners.len() == 2
    });
    add(&site, 6);
    wait_until("everything is visible", 90, || {
        numbers(&site.path("out")).len() as u64 >= 7 * FILES * LINES
    });
    for instance in &mut instances {
        instance.stop(60);
        assert!(!instance.log().contains(FENCED), "{}", instance.log());
    }
    assert_eq!(count_gapless(&site.path("out")), 7 * FILES * LINES);
    assert_eq!(hidden(&site.path("out")), Vec::<std::path::PathBuf>::new());
    let at_work = instances
        .iter()
        .filter(|instance| reads_some(instance))
        .count();
    assert_eq!(at_work, 2, "each has read a part");
}

#[test]
fn finite_runs_share_a_folder_and_end_together() {
    let site = Site::new("shared-once");
    let redis = Redis::start(&site);
    site.write("pipeline.edn", pipeline(&site, &redis, ""));
    add(&site, 0);
    let mut instances = [
        site.run("pipeline.edn"),
        site.run("pipeline.edn"),
        site.run("pipeline.edn"),
    ];
    for instance in &mut instances {
        instance.expect_exit(0, 90);
        assert!(!instance.log().contains(FENCED), "{}", instance.log());
    }
    assert_eq!(count_gapless(&site.path("out")), FILES * LINES);
    assert_eq!(hidden(&site.path("out")), Vec::<std::path::PathBuf>::new());
}
