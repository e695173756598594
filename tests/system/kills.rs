//! Many kills at random times while records arrive.

use crate::harness::feed::Feeder;
use crate::harness::output::check;
use crate::harness::pipeline::{Layout, Membership, Store, kafka_to_files};
use crate::harness::watch::Watcher;
use crate::harness::{Site, wait_until};

const KILLS: u64 = 15;

#[test]
fn embedded_gzip() {
    killed_at_random(
        "kills-embedded-gzip",
        Store::Embedded,
        Membership::Static,
        Layout::GzipBySize,
    );
}

#[test]
fn embedded_parquet() {
    killed_at_random(
        "kills-embedded-parquet",
        Store::Embedded,
        Membership::Dynamic,
        Layout::Parquet,
    );
}

#[test]
fn redis_gzip() {
    killed_at_random(
        "kills-redis-gzip",
        Store::Redis,
        Membership::Dynamic,
        Layout::GzipBySize,
    );
}

#[test]
fn redis_parquet() {
    killed_at_random(
        "kills-redis-parquet",
        Store::Redis,
        Membership::Static,
        Layout::Parquet,
    );
}

#[test]
fn redis_cluster_gzip() {
    killed_at_random(
        "kills-cluster-gzip",
        Store::Cluster,
        Membership::Static,
        Layout::GzipBySize,
    );
}

#[test]
fn redis_cluster_parquet() {
    killed_at_random(
        "kills-cluster-parquet",
        Store::Cluster,
        Membership::Static,
        Layout::Parquet,
    );
}

/// An instance needs about half a second to start. Half of the instances are killed before that,
/// the others later.
fn killed_at_random(test: &str, store: Store, membership: Membership, layout: Layout) {
    let site = Site::new(test);
    site.write(
        "pipeline.edn",
        kafka_to_files(&site, store, membership, layout),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut feed = Feeder::new(&site.name, 5);
    feed.send(2000);
    let background = feed.in_background(700);
    for kill in 0..KILLS {
        let before = watcher.records();
        let mut pseidon = site.run("pipeline.edn");
        if kill % 2 == 1 {
            wait_until("the instance commits", 60, || {
                watcher.records() > before || !pseidon.is_running()
            });
            assert!(pseidon.is_running(), "it has ended by itself");
        }
        std::thread::sleep(site.random.millis(10..900));
        pseidon.kill();
    }
    let fed = background.finish().fed();
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// Starts a run, and stops it when everything is visible. After that, there are no uncommitted
/// records.
pub(crate) fn settle(site: &Site, watcher: &Watcher, records: u64) {
    let mut pseidon = site.run("pipeline.edn");
    watcher.wait_for(records, 90);
    pseidon.stop(30);
}
