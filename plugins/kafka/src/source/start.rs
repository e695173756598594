//! Where reading of a partition starts that was never read.

use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use pseidon_delivery::Position;
use pseidon_plugin::options::{Argument, Choice, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::Topics;
use crate::native::{Client, FoundPartition, NativeError, TopicPartition};

/// The timeout of one request to a broker.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The value of `:start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartOption {
    /// At the first record.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record that is not older: milliseconds since 1970.
    At(i64),
}

impl FromStr for StartOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(StartOption::Earliest),
            "latest" => Ok(StartOption::Latest),
            _ => {
                // A number without a sign, as an offset is.
                let number = text.parse::<u64>().ok().and_then(|n| n.try_into().ok());
                let millis = number.or_else(|| {
                    let time = DateTime::parse_from_rfc3339(text).ok()?;
                    Some(time.timestamp_millis()).filter(|millis| *millis >= 0)
                });
                millis.map(StartOption::At).ok_or_else(|| {
                    "expected :earliest, :latest, or a time such as \"2026-01-31T00:00:00Z\""
                        .to_owned()
                })
            }
        }
    }
}

impl OptionValue for StartOption {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<StartOption> {
        argument.checked(str::parse)
    }
}

/// The value of `:on-missing-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum OnMissingState {
    /// Stop with an error.
    Stop,
    /// Resume at the group's offset.
    Group,
    /// Begin at `:start`.
    Start,
}

/// For more topics than this, one request for all topics replaces one request per topic.
const MAX_SINGLE_REQUESTS: usize = 8;

/// The partitions that the topics have now; a topic that does not exist has none.
pub(super) fn partitions(
    client: &Client,
    topics: &Topics,
) -> Result<Vec<FoundPartition>, NativeError> {
    if topics.has_pattern() || topics.subscription().len() > MAX_SINGLE_REQUESTS {
        let all = client.all_leaders(REQUEST_TIMEOUT)?;
        return Ok(all
            .into_iter()
            .filter(|found| topics.contains(&found.at.topic))
            .collect());
    }
    let mut found = Vec::new();
    for topic in topics.subscription() {
        match client.leaders_of(topic, REQUEST_TIMEOUT) {
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

/// A list for librdkafka, with an offset for each partition.
pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
    offset: impl Fn(&TopicPartition) -> Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        let mut element = list.add_partition(&at.topic, at.partition);
        // This fails only for offsets without a number, which the offsets used here have.
        let _ = element.set_offset(offset(at));
    }
    list
}

/// The timestamps that stand for the first and the last offset in Kafka's protocol.
pub(super) const BEGINNING: i64 = -2;
pub(super) const END: i64 = -1;

/// The offset of the first record of each partition that is not older than its `time`, in
/// milliseconds; `None` if there is none.
pub(super) fn offsets_at(
    client: &Client,
    partitions: &[TopicPartition],
    time: impl Fn(&TopicPartition) -> i64,
) -> Result<Vec<Result<Option<Position>, NativeError>>, NativeError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = list_of(partitions, |at| Offset::from_raw(time(at)));
    client.offsets_for_times(&mut list, REQUEST_TIMEOUT)?;
    let offset = |element: &TopicPartitionListElem<'_>| {
        element.error().map_err(|error| {
            let code = error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown);
            NativeError {
                code,
                text: code.to_string(),
            }
        })?;
        Ok(element
            .offset()
            .to_raw()
            .and_then(|raw| Position::try_from(raw).ok()))
    };
    Ok(list.elements().iter().map(offset).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_keyword_or_a_time() {
        for (text, start) in [
            ("earliest", Some(StartOption::Earliest)),
            ("latest", Some(StartOption::Latest)),
            ("1769817600000", Some(StartOption::At(1_769_817_600_000))),
            (
                "2026-01-31T00:00:00Z",
                Some(StartOption::At(1_769_817_600_000)),
            ),
            (
                "2026-01-31T01:00:00.500+01:00",
                Some(StartOption::At(1_769_817_600_500)),
            ),
            ("-1", None),
            ("-0", None),
            ("9223372036854775808", None),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("2026-01-31", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), start, "{text}");
        }
    }
}
