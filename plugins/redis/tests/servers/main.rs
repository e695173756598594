//! Tests of the Redis store with real servers.
//!
//! The common tests need a server and a cluster whose URLs are in the environment. Tests that kill,
//! restrict or empty a server start their own: Debian's `redis-server`, or the program in
//! `PSEIDON_TEST_REDIS_SERVER`, such as a newer Redis or a Valkey.

mod replicas;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pseidon_delivery::committer::{CommitterError, Positions, SplitToBegin};
use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, Committer, LaneCommit,
    ScopedStore, SinkId, SplitCommit, SplitId, StagedEntry, StateStore, StoreError, conformance,
};
use pseidon_redis::{RedisStore, WorkQueue};

fn url_of(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: start the servers and set their URLs with: eval \
             \"$(scripts/local-up)\""
        )
    })
}

/// A namespace that no other test, and no earlier run, has used.
fn fresh_namespace() -> String {
    static USED: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!(
        "test-{}-{now}-{}",
        std::process::id(),
        USED.fetch_add(1, Ordering::Relaxed)
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A server that belongs to one test and is stopped with it.
struct Server {
    port: u16,
    dir: tempfile::TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts `redis-server`; `arguments` receives the port and the folder.
    fn with(arguments: impl FnOnce(&str, &Path) -> Vec<String>) -> Server {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let arguments = arguments(&port.to_string(), dir.path());
        let mut server = Server {
            port,
            dir,
            arguments,
            process: None,
        };
        server.start_again();
        server
    }

    fn start(options: &[&str]) -> Server {
        Server::with(|port, _| {
            ["--port", port]
                .iter()
                .chain(options)
                .map(|option| (*option).to_owned())
                .collect()
        })
    }

    fn durable(more: &[&str]) -> Server {
        Server::start(
            &[
                &[
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--save",
                    "",
                ],
                more,
            ]
            .concat(),
        )
    }

    fn start_again(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let program =
            std::env::var_os("PSEIDON_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let process = Command::new(program)
            .args(&self.arguments)
            .args(["--bind", "127.0.0.1", "--dir"])
            .arg(self.dir.path())
            .stdout(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("redis-server is needed: scripts/local-up installs it");
        self.process = Some(process);
        wait_until("redis-server accepts connections", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        wait_until("redis-server has read its data", || {
            !self.cli(&["ping"]).contains("LOADING")
        });
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a signal, such as `STOP` and `CONT` to freeze and resume the server.
    fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn connect(&self) -> RedisStore {
        RedisStore::connect(&self.url(), "test", "p").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn sink() -> SinkId {
    SinkId::from("lake")
}

fn split() -> SplitId {
    SplitId::from("s/0")
}

fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.into(),
        plan: "p".into(),
        accepts_other_plans: false,
    }
}

fn step(epoch: u64, sequence: u64, low: u64) -> Commit {
    let step = SplitCommit {
        ahead: vec![("x".into(), low + 5)],
        ..SplitCommit::to_low(split(), epoch, sequence, low)
    };
    let staged = vec![StagedEntry {
        id: sequence.to_string(),
        detail: String::new(),
    }];
    Commit {
        owner: "a".into(),
        splits: vec![step],
        staged,
        published: vec![],
    }
}

fn only_record(store: &RedisStore) -> CommitRecord {
    let mut records = store.records(&sink()).unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0).1
}

fn failed<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Failed(reason)) => reason,
        Err(other) => panic!("expected a permanent error, got: {other}"),
        Ok(_) => panic!("expected an error"),
    }
}

fn unavailable<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Unavailable(reason)) => reason,
        Err(other) => panic!("expected a transient error, got: {other}"),
        Ok(_) => panic!("expected an error"),
    }
}

#[test]
fn a_server_passes_the_common_tests() {
    let (url, namespace) = (url_of("PSEIDON_TEST_REDIS"), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
}

#[test]
fn a_cluster_passes_the_common_tests() {
    let (url, namespace) = (url_of("PSEIDON_TEST_REDIS_CLUSTER"), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
}

#[test]
fn a_cluster_that_refuses_the_password_is_reported() {
    let url = url_of("PSEIDON_TEST_REDIS_CLUSTER").replace("://", "://stranger:wrong@");
    failed(RedisStore::connect(&url, "test", "p"));
}

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
fn commits_survive_the_death_of_the_server() {
    let mut server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &claimant("a")).unwrap();
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
                id: upto.to_string(),
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
        Err(CommitterError::Fatal(reason)) => assert!(reason.contains("lost data"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(store.records(&sink()).unwrap().is_empty());
}

#[test]
fn an_older_copy_is_detected() {
    let mut server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &claimant("a")).unwrap();
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

#[test]
fn transient_errors_are_distinguished_from_permanent_ones() {
    let server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &claimant("a")).unwrap();
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

#[test]
fn a_newer_format_is_refused() {
    let server = Server::durable(&[]);
    let store = server.connect();
    store.take(&sink(), &[split()], &claimant("a")).unwrap();
    server.cli(&["hset", "{test:p}:meta", "format", "3"]);
    let reason = failed(RedisStore::connect(&server.url(), "test", "p"));
    assert!(reason.contains("format 3"), "{reason}");
    let reason = failed(store.take(&sink(), &[split()], &claimant("a")).map_err(
        |error| match error {
            CommitError::Store(error) => error,
            other => panic!("{other}"),
        },
    ));
    assert!(reason.contains("format"), "{reason}");
    assert_eq!(only_record(&store).epoch, 1);
}

#[test]
fn only_correct_passwords_are_accepted() {
    let server = Server::durable(&["--requirepass", "se:cr@t"]);
    let at = format!("127.0.0.1:{}", server.port);
    RedisStore::connect(&format!("redis://:se%3Acr%40t@{at}"), "test", "p").unwrap();
    RedisStore::connect(&format!("redis://default:se%3Acr%40t@{at}"), "test", "p").unwrap();
    for url in [
        format!("redis://:wrong@{at}"),
        format!("redis://{at}"),
        format!("redis://stranger:se%3Acr%40t@{at}"),
    ] {
        let reason = failed(RedisStore::connect(&url, "test", "p"));
        assert!(!reason.contains("wrong@"), "{reason}");
    }
}

#[test]
fn a_database_is_chosen_by_its_number() {
    let server = Server::durable(&[]);
    let third = RedisStore::connect(&format!("{}/3", server.url()), "test", "p").unwrap();
    third.take(&sink(), &[split()], &claimant("a")).unwrap();
    assert!(server.connect().sinks().unwrap().is_empty());
    assert_eq!(
        server.cli(&["-n", "3", "exists", "{test:p}:meta"]).trim(),
        "1"
    );
    failed(RedisStore::connect(
        &format!("{}/99", server.url()),
        "test",
        "p",
    ));
}

#[test]
fn an_unreachable_server_is_unavailable() {
    unavailable(RedisStore::connect(
        &format!("redis://127.0.0.1:{}", free_port()),
        "test",
        "p",
    ));
    unavailable(RedisStore::connect(
        &format!("redis-cluster://127.0.0.1:{}", free_port()),
        "test",
        "p",
    ));
    unavailable(RedisStore::connect(
        &format!("redis+sentinel://127.0.0.1:{}/main", free_port()),
        "test",
        "p",
    ));
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

#[test]
fn tls_is_supported_and_certificates_are_checked() {
    let certificate = tempfile::tempdir().unwrap();
    let path = |name: &str| certificate.path().join(name).to_str().unwrap().to_owned();
    let (key, cert) = (path("key.pem"), path("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &key,
            "-out",
            &cert,
        ])
        .stderr(Stdio::null())
        .status()
        .expect("openssl is needed");
    assert!(made.success());
    let server = Server::with(|port, _| {
        [
            "--port",
            "0",
            "--tls-port",
            port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &cert,
        ]
        .into_iter()
        .chain(["--tls-auth-clients", "no"])
        .map(String::from)
        .collect()
    });
    let url = format!("rediss://localhost:{}", server.port);
    let reason = failed(RedisStore::connect(&url, "test", "p"));
    assert!(reason.contains("certificate"), "{reason}");
    let store = RedisStore::connect(&format!("{url}#insecure"), "test", "p").unwrap();
    assert_eq!(
        store.take(&sink(), &[split()], &claimant("a")).unwrap()[0].epoch,
        1
    );
}

/// A sentinel that watches a server under the name `main` and soon fails over to its replica.
fn sentinel_of(master: &Server) -> Server {
    Server::with(|port, dir| {
        let config = dir.join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main \
             300\nsentinel failover-timeout main 2000\n",
            master.port
        );
        fs::write(&config, text).unwrap();
        vec![
            config.to_str().unwrap().into(),
            "--sentinel".into(),
            "--port".into(),
            port.into(),
        ]
    })
}

#[test]
fn sentinels_name_the_master() {
    let mut first = Server::durable(&[]);
    let second = Server::durable(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    let sentinel = sentinel_of(&first);

    let url = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{}/main",
        free_port(),
        sentinel.port
    );
    let store = RedisStore::connect(&url, "test", "p").unwrap();
    store.take(&sink(), &[split()], &claimant("a")).unwrap();
    store.commit(&sink(), &step(1, 0, 10)).unwrap();
    assert!(
        store
            .weaknesses()
            .unwrap()
            .iter()
            .any(|weakness| weakness.contains("replication is asynchronous"))
    );
    wait_until("the replica has the commit", || {
        second
            .cli(&["hget", "{test:p}:split:lake:s/0", "seq"])
            .trim()
            == "1"
    });
    wait_until("the sentinel knows the replica", || {
        sentinel
            .cli(&["sentinel", "replicas", "main"])
            .contains(&second.port.to_string())
    });
    first.kill();
    wait_until("the replica is master", || {
        match store.commit(&sink(), &step(1, 1, 20)) {
            Ok(()) => true,
            Err(CommitError::Store(StoreError::Unavailable(_))) => false,
            Err(other) => panic!("{other}"),
        }
    });
    assert_eq!(only_record(&store).low, Some(20));

    let reason = failed(RedisStore::connect(
        &format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port),
        "test",
        "p",
    ));
    assert!(reason.contains("other"), "{reason}");
}

/// Checks what a pseidon-etl left behind, as its consumer writes it, in a group of its own, so that
/// it can run on servers that other tests use too.
fn what_pseidon_etl_left(url: &str, cli: impl Fn(&[&str]) -> String) {
    let group = fresh_namespace();
    let queue = WorkQueue::connect(url, &group).unwrap();
    assert_eq!(queue.offset("clicks", 0).unwrap(), None);
    assert_eq!(queue.left().unwrap(), 0);

    let key = |partition: i32| format!("/{group}/offsets/clicks/{partition}");
    let set = |partition: i32, value: &str| {
        assert_eq!(cli(&["set", &key(partition), value]).trim(), "OK")
    };
    for (partition, (text, offset)) in [("0", 0), ("1234567890123", 1_234_567_890_123), (" 7 ", 7)]
        .into_iter()
        .enumerate()
    {
        set(partition as i32, text);
        assert_eq!(
            queue.offset("clicks", partition as i32).unwrap(),
            Some(offset),
            "{text:?}"
        );
    }
    assert_eq!(
        queue.offset("clicks", 3).unwrap(),
        None,
        "another partition"
    );
    assert_eq!(queue.offset("views", 0).unwrap(), None, "another topic");
    assert_eq!(
        WorkQueue::connect(url, "other")
            .unwrap()
            .offset("clicks", 1)
            .unwrap(),
        None,
        "another group"
    );
    for text in [
        "",
        "-1",
        "12a",
        "1.5",
        "\u{4}\u{1}7",
        "18446744073709551616",
    ] {
        set(0, text);
        let reason = failed(queue.offset("clicks", 0));
        assert!(
            reason.contains(&key(0)) && reason.contains("is invalid"),
            "{text:?}: {reason}"
        );
    }
    assert_eq!(cli(&["lpush", &key(9), "7"]).trim(), "1");
    assert!(failed(queue.offset("clicks", 9)).contains("WRONGTYPE"));

    // The names of the hosts' queues decide on which server of a cluster they are.
    let queues = [
        "work-queue",
        "complete-queue",
        "working-queue/a",
        "working-queue/b",
        "working-queue/c.example.com",
        "working-queue/d",
    ];
    for (number, name) in queues.iter().enumerate() {
        let list = format!("{group}-kafka-{name}");
        (0..=number).for_each(|_| _ = cli(&["lpush", &list, "work"]));
        assert_eq!(queue.left().unwrap(), number as u64 + 1, "{name}");
        assert_eq!(cli(&["del", &list]).trim(), "1");
    }
    assert_eq!(
        cli(&["lpush", &format!("{group}x-kafka-work-queue"), "work"]).trim(),
        "1"
    );
    assert_eq!(queue.left().unwrap(), 0, "another group's work");
}

#[test]
fn what_pseidon_etl_left_on_a_server() {
    let mut server = Server::durable(&[]);
    what_pseidon_etl_left(&server.url(), |arguments| server.cli(arguments));
    // More keys than one `SCAN` examines.
    server.cli(&[
        "eval",
        "for i = 1, 5000 do redis.call('set', 'k' .. i, i) end",
        "0",
    ]);
    server.cli(&["rpush", "etl-kafka-working-queue/h", "a", "b"]);
    let queue = WorkQueue::connect(&server.url(), "etl").unwrap();
    assert_eq!(queue.left().unwrap(), 2);
    server.kill();
    unavailable(queue.left());
    unavailable(queue.offset("clicks", 0));
    server.start_again();
    assert_eq!(queue.left().unwrap(), 2);
}

#[test]
fn what_pseidon_etl_left_on_a_cluster() {
    let url = url_of("PSEIDON_TEST_REDIS_CLUSTER");
    let port = url.rsplit(':').next().unwrap().to_owned();
    what_pseidon_etl_left(&url, |arguments| {
        // Follows redirections to the server that has the key.
        let output = Command::new("redis-cli")
            .args(["-c", "-p", &port])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
}

/// Makes the first request after a crash of the server, which finds the connection broken.
fn notice_the_death_of_the_connection(store: &RedisStore) {
    unavailable(store.plans());
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

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

fn round<'a>(
    owner: &'a str,
    held: &'a [SplitId],
    wanted: &'a [SplitId],
    total: usize,
) -> ClaimRound<'a> {
    ClaimRound {
        owner,
        lease: Duration::from_secs(60),
        held,
        wanted,
        total,
    }
}

#[test]
fn instances_share_splits_fairly() {
    let server = Server::durable(&[]);
    let store = server.connect();
    let splits: Vec<SplitId> = (0..5)
        .map(|number| SplitId::from(format!("in:{number}")))
        .collect();
    let claim = |round: &ClaimRound<'_>| store.claim("in", round).unwrap();
    let alone = claim(&round("a", &[], &splits, 5));
    assert_eq!((alone.fair_share, alone.granted.len()), (5, 5));
    // Another instance joins: nothing is free yet, and both get the new fair share.
    let second = claim(&round("b", &[], &splits, 5));
    assert_eq!(
        second,
        Claims {
            fair_share: 3,
            granted: vec![],
            lost: vec![]
        }
    );
    assert_eq!(
        claim(&round("a", &splits, &[], 5)),
        Claims {
            fair_share: 3,
            granted: vec![],
            lost: vec![]
        },
        "what is held is renewed"
    );
    store.unclaim("in", &splits[3..], "a", false).unwrap();
    assert_eq!(claim(&round("b", &[], &splits, 5)).granted, splits[3..]);
    // Claims belong to one source, and only the holder can release a claim.
    store.unclaim("in", &splits, "c", false).unwrap();
    assert_eq!(claim(&round("c", &[], &splits, 5)).granted, []);
    assert_eq!(
        store
            .claim("other", &round("c", &[], &splits, 5))
            .unwrap()
            .granted
            .len(),
        5
    );
    // One instance leaves, and its splits are shared again.
    store.unclaim("in", &[], "c", true).unwrap();
    store.unclaim("in", &splits[..3], "a", true).unwrap();
    let rest = claim(&round("b", &splits[3..], &splits[..3], 5));
    assert_eq!((rest.fair_share, rest.granted.len()), (5, 3));
}

#[test]
fn a_claim_with_an_expired_lease_is_free_and_its_holder_learns_of_it() {
    let server = Server::durable(&[]);
    let store = server.connect();
    let splits: Vec<SplitId> = (0..2)
        .map(|number| SplitId::from(format!("in:{number}")))
        .collect();
    let short = ClaimRound {
        lease: Duration::from_millis(50),
        ..round("frozen", &[], &splits, 2)
    };
    assert_eq!(store.claim("in", &short).unwrap().granted.len(), 2);
    wait_until("the lease has run out", || {
        store
            .claim("in", &round("b", &[], &splits[..1], 2))
            .unwrap()
            .granted
            .len()
            == 1
    });
    let late = store
        .claim("in", &round("frozen", &splits, &[], 2))
        .unwrap();
    assert_eq!(late.lost, splits[..1]);
}
