//! Exactly-once delivery to Kafka, as seen by a consumer of committed records.

use crate::fail_points::{STEPS_TO_KAFKA, freeze_and_wake};
use crate::harness::feed::{FedRecords, Feeder, PARTITIONS, Record, line};
use crate::harness::pipeline::{Membership, Store, kafka_source, pipeline, settings};
use crate::harness::{Site, brokers, topics, wait_until};

fn output(site: &Site) -> String {
    format!("{}-out", site.name)
}

/// A sink that keeps the partition of each record, with short transactions and a separate positions
/// topic.
fn kafka_sink(site: &Site) -> String {
    format!(
        "(kafka {{:brokers \"{}\" :topic \"{}\" :partition \"p\" :key \"bucket\" :headers {{:from \"@topic\"}}\n   \
         :transaction {{:age \"150ms\" :records 400}} :positions-topic \"{}-positions\"}})",
        brokers(),
        output(site),
        site.name
    )
}

fn kafka_to_kafka(site: &Site, store: Store, membership: Membership) -> String {
    pipeline(
        &site.name,
        &settings(site, store),
        &kafka_source(&site.name, membership, ""),
        &kafka_sink(site),
    )
}

/// Checks that each record is in its partition once, in order.
fn check(topic: &str, fed: &FedRecords) {
    let values = topics::committed(topic);
    assert_eq!(values.len(), PARTITIONS as usize);
    let mut differences = Vec::new();
    for (partition, values) in values.iter().enumerate() {
        let expected = fed.counts.get(partition).copied().unwrap_or(0);
        let mut next = 0;
        for record in values.iter().map(|value| Record::parse(value)) {
            if record.partition != partition as u64
                || record.number != next
                || record.bucket != fed.bucket(record.partition, record.number)
            {
                differences.push(format!(
                    "partition {partition}: {record:?} where number {next} was expected"
                ));
            }
            next = record.number + 1;
        }
        if next != expected || values.len() as u64 != expected {
            differences.push(format!(
                "partition {partition}: {} records up to number {next}, {expected} were fed",
                values.len()
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences, the first of them:\n{}",
        differences.len(),
        differences[..differences.len().min(12)].join("\n")
    );
}

/// Waits until as many records are committed as were fed, or more.
fn wait_for(topic: &str, fed: &FedRecords) {
    let committed = || {
        let values = topics::committed(topic);
        values.iter().map(|values| values.len() as u64).sum::<u64>()
    };
    let mut before = committed();
    while before < fed.total() {
        wait_until("more records are committed", 90, || {
            let now = committed();
            std::mem::replace(&mut before, now) < now
        });
    }
}

/// Runs until everything is delivered, and checks it. A transaction that a killed instance left
/// open hides later records until it is aborted.
fn settle(site: &Site, fed: &FedRecords) {
    let mut pseidon = site.run("pipeline.edn");
    wait_for(&output(site), fed);
    pseidon.stop(40);
    check(&output(site), fed);
}

#[test]
fn killed_at_each_step_embedded() {
    killed_at_each_step("kafka-steps-embedded", Store::Embedded);
}

#[test]
fn killed_at_each_step_redis() {
    killed_at_each_step("kafka-steps-redis", Store::Redis);
}

fn killed_at_each_step(test: &str, store: Store) {
    let site = Site::new(test);
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, store, Membership::Static),
    );
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1500);
    let background = feed.in_background(600);
    for step in STEPS_TO_KAFKA {
        for time in [1, site.random.of(2..6)] {
            let mut command = site.command("pipeline.edn");
            command.env("PSEIDON_FAIL", format!("{step}:{time}"));
            site.start(command).expect_death(step, 60);
        }
    }
    let fed = background.finish().fed();
    settle(&site, &fed);
}

#[test]
fn killed_at_random() {
    let site = Site::new("kafka-kills");
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, Store::Redis, Membership::Static),
    );
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1500);
    let background = feed.in_background(700);
    for round in 0..15 {
        let mut pseidon = site.run("pipeline.edn");
        // Half of them are killed while they read, however slow the machine is.
        if round % 2 == 0 {
            wait_until("it reads", 60, || {
                pseidon.log().contains("partitions assigned")
            });
        }
        std::thread::sleep(site.random.millis(200..1800));
        pseidon.kill();
    }
    let fed = background.finish().fed();
    settle(&site, &fed);
}

/// Whatever changes fields without making columns of them.
#[test]
fn records_are_written_with_their_changes() {
    let record = r#"{"id":1,"password":"secret","items":[1,2],"code":"no"}"#;
    for (name, chain, expected) in [
        (
            "remove",
            r#"(remove "password")"#,
            &[r#"{"id":1,"items":[1,2],"code":"no"}"#][..],
        ),
        (
            "set",
            r#"(set "id = 2, day = 'a'") (rename "password as p")"#,
            &[r#"{"id":2,"p":"secret","items":[1,2],"code":"no","day":"a"}"#],
        ),
        (
            "unnest",
            r#"(remove "password, code") (unnest "items")"#,
            &[r#"{"id":1,"items":1}"#, r#"{"id":1,"items":2}"#],
        ),
        (
            "lookup",
            r#"(lookup "names.csv" "code = code" "name") (remove "password, items")"#,
            &[r#"{"id":1,"code":"no","name":"Norway"}"#],
        ),
        (
            "select",
            r#"(select "*, 1 as one, * except (password, items)")"#,
            &[r#"{"id":1,"code":"no","one":1}"#],
        ),
        ("copy", "", &[record]),
    ] {
        let site = Site::new(&format!("kafka-edits-{name}"));
        site.write("in.ndjson", format!("{record}\n"));
        site.write("names.csv", "code,name\nno,Norway\n");
        site.write(
            "pipeline.edn",
            format!(
                r#"{{in (files "in.ndjson")
                    pipeline (-> in {chain} (kafka {{:brokers "{}" :topic "{}"}}))}}"#,
                brokers(),
                output(&site)
            ),
        );
        site.finish("pipeline.edn", 60);
        // Records without a key may be in any partition.
        let mut written = topics::committed(&output(&site)).concat();
        written.sort();
        assert_eq!(written, expected, "{name}");
    }
}

/// From files, which have no group whose generation could fence. Every other instance commits a few
/// transactions.
#[test]
fn files_killed_at_random() {
    let site = Site::new("kafka-files");
    let fed = FedRecords {
        counts: vec![15_000; PARTITIONS as usize],
        buckets: 4,
    };
    for (partition, count) in fed.counts.iter().enumerate() {
        let text: String = (0..*count)
            .map(|number| line(4, partition as u64, number) + "\n")
            .collect();
        site.write(&format!("in/{partition}.ndjson"), text);
    }
    let source =
        "(files {:path \"in/*.ndjson\" :schema {:p :int64 :n :int64 :bucket :utf8 :pad :utf8}})";
    site.write(
        "pipeline.edn",
        pipeline(
            &site.name,
            &settings(&site, Store::Embedded),
            source,
            &kafka_sink(&site),
        ),
    );
    let mut deaths = 0;
    for _ in 0..6 {
        let mut command = site.command("pipeline.edn");
        command.env(
            "PSEIDON_FAIL",
            format!("kafka-committed:{}", site.random.of(1..4)),
        );
        deaths += u64::from(site.start(command).died(60));
        let mut pseidon = site.run("pipeline.edn");
        std::thread::sleep(site.random.millis(100..1500));
        pseidon.kill();
    }
    assert!(
        deaths > 0,
        "no kill after a commit: there was too little to do"
    );
    site.finish("pipeline.edn", 120);
    wait_for(&output(&site), &fed);
    check(&output(&site), &fed);
}

/// One of two instances freezes at each step until the other has its partitions. When it is
/// resumed, the broker refuses its requests.
#[test]
fn frozen_at_each_step() {
    let site = Site::new("kafka-frozen");
    site.write(
        "pipeline.edn",
        kafka_to_kafka(&site, Store::Redis, Membership::Dynamic),
    );
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(1000);
    let background = feed.in_background(700);
    let mut other = site.run("pipeline.edn");
    let committed = || {
        topics::committed(&output(&site))
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>()
    };
    // In every partition, including those of the frozen instance: the other instance has taken them
    // over by then.
    let expect_progress = || {
        let before = committed();
        wait_until("more records are committed", 90, || {
            committed()
                .iter()
                .zip(&before)
                .all(|(now, before)| *now > before + 50)
        });
    };
    wait_until("the first records are committed", 60, || {
        committed().iter().sum::<usize>() > 500
    });
    for step in STEPS_TO_KAFKA {
        freeze_and_wake(&site, step, expect_progress);
        assert!(other.is_running());
    }
    let fed = background.finish().fed();
    wait_for(&output(&site), &fed);
    other.stop(40);
    check(&output(&site), &fed);
}
