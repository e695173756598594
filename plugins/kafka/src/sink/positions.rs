//! The messages of the positions topic.
//!
//! The key names pipeline, sink and split; the value is the position below which all records of the
//! split are in the sink's topic. Every commit writes one message for each split that advanced, in
//! the same transaction as the records.
//!
//! The key decides on the partition, so a topic that gets more partitions has older messages of a
//! key elsewhere. The value therefore also says how many partitions the topic had: a position that
//! was stored with the present number is newer than all others.

use pseidon_delivery::{Position, Reason, SinkId, SplitId};
use serde_json::{Value, json};

/// The version of the value's format.
const VERSION: u64 = 1;

/// The keys of one sink of a pipeline.
#[derive(Clone, Debug)]
pub(super) struct PositionKeys {
    /// The part of the key before the split.
    prefix: String,
    /// The partition of all keys.
    partition: i32,
    /// The number of the topic's partitions, which `partition` follows from.
    partitions: i32,
}

impl PositionKeys {
    /// The keys of this sink, in a topic with this number of partitions.
    pub(super) fn new(pipeline: &str, sink: &SinkId, partitions: i32) -> PositionKeys {
        let prefix = format!("{}/{}/", escape(pipeline), escape(sink.as_str()));
        let partition = partition_of(&prefix, partitions);
        PositionKeys {
            prefix,
            partition,
            partitions,
        }
    }

    /// The partition that holds all of the sink's positions.
    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// The number of partitions of the topic in which these are the keys.
    pub(super) fn partitions(&self) -> u64 {
        self.partitions.unsigned_abs().into()
    }

    /// Whether a message of any pipeline is where it would be stored now, so that it says nothing
    /// about an earlier number of partitions.
    pub(super) fn is_current(&self, key: &str, partition: i32, stored: &StoredPosition) -> bool {
        let is_of_another_number = stored
            .partitions
            .is_some_and(|number| number != self.partitions());
        let mut separators = key.match_indices('/').skip(1);
        let prefix = separators.next().map_or(key, |(at, _)| &key[..=at]);
        !is_of_another_number && partition_of(prefix, self.partitions) == partition
    }

    /// The key of a split's message.
    pub(super) fn key(&self, split: &SplitId) -> String {
        format!("{}{split}", self.prefix)
    }

    /// The value of a message: all records below the position are in the sink's topic.
    pub(super) fn value(&self, position: Position) -> String {
        json!({"version": VERSION, "position": position, "partitions": self.partitions()})
            .to_string()
    }
}

/// The value of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredPosition {
    /// All records below it are in the sink's topic.
    pub(super) position: Position,
    /// The number of partitions of the positions topic when it was stored. `None` if an earlier
    /// version of the program stored it.
    pub(super) partitions: Option<u64>,
}

impl StoredPosition {
    /// Reads a value. The error says why it is invalid.
    pub(super) fn parse(value: &[u8]) -> Result<StoredPosition, Reason> {
        let value: Value = serde_json::from_slice(value).map_err(Reason::of)?;
        match value["version"].as_u64() {
            Some(VERSION) => Ok(StoredPosition {
                position: value["position"].as_u64().ok_or("it has no position")?,
                partitions: value["partitions"].as_u64(),
            }),
            Some(other) => Err(format!(
                "it has version {other}, which only a newer version of the program can read"
            )
            .into()),
            None => Err("it has no version".into()),
        }
    }
}

/// The partition of the keys with this prefix, in a topic with this number of partitions.
fn partition_of(prefix: &str, partitions: i32) -> i32 {
    (fnv1a(prefix.as_bytes()) % partitions.max(1) as u64) as i32
}

/// The FNV-1a hash, which is the same in every version of the program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Escapes `/`, which separates the parts of a key.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_sinks_differ() {
        let split = SplitId::from("clicks:a/b/3");
        let key =
            |pipeline: &str, sink: &str| PositionKeys::new(pipeline, &sink.into(), 1).key(&split);
        assert_eq!(key("a", "b/c"), "a/b%2Fc/clicks:a/b/3");
        for (pipeline, sink) in [("a/b", "c"), ("a", "b"), ("a", "b%2Fc"), ("A", "b/c")] {
            assert_ne!(key(pipeline, sink), key("a", "b/c"), "{pipeline} {sink}");
        }
    }

    #[test]
    fn a_sink_always_has_the_same_partition() {
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        let partition = |pipeline: &str, partitions| {
            PositionKeys::new(pipeline, &"lake".into(), partitions).partition()
        };
        assert_eq!(partition("a", 1), 0);
        let used: std::collections::BTreeSet<i32> = (0..200)
            .map(|number| partition(&format!("p{number}"), 16))
            .collect();
        assert_eq!(used, (0..16).collect());
    }

    #[test]
    fn a_message_shows_whether_the_topic_has_grown() {
        let keys = |partitions| PositionKeys::new("a", &"lake".into(), partitions);
        let (before, now) = (keys(3), keys(16));
        assert_ne!(before.partition(), now.partition());
        let key = now.key(&SplitId::from("clicks:a/b/3"));
        let stored = |partitions| StoredPosition {
            position: 7,
            partitions,
        };
        let is_current =
            |partition, partitions| now.is_current(&key, partition, &stored(partitions));
        assert!(is_current(now.partition(), Some(16)) && is_current(now.partition(), None));
        assert!(!is_current(before.partition(), None) && !is_current(now.partition(), Some(3)));
    }

    #[test]
    fn values_round_trip() {
        let keys = PositionKeys::new("a", &"lake".into(), 16);
        for position in [0, 17, u64::MAX] {
            let stored = StoredPosition::parse(keys.value(position).as_bytes()).unwrap();
            let expected = StoredPosition {
                position,
                partitions: Some(16),
            };
            assert_eq!(stored, expected);
        }
        let of_earlier_version = StoredPosition::parse(br#"{"version":1,"position":7}"#).unwrap();
        let expected = StoredPosition {
            position: 7,
            partitions: None,
        };
        assert_eq!(of_earlier_version, expected);
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"version":2,"position":1}"#,
            r#"{"version":1,"position":-1}"#,
            r#"{"version":1}"#,
        ] {
            assert!(StoredPosition::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
