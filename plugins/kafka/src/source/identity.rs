//! The identity of the log that a position belongs to. With each position the state stores the id
//! of the topic and the leader epoch of the last record before it.
//!
//! A topic that is deleted and created again has a different id, and its offsets stand for
//! different records. A partition's log that was truncated after an unclean leader election has
//! different records above some offset, all of a later epoch: the brokers report where an epoch
//! ends, and an end below the position means that records before it are gone (KIP-320).

use pseidon_delivery::ResumeToken;

/// Separates the id and the epoch in the state. Ids do not contain this character.
const SEPARATOR: char = '@';

/// A topic's id; empty if the brokers do not have topic ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicId(pub(super) String);

impl TopicId {
    /// Whether both ids are known and differ.
    pub(super) fn is_other_than(&self, other: &TopicId) -> bool {
        !self.0.is_empty() && !other.0.is_empty() && self != other
    }
}

/// The topic and the leader epoch that a position belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionIdentity {
    /// The topic's id.
    pub(super) topic: TopicId,
    /// The epoch of the last record before the position; `None` if there is no record, or if the
    /// brokers do not report epochs.
    pub(super) leader_epoch: Option<i32>,
}

impl PartitionIdentity {
    /// The value to store in the state; `None` if neither part is known.
    pub(super) fn to_resume(&self) -> Option<ResumeToken> {
        let topic = self.topic.0.as_str();
        match self.leader_epoch {
            Some(epoch) => Some(format!("{topic}{SEPARATOR}{epoch}").into()),
            None => (!topic.is_empty()).then(|| topic.into()),
        }
    }

    /// The identity that was stored in the state.
    pub(super) fn from_resume(resume: &ResumeToken) -> PartitionIdentity {
        let (topic, epoch) = resume
            .as_str()
            .split_once(SEPARATOR)
            .unwrap_or((resume.as_str(), ""));
        PartitionIdentity {
            topic: TopicId(topic.to_owned()),
            leader_epoch: epoch.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_only_if_both_are_known() {
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
    fn identities_round_trip_through_the_state() {
        for (topic, leader_epoch, stored) in [
            ("", None, None),
            ("a", None, Some("a")),
            ("a", Some(7), Some("a@7")),
            ("", Some(0), Some("@0")),
        ] {
            let identity = PartitionIdentity {
                topic: TopicId(topic.to_owned()),
                leader_epoch,
            };
            let resume = identity.to_resume();
            assert_eq!(resume.as_ref().map(ResumeToken::as_str), stored);
            assert_eq!(
                resume.map_or_else(PartitionIdentity::default, |resume| {
                    PartitionIdentity::from_resume(&resume)
                }),
                identity
            );
        }
    }
}
