//! Tests of connections: passwords, databases, TLS, sentinels and servers that are unreachable.

use std::process::{Command, Stdio};

use pseidon_delivery::{CommitError, StateStore, StoreError};
use pseidon_redis::RedisStore;

use super::server::{Server, free_port, sentinel_of, url_of, wait_until};
use super::steps::{failed, only_record, sink, split, step, unavailable};

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
fn a_cluster_that_refuses_the_password_is_reported() {
    let url = url_of("PSEIDON_TEST_REDIS_CLUSTER").replace("://", "://stranger:wrong@");
    failed(RedisStore::connect(&url, "test", "p"));
}

#[test]
fn a_database_is_chosen_by_its_number() {
    let server = Server::durable(&[]);
    let third = RedisStore::connect(&format!("{}/3", server.url()), "test", "p").unwrap();
    third.take(&sink(), &[split()], &"a".into()).unwrap();
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
        store.take(&sink(), &[split()], &"a".into()).unwrap()[0].epoch,
        1
    );
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
    store.take(&sink(), &[split()], &"a".into()).unwrap();
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
