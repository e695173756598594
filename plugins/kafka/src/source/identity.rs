//! Which log a position belongs to: beside each position the state keeps the id of the topic and the epoch of the leader that wrote the last
//! record below it.
//!
//! A topic that is deleted and made again has another id. Records that were lost in an unclean election are told by the epoch: librdkafka asks
//! the broker where an epoch ends before it fetches.

use pseidon_delivery::Resume;

/// What a position's log is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogIdentity {
    /// Empty if the brokers give topics no ids.
    pub(super) topic_id: String,
    /// The epoch of the last record below the position; `None` if it is not known.
    pub(super) epoch: Option<i32>,
}

impl LogIdentity {
    /// What the state keeps; `None` if nothing is known.
    pub(super) fn to_resume(&self) -> Option<Resume> {
        match (self.topic_id.as_str(), self.epoch) {
            ("", None) => None,
            (id, None) => Some(Resume::from(id)),
            (id, Some(epoch)) => Some(Resume::from(format!("{id}@{epoch}").as_str())),
        }
    }

    /// What the state has kept. Of a text that cannot be understood nothing is known.
    pub(super) fn from_resume(resume: &Resume) -> LogIdentity {
        let text = resume.as_str();
        let (topic_id, epoch) = text.split_once('@').map_or((text, None), |(id, epoch)| (id, epoch.parse().ok()));
        LogIdentity { topic_id: topic_id.to_owned(), epoch }
    }

    /// Whether it is certainly not the log of the topic with this id.
    pub(super) fn is_other_than(&self, topic_id: &str) -> bool {
        !self.topic_id.is_empty() && !topic_id.is_empty() && self.topic_id != topic_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_as_text() {
        for (topic_id, epoch, text) in
            [("", None, None), ("a-B_1", None, Some("a-B_1")), ("a", Some(7), Some("a@7")), ("", Some(0), Some("@0"))]
        {
            let identity = LogIdentity { topic_id: topic_id.to_owned(), epoch };
            let kept = identity.to_resume();
            assert_eq!(kept.as_ref().map(Resume::as_str), text);
            if let Some(kept) = kept {
                assert_eq!(LogIdentity::from_resume(&kept), identity);
            }
        }
        assert_eq!(LogIdentity::from_resume(&Resume::from("a@b")).epoch, None);
    }

    #[test]
    fn only_two_known_ids_can_differ() {
        for (one, other, differ) in [("a", "b", true), ("a", "a", false), ("", "b", false), ("a", "", false)] {
            assert_eq!(LogIdentity { topic_id: one.to_owned(), epoch: None }.is_other_than(other), differ, "{one} {other}");
        }
    }
}
