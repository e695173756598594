//! The topic that holds the positions: it has to keep them.

use pseidon_plugin::sink::SinkError;

use crate::sink_harness::{Pipeline, as_came, expected, records, split};
use crate::support::{create_topic, delete_topic};

#[test]
fn a_topic_that_does_not_keep_positions_is_refused() {
    for (policy, is_right) in [("compact", true), ("delete", false), ("compact,delete", false)] {
        let pipeline = Pipeline::new(1);
        create_topic(&pipeline.positions, 1, &[("cleanup.policy", policy)]);
        match pipeline.try_instance_of(&*pipeline.prepare("", &as_came())) {
            Ok(_) => assert!(is_right, "{policy} was accepted"),
            Err(SinkError::Fatal(reason)) => {
                assert!(
                    !is_right && reason.contains("cleanup.policy=compact") && reason.contains(&pipeline.positions),
                    "{policy}: {reason}"
                );
            }
            Err(other) => panic!("{policy}: {other}"),
        }
    }
}

/// Committed once, and copied as the engine does while nothing else is to do.
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
fn positions_that_were_deleted_are_missed() {
    let (pipeline, at) = (pipeline_with_a_copy(100), split(0));
    delete_topic(&pipeline.positions);
    assert_eq!(pipeline.instance().try_take(&at), Err(100), "the topic is there again, and empty");
}

#[test]
fn positions_beyond_the_copy_count() {
    let (pipeline, at) = (pipeline_with_a_copy(100), split(0));
    let mut second = pipeline.instance();
    assert_eq!(second.take(&at), 100);
    second.write(records(&at, 100..150)).unwrap();
    second.flush().unwrap();
    // It dies before it copies.
    std::mem::forget(second);
    let mut third = pipeline.instance();
    assert_eq!(third.take(&at), 150);
    third.write(records(&at, 150..160)).unwrap();
    third.flush().unwrap();
    third.release(&at);
    assert_eq!(pipeline.instance().take(&at), 160);
    assert_eq!(pipeline.values(1), expected(&at, 0..160));
}
