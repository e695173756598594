//! Which topic a position belongs to: beside each position the state keeps the id of the topic. A topic that is deleted and made again has
//! another id, and its offsets mean other records.

use pseidon_delivery::Resume;

/// A topic's id; empty if the brokers give topics no ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicId(pub(super) String);

impl TopicId {
    /// What the state keeps; `None` if the id is not known.
    pub(super) fn to_resume(&self) -> Option<Resume> {
        (!self.0.is_empty()).then(|| Resume::from(self.0.as_str()))
    }

    /// What the state has kept.
    pub(super) fn from_resume(resume: &Resume) -> TopicId {
        TopicId(resume.as_str().to_owned())
    }

    /// Whether the two are certainly two topics.
    pub(super) fn is_other_than(&self, other: &TopicId) -> bool {
        !self.0.is_empty() && !other.0.is_empty() && self != other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_known_ids_can_differ() {
        for (one, other, differ) in [("a", "b", true), ("a", "a", false), ("", "b", false), ("a", "", false)] {
            let (one, other) = (TopicId(one.to_owned()), TopicId(other.to_owned()));
            assert_eq!(one.is_other_than(&other), differ, "{one:?} {other:?}");
            let kept = one.to_resume().map_or_else(TopicId::default, |resume| TopicId::from_resume(&resume));
            assert_eq!(kept, one);
        }
    }
}
