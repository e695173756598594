//! Tests of steps that wait for replicas: `?wait-replicas=N`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::{
    CommitError, CommitRecord, Committer, SplitId, StateStore, StoreError, StoredPlan, WithCauses,
    conformance,
};
use pseidon_redis::RedisStore;

use super::claims::round;
use super::server::{Server, free_port, fresh_namespace, sentinel_of, wait_until};
use super::steps::{claimant, only_record, sink, split, step, unavailable};

/// A server and its replica, which is in sync.
struct ReplicatedServer {
    master: Server,
    replica: Server,
}

impl ReplicatedServer {
    fn start() -> ReplicatedServer {
        let master = Server::durable(&[]);
        let replica = Server::durable(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        wait_for_replica(&replica);
        ReplicatedServer { master, replica }
    }

    fn url(&self) -> String {
        format!("{}?wait-replicas=1", self.master.url())
    }

    fn connect(&self) -> RedisStore {
        RedisStore::connect(&self.url(), "test", "p").unwrap()
    }
}

fn wait_for_replica(replica: &Server) {
    wait_until("the replica follows", || {
        replica
            .cli(&["info", "replication"])
            .contains("master_link_status:up")
    });
}

/// A cluster of one master and its replica.
fn cluster() -> ReplicatedServer {
    let node = || {
        let bus = free_port().to_string();
        let durable = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ];
        let clustered = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            bus.as_str(),
            "--cluster-node-timeout",
            "60000",
        ];
        let server = Server::with(|port, _| {
            ["--port", port]
                .iter()
                .chain(&durable)
                .chain(&clustered)
                .map(|&option| option.into())
                .collect()
        });
        (server, bus)
    };
    let ((master, bus), (replica, _)) = (node(), node());
    assert_eq!(
        master
            .cli(&["cluster", "addslotsrange", "0", "16383"])
            .trim(),
        "OK"
    );
    assert_eq!(
        replica
            .cli(&[
                "cluster",
                "meet",
                "127.0.0.1",
                &master.port.to_string(),
                &bus
            ])
            .trim(),
        "OK"
    );
    let id = master.cli(&["cluster", "myid"]).trim().to_owned();
    wait_until("the replica knows the master", || {
        replica.cli(&["cluster", "replicate", &id]).trim() == "OK"
    });
    wait_for_replica(&replica);
    let port = replica.port.to_string();
    wait_until("the master has the slots", || {
        master
            .cli(&["cluster", "info"])
            .contains("cluster_state:ok")
    });
    wait_until("the master knows its replica", || {
        master.cli(&["cluster", "slots"]).contains(&port)
    });
    ReplicatedServer { master, replica }
}

fn cluster_url(pair: &ReplicatedServer) -> String {
    format!(
        "redis-cluster://127.0.0.1:{}?wait-replicas=1",
        pair.master.port
    )
}

fn store_error<T>(outcome: Result<T, CommitError>) -> Result<T, StoreError> {
    outcome.map_err(|error| match error {
        CommitError::Store(error) => error,
        other => panic!("{other}"),
    })
}

#[test]
fn a_server_with_a_replica_passes_the_common_tests() {
    let (pair, namespace) = (ReplicatedServer::start(), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&pair.url(), &namespace, pipeline).unwrap())
    });
}

#[test]
fn a_cluster_with_a_replica_passes_the_common_tests() {
    let (pair, namespace) = (cluster(), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&cluster_url(&pair), &namespace, pipeline).unwrap())
    });
}

/// A step that any connection can send.
type Step = fn(&RedisStore) -> Result<(), StoreError>;

const STEPS: [(&str, Step); 8] = [
    ("commit", |store| {
        store_error(store.commit(&sink(), &step(1, 1, 20)))
    }),
    ("take", |store| {
        store_error(store.take(&sink(), &["other".into()], &"a".into())).map(drop)
    }),
    ("fence", |store| store.fence(&sink(), &"dead".into())),
    ("hold", |store| {
        store_error(store.hold(&sink(), &[(split(), 1)], &claimant("a")))
    }),
    ("release", |store| store.release(&sink(), &[(split(), 1)])),
    ("staged", |store| store.staged(&sink()).map(drop)),
    ("add_plan", |store| {
        store.add_plan(&StoredPlan {
            fingerprint: "f".into(),
            text: "t".into(),
        })
    }),
    ("set_note", |store| store.set_note("n", "v")),
];

#[test]
fn no_step_is_done_before_a_replica_has_it() {
    let pair = ReplicatedServer::start();
    let store = pair.connect();
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    store.identity().unwrap();

    pair.replica.signal("STOP");
    // Each step on a connection of its own, and each a second time on another one: by then the step
    // is applied, and changes nothing.
    for attempt in ["first", "repeated"] {
        thread::scope(|scope| {
            for (name, step) in STEPS {
                let store = pair.connect();
                scope.spawn(move || match step(&store) {
                    Err(StoreError::Unavailable(reason)) => {
                        let reason = WithCauses(&reason).to_string();
                        assert!(reason.contains("wait-replicas"), "{reason}")
                    }
                    other => panic!("{attempt} {name}: {other:?}"),
                });
            }
        });
        assert_eq!(
            only_record_of(&store, split()).sequence,
            2,
            "the server has applied the commit"
        );
    }
    // Claims do not wait for replicas.
    assert_eq!(
        store
            .claim("in", &round(&"a".into(), &[], &["in:0".into()], 1))
            .unwrap()
            .granted
            .len(),
        1
    );

    pair.replica.signal("CONT");
    for (name, step) in &STEPS[1..] {
        step(&store).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    match store.commit(&sink(), &step(1, 1, 20)) {
        Err(CommitError::Sequence {
            expected: 1,
            found: 2,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.staged(&sink()).unwrap().len(), 2);
}

fn only_record_of(store: &RedisStore, split: SplitId) -> CommitRecord {
    store
        .records(&sink())
        .unwrap()
        .into_iter()
        .find(|(found, _)| *found == split)
        .unwrap()
        .1
}

#[test]
fn a_committer_waits_for_the_replica_and_continues() {
    let pair = ReplicatedServer::start();
    let store: Arc<dyn StateStore> = Arc::new(pair.connect());
    let committer = Committer::new(
        sink(),
        store,
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
    let low = |server: &Server| {
        server
            .cli(&["hget", "{test:p}:split:lake:s/0", "low"])
            .trim()
            .to_owned()
    };
    pair.replica.signal("STOP");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            committer.ledger().advance(&split(), 20, None);
            committer.commit_idle()
        });
        wait_until("the store counts as unreachable", || {
            committer.store_is_unreachable()
        });
        assert_eq!(low(&pair.master), "20", "the server has it");
        assert!(!waiting.is_finished());
        pair.replica.signal("CONT");
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(low(&pair.replica), "20");
}

#[test]
fn a_cluster_waits_for_its_replica() {
    let pair = cluster();
    let store = RedisStore::connect(&cluster_url(&pair), "test", "p").unwrap();
    assert_eq!(store.weaknesses().unwrap(), Vec::<String>::new());
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    pair.replica.signal("STOP");
    for _ in 0..2 {
        let reason = unavailable(store_error(store.commit(&sink(), &step(1, 0, 10))));
        assert!(reason.contains("wait-replicas"), "{reason}");
    }
    pair.replica.signal("CONT");
    match store.commit(&sink(), &step(1, 0, 10)) {
        Err(CommitError::Sequence {
            expected: 0,
            found: 1,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    store.commit(&sink(), &step(1, 1, 20)).unwrap();
}

#[test]
fn acknowledged_steps_survive_a_failover_by_sentinels() {
    let mut pair = ReplicatedServer::start();
    let sentinel = sentinel_of(&pair.master);
    let url = format!(
        "redis+sentinel://127.0.0.1:{}/main?wait-replicas=1",
        sentinel.port
    );
    let replica = pair.replica.port.to_string();
    wait_until("the sentinel knows the replica", || {
        sentinel
            .cli(&["sentinel", "replicas", "main"])
            .contains(&replica)
    });
    let store = RedisStore::connect(&url, "test", "p").unwrap();
    assert_eq!(store.weaknesses().unwrap(), Vec::<String>::new());
    store.take(&sink(), &[split()], &"a".into()).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    pair.master.kill();
    // The new master has no replica, so no step is done.
    wait_until("the replica is master", || {
        let reason = unavailable(store_error(store.commit(&sink(), &step(1, 1, 20))));
        reason.contains("wait-replicas")
    });
    // The old master comes back as a replica of the new one.
    pair.master.start_again();
    wait_until("the step counts", || {
        match store.commit(&sink(), &step(1, 1, 20)) {
            Ok(())
            | Err(CommitError::Sequence {
                expected: 1,
                found: 2,
                ..
            }) => true,
            Err(CommitError::Store(StoreError::Unavailable(_))) => false,
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(only_record(&store).low, Some(20));
}

#[test]
fn replicas_that_may_lack_a_step_are_a_weakness() {
    let pair = ReplicatedServer::start();
    let weaknesses = || pair.connect().weaknesses().unwrap();
    assert_eq!(weaknesses(), Vec::<String>::new());
    let without = pair.master.connect().weaknesses().unwrap();
    assert!(
        without.len() == 1 && without[0].contains("?wait-replicas=1"),
        "{without:?}"
    );
    let second = Server::durable(&["--replicaof", "127.0.0.1", &pair.master.port.to_string()]);
    wait_for_replica(&second);
    assert!(
        weaknesses().len() == 1 && weaknesses()[0].contains("set it to 2"),
        "{:?}",
        weaknesses()
    );
}

#[test]
fn without_replicas_no_step_that_waits_for_them_is_done() {
    let server = Server::durable(&[]);
    let store =
        RedisStore::connect(&format!("{}?wait-replicas=1", server.url()), "test", "p").unwrap();
    assert!(unavailable(store.identity()).contains("only 0 of 1 replicas"));
}

/// Redis since 7.2 and Valkey have `WAITAOF`; older versions only have `WAIT`.
#[test]
fn the_store_waits_for_disks_if_the_server_can() {
    let pair = ReplicatedServer::start();
    let can = !pair
        .master
        .cli(&["command", "info", "waitaof"])
        .trim()
        .is_empty();
    pair.connect().set_note("n", "v").unwrap();
    let statistics = pair.master.cli(&["info", "commandstats"]);
    assert_eq!(
        (
            statistics.contains("cmdstat_waitaof:"),
            statistics.contains("cmdstat_wait:")
        ),
        (can, !can)
    );

    // A server that syncs once a second is as safe as one that always does.
    pair.master
        .cli(&["config", "set", "appendfsync", "everysec"]);
    assert_eq!(pair.connect().weaknesses().unwrap().is_empty(), can);
    pair.connect().set_note("n", "v").unwrap();

    // A replica that keeps no file syncs nothing.
    pair.replica.cli(&["config", "set", "appendonly", "no"]);
    match pair.connect().set_note("n", "v") {
        Err(StoreError::Unavailable(reason)) if can => {
            let reason = WithCauses(&reason).to_string();
            assert!(reason.contains("needs appendonly yes"), "{reason}")
        }
        other => assert!(other.is_ok() && !can, "{other:?}"),
    }
    // Without an append-only file of the server, replicas can only receive. A connection that has
    // looked that up before finds out about the change.
    pair.replica.cli(&["config", "set", "appendonly", "yes"]);
    let store = pair.connect();
    store.set_note("n", "v").unwrap();
    pair.master.cli(&["config", "set", "appendonly", "no"]);
    if can {
        assert!(unavailable(store.set_note("n", "v")).contains("appendonly is disabled"));
    }
    store.set_note("n", "v").unwrap();
    pair.connect().set_note("n", "v").unwrap();
    assert!(pair.connect().weaknesses().unwrap()[0].contains("nothing on disk"));
}
