//! With `:start :latest`: how many partitions each topic had when the source subscribed to it for the
//! first time. Those begin at their end. Partitions and topics that appear later begin at their
//! beginning, also if no instance runs when they appear. The source notes the numbers in the state
//! before it begins a partition.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Topics;
use crate::native::TopicPartition;

/// What a run's state notes about first subscriptions.
#[derive(Debug, Default)]
pub(super) struct FirstStarts {
    noted: Option<FirstSubscriptions>,
}

/// The note.
#[derive(Debug, Default, PartialEq, Eq)]
struct FirstSubscriptions {
    /// The names and patterns that were subscribed to.
    subscribed: Vec<String>,
    /// How many partitions each topic had then; 0 for a name without a topic.
    partitions: BTreeMap<String, i32>,
}

impl FirstStarts {
    /// Whether the state's note was read.
    pub(super) fn are_read(&self) -> bool {
        self.noted.is_some()
    }

    /// Reads the state's note, once.
    pub(super) fn read(&mut self, note: Option<&str>) {
        if self.noted.is_none() {
            self.noted = Some(note.and_then(FirstSubscriptions::parse).unwrap_or_default());
        }
    }

    /// Adds the names and patterns that are subscribed to, with the partitions that topics had
    /// before. Returns the new note if one of them is new.
    pub(super) fn add(
        &mut self,
        subscription: &[String],
        before: &HashMap<String, i32>,
    ) -> Option<String> {
        let noted = self.noted.get_or_insert_default();
        let known = noted.subscribed.len();
        for name in subscription {
            if !noted.subscribed.contains(name) {
                noted.add(name, before);
            }
        }
        (noted.subscribed.len() > known).then(|| noted.print())
    }

    /// Whether the partition existed when the source subscribed to its topic for the first time.
    pub(super) fn existed(&self, at: &TopicPartition) -> bool {
        let count = self
            .noted
            .as_ref()
            .and_then(|noted| noted.partitions.get(&at.topic));
        count.is_some_and(|count| at.partition < *count)
    }
}

impl FirstSubscriptions {
    fn add(&mut self, name: &str, before: &HashMap<String, i32>) {
        self.subscribed.push(name.to_owned());
        if !name.starts_with('^') {
            let count = before.get(name).copied().unwrap_or(0);
            self.partitions.entry(name.to_owned()).or_insert(count);
            return;
        }
        let Ok(pattern) = Topics::names(&[name.to_owned()]) else {
            return;
        };
        for (topic, count) in before.iter().filter(|(topic, _)| pattern.contains(topic)) {
            self.partitions.entry(topic.clone()).or_insert(*count);
        }
    }

    fn print(&self) -> String {
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

    fn existed(first: &FirstStarts, topic: &str, partition: i32) -> bool {
        first.existed(&TopicPartition {
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
        let mut first = FirstStarts::default();
        assert!(!first.are_read());
        first.read(None);
        let before = counts(&[("a", 2), ("xa", 1), ("other", 5)]);
        let note = first
            .add(&names(&["a", "missing", "^x.*"]), &before)
            .unwrap();
        assert_eq!(
            first.add(&names(&["a"]), &counts(&[("a", 3)])),
            None,
            "it is known"
        );

        let mut later = FirstStarts::default();
        later.read(Some(&note));
        later.read(None);
        let before = counts(&[("a", 3), ("missing", 2), ("xa", 2), ("xb", 1), ("new", 4)]);
        assert_eq!(later.add(&names(&["a", "missing", "^x.*"]), &before), None);
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
        assert!(later.add(&names(&["a", "new"]), &before).is_some());
        assert!(
            existed(&later, "new", 3),
            "the name was added to the pipeline"
        );
    }

    #[test]
    fn a_damaged_note_counts_as_missing() {
        let mut first = FirstStarts::default();
        first.read(Some("{"));
        assert!(first.are_read());
        assert!(first.add(&names(&["a"]), &counts(&[("a", 1)])).is_some());
        assert!(existed(&first, "a", 0));
    }
}
