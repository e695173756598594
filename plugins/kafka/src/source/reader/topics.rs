//! Watches which topics exist, and reports a topic that does not exist, one that was deleted, and
//! one that was deleted and created again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pseidon_plugin::source::{SourceError, SourceExit};

use super::super::assignment::AssignedPartition;
use super::super::identity::TopicId;
use super::super::lookup::LookupRequest;
use super::super::lost_records::recreated_topic;
use super::super::outlet::Outlets;
use super::Reader;
use crate::native::{NativeError, TopicPartition};

/// The interval between two lookups of the topics.
const TOPIC_INTERVAL: Duration = Duration::from_secs(10);
/// The same while a topic is missing that a finite run waits for.
const MISSING_TOPIC_INTERVAL: Duration = Duration::from_secs(1);
/// How long a finite run waits for a topic that does not exist, and for partitions of one that has
/// appeared.
pub(super) const MISSING_TOPIC_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum number of topics in one log message.
const SHOWN: usize = 5;

/// The known state of the topics.
#[derive(Default)]
pub(super) struct TopicWatch {
    /// When the next lookup is due; `None` for the next tick.
    next: Option<Instant>,
    /// Whether a lookup is in progress.
    asking: bool,
    /// Whether a lookup has succeeded.
    answered: bool,
    /// Topics that do not exist, and since when that is known.
    missing: BTreeMap<String, Instant>,
    /// Topics that exist now, did not before, and have no assigned partition yet.
    appeared: BTreeMap<String, Instant>,
    /// Topics of which the group took partitions away, with the number of their records that were
    /// not committed then.
    lost: BTreeMap<String, u64>,
}

impl TopicWatch {
    /// Makes the next lookup due with the next tick.
    pub(super) fn refresh_soon(&mut self) {
        self.next = None;
    }

    /// The topics that do not exist.
    pub(super) fn missing(&self) -> impl Iterator<Item = &String> {
        self.missing.keys()
    }

    /// Whether every topic of a finite run exists and its partitions had time to be assigned.
    pub(super) fn are_settled(&self) -> bool {
        self.answered
            && self.missing.is_empty()
            && self
                .appeared
                .values()
                .all(|since| since.elapsed() >= MISSING_TOPIC_TIMEOUT)
    }

    /// Whether at least one of `count` topics exists.
    pub(super) fn has_some_of(&self, count: usize) -> bool {
        self.answered && self.missing.len() < count
    }

    /// Records that the group has assigned these partitions.
    pub(super) fn assigned(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.appeared.remove(&at.topic);
        }
    }

    /// Records that the group took these partitions away.
    pub(super) fn lost(&mut self, gone: &[AssignedPartition]) {
        for assigned in gone {
            *self.lost.entry(assigned.at.topic.clone()).or_default() += assigned.not_durable();
        }
        self.next = None;
    }
}

impl Reader<'_> {
    /// Looks the topics up if that is due.
    pub(super) fn watch_topics(&mut self) {
        if self.topics.asking || self.topics.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let mut names: Vec<String> = match &self.runs.outlets {
            Outlets::One(_) => self.source.topics.fixed_names().cloned().collect(),
            Outlets::ByTopic { topics, .. } => topics.keys().cloned().collect(),
        };
        names.extend(
            self.assignment
                .iter()
                .map(|assigned| assigned.at.topic.clone()),
        );
        names.extend(self.topics.lost.keys().cloned());
        names.sort_unstable();
        names.dedup();
        self.topics.asking = true;
        self.lookups.request(LookupRequest::Topics(names));
    }

    pub(super) fn handle_topics(
        &mut self,
        asked: Vec<String>,
        found: Result<HashMap<String, String>, NativeError>,
    ) -> Result<(), SourceExit> {
        self.topics.asking = false;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "cannot look up the topics");
                self.topics.next = Some(Instant::now() + MISSING_TOPIC_INTERVAL);
                return Ok(());
            }
        };
        self.topics.answered = true;
        let mut new = Vec::new();
        for name in &asked {
            if found.contains_key(name) {
                self.note_existing(name);
            } else if !self.topics.missing.contains_key(name) {
                self.topics.missing.insert(name.clone(), Instant::now());
                new.push(name.as_str());
            }
        }
        self.topics.missing.retain(|name, _| asked.contains(name));
        // The group soon reports a deleted topic that is being read; a topic that the group took
        // away is reported below.
        new.retain(|name| {
            !self.topics.lost.contains_key(*name)
                && !self.assignment.iter().any(|one| one.at.topic == *name)
        });
        if !new.is_empty() {
            let names = new
                .iter()
                .take(SHOWN)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let more = new.len().saturating_sub(SHOWN);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            tracing::warn!(
                topics = new.len(),
                "topics do not exist: {names}{more}; reading starts when they are created"
            );
        }
        self.report_lost(&found);
        let is_waited_for =
            matches!(self.runs.outlets, Outlets::One(_)) && !self.topics.missing.is_empty();
        self.topics.next = Some(
            Instant::now()
                + if is_waited_for {
                    MISSING_TOPIC_INTERVAL
                } else {
                    TOPIC_INTERVAL
                },
        );
        self.fail_recreated(&found)?;
        self.fail_missing()
    }

    fn note_existing(&mut self, name: &str) {
        let was_missing = self.topics.missing.remove(name).is_some();
        let is_ours = self.arrivals.have_topic(name)
            || self
                .assignment
                .iter()
                .any(|assigned| assigned.at.topic == name);
        if was_missing && !is_ours {
            self.topics.appeared.insert(name.to_owned(), Instant::now());
        }
    }

    /// Reports whether partitions were taken away by the group because their topic was deleted.
    fn report_lost(&mut self, found: &HashMap<String, String>) {
        for (topic, records) in std::mem::take(&mut self.topics.lost) {
            if found.contains_key(&topic) {
                self.logs.warn(
                    "LOST",
                    "the group took partitions away from this instance; other instances re-read \
                     its uncommitted records",
                );
            } else {
                tracing::warn!(
                    topic,
                    records,
                    "topic was deleted; committing the records that were read from it"
                );
            }
        }
    }

    /// Fails a topic whose id differs from the one when its partitions were assigned: its offsets
    /// stand for different records.
    fn fail_recreated(&mut self, found: &HashMap<String, String>) -> Result<(), SourceExit> {
        let is_other = |assigned: &&AssignedPartition| {
            found
                .get(&assigned.at.topic)
                .is_some_and(|now| assigned.identity.topic.is_other_than(&TopicId(now.clone())))
        };
        let other = self
            .assignment
            .iter()
            .find(is_other)
            .map(|assigned| (assigned.at.clone(), assigned.next));
        let Some((at, next)) = other else {
            return Ok(());
        };
        self.fail(
            &at.topic,
            recreated_topic(&at.topic, &format!("{}/{}", at.topic, at.partition), next),
        )
    }

    /// Fails a finite run whose topic stays missing, since the name may be misspelled.
    fn fail_missing(&mut self) -> Result<(), SourceExit> {
        if !self.source.until_latest {
            return Ok(());
        }
        let missing = self
            .topics
            .missing
            .iter()
            .find(|(_, since)| since.elapsed() >= MISSING_TOPIC_TIMEOUT)
            .map(|(topic, _)| topic.clone());
        let Some(topic) = missing else { return Ok(()) };
        let reason = format!(
            "topic `{topic}` has not existed for {MISSING_TOPIC_TIMEOUT:?}, and a run with :until \
             :latest waits no longer: create it, or correct :topics"
        );
        self.fail(&topic, SourceError::Fatal(reason.into()))
    }
}
