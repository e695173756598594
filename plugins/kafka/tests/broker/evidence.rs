//! How the source detects a state that was lost or is outdated, and a topic that was recreated.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::WithCauses;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::source::SourceError;
use rdkafka::Offset;
use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::{Writer, group_offsets, set_group_offset, transactional};
use crate::engine::{EngineState, Run, setup, source};
use crate::source::{PLENTY, read, run, split, values};
use crate::support::{PATIENCE, eventually, unique};
use crate::topics::{create_topic, delete_records, delete_topic, new_topic};

/// A store in which partition 0 of the topic has this position.
fn stored(topic: &str, position: u64) -> Arc<Mutex<EngineState>> {
    let mut seen = EngineState::default();
    seen.stored.insert(split(topic, 0), position);
    Arc::new(Mutex::new(seen))
}

#[test]
fn state_that_is_missing_although_the_group_has_offsets_is_an_error() {
    let (topic, pipeline, writer) = (new_topic("missing", 1), unique("p"), Writer::new());
    writer.write(&topic, 0, values("a", 20));
    let options = format!(":topics \"{topic}\" :until :latest");
    run(&options, &pipeline, &Arc::default()).wait().unwrap();
    assert_eq!(group_offsets(&pipeline, &topic, 1), [Offset::Offset(20)]);
    writer.write(&topic, 0, values("b", 5));

    let Err(SourceError::Fatal(reason)) = run(&options, &pipeline, &Arc::default()).wait() else {
        panic!("it continued")
    };
    let reason = WithCauses(&reason).to_string();
    for part in [
        ":on-missing-state",
        &format!("{topic}/0"),
        &pipeline,
        "offset 20",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    let group = Arc::new(Mutex::new(EngineState::default()));
    run(
        &format!("{options} :on-missing-state :group"),
        &pipeline,
        &group,
    )
    .wait()
    .unwrap();
    assert_eq!(read(&group, &topic, 0), values("b", 5));
    let start = Arc::new(Mutex::new(EngineState::default()));
    run(
        &format!("{options} :on-missing-state :start"),
        &pipeline,
        &start,
    )
    .wait()
    .unwrap();
    assert_eq!(start.lock().count(), 25);
}

/// The group's offset is above the position in the state and was committed from it, so the state is
/// an older copy.
#[test]
fn a_state_that_is_older_than_the_groups_offsets_is_an_error() {
    let (topic, pipeline, writer) = (new_topic("older", 1), unique("p"), Writer::new());
    writer.write(&topic, 0, values("a", 20));
    let options = format!(":topics \"{topic}\" :until :latest");
    run(&options, &pipeline, &Arc::default()).wait().unwrap();
    assert_eq!(group_offsets(&pipeline, &topic, 1), [Offset::Offset(20)]);

    // The result is the same without an end.
    for options in [options.clone(), format!(":topics \"{topic}\"")] {
        let Err(SourceError::Fatal(reason)) = run(&options, &pipeline, &stored(&topic, 5)).wait()
        else {
            panic!("it continued")
        };
        let reason = WithCauses(&reason).to_string();
        for part in [
            "older copy",
            ":on-missing-state",
            &format!("{topic}/0"),
            &pipeline,
            "offset 5",
            "offset 20",
            "15 records",
        ] {
            assert!(reason.contains(part), "{reason}");
        }
    }
    let another_state = setup(&pipeline, WantedMetadata::default());
    let another_state = pseidon_plugin::source::SourceSetup {
        state: "another".to_owned(),
        ..another_state
    };
    let seen = stored(&topic, 17);
    Run::start(source(&options), another_state, seen.clone(), PLENTY, false)
        .wait()
        .unwrap();
    assert_eq!(
        read(&seen, &topic, 0),
        values("a", 20)[17..],
        "an offset from another state is no evidence"
    );

    run(&options, &pipeline, &stored(&topic, 20))
        .wait()
        .unwrap();
    let seen = stored(&topic, 5);
    run(
        &format!("{options} :on-missing-state :start"),
        &pipeline,
        &seen,
    )
    .wait()
    .unwrap();
    assert_eq!(read(&seen, &topic, 0), values("a", 20)[5..]);
    writer.write(&topic, 0, values("b", 3));
    let seen = stored(&topic, 5);
    run(
        &format!("{options} :on-missing-state :group"),
        &pipeline,
        &seen,
    )
    .wait()
    .unwrap();
    assert_eq!(read(&seen, &topic, 0), values("b", 3));
}

/// A tool that moves the group's offset does not move the pipeline, in either direction.
#[test]
fn offsets_that_a_tool_has_set_are_no_evidence() {
    let (topic, pipeline, writer) = (new_topic("tool", 1), unique("p"), Writer::new());
    writer.write(&topic, 0, values("a", 20));
    let options = format!(":topics \"{topic}\" :until :latest");
    for (position, offset) in [(5, 15), (15, 5), (3, 20)] {
        set_group_offset(&pipeline, &topic, offset);
        let seen = stored(&topic, position);
        run(&options, &pipeline, &seen).wait().unwrap();
        assert_eq!(read(&seen, &topic, 0), values("a", 20)[position as usize..]);
        assert_eq!(group_offsets(&pipeline, &topic, 1), [Offset::Offset(20)]);
    }
}

#[test]
fn a_topic_that_is_shorter_than_what_was_read_is_an_error() {
    let (topic, pipeline, writer) = (new_topic("short", 1), unique("p"), Writer::new());
    writer.write(&topic, 0, values("a", 100));
    for more in [
        "",
        ":until :latest",
        ":on-gap :continue",
        ":until :latest :on-gap :continue",
    ] {
        let outcome = run(
            &format!(":topics \"{topic}\" {more}"),
            &pipeline,
            &stored(&topic, 500),
        )
        .wait();
        let Err(SourceError::Fatal(reason)) = outcome else {
            panic!("{more}: it continued: {outcome:?}")
        };
        let reason = WithCauses(&reason).to_string();
        assert!(
            reason.contains("ends at offset 100")
                && reason.contains("offset 500")
                && reason.contains("rename the source's stage"),
            "{reason}"
        );
    }
    run(
        &format!(":topics \"{topic}\" :until :latest"),
        &pipeline,
        &stored(&topic, 100),
    )
    .wait()
    .unwrap();
}

/// A topic that is deleted and created again is a different topic, regardless of its number of
/// records.
#[test]
fn a_topic_that_was_created_again_is_an_error() {
    for (count, more) in [
        (150, ""),
        (100, ":until :latest"),
        (150, ":until :latest :on-gap :continue"),
    ] {
        let (topic, pipeline, writer, seen) = (
            new_topic("again", 1),
            unique("p"),
            Writer::new(),
            Arc::default(),
        );
        writer.write(&topic, 0, values("a", 100));
        run(
            &format!(":topics \"{topic}\" :until :latest"),
            &pipeline,
            &seen,
        )
        .wait()
        .unwrap();
        delete_topic(&topic);
        create_topic(&topic, 1, &[]);
        Writer::new().write(&topic, 0, values("b", count));
        let outcome = run(&format!(":topics \"{topic}\" {more}"), &pipeline, &seen).wait();
        let Err(SourceError::Fatal(reason)) = outcome else {
            panic!("{more}: it continued: {outcome:?}")
        };
        let reason = WithCauses(&reason).to_string();
        assert!(
            reason.contains("deleted and created again") && reason.contains(&format!("{topic}/0")),
            "{reason}"
        );
        assert_eq!(read(&seen, &topic, 0), values("a", 100));
    }
}

#[test]
fn a_topic_that_is_created_again_while_it_is_read_is_an_error() {
    let (topic, pipeline, writer, seen) = (
        new_topic("again", 1),
        unique("p"),
        Writer::new(),
        Arc::default(),
    );
    writer.write(&topic, 0, values("a", 100));
    let running = run(&format!(":topics \"{topic}\""), &pipeline, &seen);
    running.wait_for(100);
    delete_topic(&topic);
    create_topic(&topic, 1, &[]);
    Writer::new().write(&topic, 0, values("b", 150));
    let outcome = running.wait();
    let Err(SourceError::Fatal(reason)) = outcome else {
        panic!("it continued: {outcome:?}")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(reason.contains("deleted and created again"), "{reason}");
}

/// A pause discards what was fetched ahead, but not the error about the next offset. The records are
/// deleted before they become visible, so that none is fetched first.
#[test]
fn records_that_are_deleted_before_a_pause_are_a_gap() {
    let (topic, writer) = (new_topic("paused-gap", 1), Writer::new());
    writer.write(&topic, 0, values("a", 10));
    let other = transactional(&unique("other"));
    other.begin_transaction().unwrap();
    for value in values("b", 10) {
        let record = BaseRecord::<(), String>::to(&topic).partition(0);
        other.send(record.payload(&value)).unwrap();
    }
    other.flush(PATIENCE).unwrap();
    let seen = Arc::new(Mutex::new(EngineState::default()));
    let run = Run::start(
        source(&format!(":topics \"{topic}\" :on-gap :continue")),
        setup(&unique("p"), WantedMetadata::default()),
        seen.clone(),
        10,
        true,
    );
    eventually("the budget is full", || run.budget.is_full());
    delete_records(&topic, 0, 20);
    // The source pauses after a second without room. If this machine is slower, it has received the
    // error, which must have the same result.
    std::thread::sleep(Duration::from_millis(1500));
    other.abort_transaction(PATIENCE).unwrap();
    writer.write(&topic, 0, values("c", 10));
    eventually("what was not deleted is read", || {
        run.held.lock().clear();
        seen.lock().count() == 20
    });
    run.stop().unwrap();
    assert_eq!(read(&seen, &topic, 0)[10..], values("c", 10));
}

#[test]
fn deleted_records_stop_the_run_unless_a_gap_is_accepted() {
    let (topic, pipeline, writer) = (new_topic("gap", 1), unique("p"), Writer::new());
    writer.write(&topic, 0, values("a", 100));
    delete_records(&topic, 0, 60);
    let stored = || {
        let mut seen = EngineState::default();
        seen.stored.insert(split(&topic, 0), 10);
        Arc::new(Mutex::new(seen))
    };
    let options = format!(":topics \"{topic}\" :until :latest");
    let Err(SourceError::Fatal(reason)) = run(&options, &pipeline, &stored()).wait() else {
        panic!("it continued")
    };
    let reason = WithCauses(&reason).to_string();
    for part in [":on-gap", &format!("{topic}/0"), "offset 10", "60 to 99"] {
        assert!(reason.contains(part), "{reason}");
    }
    let seen = stored();
    run(&format!("{options} :on-gap :continue"), &pipeline, &seen)
        .wait()
        .unwrap();
    assert_eq!(read(&seen, &topic, 0), values("a", 100)[60..]);

    delete_records(&topic, 0, 100);
    let Err(SourceError::Fatal(reason)) = run(&options, &unique("p"), &stored()).wait() else {
        panic!("it continued")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(
        reason.contains("no record (the next one will have offset 100)"),
        "{reason}"
    );
}
