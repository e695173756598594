//! Tests of keys in another format.

use std::sync::Arc;

use pseidon_delivery::{CommitError, CommitRecord, ScopedStore, StagedEntry, StateStore};
use pseidon_redis::RedisStore;

use super::server::Server;
use super::steps::{failed, only_record, sink, split};

#[test]
fn state_of_format_1_is_migrated() {
    let server = Server::durable(&[]);
    for command in [
        "hset {test:p}:meta format 1 identity 00ff plan f1 plan_text text",
        "hset {test:p}:notes schema:in {} clicks/plan f2 clicks/plan-text row views/plan-text half",
        "sadd {test:p}:sinks lake clicks/lake",
        "sadd {test:p}:splits:lake s/0 s/1",
        "sadd {test:p}:splits:clicks/lake s/0",
        "hset {test:p}:split:lake:s/0 v 1 epoch 3 seq 12 low 100 owner one a:x 150",
        "hset {test:p}:split:lake:s/1 v 1 epoch 1",
        "hset {test:p}:split:clicks/lake:s/0 v 1 epoch 2 seq 1 low 7",
        "hset {test:p}:staged:lake 1 detail",
    ] {
        server.cli(&command.split(' ').collect::<Vec<_>>());
    }
    // A second start finds the migrated state.
    for _ in 0..2 {
        let store = RedisStore::connect(&server.url(), "test", "p").unwrap();
        let mut records = store.records(&sink()).unwrap();
        records.sort_by(|one, other| one.0.cmp(&other.0));
        let first = CommitRecord {
            epoch: 3,
            sequence: 12,
            low: Some(100),
            ahead: [("x".into(), 150)].into(),
            owners: vec!["one".into()],
            plan: Some("f1".into()),
            ..CommitRecord::default()
        };
        let second = CommitRecord {
            epoch: 1,
            plan: Some("f1".into()),
            ..CommitRecord::default()
        };
        assert_eq!(records, [(split(), first), ("s/1".into(), second)]);
        assert_eq!(
            store.staged(&sink()).unwrap(),
            [StagedEntry {
                id: "1".into(),
                detail: "detail".into()
            }]
        );
        assert_eq!(
            (
                store.plan("f1").unwrap().as_deref(),
                store.identity().unwrap().as_str()
            ),
            (Some("text"), "00ff")
        );
        let log = ScopedStore::new(Arc::new(store), "clicks");
        assert_eq!(log.plan("f2").unwrap().as_deref(), Some("row"));
        assert_eq!(
            log.records(&sink()).unwrap()[0].1.plan.as_deref(),
            Some("f2")
        );
    }
    // An instance of the earlier version cannot take a split any more.
    assert_eq!(server.cli(&["hget", "{test:p}:meta", "format"]).trim(), "2");
}

#[test]
fn a_newer_format_is_refused() {
    let server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    server.cli(&["hset", "{test:p}:meta", "format", "3"]);
    let reason = failed(RedisStore::connect(&server.url(), "test", "p"));
    assert!(reason.contains("format 3"), "{reason}");
    let reason = failed(store.take(&sink(), &[split()], &"a".into()).map_err(
        |error| match error {
            CommitError::Store(error) => error,
            other => panic!("{other}"),
        },
    ));
    assert!(reason.contains("format"), "{reason}");
    assert_eq!(only_record(&store).epoch, 1);
}
