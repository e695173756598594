//! Tests of the sink.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_delivery::CommitRecord;
use pseidon_delivery::committer::{CommitterError, SplitToBegin};
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::{Column, Scope};
use pseidon_kafka::KafkaSinkPlugin;
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::sink::{RecordShape, SinkError, SinkInput, SinkPlugin, TakenSplit};
use pseidon_plugin::{BatchBuilder, Rows, Split};
use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::{committed_records, transactional};
use crate::sink_harness::{Pipeline, expected, no_columns, records, split, text, unchanged_input};
use crate::support::{PATIENCE, eventually, options, unique};
use crate::topics::create_topic;

#[test]
fn committed_records_are_seen_once_and_the_next_run_continues_after_them() {
    let (pipeline, at) = (Pipeline::new(1), split(3));
    let mut first = pipeline.instance();
    assert_eq!(first.take(&at), 0);
    first.write(records(&at, 0..1000)).unwrap();
    assert_eq!(
        pipeline.values(1),
        [""; 0],
        "nothing is visible before the commit"
    );
    first.flush().unwrap();
    assert_eq!(pipeline.values(1), expected(&at, 0..1000));
    first.write(records(&at, 1000..1500)).unwrap();
    // The process crashes: the transaction stays open.
    std::mem::forget(first);

    let mut second = pipeline.instance();
    assert_eq!(second.take(&at), 1000);
    second.write(records(&at, 1000..1600)).unwrap();
    second.flush().unwrap();
    assert_eq!(pipeline.values(1), expected(&at, 0..1600));
    second.release(&at);
    assert_eq!(pipeline.instance().take(&at), 1600);
}

#[test]
fn a_frozen_producer_cannot_commit_after_it_was_fenced_off() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut frozen = pipeline.instance();
    frozen.take(&at);
    frozen.write(records(&at, 0..10)).unwrap();
    // This one takes the split too, and crashes before it has fenced any owner off.
    let dead = pipeline.instance();
    assert_eq!(dead.start_take_over(&at).owners, [frozen.name.clone()]);

    let mut heir = pipeline.instance();
    assert_eq!(heir.take(&at), 0);
    let flushed = frozen.flush();
    assert!(
        matches!(
            flushed,
            Err(SinkError::Committer(CommitterError::Fenced(_)))
        ),
        "the frozen producer has committed: {flushed:?}"
    );
    heir.write(records(&at, 0..20)).unwrap();
    heir.flush().unwrap();
    assert_eq!(pipeline.values(1), expected(&at, 0..20));
    let taken = TakenSplit {
        split: at.id.clone(),
        epoch: 2,
        owners: vec![],
        low: Some(0),
    };
    assert!(dead.sink.take_over(&[taken], &[]).is_ok());
    let mut dead = dead;
    let record = CommitRecord {
        low: Some(0),
        ..CommitRecord::default()
    };
    dead.committer
        .begin(vec![SplitToBegin {
            split: at.id.clone(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    assert!(matches!(
        dead.write(records(&at, 0..5)).and_then(|_| dead.flush()),
        Err(SinkError::Committer(CommitterError::Fenced(_)))
    ));
    assert_eq!(pipeline.values(1), expected(&at, 0..20));
}

#[test]
fn a_released_split_moves_without_disturbing_its_last_owner() {
    let (pipeline, kept, moved) = (Pipeline::new(1), split(0), split(1));
    let mut first = pipeline.instance();
    first.take(&kept);
    first.take(&moved);
    first.write(records(&kept, 0..5)).unwrap();
    first.write(records(&moved, 0..5)).unwrap();
    first
        .lanes
        .flush(Some(std::slice::from_ref(&moved.id)), || {})
        .unwrap();
    first.release(&moved);
    let mut second = pipeline.instance();
    assert_eq!(second.take(&moved), 5);
    first.write(records(&kept, 5..9)).unwrap();
    second.write(records(&moved, 5..9)).unwrap();
    second.flush().unwrap();
    first.flush().unwrap();
    let mut values = pipeline.values(1);
    values.sort();
    assert_eq!(
        values,
        [expected(&kept, 0..9), expected(&moved, 0..9)].concat()
    );
}

#[test]
fn a_transaction_is_committed_when_it_is_old_or_full() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let prepared = pipeline.prepare(
        ":transaction {:records 100 :age \"50ms\"}",
        &unchanged_input(),
    );
    let mut instance = pipeline.instance_of(&*prepared);
    instance.take(&at);
    instance.write(records(&at, 0..100)).unwrap();
    assert_eq!(pipeline.values(1).len(), 100);
    instance.write(records(&at, 100..120)).unwrap();
    eventually("the transaction is old enough", || {
        instance.lanes.tick().unwrap();
        pipeline.values(1).len() == 120
    });
}

#[test]
fn positions_advance_if_every_record_was_filtered_out() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut first = pipeline.instance();
    first.take(&at);
    first.committer.ledger().advance(&at.id, 77, None);
    first.flush().unwrap();
    first.release(&at);
    assert_eq!(pipeline.instance().take(&at), 77);
    assert_eq!(pipeline.values(1), [""; 0]);
}

#[test]
fn a_take_over_waits_for_transactions_that_hide_positions() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    create_topic(&pipeline.positions, 1, &[("cleanup.policy", "compact")]);
    let mut first = pipeline.instance();
    first.take(&at);
    // Another sink's transaction in the same positions topic is open, before this one's.
    let other = transactional(&unique("other"));
    other.begin_transaction().unwrap();
    other
        .send(
            BaseRecord::to(&pipeline.positions)
                .key("other/sink/split")
                .payload("{}"),
        )
        .unwrap();
    other.flush(PATIENCE).unwrap();
    first.write(records(&at, 0..10)).unwrap();
    first.flush().unwrap();
    first.release(&at);

    let second = pipeline.instance();
    let taking = std::thread::spawn({
        let at = at.clone();
        move || second.take(&at)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!taking.is_finished(), "it did not wait");
    other.abort_transaction(PATIENCE).unwrap();
    assert_eq!(taking.join().unwrap(), 10);
}

#[test]
fn tombstones_stay_tombstones() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let scope = Scope::default();
    let input = SinkInput {
        scope,
        record: RecordShape::AsCame {
            format: "json".into(),
        },
    };
    let mut instance = pipeline.instance_of(&*pipeline.prepare(":key \"@key\"", &input));
    instance.take(&at);
    let mut builder = BatchBuilder::new(
        at.clone(),
        WantedMetadata {
            key: true,
            ..WantedMetadata::default()
        },
        0,
    );
    builder.push(
        0,
        None,
        RecordMeta {
            key: Some(b"gone"),
            ..RecordMeta::default()
        },
    );
    builder.push(1, Some(b"{}"), RecordMeta::default());
    assert_eq!(
        instance
            .write(Rows::new(Arc::new(builder.finish(2)), no_columns(2)))
            .unwrap(),
        []
    );
    instance.flush().unwrap();
    let written: Vec<_> = committed_records(&pipeline.topic, 1)
        .iter()
        .map(|message| {
            (
                message.key().map(<[u8]>::to_vec),
                message.payload().map(<[u8]>::to_vec),
            )
        })
        .collect();
    assert_eq!(
        written,
        [(Some(b"gone".to_vec()), None), (None, Some(b"{}".to_vec()))]
    );
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("part", DataType::Int64, true),
        Field::new("at", DataType::Int64, true),
    ]))
}

pub(crate) fn changed_input() -> SinkInput {
    let column = |field: &Arc<Field>| Column {
        path: Path(vec![PathStep::Field(field.name().clone())]),
        field: field.clone(),
    };
    SinkInput {
        scope: Scope {
            columns: columns().fields().iter().map(column).collect(),
        },
        record: RecordShape::Columns(columns()),
    }
}

pub(crate) fn changed(
    at: &Arc<Split>,
    users: Vec<Option<&str>>,
    parts: Vec<Option<i64>>,
    times: Vec<Option<i64>>,
) -> Rows {
    let mut builder = BatchBuilder::new(at.clone(), WantedMetadata::default(), 0);
    for position in 0..users.len() as u64 {
        builder.push(position, Some(b"came"), RecordMeta::default());
    }
    let batch = Arc::new(builder.finish(users.len() as u64));
    let columns = RecordBatch::try_new(
        columns(),
        vec![
            Arc::new(StringArray::from(users)),
            Arc::new(Int64Array::from(parts)),
            Arc::new(Int64Array::from(times)),
        ],
    );
    Rows::new(batch.clone(), no_columns(batch.len())).with_record(columns.unwrap())
}

#[test]
fn expressions_set_key_partition_timestamp_and_headers() {
    let (pipeline, at) = (Pipeline::new(3), split(0));
    let prepared = pipeline.prepare(
        r#":key "upper(user)" :partition "part" :timestamp "at" :headers {:from "@topic" :user "user"} :properties {"compression.type" "lz4"}"#,
        &changed_input(),
    );
    assert_eq!(prepared.nondeterminism(), None);
    let mut instance = pipeline.instance_of(&*prepared);
    instance.take(&at);
    let rows = changed(
        &at,
        vec![Some("ann"), None, Some("bob"), Some("eve"), Some("far")],
        vec![Some(2), Some(1), Some(3), Some(-1), Some(1 << 40)],
        vec![Some(1_769_817_600_000), Some(1), None, None, None],
    );
    let bad = instance.write(rows).unwrap();
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(
        bad[0].reason.contains("unknown partition 3") && bad[0].reason.contains("0 to 2"),
        "{bad:?}"
    );
    instance.flush().unwrap();
    let mut written = committed_records(&pipeline.topic, 3);
    written.sort_by_key(Message::partition);
    assert_eq!(
        written.iter().map(Message::partition).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(
        text(&written[1]),
        r#"{"user":"ann","part":2,"at":1769817600000}"#
    );
    assert_eq!(written[1].key(), Some(&b"ANN"[..]));
    assert_eq!(written[1].timestamp().to_millis(), Some(1_769_817_600_000));
    let headers = |message: &OwnedMessage| {
        let all = message.headers().unwrap();
        all.iter()
            .map(|header| {
                (
                    header.key.to_owned(),
                    String::from_utf8(header.value.unwrap().to_vec()).unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        headers(&written[1]),
        [
            ("from".to_owned(), "clicks".to_owned()),
            ("user".to_owned(), "ann".to_owned())
        ]
    );
    assert_eq!(
        headers(&written[0]),
        [("from".to_owned(), "clicks".to_owned())]
    );
    assert_eq!(written[0].key(), None);
}

#[test]
fn a_row_whose_expression_fails_is_bad_and_the_others_are_written() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut instance =
        pipeline.instance_of(&*pipeline.prepare(r#":key "10 / part""#, &changed_input()));
    instance.take(&at);
    let rows = changed(
        &at,
        vec![Some("a"), Some("b"), Some("c")],
        vec![Some(5), Some(0), None],
        vec![None; 3],
    );
    let bad = instance.write(rows).unwrap();
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [1]);
    instance.flush().unwrap();
    let keys: Vec<_> = committed_records(&pipeline.topic, 1)
        .iter()
        .map(|message| message.key().map(<[u8]>::to_vec))
        .collect();
    assert_eq!(keys, [Some(b"2".to_vec()), None]);
}

#[test]
fn a_record_that_the_topic_does_not_accept_is_bad_and_the_others_are_written() {
    let mut pipeline = Pipeline::new(1);
    pipeline.topic = unique("small");
    create_topic(&pipeline.topic, 1, &[("max.message.bytes", "20000")]);
    let at = split(0);
    let mut instance = pipeline.instance();
    instance.take(&at);
    let mut builder = BatchBuilder::new(at.clone(), WantedMetadata::default(), 0);
    for (position, size) in [10, 20_000, 19_000].into_iter().enumerate() {
        builder.push(
            position as u64,
            Some("x".repeat(size).as_bytes()),
            RecordMeta::default(),
        );
    }
    let bad = instance
        .write(Rows::new(Arc::new(builder.finish(3)), no_columns(3)))
        .unwrap();
    assert_eq!(bad.len(), 1);
    assert!(
        bad[0].row == 1 && bad[0].reason.contains("accepts 20000"),
        "{bad:?}"
    );
    instance.flush().unwrap();
    assert_eq!(
        pipeline
            .values(1)
            .iter()
            .map(String::len)
            .collect::<Vec<_>>(),
        [10, 19_000]
    );
}

#[test]
fn invalid_options_are_reported_before_the_sink_opens() {
    let pipeline = Pipeline::new(1);
    let spec = KafkaSinkPlugin.spec();
    for (more, expected) in [
        (r#":partition "user""#, "expected an integer"),
        (r#":timestamp "user""#, "timestamp or milliseconds"),
        (":format :raw", "raw"),
        (r#":properties {"transactional.id" "x"}"#, "fence off"),
        (r#":properties {"no.such.thing" 1}"#, "no.such.thing"),
        (r#":transaction {:age "1h"}"#, "10m"),
        (
            r#":transaction {:age "20s"} :properties {"transaction.timeout.ms" 5000}"#,
            "to at least 21000",
        ),
        (
            r#":properties {"transaction.timeout.ms" 1999}"#,
            "aborted before it is committed",
        ),
        (r#":key "no_such_column""#, "no_such_column"),
    ] {
        let text = format!("{{:brokers \"b:1\" :topic \"{}\" {more}}}", pipeline.topic);
        let errors = KafkaSinkPlugin
            .prepare(&options(spec, &text), &changed_input())
            .err()
            .unwrap_or_else(|| panic!("{more}"));
        assert_eq!(errors.len(), 1, "{more}: {errors:?}");
        assert!(
            format!("{errors:?}").contains(expected),
            "{more}: {errors:?}"
        );
    }
    let random = pipeline.prepare(r#":key "cast(random() as varchar)""#, &changed_input());
    assert!(
        random
            .nondeterminism()
            .is_some_and(|text| text.contains("random"))
    );
}
