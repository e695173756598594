//! Records that a topic does not accept are bad, and the others are delivered.

use std::sync::Arc;

use pseidon_delivery::WithCauses;
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::sink::{PreparedSink, SinkError};
use pseidon_plugin::{BadRow, BatchBuilder, Rows, Split};
use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use crate::clients::{accepts_record, committed_records};
use crate::sink::{changed, changed_input};
use crate::sink_harness::{Pipeline, no_columns, split, unchanged_input};
use crate::support::{eventually, unique};
use crate::topics::{alter_topic, create_topic};

const YEAR_2100: i64 = 4_102_444_800_000;

fn pipeline(config: &[(&str, &str)]) -> Pipeline {
    let mut pipeline = Pipeline::new(1);
    pipeline.topic = unique("picky");
    create_topic(&pipeline.topic, 1, config);
    pipeline
}

/// Records of these sizes.
fn of_sizes(at: &Arc<Split>, sizes: &[usize]) -> Rows {
    let mut builder = BatchBuilder::new(at.clone(), WantedMetadata::default(), 0);
    for (position, size) in sizes.iter().enumerate() {
        let value: Vec<u8> = (0..*size).map(|_| random_byte()).collect();
        builder.push(position as u64, Some(&value), RecordMeta::default());
    }
    Rows::new(
        Arc::new(builder.finish(sizes.len() as u64)),
        no_columns(sizes.len()),
    )
}

/// Writes the rows in one attempt after another, like the engine after a sink reported refused
/// records. Returns the rows that were bad when all others were committed.
fn write_until_taken(
    pipeline: &Pipeline,
    prepared: &dyn PreparedSink,
    at: &Arc<Split>,
    rows: &Rows,
) -> Vec<BadRow> {
    let mut last_bad = Vec::new();
    for attempt in 0..4 {
        let mut instance = pipeline.instance_of(prepared);
        match instance.take(at) {
            0 => {}
            all => {
                assert!(attempt > 1, "nothing was refused");
                assert_eq!(all, rows.len() as u64);
                return last_bad;
            }
        }
        let mut written = instance.write(rows.clone());
        if let Ok(bad) = &mut written {
            last_bad = std::mem::take(bad);
        }
        match written.and_then(|_| instance.flush()) {
            Ok(()) | Err(SinkError::Refused(_)) => {}
            Err(other) => panic!("attempt {attempt}: {other}"),
        }
    }
    panic!("records are still refused");
}

fn size(message: &OwnedMessage) -> usize {
    message.payload().map_or(0, <[u8]>::len)
}

fn rows_of(bad: &[BadRow]) -> Vec<u32> {
    bad.iter().map(|bad| bad.row).collect()
}

#[test]
fn a_timestamp_that_the_topic_does_not_accept_is_bad() {
    let (pipeline, at) = (
        pipeline(&[("message.timestamp.before.max.ms", "86400000")]),
        split(0),
    );
    let now = chrono::Utc::now().timestamp_millis();
    let mut instance =
        pipeline.instance_of(&*pipeline.prepare(r#":timestamp "at""#, &changed_input()));
    instance.take(&at);
    let times = vec![
        Some(now),
        Some(YEAR_2100),
        Some(now - 2 * 86_400_000),
        Some(0),
        None,
    ];
    let bad = instance
        .write(changed(&at, vec![None; 5], vec![None; 5], times))
        .unwrap();
    assert_eq!(rows_of(&bad), [1, 2, 3], "{bad:?}");
    for (bad, expected) in bad.iter().zip([
        "2100-01-01T00:00:00Z is more than 3600000 ms in the future",
        "in the past",
        "timestamp is 0",
    ]) {
        assert!(bad.reason.contains(expected), "{bad:?}");
    }
    instance.flush().unwrap();
    assert_eq!(committed_records(&pipeline.topic, 1).len(), 2);
}

#[test]
fn a_compacted_topic_needs_a_key() {
    let (pipeline, at) = (pipeline(&[("cleanup.policy", "compact")]), split(0));
    let open = |more: &str| pipeline.try_instance_of(&*pipeline.prepare(more, &changed_input()));
    let Err(SinkError::Fatal(reason)) = open("") else {
        panic!("the sink opened without a key")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(reason.contains("set `:key`"), "{reason}");
    let mut instance = open(r#":key "user""#).unwrap_or_else(|error| panic!("{error}"));
    instance.take(&at);
    let bad = instance
        .write(changed(
            &at,
            vec![Some("a"), None, Some("b")],
            vec![None; 3],
            vec![None; 3],
        ))
        .unwrap();
    assert_eq!(rows_of(&bad), [1]);
    assert!(bad[0].reason.contains("needs a key"), "{bad:?}");
    instance.flush().unwrap();
    let keys: Vec<_> = committed_records(&pipeline.topic, 1)
        .iter()
        .map(|message| message.key().map(<[u8]>::to_vec))
        .collect();
    assert_eq!(keys, [Some(b"a".to_vec()), Some(b"b".to_vec())]);
}

#[test]
fn records_that_only_the_broker_refuses_are_bad_in_the_next_attempt() {
    let (pipeline, at) = (pipeline(&[]), split(0));
    let prepared = pipeline.prepare(r#":key "user""#, &changed_input());
    let mut instance = pipeline.instance_of(&*prepared);
    instance.take(&at);
    // The sink's rules of the topic are outdated from now on.
    alter_topic(&pipeline.topic, &[("cleanup.policy", "compact")]);
    eventually("the broker refuses records without a key", || {
        !accepts_record(&pipeline.topic, None, None)
    });
    let before = committed_records(&pipeline.topic, 1).len();
    let users = vec![Some("a"), None, Some("b"), Some("c"), None, Some("d")];
    let rows = changed(&at, users, vec![None; 6], vec![None; 6]);
    assert_eq!(
        instance.write(rows.clone()).unwrap(),
        [],
        "no refusal is known yet"
    );
    let Err(SinkError::Refused(reason)) = instance.flush() else {
        panic!("it was committed")
    };
    let reason = WithCauses(&reason).to_string();
    assert!(
        reason.contains("2 in total") && reason.contains("position 1"),
        "{reason}"
    );
    drop(instance);
    // The topic is as before, but the refusals are remembered.
    alter_topic(&pipeline.topic, &[("cleanup.policy", "delete")]);
    eventually("the broker accepts records without a key", || {
        accepts_record(&pipeline.topic, None, None)
    });
    let before = before + 1;
    let mut instance = pipeline.instance_of(&*prepared);
    assert_eq!(instance.take(&at), 0);
    let bad = instance.write(rows).unwrap();
    assert_eq!(rows_of(&bad), [1, 4]);
    assert_eq!(instance.late, [1, 4], "the quarantine may be past them");
    assert!(
        bad[0].reason.contains("the broker refuses the record"),
        "{bad:?}"
    );
    instance.flush().unwrap();
    let records = committed_records(&pipeline.topic, 1);
    let keys: Vec<_> = records[before..]
        .iter()
        .map(|message| message.key().map(|key| key[0] as char))
        .collect();
    assert_eq!(keys, ['a', 'b', 'c', 'd'].map(Some));
}

#[test]
fn a_refused_batch_is_judged_record_by_record() {
    let (pipeline, at) = (pipeline(&[("max.message.bytes", "5000")]), split(0));
    // The client builds batches that are larger than the topic accepts.
    let prepared = pipeline.prepare(
        r#":properties {"message.max.bytes" 1000000 "batch.size" 1000000 "linger.ms" 200}"#,
        &unchanged_input(),
    );
    let sizes = [1000; 20];
    let rows = of_sizes(&at, &sizes);
    assert_eq!(write_until_taken(&pipeline, &*prepared, &at, &rows), []);
    assert_eq!(committed_records(&pipeline.topic, 1).len(), 20);
}

#[test]
fn small_records_of_a_topic_with_a_small_limit_share_batches_that_fit() {
    let (pipeline, at) = (pipeline(&[("max.message.bytes", "5000")]), split(0));
    let mut instance = pipeline
        .instance_of(&*pipeline.prepare(r#":properties {"linger.ms" 200}"#, &unchanged_input()));
    instance.take(&at);
    assert_eq!(instance.write(of_sizes(&at, &[1000; 20])).unwrap(), []);
    instance.flush().unwrap();
    assert_eq!(committed_records(&pipeline.topic, 1).len(), 20);
}

#[test]
fn the_limit_of_the_topic_overrides_the_default_of_the_client() {
    let (pipeline, at) = (pipeline(&[("max.message.bytes", "10000000")]), split(0));
    let mut instance = pipeline.instance();
    instance.take(&at);
    let limit = 10_000_000;
    let overhead = 61 + 4 + 3 + 1 + 4 + 1;
    let rows = of_sizes(&at, &[3_000_000, limit - overhead, limit - overhead + 1]);
    let bad = instance.write(rows).unwrap();
    assert_eq!(rows_of(&bad), [2]);
    assert!(
        bad[0].reason.contains("takes 10000001 bytes")
            && bad[0].reason.contains("accepts 10000000"),
        "{bad:?}"
    );
    instance.flush().unwrap();
    assert_eq!(
        committed_records(&pipeline.topic, 1)
            .iter()
            .map(size)
            .collect::<Vec<_>>(),
        [3_000_000, limit - overhead]
    );
    drop(instance);
    let own = pipeline.prepare(
        r#":properties {"message.max.bytes" 2000}"#,
        &unchanged_input(),
    );
    let mut instance = pipeline.instance_of(&*own);
    instance.take(&split(1));
    let bad = instance.write(of_sizes(&split(1), &[3000])).unwrap();
    assert!(
        bad[0]
            .reason
            .contains("`message.max.bytes` of the sink allows 2000"),
        "{bad:?}"
    );
}

#[test]
fn a_record_is_measured_after_compression() {
    for compression in ["gzip", "snappy", "zstd", "lz4"] {
        let (pipeline, at) = (pipeline(&[("max.message.bytes", "5000")]), split(0));
        let prepared = pipeline.prepare(
            &format!(r#":properties {{"compression.type" "{compression}"}}"#),
            &unchanged_input(),
        );
        let mut builder = BatchBuilder::new(at.clone(), WantedMetadata::default(), 0);
        builder.push(0, Some(&[b'x'; 20_000]), RecordMeta::default());
        let compressible = Rows::new(Arc::new(builder.finish(1)), no_columns(1));
        let mut instance = pipeline.instance_of(&*prepared);
        instance.take(&at);
        assert_eq!(instance.write(compressible).unwrap(), [], "{compression}");
        instance.flush().unwrap();
        assert_eq!(size(&committed_records(&pipeline.topic, 1)[0]), 20_000);
    }
}

#[test]
fn a_record_that_is_too_large_after_compression_is_bad() {
    let (pipeline, at) = (pipeline(&[("max.message.bytes", "5000")]), split(0));
    let random: Vec<u8> = (0..6000).map(|_| random_byte()).collect();
    let mut builder = BatchBuilder::new(at.clone(), WantedMetadata::default(), 0);
    for (position, value) in [vec![b'a'; 10], random, vec![b'b'; 10]].iter().enumerate() {
        builder.push(position as u64, Some(value), RecordMeta::default());
    }
    let rows = Rows::new(Arc::new(builder.finish(3)), no_columns(3));
    let prepared = pipeline.prepare(
        r#":properties {"compression.type" "zstd"}"#,
        &unchanged_input(),
    );
    let mut instance = pipeline.instance_of(&*prepared);
    instance.take(&at);
    let bad = instance.write(rows.clone()).unwrap();
    assert!(
        rows_of(&bad) == [1] && bad[0].reason.contains("after compression"),
        "{bad:?}"
    );
    assert!(instance.late.is_empty(), "it was never sent");
    drop(instance);
    // The size after this compression is left to the broker.
    let prepared = pipeline.prepare(
        r#":properties {"compression.type" "lz4"}"#,
        &unchanged_input(),
    );
    let bad = write_until_taken(&pipeline, &*prepared, &at, &rows);
    assert_eq!(rows_of(&bad), [1]);
    assert_eq!(committed_records(&pipeline.topic, 1).len(), 2);
}

/// A byte of a sequence that does not compress.
fn random_byte() -> u8 {
    use std::cell::Cell;
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0x9E37_79B9_7F4A_7C15) });
    let mut state = STATE.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.set(state);
    (state >> 32) as u8
}
