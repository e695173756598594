//! Tests of the source.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clients::{Writer, group_offsets, transactional};
use crate::engine::{EngineState, Run, setup, source};
use crate::support::{self, eventually, options, unique};
use crate::topics::{create_topic, grow_topic, new_topic};
use parking_lot::Mutex;
use pseidon_delivery::{SplitId, WithCauses};
use pseidon_kafka::KafkaSourcePlugin;
use pseidon_kafka::source::KafkaSourceOptions;
use pseidon_plugin::Payloads;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::options::Options;
use pseidon_plugin::source::{SourceError, SourcePlugin};
use rdkafka::Offset;
use rdkafka::producer::Producer;

pub(crate) const PLENTY: usize = 256 << 20;

pub(crate) fn values(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

pub(crate) fn split(topic: &str, partition: i32) -> SplitId {
    format!("clicks:{topic}/{partition}").into()
}

pub(crate) fn run(options: &str, pipeline: &str, seen: &Arc<Mutex<EngineState>>) -> Run {
    Run::start(
        source(options),
        setup(pipeline, WantedMetadata::default()),
        seen.clone(),
        PLENTY,
        false,
    )
}

/// The values of a split, whose positions must ascend.
pub(crate) fn read(seen: &Mutex<EngineState>, topic: &str, partition: i32) -> Vec<String> {
    let seen = seen.lock();
    let records = seen
        .records
        .get(&split(topic, partition))
        .cloned()
        .unwrap_or_default();
    assert!(
        records.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "positions do not ascend"
    );
    records
        .into_iter()
        .map(|(_, value)| value.unwrap())
        .collect()
}

#[test]
fn reads_everything_in_order_and_resumes_where_it_stopped() {
    let (topic, pipeline, seen, writer) = (
        new_topic("all", 3),
        unique("p"),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    for partition in 0..3 {
        writer.write(&topic, partition, values("a", 30_000));
    }
    let options = format!(":topics \"{topic}\"");
    let first = run(&options, &pipeline, &seen);
    first.wait_for(90_000);
    let lag = first.setup.metrics.lag.clone();
    first.stop().unwrap();
    assert_eq!(lag.with_label_values(&["clicks"]).get(), 0);
    for partition in 0..3 {
        assert_eq!(read(&seen, &topic, partition), values("a", 30_000));
    }
    assert_eq!(
        group_offsets(&pipeline, &topic, 3),
        [Offset::Offset(30_000); 3]
    );
    assert_eq!(seen.lock().released.len(), 3);

    writer.write(&topic, 1, values("b", 10));
    let second = run(&options, &pipeline, &seen);
    second.wait_for(90_010);
    second.stop().unwrap();
    assert_eq!(read(&seen, &topic, 1)[30_000..], values("b", 10));
    assert_eq!(seen.lock().stored[&split(&topic, 1)], 30_010);
}

#[test]
fn until_latest_ends_after_transactions_and_on_empty_partitions() {
    let (topic, seen, writer) = (
        new_topic("until", 3),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    writer.write(&topic, 0, values("a", 5000));
    // Partition 1 has a committed and an aborted transaction, so it ends with a marker.
    for (value, commit) in [("kept", true), ("dropped", false)] {
        let producer = transactional(&unique("tx"));
        producer.begin_transaction().unwrap();
        producer
            .send(
                rdkafka::producer::BaseRecord::<(), str>::to(&topic)
                    .partition(1)
                    .payload(value),
            )
            .unwrap();
        producer.flush(support::PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(support::PATIENCE).unwrap()
        } else {
            producer.abort_transaction(support::PATIENCE).unwrap()
        }
    }
    run(
        &format!(":topics [\"{topic}\"] :until :latest"),
        &unique("p"),
        &seen,
    )
    .wait()
    .unwrap();
    assert_eq!(read(&seen, &topic, 0), values("a", 5000));
    assert_eq!(read(&seen, &topic, 1), ["kept"]);
    assert_eq!(seen.lock().count(), 5001);
}

#[test]
fn starts_at_the_end_and_at_a_time() {
    let (topic, writer) = (new_topic("start", 2), Writer::new());
    for (second, value) in ["zero", "one", "two", "three"].iter().enumerate() {
        writer.write_at(&topic, 0, value, 1_769_817_600_000 + second as i64 * 1000);
    }
    let at_time = Arc::new(Mutex::new(EngineState::default()));
    run(
        &format!(":topics \"{topic}\" :until :latest :start \"2026-01-31T00:00:01.500Z\""),
        &unique("p"),
        &at_time,
    )
    .wait()
    .unwrap();
    assert_eq!(read(&at_time, &topic, 0), ["two", "three"]);
    assert_eq!(at_time.lock().stored[&split(&topic, 1)], 0);

    let later = Arc::new(Mutex::new(EngineState::default()));
    run(
        &format!(":topics \"{topic}\" :until :latest :start \"2100-01-01T00:00:00Z\""),
        &unique("p"),
        &later,
    )
    .wait()
    .unwrap();
    assert_eq!(later.lock().count(), 0);
    assert_eq!(later.lock().stored[&split(&topic, 0)], 4);

    let (latest, pipeline) = (Arc::new(Mutex::new(EngineState::default())), unique("p"));
    let running = run(
        &format!(
            ":topics \"{topic}\" :start :latest :properties \
             {{\"topic.metadata.refresh.interval.ms\" 200}}"
        ),
        &pipeline,
        &latest,
    );
    eventually("the partitions are begun", || {
        latest.lock().begun.len() == 2
    });
    assert_eq!(latest.lock().stored[&split(&topic, 0)], 4);
    writer.write(&topic, 0, values("new", 2));
    // What is written to a new partition before it is discovered must not be skipped.
    grow_topic(&topic, 3);
    // A new producer, since the other one refreshes its metadata only every five minutes.
    Writer::new().write(&topic, 2, ["grown".to_owned()]);
    running.wait_for(3);
    running.stop().unwrap();
    assert_eq!(read(&latest, &topic, 0), values("new", 2));
    assert_eq!(read(&latest, &topic, 2), ["grown"]);

    // The same holds for a partition that appears while no instance runs.
    grow_topic(&topic, 4);
    Writer::new().write(&topic, 3, ["later".to_owned()]);
    let options = format!(":topics \"{topic}\" :start :latest");
    let running = run(&options, &pipeline, &latest);
    running.wait_for(4);
    running.stop().unwrap();
    assert_eq!(read(&latest, &topic, 3), ["later"]);
}

/// A topic that was subscribed to before it existed is read from its beginning, by name and by a
/// pattern, although it appears while no instance runs, and although there was none before.
#[test]
fn a_topic_that_appears_between_two_runs_is_read_from_its_beginning() {
    for exists in [true, false] {
        let prefix = unique("appears");
        let [first, named, matched] =
            ["first", "named", "matched"].map(|it| format!("{prefix}.{it}"));
        let options =
            format!(":topics [\"{named}\" \"^{prefix}[.](first|matched)$\"] :start :latest");
        let (seen, pipeline) = (Arc::new(Mutex::new(EngineState::default())), unique("p"));
        if exists {
            create_topic(&first, 1, &[]);
            Writer::new().write(&first, 0, values("old", 3));
        }
        let running = run(&options, &pipeline, &seen);
        eventually("the first start is noted", || {
            let seen = seen.lock();
            seen.note.is_some() && (!exists || seen.begun.len() == 1)
        });
        running.stop().unwrap();

        for topic in [&named, &matched] {
            create_topic(topic, 1, &[]);
            Writer::new().write(topic, 0, values("new", 2));
        }
        let running = run(&options, &pipeline, &seen);
        running.wait_for(4);
        running.stop().unwrap();
        assert_eq!(read(&seen, &named, 0), values("new", 2));
        assert_eq!(read(&seen, &matched, 0), values("new", 2));
    }
}

#[test]
fn metadata_is_read_if_wanted_and_tombstones_are_kept() {
    let (topic, seen, writer) = (
        new_topic("meta", 1),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    writer.write_all(
        &topic,
        "k1",
        Some("v1"),
        &[("a", Some("1")), ("b", None), ("a", Some("\"2"))],
    );
    writer.write_all(&topic, "k2", None, &[]);
    let wanted = WantedMetadata {
        timestamp: true,
        key: true,
        headers: true,
        raw: false,
    };
    let source = source(&format!(":topics \"{topic}\" :until :latest"));
    Run::start(
        source,
        setup(&unique("p"), wanted),
        seen.clone(),
        PLENTY,
        false,
    )
    .wait()
    .unwrap();
    let seen = seen.lock();
    assert_eq!(
        seen.records[&split(&topic, 0)],
        [(0, Some("v1".to_owned())), (1, None)]
    );
    assert_eq!(seen.keys, [Some("k1".to_owned()), Some("k2".to_owned())]);
    assert_eq!(
        seen.headers,
        [Some(r#"{"a":"\"2","b":null}"#.to_owned()), None]
    );
    assert!(
        seen.timestamps.iter().all(|at| *at > 1_700_000_000_000),
        "{:?}",
        seen.timestamps
    );
}

#[test]
fn a_full_budget_pauses_reading_and_loses_nothing() {
    let (topic, seen, writer) = (
        new_topic("full", 2),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    let big = "x".repeat(1000);
    for partition in 0..2 {
        writer.write(
            &topic,
            partition,
            (0..20_000).map(|number| format!("{big}{number}")),
        );
    }
    let limit = 4 << 20;
    let source = source(&format!(":topics \"{topic}\" :until :latest"));
    let run = Run::start(
        source,
        setup(&unique("p"), WantedMetadata::default()),
        seen.clone(),
        limit,
        true,
    );
    // The engine releases nothing for longer than the source waits without pausing.
    eventually("the budget is full", || run.budget.is_full());
    std::thread::sleep(Duration::from_millis(2500));
    assert!(
        run.budget.used() < limit + (12 << 20),
        "{} bytes in flight",
        run.budget.used()
    );
    let before = seen.lock().count();
    assert!(before < 40_000);
    while !run.stop.reading_stopped() && seen.lock().count() < 40_000 {
        run.held.lock().clear();
        std::thread::sleep(Duration::from_millis(5));
    }
    run.held.lock().clear();
    run.wait().unwrap();
    for partition in 0..2 {
        let values = read(&seen, &topic, partition);
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(number, value)| value[1000..] == number.to_string())
        );
        assert_eq!(values.len(), 20_000);
    }
}

#[test]
fn two_members_share_partitions_and_hand_them_over() {
    let (topic, pipeline, store, writer) = (
        new_topic("share", 4),
        unique("p"),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    let options = format!(":topics \"{topic}\"");
    for partition in 0..4 {
        writer.write(&topic, partition, values("a", 100));
    }
    let first = run(&options, &pipeline, &store);
    first.wait_for(400);
    let second = run(&options, &pipeline, &store);
    eventually("half of the partitions are handed over", || {
        store.lock().released.len() == 2 && store.lock().taken.len() == 6
    });
    for partition in 0..4 {
        writer.write(&topic, partition, values("b", 100));
    }
    second.wait_for(800);
    first.stop().unwrap();
    eventually("the rest comes too", || store.lock().taken.len() == 8);
    for partition in 0..4 {
        writer.write(&topic, partition, values("c", 100));
    }
    second.wait_for(1200);
    second.stop().unwrap();
    let expected = [values("a", 100), values("b", 100), values("c", 100)].concat();
    for partition in 0..4 {
        assert_eq!(read(&store, &topic, partition), expected);
    }
    let released: HashSet<_> = store.lock().released.iter().cloned().collect();
    assert_eq!(released.len(), 4);
}

#[test]
fn a_pattern_finds_topics_that_are_created_later() {
    let (prefix, seen, writer) = (
        unique("pattern"),
        Arc::new(Mutex::new(EngineState::default())),
        Writer::new(),
    );
    let (first, second, other) = (
        format!("{prefix}.1"),
        format!("{prefix}.2"),
        format!("x{prefix}.3"),
    );
    create_topic(&first, 1, &[]);
    create_topic(&other, 1, &[]);
    writer.write(&first, 0, values("a", 10));
    writer.write(&other, 0, values("no", 10));
    let options = format!(
        r#":topics #r"{prefix}\.\d" :properties {{"topic.metadata.refresh.interval.ms" "200"}}"#
    );
    let run = run(&options, &unique("p"), &seen);
    run.wait_for(10);
    create_topic(&second, 2, &[]);
    writer.write(&second, 1, values("b", 10));
    run.wait_for(20);
    run.stop().unwrap();
    assert_eq!(read(&seen, &first, 0), values("a", 10));
    assert_eq!(read(&seen, &second, 1), values("b", 10));
}

#[test]
fn a_second_member_with_the_same_static_name_ends_the_first() {
    let (topic, pipeline) = (new_topic("static", 1), unique("p"));
    let options = format!(":topics \"{topic}\" :instance-id \"one\"");
    let (first_seen, second_seen) = (Arc::default(), Arc::default());
    let first = run(&options, &pipeline, &first_seen);
    eventually("the first has its partition", || {
        first_seen.lock().begun.len() == 1
    });
    let second = run(&options, &pipeline, &second_seen);
    let Err(SourceError::Fatal(reason)) = first.wait() else {
        panic!("it continued")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(reason.contains(":instance-id"), "{reason}");
    eventually("the second has the partition", || {
        second_seen.lock().begun.len() == 1
    });
    second.stop().unwrap();
}

#[test]
fn a_sample_needs_no_group() {
    let (topic, writer, pipeline) = (new_topic("sample", 2), Writer::new(), unique("p"));
    writer.write(&topic, 1, values("a", 50));
    let texts = |options: &str, count| {
        let sampled = source(options)
            .sample(&setup(&pipeline, WantedMetadata::default()), count)
            .unwrap();
        let records = sampled.iter().flat_map(Payloads::iter).flatten();
        records
            .map(|record| String::from_utf8(record.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&format!(":topics \"{topic}\""), 10), values("a", 10));
    assert_eq!(
        texts(&format!(":topics \"{topic}\" :start :latest"), 10),
        values("a", 50)[40..]
    );
    assert_eq!(texts(&format!(":topics \"{topic}\""), 500), values("a", 50));
    assert_eq!(group_offsets(&pipeline, &topic, 1), [Offset::Invalid]);
    let missing =
        source(":topics \"no.such.topic\"").sample(&setup(&pipeline, WantedMetadata::default()), 1);
    let error = WithCauses(&missing.unwrap_err()).to_string();
    assert!(error.contains("does not exist"), "{error}");
}

#[test]
fn the_source_waits_for_brokers_that_do_not_answer() {
    // Nothing listens on this port, which was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let text = format!("{{:brokers \"127.0.0.1:{port}\" :topics \"t\"}}");
    let source = KafkaSourcePlugin
        .prepare(&options(KafkaSourcePlugin.spec(), &text))
        .unwrap();
    let running = Run::start(
        source,
        setup(&unique("p"), WantedMetadata::default()),
        Arc::default(),
        PLENTY,
        false,
    );
    std::thread::sleep(Duration::from_millis(500));
    assert!(running.is_running());
    running.stop().unwrap();
}

#[test]
fn invalid_options_are_reported() {
    for (text, expected) in [
        (":topics []", "at least one topic"),
        (":topics \"a b\"", "invalid topic name"),
        (":topics #r\"(?:a)\"", "POSIX"),
        (":topics \"a\" :start \"yesterday\"", ":earliest"),
        (":topics \"a\" :until :never", "latest"),
        (
            ":topics \"a\" :properties {\"enable.auto.commit\" true}",
            "durable",
        ),
        (":topics \"a\" :properties {\"group.id\" \"g\"}", ":group"),
    ] {
        let node = pseidon_dsl::edn::read(&format!("{{:brokers \"b:1\" {text}}}")).unwrap();
        let parsed = KafkaSourceOptions::parse_stage(
            KafkaSourcePlugin.spec(),
            &[node],
            pseidon_dsl::Span::default(),
        );
        let errors = parsed
            .and_then(|options| KafkaSourcePlugin.prepare(&options).map(drop))
            .unwrap_err();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(
            format!("{errors:?}").contains(expected),
            "{text}: {errors:?}"
        );
    }
}
