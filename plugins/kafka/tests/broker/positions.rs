//! The positions topic, which must not lose positions.

use std::collections::BTreeSet;
use std::time::Duration;

use pseidon_delivery::WithCauses;
use pseidon_delivery::committer::CommitterError;
use pseidon_plugin::sink::{SinkError, TakenSplit};
use rdkafka::Message;
use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::{committed_records, transactional};
use crate::sink::changed_input;
use crate::sink_harness::{Pipeline, expected, records, split, unchanged_input};
use crate::support::{PATIENCE, eventually, unique};
use crate::topics::{create_topic, delete_topic, grow_topic, partitions_of};

#[test]
fn a_topic_that_does_not_keep_positions_is_refused() {
    for (policy, is_right) in [
        ("compact", true),
        ("delete", false),
        ("compact,delete", false),
    ] {
        let pipeline = Pipeline::new(1);
        create_topic(&pipeline.positions, 1, &[("cleanup.policy", policy)]);
        match pipeline.try_instance_of(&*pipeline.prepare("", &unchanged_input())) {
            Ok(_) => assert!(is_right, "{policy} was accepted"),
            Err(SinkError::Fatal(reason)) => {
                let reason = WithCauses(&reason).to_string();
                assert!(
                    !is_right
                        && reason.contains("cleanup.policy=compact")
                        && reason.contains(&pipeline.positions),
                    "{policy}: {reason}"
                );
            }
            Err(other) => panic!("{policy}: {other}"),
        }
    }
}

/// A pipeline that has committed once, with a copy of the position as the engine makes it when
/// idle.
fn pipeline_with_a_copy(upto: u64) -> Pipeline {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut instance = pipeline.instance();
    assert_eq!(instance.take(&at), 0);
    instance.write(records(&at, 0..upto)).unwrap();
    instance.flush().unwrap();
    instance.committer.commit_idle().unwrap();
    pipeline
}

#[test]
fn deleted_positions_are_detected() {
    let (pipeline, at) = (pipeline_with_a_copy(100), split(0));
    delete_topic(&pipeline.positions);
    assert_eq!(
        pipeline.instance().try_take(&at),
        Err(100),
        "the topic exists again, and is empty"
    );
}

#[test]
fn positions_above_the_copy_are_used() {
    let (pipeline, at) = (pipeline_with_a_copy(100), split(0));
    let mut second = pipeline.instance();
    assert_eq!(second.take(&at), 100);
    second.write(records(&at, 100..150)).unwrap();
    second.flush().unwrap();
    // It crashes before it copies.
    std::mem::forget(second);
    let mut third = pipeline.instance();
    assert_eq!(third.take(&at), 150);
    third.write(records(&at, 150..160)).unwrap();
    third.flush().unwrap();
    third.release(&at);
    assert_eq!(pipeline.instance().take(&at), 160);
    assert_eq!(pipeline.values(1), expected(&at, 0..160));
}

#[test]
fn transactions_in_other_partitions_cause_no_delay() {
    let (pipeline, at) = (pipeline_with_a_copy(10), split(0));
    let partitions = 16;
    let ours = committed_records(&pipeline.positions, partitions)[0].partition();
    let other = transactional(&unique("other"));
    other.begin_transaction().unwrap();
    for partition in (0..partitions).filter(|partition| *partition != ours) {
        other
            .send(
                BaseRecord::to(&pipeline.positions)
                    .partition(partition)
                    .key("other/sink/split")
                    .payload("{}"),
            )
            .unwrap();
    }
    other.flush(PATIENCE).unwrap();
    let instance = pipeline.instance();
    let taking = std::thread::spawn(move || (instance.take(&split(0)), instance.take(&split(1))));
    eventually("the splits are taken, the new one too", || {
        taking.is_finished()
    });
    assert_eq!(taking.join().unwrap(), (10, 0));
    other.abort_transaction(PATIENCE).unwrap();
    assert_eq!(pipeline.instance().take(&at), 10);
}

#[test]
fn positions_are_found_when_the_topic_has_more_partitions_than_before() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    create_topic(&pipeline.positions, 1, &[("cleanup.policy", "compact")]);
    let mut upto = 0;
    // Positions are left in several partitions.
    for partitions in [1, 3, 4, 5, 16] {
        if partitions > 1 {
            grow(&pipeline, partitions);
        }
        for _ in 0..2 {
            let mut next = pipeline.instance();
            assert_eq!(next.take(&at), upto, "with {partitions} partitions");
            next.write(records(&at, upto..upto + 10)).unwrap();
            next.flush().unwrap();
            next.release(&at);
            upto += 10;
        }
    }
    assert_eq!(pipeline.values(1), expected(&at, 0..upto));
}

fn grow(pipeline: &Pipeline, partitions: i32) {
    grow_topic(&pipeline.positions, partitions);
    eventually("the topic has grown", || {
        partitions_of(&pipeline.positions) == partitions
    });
}

#[test]
fn an_open_transaction_hides_no_position_of_a_topic_that_has_grown() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    create_topic(&pipeline.positions, 1, &[("cleanup.policy", "compact")]);
    let mut first = pipeline.instance();
    first.take(&at);
    first.write(records(&at, 0..10)).unwrap();
    first.flush().unwrap();
    let other = transactional(&unique("other"));
    other.begin_transaction().unwrap();
    other
        .send(
            BaseRecord::to(&pipeline.positions)
                .partition(0)
                .key("other/sink/split")
                .payload("{}"),
        )
        .unwrap();
    other.flush(PATIENCE).unwrap();
    first.write(records(&at, 10..20)).unwrap();
    first.flush().unwrap();
    grow(&pipeline, 16);
    let second = pipeline.instance();
    let taking = std::thread::spawn(move || second.take(&split(0)));
    // Longer than a take-over that does not wait takes.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!taking.is_finished(), "it did not wait");
    other.abort_transaction(PATIENCE).unwrap();
    assert_eq!(taking.join().unwrap(), 20);
}

/// An instance that still uses the former partition would not see what others have written to the
/// new one.
#[test]
fn an_instance_notices_that_the_topic_has_more_partitions() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    create_topic(&pipeline.positions, 1, &[("cleanup.policy", "compact")]);
    let mut earlier = pipeline.instance();
    earlier.take(&at);
    earlier.write(records(&at, 0..10)).unwrap();
    earlier.flush().unwrap();
    grow(&pipeline, 16);
    // What it has goes on.
    earlier.write(records(&at, 10..20)).unwrap();
    earlier.flush().unwrap();
    let record = earlier.start_take_over(&at);
    let taken = TakenSplit {
        split: at.id.clone(),
        epoch: record.epoch,
        owners: record.owners,
        low: record.low,
    };
    match earlier.sink.take_over(&[taken], &[]) {
        Err(SinkError::Transient(reason)) => {
            assert!(
                reason.to_string().contains("number of partitions"),
                "{reason}"
            )
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(pipeline.instance().take(&at), 20);
}

/// The transactional ids of this pipeline that the broker has.
fn transactional_ids(pipeline: &Pipeline) -> BTreeSet<String> {
    let state = "__transaction_state";
    let records = committed_records(state, partitions_of(state));
    let keys = records
        .iter()
        .filter_map(|record| Some(String::from_utf8_lossy(record.key()?).into_owned()));
    keys.filter(|key| key.contains(&pipeline.name)).collect()
}

#[test]
fn all_attempts_of_a_process_use_one_id() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let (prepared, process) = (pipeline.prepare("", &unchanged_input()), unique("process"));
    let attempt = |number: u64| {
        pipeline
            .try_attempt(&*prepared, &format!("{process}.{number}"))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let mut attempts = Vec::new();
    for number in 0..3 {
        let mut instance = attempt(number);
        assert_eq!(instance.take(&at), number * 10);
        instance
            .write(records(&at, number * 10..number * 10 + 10))
            .unwrap();
        instance.flush().unwrap();
        // It fails with an open transaction that is not aborted.
        instance
            .write(records(&at, number * 10 + 10..number * 10 + 20))
            .unwrap();
        attempts.push(instance);
    }
    assert_eq!(transactional_ids(&pipeline).len(), 1);
    let last = attempts.pop();
    for earlier in &mut attempts {
        assert!(
            matches!(
                earlier.flush(),
                Err(SinkError::Committer(CommitterError::Fenced(_)))
            ),
            "the next attempt has fenced it off"
        );
    }
    // Another process takes over.
    let mut heir = pipeline.instance();
    assert_eq!(heir.take(&at), 30);
    assert!(matches!(
        last.unwrap().flush(),
        Err(SinkError::Committer(CommitterError::Fenced(_)))
    ));
    heir.flush().unwrap();
    assert_eq!(pipeline.values(1), expected(&at, 0..30));
}

#[test]
fn a_failed_start_leaves_no_id() {
    let mut pipeline = Pipeline::new(1);
    pipeline.topic = unique("compacted");
    create_topic(&pipeline.topic, 1, &[("cleanup.policy", "compact")]);
    for _ in 0..3 {
        assert!(
            pipeline
                .try_instance_of(&*pipeline.prepare("", &changed_input()))
                .is_err()
        );
    }
    assert_eq!(transactional_ids(&pipeline), BTreeSet::new());
}
