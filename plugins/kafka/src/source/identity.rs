//! Which log a position belongs to. Beside each position the state keeps the id of the topic and
//! the leader epoch of the last record before it.
//!
//! A topic that is deleted and made again has another id, and its offsets mean other records. A log
//! that was truncated when a leader was elected that was not in sync has other records above some
//! offset, all of them of a later epoch: the brokers say where an epoch ends, and an end below the
//! position says that records before it are gone (KIP-320).

use pseidon_delivery::Resume;

/// What stands between the two in the state. Ids have no such character.
const SEPARATOR: char = '@';

/// A topic's id; empty if the brokers give topics no ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicId(pub(super) String);

impl TopicId {
    /// Whether the two are certainly two topics.
    pub(super) fn is_other_than(&self, other: &TopicId) -> bool {
        !self.0.is_empty() && !other.0.is_empty() && self != other
    }
}

/// The log that a position belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogIdentity {
    /// The topic's id.
    pub(super) topic: TopicId,
    /// The epoch of the last record before the position; `None` if there is none, or if the brokers
    /// do not give it.
    pub(super) leader_epoch: Option<i32>,
}

impl LogIdentity {
    /// What the state keeps; `None` if nothing is known.
    pub(super) fn to_resume(&self) -> Option<Resume> {
        let topic = self.topic.0.as_str();
        match self.leader_epoch {
            Some(epoch) => Some(format!("{topic}{SEPARATOR}{epoch}").into()),
            None => (!topic.is_empty()).then(|| topic.into()),
        }
    }

    /// What the state has kept.
    pub(super) fn from_resume(resume: &Resume) -> LogIdentity {
        let (topic, epoch) = resume
            .as_str()
            .split_once(SEPARATOR)
            .unwrap_or((resume.as_str(), ""));
        LogIdentity {
            topic: TopicId(topic.to_owned()),
            leader_epoch: epoch.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_known_ids_can_differ() {
        for (one, other, differ) in [
            ("a", "b", true),
            ("a", "a", false),
            ("", "b", false),
            ("a", "", false),
        ] {
            let (one, other) = (TopicId(one.to_owned()), TopicId(other.to_owned()));
            assert_eq!(one.is_other_than(&other), differ, "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        for (topic, leader_epoch, kept) in [
            ("", None, None),
            ("a", None, Some("a")),
            ("a", Some(7), Some("a@7")),
            ("", Some(0), Some("@0")),
        ] {
            let identity = LogIdentity {
                topic: TopicId(topic.to_owned()),
                leader_epoch,
            };
            let resume = identity.to_resume();
            assert_eq!(resume.as_ref().map(Resume::as_str), kept);
            assert_eq!(
                resume.map_or_else(LogIdentity::default, |resume| LogIdentity::from_resume(
                    &resume
                )),
                identity
            );
        }
    }
}
