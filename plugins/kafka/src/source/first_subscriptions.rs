//! With `:start :latest`: how many partitions each topic had when the source subscribed to it for the
//! first time. The partitions below that number begin at their end. Partitions and topics that appear
//! later begin at their beginning, also if no instance runs when they appear. The source notes the
//! numbers in the state before it begins a partition.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Topics;
use crate::native::TopicPartition;

/// What a run's state notes about first subscriptions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FirstSubscriptions {
    /// The names and patterns that were subscribed to.
    subscribed: Vec<String>,
    /// How many partitions each topic had then.
    partitions: BTreeMap<String, i32>,
}

impl FirstSubscriptions {
    /// Those of the state's note. One that is missing or damaged has none.
    pub(super) fn of_note(note: Option<&str>) -> FirstSubscriptions {
        note.and_then(FirstSubscriptions::parse).unwrap_or_default()
    }

    /// Whether the partition existed when the source subscribed to its topic for the first time.
    pub(super) fn had(&self, at: &TopicPartition) -> bool {
        let count = self.partitions.get(&at.topic);
        count.is_some_and(|count| at.partition < *count)
    }

    /// Adds names and patterns that are not noted, with the numbers of partitions that topics had
    /// before. Returns whether there are any. A topic that a noted pattern covers and that is not
    /// noted itself has appeared later.
    pub(super) fn add(&mut self, subscription: &[String], before: &HashMap<String, i32>) -> bool {
        let is_new = |name: &&String| !self.subscribed.contains(name);
        let new: Vec<String> = subscription.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return false;
        }
        let (added, covered) = (Topics::valid(&new), Topics::noted(&self.subscribed));
        for (topic, count) in before {
            if added.contains(topic) && !covered.contains(topic) {
                self.partitions.entry(topic.clone()).or_insert(*count);
            }
        }
        self.subscribed.extend(new);
        true
    }

    /// The note.
    pub(super) fn print(&self) -> String {
        json!({"subscribed": self.subscribed, "partitions": self.partitions}).to_string()
    }

    fn parse(note: &str) -> Option<FirstSubscriptions> {
        let noted: Value = serde_json::from_str(note).ok()?;
        let field = |name: &str| noted.get(name).cloned();
        Some(FirstSubscriptions {
            subscribed: serde_json::from_value(field("subscribed")?).ok()?,
            partitions: serde_json::from_value(field("partitions")?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existed(first: &FirstSubscriptions, topic: &str, partition: i32) -> bool {
        first.had(&TopicPartition {
            topic: topic.to_owned(),
            partition,
        })
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn counts(topics: &[(&str, i32)]) -> HashMap<String, i32> {
        topics
            .iter()
            .map(|(topic, count)| ((*topic).to_owned(), *count))
            .collect()
    }

    #[test]
    fn what_appears_after_the_first_subscription_is_new() {
        let mut first = FirstSubscriptions::default();
        let subscription = names(&["a", "missing", "^x.*"]);
        let before = counts(&[("a", 2), ("xa", 1), ("other", 5)]);
        assert!(first.add(&subscription, &before));
        let note = first.print();

        let mut later = FirstSubscriptions::of_note(Some(&note));
        let before = counts(&[("a", 3), ("missing", 2), ("xa", 2), ("xb", 1), ("new", 4)]);
        assert!(!later.add(&subscription, &before));
        for (topic, partition, expected) in [
            ("a", 1, true),
            ("a", 2, false),
            ("missing", 0, false),
            ("xa", 0, true),
            ("xa", 1, false),
            ("xb", 0, false),
            ("other", 0, false),
        ] {
            assert_eq!(
                existed(&later, topic, partition),
                expected,
                "{topic}/{partition}"
            );
        }
    }

    #[test]
    fn what_is_added_to_the_pipeline_existed_unless_it_was_covered() {
        let mut first = FirstSubscriptions::of_note(None);
        assert!(first.add(&names(&["^x.*"]), &counts(&[("xa", 1)])));
        let note = first.print();
        let mut later = FirstSubscriptions::of_note(Some(&note));
        let before = counts(&[("xa", 2), ("xb", 1), ("new", 4)]);
        assert!(later.add(&names(&["new", "xb", "^(x|y).*"]), &before));
        assert!(existed(&later, "new", 3), "the name was added");
        assert!(existed(&later, "xa", 0) && !existed(&later, "xa", 1));
        assert!(!existed(&later, "xb", 0), "the pattern covered it");
    }

    #[test]
    fn a_noted_pattern_that_is_refused_now_still_covers_its_topics() {
        let note = r#"{"subscribed":["^x\\w+"],"partitions":{"xa":1}}"#;
        let mut later = FirstSubscriptions::of_note(Some(note));
        let before = counts(&[("xa", 1), ("xb", 1), ("y", 1)]);
        assert!(later.add(&names(&["^[xy].*"]), &before));
        assert!(existed(&later, "y", 0) && existed(&later, "xa", 0));
        assert!(!existed(&later, "xb", 0), "the pattern covered it");
    }

    #[test]
    fn a_damaged_note_counts_as_missing() {
        let mut first = FirstSubscriptions::of_note(Some("{"));
        assert!(first.add(&names(&["a"]), &counts(&[("a", 1)])));
        assert!(existed(&first, "a", 0));
    }
}
