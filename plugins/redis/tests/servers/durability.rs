//! Tests of what a server makes durable, and of the weaknesses that it reports.

use pseidon_delivery::{Commit, SinkId, StateStore};
use pseidon_redis::RedisStore;

use super::server::{Server, fresh_namespace, url_of};
use super::steps::{split, step};

#[test]
fn a_cluster_warns_of_what_a_failover_may_lose() {
    let store = RedisStore::connect(
        &url_of("PSEIDON_TEST_REDIS_CLUSTER"),
        &fresh_namespace(),
        "p",
    )
    .unwrap();
    let weaknesses = store.weaknesses().unwrap();
    assert!(
        weaknesses.len() == 1 && weaknesses[0].contains("replication is asynchronous"),
        "{weaknesses:?}"
    );
}

#[test]
fn weak_persistence_is_reported() {
    let safe = Server::durable(&[]);
    assert_eq!(safe.connect().weaknesses().unwrap(), Vec::<String>::new());
    safe.cli(&["config", "set", "no-appendfsync-on-rewrite", "yes"]);
    let weaknesses = safe.connect().weaknesses().unwrap();
    assert!(
        weaknesses.len() == 1 && weaknesses[0].contains("no-appendfsync-on-rewrite"),
        "{weaknesses:?}"
    );
    safe.cli(&["config", "set", "no-appendfsync-on-rewrite", "no"]);
    safe.cli(&["config", "set", "appendfsync", "everysec"]);
    assert!(safe.connect().weaknesses().unwrap()[0].contains("everysec"));

    let plain = Server::start(&["--appendonly", "no", "--save", "3600 1"]);
    assert!(plain.connect().weaknesses().unwrap()[0].contains("snapshots only"));

    // As on a managed server.
    safe.cli(&[
        "acl", "setuser", "app", "on", ">pw", "~*", "+@all", "-config", "-info",
    ]);
    let url = format!("redis://app:pw@127.0.0.1:{}", safe.port);
    let weaknesses = RedisStore::connect(&url, "test", "p")
        .unwrap()
        .weaknesses()
        .unwrap();
    assert!(
        weaknesses.len() == 1 && weaknesses[0].contains("does not report how it persists"),
        "{weaknesses:?}"
    );
}

/// One request is applied with one sync, however many steps it has.
#[test]
fn the_steps_of_a_group_are_one_request() {
    let server = Server::durable(&[]);
    let store = server.connect();
    let sinks: Vec<SinkId> = (0..50)
        .map(|number| SinkId::from(format!("lake-{number}").as_str()))
        .collect();
    for sink in &sinks {
        store.take(sink, &[split()], &"a".into()).unwrap();
    }
    let requests = || {
        let statistics = server.cli(&["info", "commandstats"]);
        let calls = |line: &str| line.split(['=', ',']).nth(1)?.parse::<usize>().ok();
        statistics
            .lines()
            .filter(|line| line.starts_with("cmdstat_eval"))
            .filter_map(calls)
            .sum::<usize>()
    };
    // The first call of a script sends its text too.
    let group = |sequence| -> usize {
        let commit = step(1, sequence, 10 * (sequence + 1));
        let steps: Vec<(&SinkId, &Commit)> = sinks.iter().map(|sink| (sink, &commit)).collect();
        let before = requests();
        assert!(store.commit_many(&steps).iter().all(Result::is_ok));
        requests() - before
    };
    group(0);
    assert_eq!(group(1), 1);
}
