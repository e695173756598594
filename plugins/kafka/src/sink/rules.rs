//! The rules of a topic, derived from its configuration, and the records that break them.
//!
//! A record that the broker refuses aborts its whole transaction, so everything that can be checked
//! in advance is. The broker decides in the end: what passes the checks (because clocks differ, a
//! rule has changed, or the configuration may not be read) comes back as a
//! [refusal](super::refusals).

use chrono::{DateTime, SecondsFormat};

/// The rules of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicRules {
    /// The largest batch of records, in bytes (`max.message.bytes`); `None` if it is unknown.
    pub(super) bytes: Option<usize>,
    /// Whether the topic is compacted, so that a record without a key is refused.
    pub(super) needs_key: bool,
    /// How far a record's timestamp may be ahead of the broker's time, in milliseconds; `None`
    /// without a limit.
    pub(super) ahead: Option<i64>,
    /// How far it may be behind, in milliseconds; `None` without a limit.
    pub(super) behind: Option<i64>,
    /// The number of partitions.
    pub(super) partitions: i32,
}

impl TopicRules {
    /// The rules that follow from a topic's configuration; `value` returns a property's value.
    pub(super) fn new(partitions: i32, value: impl Fn(&str) -> Option<String>) -> TopicRules {
        let number = |name: &str| {
            value(name)?
                .parse::<i64>()
                .ok()
                .filter(|number| *number < i64::MAX)
        };
        // The broker replaces all timestamps of such a topic.
        let replaces_time =
            value("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime");
        // Brokers before 3.6 have one limit for both directions.
        let limit = |name: &str| {
            if replaces_time {
                None
            } else {
                number(name).or_else(|| number("message.timestamp.difference.max.ms"))
            }
        };
        TopicRules {
            bytes: number("max.message.bytes").and_then(|bytes| usize::try_from(bytes).ok()),
            needs_key: has_policy(value("cleanup.policy").as_deref(), "compact"),
            ahead: limit("message.timestamp.after.max.ms"),
            behind: limit("message.timestamp.before.max.ms"),
            partitions,
        }
    }

    /// Why the topic refuses a record with this timestamp at the time `now`, if it does. Both are
    /// in milliseconds since 1970.
    pub(super) fn time_refusal(&self, timestamp: i64, now: i64) -> Option<String> {
        let ahead = timestamp.saturating_sub(now);
        if self.ahead.is_some_and(|limit| ahead > limit) {
            let limit = self.ahead.unwrap_or_default();
            return Some(format!(
                "its timestamp {} is more than {limit} ms in the future \
                 (message.timestamp.after.max.ms)",
                as_text(timestamp)
            ));
        }
        let behind = now.saturating_sub(timestamp);
        if self.behind.is_some_and(|limit| behind > limit) {
            let limit = self.behind.unwrap_or_default();
            return Some(format!(
                "its timestamp {} is more than {limit} ms in the past \
                 (message.timestamp.before.max.ms)",
                as_text(timestamp)
            ));
        }
        None
    }

    /// Why the topic refuses this partition, if it does.
    pub(super) fn partition_refusal(&self, partition: i32) -> Option<String> {
        let exists = (0..self.partitions).contains(&partition);
        (!exists).then(|| {
            format!(
                "unknown partition {partition}: the topic has 0 to {}",
                self.partitions - 1
            )
        })
    }
}

/// Whether a topic's `cleanup.policy`, a comma-separated list, contains this policy.
pub(super) fn has_policy(cleanup: Option<&str>, policy: &str) -> bool {
    cleanup.is_some_and(|cleanup| cleanup.split(',').any(|one| one.trim() == policy))
}

fn as_text(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(
        || millis.to_string(),
        |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(config: &[(&str, &str)]) -> TopicRules {
        TopicRules::new(3, |name| {
            config
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn rules_follow_from_the_configuration() {
        let none = TopicRules {
            partitions: 3,
            ..TopicRules::default()
        };
        for (config, expected) in [
            (&[][..], none.clone()),
            (
                &[("max.message.bytes", "5000")],
                TopicRules {
                    bytes: Some(5000),
                    ..none.clone()
                },
            ),
            (&[("cleanup.policy", "delete")], none.clone()),
            (
                &[("cleanup.policy", "compact")],
                TopicRules {
                    needs_key: true,
                    ..none.clone()
                },
            ),
            (
                &[("cleanup.policy", "delete, compact")],
                TopicRules {
                    needs_key: true,
                    ..none.clone()
                },
            ),
            (
                &[
                    ("message.timestamp.after.max.ms", "3600000"),
                    ("message.timestamp.before.max.ms", "9223372036854775807"),
                ],
                TopicRules {
                    ahead: Some(3_600_000),
                    ..none.clone()
                },
            ),
            (
                &[("message.timestamp.difference.max.ms", "10")],
                TopicRules {
                    ahead: Some(10),
                    behind: Some(10),
                    ..none.clone()
                },
            ),
            (
                &[
                    ("message.timestamp.after.max.ms", "10"),
                    ("message.timestamp.type", "LogAppendTime"),
                ],
                none.clone(),
            ),
        ] {
            assert_eq!(rules(config), expected, "{config:?}");
        }
    }

    #[test]
    fn times_are_compared_with_the_limits() {
        let limited = rules(&[
            ("message.timestamp.after.max.ms", "1000"),
            ("message.timestamp.before.max.ms", "5000"),
        ]);
        let now = 1_769_817_600_000;
        for (timestamp, expected) in [
            (now, None),
            (now + 1000, None),
            (
                now + 1001,
                Some("in the future (message.timestamp.after.max.ms)"),
            ),
            (now - 5000, None),
            (
                now - 5001,
                Some("in the past (message.timestamp.before.max.ms)"),
            ),
            (
                i64::MAX,
                Some("9223372036854775807 is more than 1000 ms in the future"),
            ),
            (
                4_102_444_800_000,
                Some("2100-01-01T00:00:00Z is more than 1000 ms in the future"),
            ),
        ] {
            let refused = limited.time_refusal(timestamp, now);
            assert_eq!(
                refused.is_some(),
                expected.is_some(),
                "{timestamp}: {refused:?}"
            );
            assert!(
                expected.is_none_or(|expected| refused
                    .as_ref()
                    .is_some_and(|refused| refused.contains(expected))),
                "{timestamp}: {refused:?}"
            );
        }
        assert_eq!(rules(&[]).time_refusal(i64::MAX, now), None);
    }
}
