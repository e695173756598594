//! Where a partition that was never read begins.

use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use rdkafka::{Offset, TopicPartitionList};

use super::Topics;
use crate::native::{Client, FoundPartition, NativeError, TopicPartition};

/// How long one question to a broker may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// `:start`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the first record that there is.
    Earliest,
    /// After the last one.
    Latest,
    /// With the first record that is not older: milliseconds since 1970.
    At(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            _ => {
                let millis = text.parse().ok().or_else(|| {
                    DateTime::parse_from_rfc3339(text)
                        .ok()
                        .map(|time| time.timestamp_millis())
                });
                let not_before_1970 = millis.filter(|millis: &i64| *millis >= 0).map(Start::At);
                not_before_1970.ok_or_else(|| {
                    "expected :earliest, :latest, or a time such as \"2026-01-31T00:00:00Z\""
                        .to_owned()
                })
            }
        }
    }
}

/// Checks the text of `:start`.
pub(super) fn check(text: &str) -> Result<(), String> {
    text.parse::<Start>().map(drop)
}

/// `:on-missing-state`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnMissingState {
    /// Say so and stop.
    Stop,
    /// Read on from the group's offset.
    Group,
    /// Begin at `:start`.
    Start,
}

/// For more topics than that the broker is asked for all it has, instead of for one after another.
const FEW: usize = 8;

/// The partitions that topics have now; a topic that does not exist has none.
pub(super) fn partitions(
    client: &Client,
    topics: &Topics,
) -> Result<Vec<FoundPartition>, NativeError> {
    if topics.has_pattern() || topics.subscription().len() > FEW {
        let all = client.all_leaders(PATIENCE)?;
        return Ok(all
            .into_iter()
            .filter(|found| topics.contain(&found.at.topic))
            .collect());
    }
    let mut found = Vec::new();
    for topic in topics.subscription() {
        match client.leaders_of(topic, PATIENCE) {
            Ok(partitions) => found.extend(partitions),
            Err(error) if is_missing_topic(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether the error says that a topic does not exist.
pub(super) fn is_missing_topic(error: &NativeError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(error.code, UnknownTopic | UnknownTopicOrPartition)
}

/// A list for librdkafka.
pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    offset: impl Fn(&TopicPartition) -> Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        let mut element = list.add_partition(&at.topic, at.partition);
        // It fails for offsets that have no number, which ours have.
        let _ = element.set_offset(offset(at));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_or_times() {
        for (text, start) in [
            ("earliest", Some(Start::Earliest)),
            ("latest", Some(Start::Latest)),
            ("1769817600000", Some(Start::At(1_769_817_600_000))),
            ("2026-01-31T00:00:00Z", Some(Start::At(1_769_817_600_000))),
            (
                "2026-01-31T01:00:00.500+01:00",
                Some(Start::At(1_769_817_600_500)),
            ),
            ("-1", None),
            ("yesterday", None),
            ("2026-01-31", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), start, "{text}");
        }
    }
}
