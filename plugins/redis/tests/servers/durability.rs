//! Tests of the weaknesses that a server reports.

use pseidon_delivery::StateStore;
use pseidon_redis::RedisStore;

use super::server::{Server, fresh_namespace, url_of};

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
