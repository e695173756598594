//! Unchanged records: key, headers and timestamp are copied unless an option replaces them.

use std::sync::Arc;

use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::sink::SinkPlugin;
use pseidon_plugin::{BadRow, BatchBuilder, Rows, Split, raw_headers};
use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};

use crate::clients::committed_records;
use crate::sink_harness::{Pipeline, no_columns, split, unchanged_input};
use crate::support::options;

type Header = (String, Option<Vec<u8>>);
/// Key, headers, timestamp and value.
type Record = (Option<Vec<u8>>, Vec<Header>, Option<i64>, Option<Vec<u8>>);

fn record(message: &OwnedMessage) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    });
    (
        message.key().map(<[u8]>::to_vec),
        headers,
        message.timestamp().to_millis(),
        message.payload().map(<[u8]>::to_vec),
    )
}

/// The records as a source emits them with all metadata.
fn rows(at: &Arc<Split>, records: &[Record]) -> Rows {
    let mut builder = BatchBuilder::new(
        at.clone(),
        WantedMetadata {
            timestamp: true,
            raw: true,
            ..WantedMetadata::default()
        },
        0,
    );
    for (position, (key, headers, timestamp, value)) in records.iter().enumerate() {
        let mut bytes = Vec::new();
        headers.iter().for_each(|(name, value)| {
            raw_headers::push(&mut bytes, name.as_bytes(), value.as_deref())
        });
        let meta = RecordMeta {
            key: key.as_deref(),
            timestamp: *timestamp,
            raw_headers: (!headers.is_empty()).then_some(&bytes),
            ..RecordMeta::default()
        };
        builder.push(position as u64, value.as_deref(), meta);
    }
    Rows::new(
        Arc::new(builder.finish(records.len() as u64)),
        no_columns(records.len()),
    )
}

const THEN: i64 = 1_600_000_000_000;

fn records() -> Vec<Record> {
    let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
    let headers = vec![
        header("h", Some(b"1")),
        header("bin", Some(b"\xff\xfe")),
        header("h", Some(b"2")),
        header("none", None),
    ];
    vec![
        (
            Some(b"\x00\x01\xff".to_vec()),
            headers,
            Some(THEN),
            Some(b"a".to_vec()),
        ),
        (Some(b"gone".to_vec()), vec![], Some(THEN + 1), None),
        (None, vec![], Some(THEN + 2), Some(b"c".to_vec())),
    ]
}

#[test]
fn an_unchanged_record_is_copied_exactly() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut instance = pipeline.instance();
    instance.take(&at);
    assert_eq!(instance.write(rows(&at, &records())).unwrap(), []);
    instance.flush().unwrap();
    assert_eq!(
        committed_records(&pipeline.topic, 1)
            .iter()
            .map(record)
            .collect::<Vec<_>>(),
        records()
    );
}

#[test]
fn options_replace_the_copied_parts() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let options = r#":key "@topic" :timestamp "1700000000000" :headers {:from "@topic"}"#;
    let mut instance = pipeline.instance_of(&*pipeline.prepare(options, &unchanged_input()));
    instance.take(&at);
    instance.write(rows(&at, &records()[..1])).unwrap();
    instance.flush().unwrap();
    let from = ("from".to_owned(), Some(b"clicks".to_vec()));
    let expected = (
        Some(b"clicks".to_vec()),
        vec![from],
        Some(1_700_000_000_000),
        Some(b"a".to_vec()),
    );
    assert_eq!(
        committed_records(&pipeline.topic, 1)
            .iter()
            .map(record)
            .collect::<Vec<_>>(),
        [expected]
    );
}

#[test]
fn a_timestamp_that_cannot_be_written_is_bad() {
    let (pipeline, at) = (Pipeline::new(1), split(0));
    let mut instance = pipeline.instance();
    instance.take(&at);
    let mut records = records();
    records[2].2 = Some(0);
    let bad = instance.write(rows(&at, &records)).unwrap();
    assert!(
        matches!(&bad[..], [BadRow { row: 2, reason }] if reason.contains("timestamp is 0")),
        "{bad:?}"
    );
}

#[test]
fn only_copied_metadata_is_requested() {
    let plugin = pseidon_kafka::KafkaSinkPlugin;
    for (more, copies) in [
        ("", true),
        (r#":key "k" :timestamp "t""#, true),
        (r#":key "k" :timestamp "t" :headers {:a "b"}"#, false),
    ] {
        let options = options(
            plugin.spec(),
            &format!("{{:brokers \"b:1\" :topic \"t\" {more}}}"),
        );
        assert_eq!(plugin.facts(&options).copies_meta, copies, "{more}");
    }
}
