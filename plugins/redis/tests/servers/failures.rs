//! Tests of servers that die, lose data or refuse a command.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pseidon_delivery::committer::{CommitterError, Positions, SplitToBegin};
use pseidon_delivery::{
    CommitError, Committer, LaneCommit, StagedEntry, StateStore, StoreError, WithCauses,
};
use pseidon_redis::RedisStore;

use super::server::Server;
use super::steps::{claimant, failed, only_record, sink, split, step, unavailable};

#[test]
fn commits_survive_the_death_of_the_server() {
    let mut server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    let before = only_record(&store);
    for _ in 0..2 {
        server.kill();
        unavailable(store.records(&sink()));
        match store.commit(&sink(), &step(1, 1, 20)) {
            Err(CommitError::Store(StoreError::Unavailable(_))) => {}
            other => panic!("{other:?}"),
        }
        server.start_again();
        // The first request of a new connection works: scripts that the server has lost are sent
        // again.
        assert_eq!(only_record(&store), before);
    }
    store.commit(&sink(), &step(1, 1, 20)).unwrap();
    assert_eq!(only_record(&store).low, Some(20));
    assert_eq!(store.staged(&sink()).unwrap().len(), 2);
}

#[test]
fn a_committer_waits_for_the_server_and_continues() {
    let mut server = Server::durable(&[]);
    let store: Arc<dyn StateStore> = Arc::new(server.connect());
    let committer = Committer::new(
        sink(),
        store.clone(),
        claimant("a"),
        Positions::InStore,
        Arc::new(AtomicBool::new(false)),
    );
    let record = committer.take(&[split()]).unwrap().remove(0);
    committer
        .begin(vec![SplitToBegin {
            split: split(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    let commit = |from: u64, upto: u64| {
        let mut ledger = committer.ledger();
        ledger.dispatch(&split(), &"x".into(), from, upto - 1);
        ledger.advance(&split(), upto, None);
        drop(ledger);
        let lane = LaneCommit {
            lane: "x".into(),
            splits: vec![(split(), upto)],
        };
        committer.commit(
            &[lane],
            vec![StagedEntry {
                id: upto.to_string().into(),
                detail: String::new(),
            }],
        )
    };
    commit(0, 10).unwrap();
    server.kill();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| commit(10, 20));
        while !committer.store_is_unreachable() {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.start_again();
        waiting.join().unwrap().unwrap();
    });
    assert!(!committer.store_is_unreachable());
    assert_eq!(store.records(&sink()).unwrap()[0].1.low, Some(20));

    // The server loses everything, which none should.
    server.cli(&["flushall"]);
    match commit(20, 30) {
        Err(CommitterError::Fatal(reason)) => {
            let reason = WithCauses(&reason).to_string();
            assert!(reason.contains("lost data"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    assert!(store.records(&sink()).unwrap().is_empty());
}

#[test]
fn an_older_copy_is_detected() {
    let mut server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    server.kill();
    let copy = tempfile::tempdir().unwrap();
    let copied = |from: &Path, to: &Path| {
        assert!(
            Command::new("cp")
                .arg("-r")
                .arg(from.join("appendonlydir"))
                .arg(to)
                .status()
                .unwrap()
                .success()
        )
    };
    copied(server.dir.path(), copy.path());
    server.start_again();
    notice_the_death_of_the_connection(&store);
    store.commit(&sink(), &step(1, 1, 20)).unwrap();
    server.kill();
    fs::remove_dir_all(server.dir.path().join("appendonlydir")).unwrap();
    copied(copy.path(), server.dir.path());
    server.start_again();
    notice_the_death_of_the_connection(&store);
    match store.commit(&sink(), &step(1, 2, 30)) {
        Err(CommitError::Sequence {
            expected: 2,
            found: 1,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

/// Makes the first request after a crash of the server, which finds the connection broken.
fn notice_the_death_of_the_connection(store: &RedisStore) {
    unavailable(store.plans());
}

#[test]
fn transient_errors_are_distinguished_from_permanent_ones() {
    let server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    let commit = || -> Result<(), StoreError> {
        match store.commit(&sink(), &step(1, 1, 20)) {
            Err(CommitError::Store(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    };
    let before = only_record(&store);

    server.cli(&["config", "set", "maxmemory", "1"]);
    assert!(unavailable(commit()).contains("OOM"));
    server.cli(&["config", "set", "maxmemory", "0"]);
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    assert!(unavailable(commit()).contains("NOREPLICAS"));
    server.cli(&["config", "set", "min-replicas-to-write", "0"]);
    server.cli(&["replicaof", "127.0.0.1", "1"]);
    let reason = unavailable(commit());
    assert!(reason.contains("ReadOnly"), "{reason}");
    server.cli(&["replicaof", "no", "one"]);
    assert_eq!(
        only_record(&store),
        before,
        "none of that has changed anything"
    );

    server.cli(&["rename", "{test:p}:staged:lake", "elsewhere"]);
    server.cli(&["set", "{test:p}:staged:lake", "not ours"]);
    assert!(failed(commit()).contains("WRONGTYPE"));
    assert_eq!(
        only_record(&store),
        before,
        "a step that fails half way is not begun"
    );
    server.cli(&["rename", "elsewhere", "{test:p}:staged:lake"]);
    store.commit(&sink(), &step(1, 1, 20)).unwrap();

    server.cli(&["hset", "{test:p}:split:lake:s/0", "low", "many"]);
    assert!(failed(store.records(&sink())).contains("low is \"many\", not a number"));
}
