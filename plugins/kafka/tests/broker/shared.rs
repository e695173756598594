//! One consumer for many runs: no run can stop another one, whatever it does or fails to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use pseidon_delivery::WithCauses;
use pseidon_dsl::{NodeKind, Span, edn};
use pseidon_kafka::source::shared::{SharedConsumer, SharedOptions, SharedSettings};
use pseidon_plugin::Budget;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::options::Options;
use pseidon_plugin::source::SourceError;
use rdkafka::ClientConfig;
use rdkafka::Offset;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::clients::{Writer, group_offsets};
use crate::engine::{EngineState, Run, setup};
use crate::source::{PLENTY, values};
use crate::support::{PATIENCE, brokers, eventually, unique};
use crate::topics::new_topic;

/// Settings of members that time out after six seconds and must answer the group within four.
fn settings(brokers: &str) -> SharedSettings {
    let properties =
        "{\"session.timeout.ms\" 6000 \"heartbeat.interval.ms\" 300 \"max.poll.interval.ms\" 8000}";
    let text = format!("{{:brokers \"{brokers}\" :properties {properties}}}");
    let NodeKind::Map(entries) = edn::read(&text).unwrap().kind else {
        panic!("{text} is not a map")
    };
    let options = SharedOptions::parse_map("shared", &entries, Span::default()).unwrap();
    SharedSettings::new(&options).unwrap()
}

/// A consumer of these topics.
struct SharedHarness {
    consumer: Arc<SharedConsumer>,
    budget: Arc<Budget>,
    group: String,
}

impl SharedHarness {
    fn start(settings: SharedSettings, group: &str, topics: &[&str]) -> SharedHarness {
        let budget = Budget::new(PLENTY);
        let consumer = SharedConsumer::start(
            settings,
            setup(group, WantedMetadata::default()),
            budget.clone(),
        )
        .unwrap();
        consumer.subscribe(topics.iter().map(|topic| (*topic).to_owned()).collect());
        SharedHarness {
            consumer: Arc::new(consumer),
            budget,
            group: group.to_owned(),
        }
    }

    fn attach(&self, topic: &str, seen: &Arc<Mutex<EngineState>>) -> Run {
        Run::attach(
            &self.consumer,
            topic,
            setup(&self.group, WantedMetadata::default()),
            seen.clone(),
            self.budget.clone(),
        )
    }
}

fn write_all(writer: &Writer, topic: &str, prefix: &str) {
    (0..4).for_each(|partition| writer.write(topic, partition, values(prefix, 100)));
}

#[test]
fn a_run_whose_engine_is_stuck_stops_no_other() {
    let (stuck_topic, topic, writer) = (new_topic("stuck", 4), new_topic("well", 4), Writer::new());
    write_all(&writer, &stuck_topic, "a");
    write_all(&writer, &topic, "a");
    let shared = SharedHarness::start(settings(&brokers()), &unique("p"), &[&stuck_topic, &topic]);
    let stuck = shared.attach(&stuck_topic, &Arc::default());
    stuck.is_stuck.store(true, Ordering::Relaxed);
    let other = shared.attach(&topic, &Arc::default());
    other.wait_for(400);
    // More than its engine's queue has room for, while records come for the other.
    for round in 1..=3 {
        for _ in 0..30 {
            write_all(&writer, &stuck_topic, "b");
        }
        write_all(&writer, &topic, "b");
        other.wait_for(400 + round * 400);
    }
    other.stop().unwrap();
    stuck.is_stuck.store(false, Ordering::Relaxed);
    stuck.wait_for(400 + 3 * 30 * 400);
    stuck.stop().unwrap();
}

#[test]
fn the_last_offsets_of_each_run_are_written_whatever_else_is_stopping() {
    let (stuck_topic, topic, writer) = (new_topic("stuck", 4), new_topic("well", 4), Writer::new());
    write_all(&writer, &stuck_topic, "a");
    write_all(&writer, &topic, "a");
    let shared = SharedHarness::start(settings(&brokers()), &unique("p"), &[&stuck_topic, &topic]);
    let stuck = shared.attach(&stuck_topic, &Arc::default());
    let other = shared.attach(&topic, &Arc::default());
    stuck.wait_for(400);
    other.wait_for(400);
    let are_written = |topic: &str| {
        eventually("the last offsets are written", || {
            group_offsets(&shared.group, topic, 4) == [Offset::Offset(100); 4]
        });
    };
    // It cannot commit what it stops with.
    stuck.is_stuck.store(true, Ordering::Relaxed);
    stuck.stop.stop_reading();
    other.stop().unwrap();
    are_written(&topic);
    stuck.is_stuck.store(false, Ordering::Relaxed);
    stuck.wait().unwrap();
    are_written(&stuck_topic);
}

#[test]
fn a_run_that_cannot_commit_delays_a_rebalance_for_a_limited_time() {
    let (stuck_topic, topic, writer, group) = (
        new_topic("stuck", 4),
        new_topic("well", 4),
        Writer::new(),
        unique("p"),
    );
    let (stuck_store, store) = (Arc::default(), Arc::default());
    let first = SharedHarness::start(settings(&brokers()), &group, &[&stuck_topic, &topic]);
    let (stuck, other) = (
        first.attach(&stuck_topic, &stuck_store),
        first.attach(&topic, &store),
    );
    write_all(&writer, &stuck_topic, "a");
    write_all(&writer, &topic, "a");
    stuck.wait_for(400);
    other.wait_for(400);
    stuck.is_stuck.store(true, Ordering::Relaxed);

    let second = SharedHarness::start(settings(&brokers()), &group, &[&stuck_topic, &topic]);
    let (stuck_second, other_second) = (
        second.attach(&stuck_topic, &stuck_store),
        second.attach(&topic, &store),
    );
    let outcome = loop {
        write_all(&writer, &topic, "b");
        if !stuck.is_running() {
            let is_stuck = stuck.is_stuck.clone();
            assert!(is_stuck.load(Ordering::Relaxed));
            break stuck.wait();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    let Err(SourceError::Transient(reason)) = outcome else {
        panic!("it continued: {outcome:?}")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(reason.contains("not committed"), "{reason}");
    eventually("partitions are handed over", || {
        stuck_store.lock().taken.len() + store.lock().taken.len() > 8
    });
    // The other run continues, whichever consumer has its partitions now.
    let received =
        || other.received.load(Ordering::Relaxed) + other_second.received.load(Ordering::Relaxed);
    let before = received();
    write_all(&writer, &topic, "c");
    eventually("reading continues", || received() >= before + 400);
    for run in [other, other_second, stuck_second] {
        run.stop().unwrap();
    }
}

/// A run may end before its partitions are taken over. The next run reads them.
#[test]
fn runs_that_end_at_once_leave_their_partitions_to_the_next() {
    let (topic, busy, writer, store) = (
        new_topic("brief", 4),
        new_topic("busy", 4),
        Writer::new(),
        Arc::default(),
    );
    write_all(&writer, &topic, "a");
    write_all(&writer, &busy, "a");
    let shared = SharedHarness::start(settings(&brokers()), &unique("p"), &[&topic, &busy]);
    let other = shared.attach(&busy, &Arc::default());
    other.wait_for(400);
    for _ in 0..20 {
        shared.attach(&topic, &store).stop().unwrap();
    }
    let last = shared.attach(&topic, &store);
    eventually("everything is read", || store.lock().count() == 400);
    last.stop().unwrap();
    other.stop().unwrap();
}

#[test]
fn a_consumer_that_dies_is_an_error_for_every_run() {
    let (topic, writer) = (new_topic("dies", 4), Writer::new());
    write_all(&writer, &topic, "a");
    let settings = settings(&brokers()).with_external_offsets(Arc::new(|_| panic!("on purpose")));
    let shared = SharedHarness::start(settings, &unique("p"), &[&topic]);
    let run = shared.attach(&topic, &Arc::default());
    let outcome = run.wait();
    let Err(SourceError::Transient(reason)) = outcome else {
        panic!("it continued: {outcome:?}")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(reason.contains("internal error"), "{reason}");
}

/// The start of a partition without a leader cannot be looked up, which delays neither the other
/// partitions nor the end of a run.
#[test]
fn a_partition_without_a_leader_stops_no_other() {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["whole", "half"] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    for topic in ["whole", "half"] {
        for number in 0..100 {
            let value = number.to_string();
            producer
                .send(
                    BaseRecord::<(), String>::to(topic)
                        .partition(number % 2)
                        .payload(&value),
                )
                .map_err(|(error, _)| error)
                .unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
    cluster.partition_leader("half", 1, None).unwrap();
    let shared = SharedHarness::start(
        settings(&cluster.bootstrap_servers()),
        "p",
        &["whole", "half"],
    );
    let (whole, half) = (
        shared.attach("whole", &Arc::default()),
        shared.attach("half", &Arc::default()),
    );
    whole.wait_for(100);
    half.wait_for(50);
    let metrics = half.setup.metrics.clone();
    eventually("the problem is reported", || {
        metrics
            .troubles(true)
            .iter()
            .any(|problem| problem.contains("half/1") && problem.contains("leads"))
    });
    whole.stop().unwrap();
    cluster.partition_leader("half", 1, Some(1)).unwrap();
    half.wait_for(100);
    eventually("the problem is gone", || metrics.troubles(true).is_empty());
    half.stop().unwrap();
}
