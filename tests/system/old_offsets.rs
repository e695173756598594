//! The first start after pseidon-etl: it resumes at the offsets that pseidon-etl left in its Redis.

use std::time::Duration;

use crate::harness::mysql::LogTable;
use crate::harness::redis::Redis;
use crate::harness::topics::produce;
use crate::harness::{Site, brokers, wait_until};
use crate::log_table::{FORMATS, Template, found};

const AT: u64 = 1_700_000_000_000;

/// Sends `count` records from number `from` on to each of the four partitions; the number of a
/// record contains its partition.
fn send(topic: &str, from: u64, count: u64) {
    for partition in 0..4 {
        produce(
            topic,
            partition,
            (from..from + count)
                .map(|number| format!("{AT}\t{}\tx", partition as u64 * 1000 + number)),
        );
    }
}

fn numbers(site: &Site, topic: &str) -> Vec<u64> {
    let found = found(site, topic);
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    found.into_keys().collect()
}

/// The numbers of each partition from `from` up to `end`.
fn expected(from: [u64; 4], end: u64) -> Vec<u64> {
    (0..4)
        .flat_map(|partition| {
            (from[partition]..end).map(move |number| partition as u64 * 1000 + number)
        })
        .collect()
}

fn template(site: &Site, table: &LogTable, old: &Redis) -> String {
    let more = format!(":offsets-of {{:redis \"{}\" :group \"etl\"}}", old.url());
    Template {
        brokers: &brokers(),
        redis: None,
        port: None,
        more: &more,
    }
    .text(site, table)
}

fn set_offset(old: &Redis, topic: &str, partition: u64, offset: u64) {
    assert_eq!(
        old.cli(&[
            "set",
            &format!("/etl/offsets/{topic}/{partition}"),
            &offset.to_string()
        ])
        .trim(),
        "OK"
    );
}

#[test]
fn reading_resumes_there_at_the_first_start_only() {
    let site = Site::new("old-offsets");
    let old = Redis::start(&site);
    let table = LogTable::new(&site);
    let topic = site.name.clone();
    send(&topic, 0, 50);
    // The fourth partition was never read, so it starts at :start, which is the first record here.
    let stopped = [10, 50, 30, 0];
    (0..3).for_each(|partition| set_offset(&old, &topic, partition, stopped[partition as usize]));
    site.write("pipeline.edn", template(&site, &table, &old));
    table.set(&topic, FORMATS[0], "txt");
    let mut pseidon = site.run("pipeline.edn");
    let count = expected(stopped, 50).len();
    wait_until("the remaining records are read", 60, || {
        found(&site, &topic).len() >= count || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert_eq!(numbers(&site, &topic), expected(stopped, 50));
    assert!(
        pseidon
            .log()
            .contains("resuming where another program stopped")
    );

    // From now on our own state is used, and changes of the old offsets have no effect.
    (0..3).for_each(|partition| set_offset(&old, &topic, partition, 0));
    assert_eq!(
        old.cli(&["rpush", "etl-kafka-work-queue", "work"]).trim(),
        "1"
    );
    send(&topic, 50, 10);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the new records are read", 60, || {
        found(&site, &topic).len() >= count + 40 || !pseidon.is_running()
    });
    std::thread::sleep(Duration::from_secs(2));
    pseidon.stop(40);
    assert_eq!(numbers(&site, &topic), expected(stopped, 60));
    assert!(
        !pseidon
            .log()
            .contains("resuming where another program stopped")
    );
}

#[test]
fn unfinished_work_of_pseidon_etl_blocks_its_topics() {
    let site = Site::new("old-work");
    let old = Redis::start(&site);
    let table = LogTable::new(&site);
    let [topic, other] = ["known", "new"].map(|name| format!("{}-{name}", site.name));
    send(&topic, 0, 20);
    send(&other, 0, 20);
    (0..4).for_each(|partition| set_offset(&old, &topic, partition, 5));
    old.cli(&["rpush", "etl-kafka-work-queue", "some", "work"]);
    old.cli(&["rpush", "etl-kafka-working-queue/host1", "work"]);
    site.write("pipeline.edn", template(&site, &table, &old));
    [&topic, &other]
        .iter()
        .for_each(|topic| table.set(topic, FORMATS[0], "txt"));
    let mut pseidon = site.run("pipeline.edn");
    let sentence = "pseidon-etl has 3 unfinished work items in the queues of its group `etl`";
    wait_until("it reports the reason", 60, || {
        pseidon.log().contains(sentence) || !pseidon.is_running()
    });
    wait_until("the topic that pseidon-etl never read is read", 60, || {
        found(&site, &other).len() == 80 || !pseidon.is_running()
    });
    assert!(
        found(&site, &topic).is_empty(),
        "records that another program may still write are not read"
    );
    old.cli(&["del", "etl-kafka-work-queue"]);
    wait_until("it counts the remaining work", 60, || {
        pseidon
            .log()
            .contains("pseidon-etl has 1 unfinished work items")
            || !pseidon.is_running()
    });
    old.cli(&["del", "etl-kafka-working-queue/host1"]);
    wait_until("it is read from there", 90, || {
        found(&site, &topic).len() >= 60 || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert_eq!(numbers(&site, &topic), expected([5; 4], 20));
    assert_eq!(numbers(&site, &other), expected([0; 4], 20));
}

#[test]
fn an_invalid_offset_is_refused() {
    let site = Site::new("old-unreadable");
    let old = Redis::start(&site);
    let table = LogTable::new(&site);
    let topic = site.name.clone();
    send(&topic, 0, 20);
    let key = format!("/etl/offsets/{topic}/2");
    assert_eq!(old.cli(&["set", &key, "\u{1}\u{2}12"]).trim(), "OK");
    site.write("pipeline.edn", template(&site, &table, &old));
    table.set(&topic, FORMATS[0], "txt");
    let mut pseidon = site.run("pipeline.edn");
    let sentence = format!("the offset that pseidon-etl left at {key} is invalid");
    wait_until("it reports the reason", 60, || {
        pseidon.log().contains(&sentence) || !pseidon.is_running()
    });
    assert!(
        found(&site, &topic).is_empty(),
        "nothing is read from a wrong offset"
    );
    set_offset(&old, &topic, 2, 12);
    wait_until("it is read once the offset is fixed", 90, || {
        found(&site, &topic).len() >= 68 || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert_eq!(numbers(&site, &topic), expected([0, 0, 12, 0], 20));
}

#[test]
fn nothing_is_read_before_its_redis_answers() {
    let site = Site::new("old-away");
    let mut old = Redis::down();
    let table = LogTable::new(&site);
    let topic = site.name.clone();
    send(&topic, 0, 20);
    site.write("pipeline.edn", template(&site, &table, &old));
    table.set(&topic, FORMATS[0], "txt");
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it reports the reason", 60, || {
        pseidon
            .log()
            .contains("the redis of pseidon-etl does not answer")
            || !pseidon.is_running()
    });
    assert!(
        found(&site, &topic).is_empty(),
        "nothing is read from a wrong offset"
    );
    pseidon.stop(40);
    old.up(&site);
    (0..4).for_each(|partition| set_offset(&old, &topic, partition, 15));
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it is read from there", 90, || {
        found(&site, &topic).len() >= 20 || !pseidon.is_running()
    });
    pseidon.stop(40);
    assert_eq!(numbers(&site, &topic), expected([15; 4], 20));
}
