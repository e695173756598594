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

    /// Whether a lookup is due and not in progress.
    fn is_due(&self) -> bool {
        !self.asking && self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// Records which of the topics that were asked for exist, and returns those that have become
    /// missing. `is_ours` says whether partitions of a topic are assigned.
    fn record<'a>(
        &mut self,
        asked: &'a [String],
        found: &HashMap<String, String>,
        is_ours: impl Fn(&str) -> bool,
    ) -> Vec<&'a str> {
        self.answered = true;
        let mut new = Vec::new();
        for name in asked {
            if found.contains_key(name) {
                let was_missing = self.missing.remove(name).is_some();
                if was_missing && !is_ours(name) {
                    self.appeared.insert(name.clone(), Instant::now());
                }
            } else if !self.missing.contains_key(name) {
                self.missing.insert(name.clone(), Instant::now());
                new.push(name.as_str());
            }
        }
        self.missing.retain(|name, _| asked.contains(name));
        new
    }

    /// A topic that has been missing for longer than a finite run waits.
    fn missing_for_long(&self) -> Option<&String> {
        let mut missing = self.missing.iter();
        let found = missing.find(|(_, since)| since.elapsed() >= MISSING_TOPIC_TIMEOUT);
        found.map(|(topic, _)| topic)
    }
}

impl Reader<'_> {
    /// Looks the topics up if that is due.
    pub(super) fn watch_topics(&mut self) {
        if !self.topics.is_due() {
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
        let is_read = |name: &str| self.assignment.iter().any(|one| one.at.topic == name);
        let is_ours = |name: &str| self.arrivals.have_topic(name) || is_read(name);
        let mut new = self.topics.record(&asked, &found, is_ours);
        // The group soon reports a deleted topic that is being read; a topic that the group took
        // away is reported below.
        new.retain(|name| !self.topics.lost.contains_key(*name) && !is_read(name));
        if !new.is_empty() {
            report_missing(&new);
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
        let Some(topic) = self.topics.missing_for_long().cloned() else {
            return Ok(());
        };
        let reason = format!(
            "topic `{topic}` has not existed for {MISSING_TOPIC_TIMEOUT:?}, and a run with :until \
             :latest waits no longer: create it, or correct :topics"
        );
        self.fail(&topic, SourceError::Fatal(reason.into()))
    }
}

fn report_missing(topics: &[&str]) {
    let shown = &topics[..topics.len().min(SHOWN)];
    let names = shown.join(", ");
    let more = topics.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    tracing::warn!(
        topics = topics.len(),
        "topics do not exist: {names}{more}; reading starts when they are created"
    );
}
