//! Where replayed records were read first, and the metadata that a quarantined record keeps for its
//! replay.

use arrow::array::{Array, BinaryArray};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_delivery::{Position, SplitId};
use serde_json::{Map, Value};

use super::{Batch, NO_TIMESTAMP, RecordMeta, WantedMetadata};

/// Where the records of a batch were read before they were quarantined.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The split from which they were read. Its topic and partition are those of the batch.
    pub split: SplitId,
    /// The position of each record in it.
    pub positions: Vec<Position>,
    /// The metadata of each record, as it was quarantined.
    pub metadata: Vec<Option<String>>,
}

impl Origin {
    pub(super) fn memory(&self) -> usize {
        let metadata = self.metadata.iter().flatten();
        self.positions.capacity() * size_of::<Position>()
            + self.metadata.capacity() * size_of::<Option<String>>()
            + metadata.map(String::capacity).sum::<usize>()
    }
}

impl Batch {
    /// The split from which the records were read first.
    pub fn first_split(&self) -> &SplitId {
        match &self.origin {
            Some(origin) => &origin.split,
            None => &self.split.id,
        }
    }

    /// The position of a record in [`Batch::first_split`].
    pub fn first_position(&self, row: usize) -> Position {
        match &self.origin {
            Some(origin) => origin.positions[row],
            None => self.positions[row],
        }
    }

    /// What [`RecordMetadata`] reads: the metadata of a record, as far as the source was to read
    /// it, and the header of its file. `None` if there is nothing of that.
    pub fn metadata(&self, row: usize, wanted: WantedMetadata) -> Option<String> {
        if let Some(origin) = &self.origin {
            return origin.metadata[row].clone();
        }
        let mut object = Map::new();
        if let Some(header) = self.payloads.header() {
            insert_bytes(&mut object, HEADER, Some(header));
        }
        if wanted.timestamp {
            let at = self.timestamps.as_ref().map(|all| all[row]);
            let at = at.filter(|at| *at != NO_TIMESTAMP);
            object.insert(TIMESTAMP.to_owned(), at.into());
        }
        if wanted.key || wanted.raw {
            insert_bytes(&mut object, KEY, value(self.keys.as_ref(), row));
        }
        let is_bad = |(bad, _): &(u32, String)| *bad as usize == row;
        if wanted.headers && !self.invalid.iter().any(is_bad) {
            let headers = self.headers.as_ref();
            let headers = headers.filter(|headers| headers.is_valid(row));
            let parsed = headers.and_then(|all| serde_json::from_str(all.value(row)).ok());
            object.insert(HEADERS.to_owned(), parsed.unwrap_or(Value::Null));
        }
        if wanted.raw {
            let raw = value(self.raw_headers.as_ref(), row).map(|raw| STANDARD.encode(raw));
            object.insert(RAW_HEADERS.to_owned(), raw.into());
        }
        (!object.is_empty()).then(|| Value::Object(object).to_string())
    }
}

const HEADER: &str = "header";
const TIMESTAMP: &str = "timestamp";
const KEY: &str = "key";
const HEADERS: &str = "headers";
const RAW_HEADERS: &str = "raw_headers";
/// What follows the name of a value that is not UTF-8.
const BASE64: &str = "_base64";

fn value(array: Option<&BinaryArray>, row: usize) -> Option<&[u8]> {
    let array = array.filter(|array| array.is_valid(row))?;
    Some(array.value(row))
}

/// Inserts bytes as a string, or in base64 if they are not UTF-8.
fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        Some(Err(bytes)) => object.insert(format!("{name}{BASE64}"), STANDARD.encode(bytes).into()),
        Some(Ok(text)) => object.insert(name.to_owned(), text.into()),
        None => object.insert(name.to_owned(), Value::Null),
    };
}

/// The metadata of a quarantined record, as [`Batch::metadata`] has written it. The outer `Option`
/// of a value is `None` if the source was not to read it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The header of the record's file.
    pub header: Option<Vec<u8>>,
    timestamp: Option<Option<i64>>,
    key: Option<Option<Vec<u8>>>,
    headers: Option<Option<String>>,
    raw_headers: Option<Option<Vec<u8>>>,
    /// Why metadata that is wanted is not available.
    bad: Option<String>,
}

impl RecordMetadata {
    /// Reads the metadata that [`Batch::metadata`] has written. An error names the invalid value.
    pub fn read(object: &Map<String, Value>) -> Result<RecordMetadata, String> {
        let headers = value_of(object, HEADERS, |headers| Some(headers.to_string()))?;
        let decoded = |raw: &Value| STANDARD.decode(raw.as_str()?).ok();
        Ok(RecordMetadata {
            header: bytes_of(object, HEADER)?.flatten(),
            timestamp: value_of(object, TIMESTAMP, Value::as_i64)?,
            key: bytes_of(object, KEY)?,
            headers,
            raw_headers: value_of(object, RAW_HEADERS, decoded)?,
            bad: None,
        })
    }

    /// Notes which of the wanted metadata is not available.
    pub fn check(&mut self, wanted: WantedMetadata) {
        let has_headers = !wanted.headers || self.headers.is_some();
        let missing = [
            ("@timestamp", wanted.timestamp && self.timestamp.is_none()),
            ("@key", (wanted.key || wanted.raw) && self.key.is_none()),
            (
                "@headers",
                !has_headers || (wanted.raw && self.raw_headers.is_none()),
            ),
        ];
        let missing: Vec<&str> = missing
            .iter()
            .filter(|(_, is_missing)| *is_missing)
            .map(|(name, _)| *name)
            .collect();
        self.bad = (!missing.is_empty())
            .then(|| format!("it was quarantined without {}", missing.join(", ")));
    }

    /// The metadata, for a batch.
    pub fn of_record(&self) -> RecordMeta<'_> {
        RecordMeta {
            timestamp: self.timestamp.flatten(),
            key: self.key.as_ref().and_then(Option::as_deref),
            headers: self.headers.as_ref().and_then(Option::as_deref),
            bad_metadata: self.bad.as_deref(),
            raw_headers: self.raw_headers.as_ref().and_then(Option::as_deref),
        }
    }
}

/// A value that may be null. The outer `Option` is `None` if the object does not have it.
fn value_of<T>(
    object: &Map<String, Value>,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<Option<T>>, String> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(Some(value))),
            None => Err(format!("invalid `{name}`")),
        },
    }
}

/// The value that [`insert_bytes`] has inserted.
fn bytes_of(object: &Map<String, Value>, name: &str) -> Result<Option<Option<Vec<u8>>>, String> {
    let decoded = |encoded: &Value| STANDARD.decode(encoded.as_str()?).ok();
    let encoded = value_of(object, &format!("{name}{BASE64}"), decoded)?;
    if encoded.is_some() {
        return Ok(encoded);
    }
    value_of(object, name, |text| {
        Some(text.as_str()?.as_bytes().to_vec())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, Split};
    use crate::raw_headers;

    const ALL: WantedMetadata = WantedMetadata {
        timestamp: true,
        key: true,
        headers: true,
        raw: true,
    };

    fn batch(wanted: WantedMetadata, meta: RecordMeta<'_>) -> Batch {
        let split = Split {
            id: "t/3".into(),
            topic: "t".to_owned(),
            partition: 3,
        };
        let mut builder = BatchBuilder::new(Arc::new(split), wanted, 0);
        builder.push(7, Some(b"record"), meta);
        builder.finish(8)
    }

    fn read(metadata: Option<String>) -> RecordMetadata {
        let object = metadata.map_or_else(
            || Value::Object(Map::new()),
            |text| serde_json::from_str(&text).expect("JSON"),
        );
        RecordMetadata::read(object.as_object().expect("an object")).expect("metadata")
    }

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let mut raw = Vec::new();
        raw_headers::push(&mut raw, b"h", Some(b"\xff"));
        raw_headers::push(&mut raw, b"h", None);
        let records = [
            RecordMeta::default(),
            RecordMeta {
                timestamp: Some(-5),
                key: Some(b"k\n\"1\""),
                headers: Some(r#"{"a":"1","b":null,"c":"\u0001"}"#),
                bad_metadata: None,
                raw_headers: Some(&raw),
            },
            RecordMeta {
                key: Some(b"\xff\x00"),
                headers: Some("{}"),
                ..RecordMeta::default()
            },
        ];
        for meta in records {
            let metadata = batch(ALL, meta).metadata(0, ALL);
            let mut read = read(metadata);
            read.check(ALL);
            let found = format!("{:?}", read.of_record());
            assert_eq!(found, format!("{meta:?}"));
        }
    }

    #[test]
    fn metadata_that_was_not_read_is_missing() {
        let key_only = WantedMetadata {
            key: true,
            ..WantedMetadata::default()
        };
        let none = WantedMetadata::default();
        assert_eq!(batch(none, RecordMeta::default()).metadata(0, none), None);
        let mut some = read(batch(key_only, RecordMeta::default()).metadata(0, key_only));
        some.check(key_only);
        assert_eq!(some.of_record().bad_metadata, None);
        some.check(ALL);
        let reason = "it was quarantined without @timestamp, @headers";
        assert_eq!(some.of_record().bad_metadata, Some(reason));
        // Headers that cannot be converted are missing too.
        let bad = RecordMeta {
            bad_metadata: Some("the header `h` is not UTF-8 text"),
            ..RecordMeta::default()
        };
        let mut bad = read(batch(ALL, bad).metadata(0, ALL));
        bad.check(ALL);
        let reason = "it was quarantined without @headers";
        assert_eq!(bad.of_record().bad_metadata, Some(reason));
    }

    #[test]
    fn a_record_that_is_quarantined_again_keeps_its_metadata_and_place() {
        let mut again = batch(ALL, RecordMeta::default());
        again.origin = Some(Origin {
            split: "first".into(),
            positions: vec![99],
            metadata: vec![Some(r#"{"key":"k"}"#.to_owned())],
        });
        assert_eq!(again.metadata(0, ALL).as_deref(), Some(r#"{"key":"k"}"#));
        assert_eq!(again.first_split().as_str(), "first");
        assert_eq!(again.first_position(0), 99);
    }

    #[test]
    fn what_is_not_metadata_is_refused() {
        for text in [
            r#"{"key":1}"#,
            r#"{"key_base64":"?"}"#,
            r#"{"timestamp":"x"}"#,
            r#"{"raw_headers":7}"#,
            r#"{"header":[]}"#,
        ] {
            let object: Value = serde_json::from_str(text).expect("JSON");
            let object = object.as_object().expect("an object");
            let reason = RecordMetadata::read(object).expect_err(text);
            assert!(reason.starts_with("invalid `"), "{reason}");
        }
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6),
            "\\PC{0,6}".prop_map(String::into_bytes),
        ])
    }

    proptest! {
        #[test]
        fn metadata_round_trips(
            timestamp in prop::option::of(any::<i64>().prop_filter("none", |it| *it != NO_TIMESTAMP)),
            (key, raw, header) in (bytes(), bytes(), bytes()),
            headers in prop::option::of(prop::collection::btree_map("\\PC{0,4}", "\\PC{0,4}", 0..4)),
        ) {
            let headers = headers.map(|headers| serde_json::json!(headers).to_string());
            let meta = RecordMeta {
                timestamp,
                key: key.as_deref(),
                headers: headers.as_deref(),
                bad_metadata: None,
                raw_headers: raw.as_deref(),
            };
            let mut batch = batch(ALL, meta);
            batch.payloads = batch.payloads.with_header(header.clone().map(Into::into));
            let mut found = read(batch.metadata(0, ALL));
            found.check(ALL);
            prop_assert_eq!(&found.header, &header);
            let found = found.of_record();
            prop_assert_eq!(found.timestamp, timestamp);
            prop_assert_eq!(found.key, key.as_deref());
            prop_assert_eq!(found.headers, headers.as_deref());
            prop_assert_eq!(found.raw_headers, raw.as_deref());
            prop_assert_eq!(found.bad_metadata, None);
        }

        #[test]
        fn any_object_is_read_or_its_invalid_value_is_named(
            name in "(header|timestamp|key|headers|raw_headers|x)(_base64)?",
            value in "null|-?[0-9]{1,20}|\"[A-Za-z0-9+/]{0,6}={0,2}\"|[{]\"a\":1[}]|[\\[]1[\\]]",
        ) {
            // A number may have a zero in front.
            let Ok(object) = serde_json::from_str::<Value>(&format!("{{\"{name}\":{value}}}")) else {
                return Ok(());
            };
            match RecordMetadata::read(object.as_object().unwrap()) {
                Ok(mut read) => read.check(ALL),
                Err(reason) => prop_assert_eq!(reason, format!("invalid `{}`", name)),
            }
        }
    }
}
