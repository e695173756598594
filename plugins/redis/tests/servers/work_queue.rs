//! Tests of what pseidon-etl left in Redis.

use std::process::Command;

use pseidon_redis::WorkQueue;

use super::server::{Server, fresh_namespace, url_of};
use super::steps::{failed, unavailable};

/// Checks what a pseidon-etl left behind, as its consumer writes it, in a group of its own, so that
/// it can run on servers that other tests use too.
fn what_pseidon_etl_left(url: &str, cli: impl Fn(&[&str]) -> String) {
    let group = fresh_namespace();
    let queue = WorkQueue::connect(url, &group).unwrap();
    assert_eq!(queue.offset("clicks", 0).unwrap(), None);
    assert_eq!(queue.left().unwrap(), 0);

    offsets_are_found(url, &group, &queue, &cli);
    invalid_offsets_are_errors(&group, &queue, &cli);
    unfinished_work_is_counted(&group, &queue, &cli);
}

fn offsets_are_found(url: &str, group: &str, queue: &WorkQueue, cli: &impl Fn(&[&str]) -> String) {
    for (partition, (text, offset)) in [("0", 0), ("1234567890123", 1_234_567_890_123), (" 7 ", 7)]
        .into_iter()
        .enumerate()
    {
        let key = offset_key(group, partition);
        assert_eq!(cli(&["set", &key, text]).trim(), "OK");
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
}

fn invalid_offsets_are_errors(group: &str, queue: &WorkQueue, cli: &impl Fn(&[&str]) -> String) {
    let key = offset_key(group, 0);
    for text in [
        "",
        "-1",
        "12a",
        "1.5",
        "\u{4}\u{1}7",
        "18446744073709551616",
    ] {
        assert_eq!(cli(&["set", &key, text]).trim(), "OK");
        let reason = failed(queue.offset("clicks", 0));
        assert!(
            reason.contains(&key) && reason.contains("is invalid"),
            "{text:?}: {reason}"
        );
    }
    assert_eq!(cli(&["lpush", &offset_key(group, 9), "7"]).trim(), "1");
    assert!(failed(queue.offset("clicks", 9)).contains("WRONGTYPE"));
}

fn unfinished_work_is_counted(group: &str, queue: &WorkQueue, cli: &impl Fn(&[&str]) -> String) {
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

/// The key of the offset of a partition of `clicks`.
fn offset_key(group: &str, partition: usize) -> String {
    format!("/{group}/offsets/clicks/{partition}")
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
