//! With `:start :latest`: which partitions a topic had when it was started for the first time. They
//! begin at their end; partitions that appear later begin at their beginning, also if no instance
//! runs when they appear. The source notes the numbers in the state before it begins a partition.

use std::collections::BTreeMap;

use crate::native::TopicPartition;

/// The numbers of partitions at the first starts of a run's topics.
#[derive(Debug, Default)]
pub(super) struct FirstStarts {
    /// By topic; `None` if the state was not asked yet.
    partitions: Option<BTreeMap<String, i32>>,
}

impl FirstStarts {
    /// Whether the state's note was read.
    pub(super) fn are_read(&self) -> bool {
        self.partitions.is_some()
    }

    /// Reads the state's note. One that is damaged counts as missing.
    pub(super) fn read(&mut self, note: Option<&str>) {
        let noted = note.and_then(|note| serde_json::from_str(note).ok());
        self.partitions = Some(noted.unwrap_or_default());
    }

    /// Whether the partition existed at the first start of its topic; `None` if this is that start.
    /// A topic that is not `named`, but matches a pattern, is new if the pattern was started before.
    pub(super) fn existed(&self, at: &TopicPartition, named: bool) -> Option<bool> {
        let known = self.partitions.as_ref()?;
        match known.get(&at.topic) {
            Some(count) => Some(at.partition < *count),
            None if known.is_empty() || named => None,
            None => Some(false),
        }
    }

    /// Adds topics with the numbers of their partitions. Returns the new note if one was not known.
    pub(super) fn add(
        &mut self,
        topics: impl IntoIterator<Item = (String, i32)>,
    ) -> Option<String> {
        let known = self.partitions.get_or_insert_default();
        let before = known.len();
        for (topic, count) in topics {
            known.entry(topic).or_insert(count);
        }
        let has_news = known.len() > before;
        has_news.then(|| serde_json::json!(known).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.to_owned(),
            partition,
        }
    }

    #[test]
    fn partitions_that_appear_after_the_first_start_are_new() {
        let mut first = FirstStarts::default();
        assert!(!first.are_read());
        first.read(None);
        assert_eq!(first.existed(&at("a", 0), true), None);
        let note = first
            .add([("a".to_owned(), 2), ("b".to_owned(), 0)])
            .unwrap();
        assert_eq!(first.add([("a".to_owned(), 3)]), None, "it is known");

        let mut later = FirstStarts::default();
        later.read(Some(&note));
        assert!(later.are_read());
        let existed = |topic, partition, named| later.existed(&at(topic, partition), named);
        assert_eq!(
            (existed("a", 1, true), existed("a", 2, true)),
            (Some(true), Some(false))
        );
        assert_eq!(existed("b", 0, false), Some(false));
        assert_eq!(
            existed("c", 0, true),
            None,
            "the name was added to the pipeline"
        );
        assert_eq!(
            existed("c", 0, false),
            Some(false),
            "the topic was created later"
        );
    }

    #[test]
    fn a_damaged_note_counts_as_missing() {
        let mut first = FirstStarts::default();
        first.read(Some("{"));
        assert_eq!(first.existed(&at("a", 0), false), None);
    }
}
