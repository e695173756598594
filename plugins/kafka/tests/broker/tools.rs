//! Tests of the writer of `pseidon produce` and the reader of `pseidon consume`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::WithCauses;
use pseidon_kafka::tools::{Deliveries, ReaderSettings, StartPosition, TopicReader, TopicWriter};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::options::kinds::Properties;
use rdkafka::Offset;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};

use crate::clients::{Writer, committed_records, group_offsets, transactional};
use crate::support::{PATIENCE, brokers, unique};
use crate::topics::{create_topic, delete_records, new_topic};

fn settings(topic: &str) -> ReaderSettings {
    ReaderSettings {
        brokers: brokers(),
        topic: topic.to_owned(),
        partition: None,
        begin: StartPosition::Earliest,
        group: None,
        properties: Properties::default(),
        wanted: WantedMetadata::default(),
    }
}

/// Every record up to the end, as (partition, offset, value), ordered.
fn rest(reader: &mut TopicReader) -> Vec<(i32, u64, String)> {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !reader.is_at_end() {
        assert!(
            Instant::now() < deadline,
            "the end was not reached; there are {} records",
            records.len()
        );
        records.extend(some(reader, usize::MAX));
    }
    records.sort();
    records
}

fn some(reader: &mut TopicReader, limit: usize) -> Vec<(i32, u64, String)> {
    let batches = reader.read(limit, Duration::from_millis(100)).unwrap();
    let records = |batch: &pseidon_plugin::Batch| {
        let value = |row| {
            batch
                .payloads
                .get(row)
                .map_or("(none)".to_owned(), |value| {
                    String::from_utf8_lossy(value).into_owned()
                })
        };
        (0..batch.len())
            .map(|row| (batch.split.partition, batch.positions[row], value(row)))
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(records).collect()
}

fn numbers(from: u64, upto: u64) -> impl Iterator<Item = String> {
    (from..upto).map(|number| number.to_string())
}

#[test]
fn writers_count_delivered_records() {
    let topic = new_topic("bulk", 3);
    let deliveries = Arc::new(Deliveries::default());
    let writers =
        [0, 1].map(|_| TopicWriter::open(&brokers(), &topic, &[], deliveries.clone()).unwrap());
    for number in 0..20_000 {
        let (key, value) = (format!("k{}", number % 10), format!("{number:05}"));
        assert!(
            writers[number % 2]
                .send(Some(key.as_bytes()), Some(value.as_bytes()))
                .unwrap()
        );
    }
    assert!(writers[0].send(Some(b"gone"), None).unwrap());
    writers
        .into_iter()
        .for_each(|writer| writer.finish(PATIENCE));
    assert_eq!(
        (
            deliveries.records(),
            deliveries.bytes(),
            deliveries.failed()
        ),
        (20_001, 20_000 * 7 + 4, 0)
    );
    assert_eq!(deliveries.reason(), None);

    let records = committed_records(&topic, 3);
    let mut values: Vec<_> = records
        .iter()
        .filter_map(|record| record.payload())
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect();
    values.sort();
    assert_eq!(
        values,
        (0..20_000)
            .map(|number| format!("{number:05}"))
            .collect::<Vec<_>>()
    );
    assert!(
        records
            .iter()
            .any(|record| record.key() == Some(b"gone") && record.payload().is_none())
    );
}

#[test]
fn an_undelivered_record_is_counted_with_the_reason() {
    let topic = unique("small");
    create_topic(&topic, 1, &[("max.message.bytes", "1000")]);
    let deliveries = Arc::new(Deliveries::default());
    let uncompressed = [("compression.type".to_owned(), "none".to_owned())];
    let writer = TopicWriter::open(&brokers(), &topic, &uncompressed, deliveries.clone()).unwrap();
    assert!(writer.send(None, Some(&[b'x'; 5000])).unwrap());
    writer.finish(PATIENCE);
    assert_eq!((deliveries.records(), deliveries.failed()), (0, 1));
    let reason = deliveries.reason().unwrap();
    assert!(reason.contains("too large"), "{reason}");
}

#[test]
fn opening_fails_with_the_reason() {
    let topic = new_topic("there", 2);
    let open = |topic: &str, property: (&str, &str)| {
        let properties = [(property.0.to_owned(), property.1.to_owned())];
        let refused = TopicWriter::open(&brokers(), topic, &properties, Arc::default());
        WithCauses(&refused.err().unwrap()).to_string()
    };
    assert!(open("a b", ("linger.ms", "1")).contains("invalid topic name"));
    assert!(open(&topic, ("no.such", "1")).contains("no.such"));
    for (settings, expected) in [
        (
            ReaderSettings {
                topic: "a b".to_owned(),
                ..settings(&topic)
            },
            "invalid topic name",
        ),
        (
            ReaderSettings {
                topic: unique("missing"),
                ..settings(&topic)
            },
            "unknown topic",
        ),
        (
            ReaderSettings {
                partition: Some(2),
                ..settings(&topic)
            },
            "no partition 2; it has 2",
        ),
        (
            ReaderSettings {
                properties: Properties(vec![("no.such".to_owned(), "1".to_owned())]),
                ..settings(&topic)
            },
            "no.such",
        ),
    ] {
        let reason = TopicReader::open(settings.clone())
            .err()
            .unwrap_or_else(|| panic!("{settings:?} can be opened"));
        let reason = WithCauses(&reason).to_string();
        assert!(reason.contains(expected), "{settings:?}: {reason}");
    }
}

#[test]
fn a_reader_starts_at_the_given_position_and_detects_the_end() {
    let (topic, writer) = (new_topic("begin", 2), Writer::new());
    for number in 0..100 {
        writer.write_at(&topic, 0, &number.to_string(), 1_000_000 + number);
    }
    writer.write(&topic, 1, numbers(0, 10));
    delete_records(&topic, 1, 4);
    let read = |begin, partition| {
        let mut reader = TopicReader::open(ReaderSettings {
            begin,
            partition,
            ..settings(&topic)
        })
        .unwrap();
        rest(&mut reader)
            .into_iter()
            .map(|(partition, offset, value)| {
                assert_eq!(offset.to_string(), value);
                (partition, offset)
            })
            .collect::<Vec<_>>()
    };
    let of =
        |partition, offsets: std::ops::Range<u64>| offsets.map(move |offset| (partition, offset));
    assert_eq!(
        read(StartPosition::Earliest, None),
        of(0, 0..100).chain(of(1, 4..10)).collect::<Vec<_>>()
    );
    assert_eq!(
        read(StartPosition::Earliest, Some(1)),
        of(1, 4..10).collect::<Vec<_>>()
    );
    assert_eq!(read(StartPosition::Latest, None), []);
    assert_eq!(
        read(StartPosition::Offset(97), None),
        of(0, 97..100).collect::<Vec<_>>()
    );
    assert_eq!(
        read(StartPosition::Offset(2), None),
        of(0, 2..100).chain(of(1, 4..10)).collect::<Vec<_>>(),
        "2 was deleted from partition 1"
    );
    assert_eq!(
        read(StartPosition::Time(1_000_040), Some(0)),
        of(0, 40..100).collect::<Vec<_>>()
    );
    assert_eq!(read(StartPosition::Time(4_000_000_000_000), None), []);
}

#[test]
fn a_reader_returns_no_more_than_the_limit_and_leaves_no_trace() {
    let (topic, writer) = (new_topic("limit", 1), Writer::new());
    writer.write(&topic, 0, numbers(0, 50));
    let mut reader = TopicReader::open(settings(&topic)).unwrap();
    let mut records = Vec::new();
    for limit in [1, 7, 30, 12] {
        let before = records.len();
        while records.len() < before + limit {
            records.extend(some(&mut reader, before + limit - records.len()));
        }
        assert_eq!(records.len(), before + limit);
    }
    assert!(reader.is_at_end());
    assert_eq!(
        records
            .iter()
            .map(|(_, offset, _)| *offset)
            .collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    reader.commit().unwrap();
    assert_eq!(
        group_offsets("pseidon-consume", &topic, 1),
        [Offset::Invalid]
    );
}

#[test]
fn transaction_markers_are_skipped_and_aborted_records_are_not_read() {
    let topic = new_topic("markers", 1);
    let producer = transactional(&unique("id"));
    for (value, commit) in [("kept", true), ("given up", false)] {
        producer.begin_transaction().unwrap();
        producer
            .send(BaseRecord::<(), str>::to(&topic).payload(value))
            .unwrap();
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE)
        } else {
            producer.abort_transaction(PATIENCE)
        }
        .unwrap();
    }
    let mut reader = TopicReader::open(settings(&topic)).unwrap();
    assert_eq!(rest(&mut reader), [(0, 0, "kept".to_owned())]);
}

#[test]
fn a_member_of_a_group_resumes_at_the_offsets_of_the_group() {
    let (topic, group, writer) = (new_topic("group", 2), unique("g"), Writer::new());
    for partition in 0..2 {
        writer.write(&topic, partition, numbers(0, 20));
    }
    let in_group = ReaderSettings {
        group: Some(group.clone()),
        ..settings(&topic)
    };
    let mut first = TopicReader::open(in_group.clone()).unwrap();
    let mut records = Vec::new();
    while records.len() < 15 {
        records.extend(some(&mut first, 15 - records.len()));
    }
    first.commit().unwrap();
    // Read, but never committed, so it is read again.
    let uncommitted = some(&mut first, 3);
    drop(first);
    let committed = group_offsets(&group, &topic, 2)
        .into_iter()
        .filter_map(|offset| offset.to_raw())
        .filter(|offset| *offset >= 0)
        .sum::<i64>();
    assert_eq!(committed, 15);

    let mut second = TopicReader::open(in_group.clone()).unwrap();
    let more = rest(&mut second);
    second.commit().unwrap();
    drop(second);
    assert!(uncommitted.iter().all(|record| more.contains(record)));
    records.extend(more);
    records.sort();
    let all = (0..2)
        .flat_map(|partition| (0..20).map(move |number| (partition, number, number.to_string())));
    assert_eq!(records, all.collect::<Vec<_>>());
    assert_eq!(group_offsets(&group, &topic, 2), [Offset::Offset(20); 2]);

    writer.write(&topic, 1, numbers(20, 21));
    let mut third = TopicReader::open(ReaderSettings {
        begin: StartPosition::Latest,
        ..in_group
    })
    .unwrap();
    assert_eq!(
        rest(&mut third),
        [(1, 20, "20".to_owned())],
        "the group's offset overrides the start position"
    );
}

#[test]
fn metadata_is_read_if_wanted() {
    let (topic, writer) = (new_topic("meta", 1), Writer::new());
    writer.write_all(
        &topic,
        "k",
        Some("x"),
        &[("a", Some("first")), ("a", Some("b")), ("c", None)],
    );
    writer.write_at(&topic, 0, "y", 1_000_000);
    let wanted = WantedMetadata {
        timestamp: true,
        key: true,
        headers: true,
        raw: false,
    };
    let mut reader = TopicReader::open(ReaderSettings {
        wanted,
        ..settings(&topic)
    })
    .unwrap();
    let (mut timestamps, mut keys, mut headers) = (Vec::new(), Vec::new(), Vec::new());
    while !reader.is_at_end() {
        for batch in reader.read(10, Duration::from_millis(100)).unwrap() {
            timestamps.extend(batch.timestamps.unwrap());
            keys.extend(
                batch
                    .keys
                    .unwrap()
                    .iter()
                    .map(|key| key.map(|key| String::from_utf8_lossy(key).into_owned())),
            );
            headers.extend(
                batch
                    .headers
                    .unwrap()
                    .iter()
                    .map(|headers| headers.map(str::to_owned)),
            );
        }
    }
    assert!(
        timestamps[0] > 1_000_000 && timestamps[1] == 1_000_000,
        "{timestamps:?}"
    );
    assert_eq!(keys, [Some("k".to_owned()), None]);
    assert_eq!(headers, [Some(r#"{"a":"b","c":null}"#.to_owned()), None]);
}
