//! A quarantined record, as it is in a file of the quarantine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_delivery::Position;
use pseidon_plugin::batch::RecordMetadata;
use serde_json::{Map, Value};

/// A quarantined record. The fields are described in `docs/language.md`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QuarantinedRecord {
    /// The stage at which it was invalid.
    pub(super) stage: String,
    /// Where it was read first.
    pub(super) split: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) position: Position,
    /// Its bytes; `None` for a tombstone.
    pub(super) payload: Option<Vec<u8>>,
    pub(super) metadata: RecordMetadata,
    /// The metadata as it was read.
    pub(super) metadata_text: Option<String>,
    /// The version of the pipeline that found it invalid. `None` if the record is of a version of
    /// Pseidon that did not write it.
    pub(super) version: Option<String>,
}

impl QuarantinedRecord {
    /// Reads a line of a file. An error says why it is not a quarantined record.
    pub(super) fn read(line: &[u8]) -> Result<QuarantinedRecord, String> {
        let object: Value =
            serde_json::from_slice(line).map_err(|error| format!("it is not JSON: {error}"))?;
        let object = object.as_object().ok_or("it is not a JSON object")?;
        let text = |name: &str| text(object, name)?.ok_or_else(|| format!("it has no `{name}`"));
        let partition = object.get("partition").and_then(Value::as_i64);
        let partition = partition.and_then(|partition| i32::try_from(partition).ok());
        let position = object.get("position").and_then(Value::as_u64);
        let (metadata, metadata_text) = metadata(object)?;
        Ok(QuarantinedRecord {
            stage: text("stage")?,
            split: text("split")?,
            topic: text("topic")?,
            partition: partition.ok_or("it has no valid `partition`")?,
            position: position.ok_or("it has no valid `position`")?,
            payload: payload(object)?,
            metadata,
            metadata_text,
            version: self::text(object, "version")?,
        })
    }
}

/// A string; `None` if it is missing or null.
fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("its `{name}` is not a string")),
    }
}

fn payload(object: &Map<String, Value>) -> Result<Option<Vec<u8>>, String> {
    if !object.contains_key("record") {
        return Err("it has no `record`".to_owned());
    }
    let (record, encoded) = (text(object, "record")?, text(object, "record_base64")?);
    match (record, encoded) {
        (Some(record), _) => Ok(Some(record.into_bytes())),
        (None, None) => Ok(None),
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("its `record_base64` is not base64: {error}")),
        },
    }
}

fn metadata(object: &Map<String, Value>) -> Result<(RecordMetadata, Option<String>), String> {
    match object.get("metadata") {
        None | Some(Value::Null) => Ok((RecordMetadata::default(), None)),
        Some(Value::Object(metadata)) => {
            let read = RecordMetadata::read(metadata);
            let read = read.map_err(|reason| format!("{reason} in its `metadata`"))?;
            Ok((read, Some(Value::Object(metadata.clone()).to_string())))
        }
        Some(_) => Err("its `metadata` is not an object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn what_a_quarantine_has_written_is_read(
            texts in prop::collection::vec("\\PC{0,5}", 3),
            (partition, position) in (any::<i32>(), any::<u64>()),
            payload in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
            key in prop::option::of("\\PC{0,5}"),
            version in prop::option::of("[0-9a-f]{4}"),
            cut in any::<prop::sample::Index>(),
        ) {
            let record = payload.as_deref().map(std::str::from_utf8);
            let (record, encoded) = match (record, &payload) {
                (Some(Err(_)), Some(bytes)) => (None, Some(STANDARD.encode(bytes))),
                (record, _) => (record.and_then(Result::ok), None),
            };
            let metadata = key.as_ref().map(|key| json!({ "key": key }));
            let line = json!({
                "stage": texts[0], "reason": "r", "split": texts[1], "topic": texts[2],
                "partition": partition, "position": position, "record": record,
                "record_base64": encoded, "metadata": metadata, "version": version,
            });
            let line = line.to_string();
            let read = QuarantinedRecord::read(line.as_bytes()).unwrap();
            let found_key = read.metadata.of_record().key.map(<[u8]>::to_vec);
            prop_assert_eq!(found_key, key.map(String::into_bytes));
            prop_assert_eq!(
                (read.stage, read.split, read.topic, read.partition, read.position),
                (texts[0].clone(), texts[1].clone(), texts[2].clone(), partition, position)
            );
            prop_assert_eq!((read.payload, read.version), (payload, version));
            // A run that was killed may have left half a line.
            let end = cut.index(line.len());
            prop_assert!(QuarantinedRecord::read(&line.as_bytes()[..end]).is_err());
        }

        #[test]
        fn any_line_is_a_record_or_refused_with_a_reason(
            name in "stage|split|topic|partition|position|record|record_base64|metadata|version",
            value in r#"null|-?[1-9][0-9]{0,20}|"[A-Za-z0-9+/=]{0,6}"|\{"key":[0-9"]{1,2}\}|\[\]"#,
        ) {
            let mut object: Map<String, Value> = serde_json::from_str(OLD).unwrap();
            if let Ok(value) = serde_json::from_str(&value) {
                object.insert(name.clone(), value);
            }
            let line = Value::Object(object).to_string();
            if let Err(reason) = QuarantinedRecord::read(line.as_bytes()) {
                prop_assert!(reason.contains(&name) || name == "metadata", "{name}: {reason}");
            }
        }
    }

    const OLD: &str = r#"{"stage":"in","reason":"r","split":"in:1","topic":"a/b","partition":0,
        "position":26,"record":"{\n\"n\":1}","record_base64":null}"#;

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let read = QuarantinedRecord::read(OLD.as_bytes());
        let expected = QuarantinedRecord {
            stage: "in".to_owned(),
            split: "in:1".to_owned(),
            topic: "a/b".to_owned(),
            position: 26,
            payload: Some(b"{\n\"n\":1}".to_vec()),
            ..QuarantinedRecord::default()
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn bytes_and_tombstones_are_read() {
        let payload = |record: &str| {
            let line = OLD.replace(r#""record":"{\n\"n\":1}","record_base64":null"#, record);
            QuarantinedRecord::read(line.as_bytes()).map(|read| read.payload)
        };
        let bytes = payload(r#""record":null,"record_base64":"//4=""#);
        assert_eq!(bytes, Ok(Some(b"\xff\xfe".to_vec())));
        assert_eq!(payload(r#""record":null,"record_base64":null"#), Ok(None));
    }

    #[test]
    fn what_is_not_a_quarantined_record_is_named() {
        let cases = [
            ("x", "it is not JSON: "),
            ("[]", "it is not a JSON object"),
            ("{}", "it has no `stage`"),
            (&OLD.replace(r#""in""#, "7"), "its `stage` is not a string"),
            (
                &OLD.replace(":0,", ":-9999999999,"),
                "it has no valid `partition`",
            ),
            (&OLD.replace("26", "null"), "it has no valid `position`"),
            (&OLD.replace("\"record\"", "\"x\""), "it has no `record`"),
            (
                &OLD.replace("\"r\"", r#""r","metadata":1"#),
                "its `metadata` is not an object",
            ),
            (
                &OLD.replace("\"r\"", r#""r","metadata":{"key":1}"#),
                "invalid `key` in its `metadata`",
            ),
        ];
        for (line, reason) in cases {
            let error = QuarantinedRecord::read(line.as_bytes()).expect_err(line);
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
