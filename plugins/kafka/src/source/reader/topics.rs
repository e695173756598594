//! Which topics exist: a source says so when one does not, when one was deleted, and when one was
//! deleted and made again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pseidon_plugin::source::SourceError;

use super::super::assignment::Assigned;
use super::super::failure::{Leave, Meaning, denied};
use super::super::identity::TopicId;
use super::super::lookup::Question;
use super::super::outlet::Outlets;
use super::Reader;
use super::arrivals::made_again;
use crate::native::{NativeError, TopicPartition};

/// How often the brokers are asked for the topics, and how often while one is missing that a finite
/// run waits for.
const EVERY: Duration = Duration::from_secs(10);
const EVERY_WHILE_MISSING: Duration = Duration::from_secs(1);
/// How long a finite run waits for a topic that does not exist, and for partitions of one that has
/// appeared.
pub(super) const MISSING: Duration = Duration::from_secs(15);
/// How many names a line of the log shows.
const SHOWN: usize = 5;

/// What is known of topics.
#[derive(Default)]
pub(super) struct TopicWatch {
    /// When to ask, unless the brokers are being asked.
    next: Option<Instant>,
    asking: bool,
    /// Whether they have answered once.
    answered: bool,
    /// Topics that do not exist, and since when that is known.
    missing: BTreeMap<String, Instant>,
    /// Topics that exist now, did not before, and of which the group has given us no partition yet.
    appeared: BTreeMap<String, Instant>,
    /// Topics of which the group has taken partitions away, with how many records of them were not
    /// committed then.
    lost: BTreeMap<String, u64>,
}

impl TopicWatch {
    /// Asks with the next tick.
    pub(super) fn ask_soon(&mut self) {
        self.next = None;
    }

    /// Topics that do not exist.
    pub(super) fn missing(&self) -> impl Iterator<Item = &String> {
        self.missing.keys()
    }

    /// Whether every topic of a finite run exists, and the group has given out its partitions.
    pub(super) fn are_settled(&self) -> bool {
        self.answered
            && self.missing.is_empty()
            && self
                .appeared
                .values()
                .all(|since| since.elapsed() >= MISSING)
    }

    /// Whether some of so many topics exist.
    pub(super) fn has_some_of(&self, count: usize) -> bool {
        self.answered && self.missing.len() < count
    }

    /// The group has given us these.
    pub(super) fn assigned(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.appeared.remove(&at.topic);
        }
    }

    /// The group has taken these away.
    pub(super) fn lost(&mut self, gone: &[Assigned]) {
        for assigned in gone {
            *self.lost.entry(assigned.at.topic.clone()).or_default() += assigned.not_durable();
        }
        self.next = None;
    }
}

impl Reader<'_> {
    /// Asks for the topics, when it is time to.
    pub(super) fn watch_topics(&mut self) {
        if self.topics.asking || self.topics.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let mut names: Vec<String> = match &self.outlets {
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
        self.lookups.ask(Question::Topics(names));
    }

    pub(super) fn hear_topics(
        &mut self,
        asked: Vec<String>,
        found: Result<HashMap<String, String>, NativeError>,
    ) -> Result<(), Leave> {
        self.topics.asking = false;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the brokers do not say which topics exist");
                self.topics.next = Some(Instant::now() + EVERY_WHILE_MISSING);
                return Ok(());
            }
        };
        self.topics.answered = true;
        let mut new = Vec::new();
        for name in &asked {
            if found.contains_key(name) {
                self.note_present(name);
            } else if !self.topics.missing.contains_key(name) {
                self.topics.missing.insert(name.clone(), Instant::now());
                new.push(name.as_str());
            }
        }
        self.topics.missing.retain(|name, _| asked.contains(name));
        // Of a topic that is being read, the group says so soon; of one that it has taken away,
        // that is said below.
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
                "topics do not exist: {names}{more}; they are read when they do"
            );
        }
        self.say_lost(&found);
        let is_waited_for =
            matches!(self.outlets, Outlets::One(_)) && !self.topics.missing.is_empty();
        self.topics.next = Some(
            Instant::now()
                + if is_waited_for {
                    EVERY_WHILE_MISSING
                } else {
                    EVERY
                },
        );
        self.fail_made_again(&found)?;
        self.fail_missing()
    }

    fn note_present(&mut self, name: &str) {
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

    /// Says of partitions that the group has taken away whether that is since their topic was
    /// deleted.
    fn say_lost(&mut self, found: &HashMap<String, String>) {
        for (topic, records) in std::mem::take(&mut self.topics.lost) {
            if found.contains_key(&topic) {
                self.logs.warn(
                    "LOST",
                    "the group has taken partitions away from this instance; what it had not committed is read again by others",
                );
            } else {
                tracing::warn!(
                    topic,
                    records,
                    "topic was deleted; the records read of it that were not committed yet are committed now"
                );
            }
        }
    }

    /// A topic with another id than when its partitions were assigned is another topic, whose
    /// offsets mean other records.
    fn fail_made_again(&mut self, found: &HashMap<String, String>) -> Result<(), Leave> {
        let is_other = |assigned: &&Assigned| {
            found
                .get(&assigned.at.topic)
                .is_some_and(|now| assigned.log.topic.is_other_than(&TopicId(now.clone())))
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
            made_again(&at.topic, &format!("{}/{}", at.topic, at.partition), next),
        )
    }

    /// A finite run does not wait for ever for a topic that is perhaps misspelled.
    fn fail_missing(&mut self) -> Result<(), Leave> {
        if !self.source.until_latest {
            return Ok(());
        }
        let missing = self
            .topics
            .missing
            .iter()
            .find(|(_, since)| since.elapsed() >= MISSING)
            .map(|(topic, _)| topic.clone());
        let Some(topic) = missing else { return Ok(()) };
        let reason = format!(
            "there has been no topic `{topic}` for {MISSING:?}, and with :until :latest it is not waited for: create it, or correct :topics"
        );
        self.fail(&topic, SourceError::Fatal(reason))
    }

    pub(super) fn hear_present(
        &mut self,
        names: &[String],
        noted: Result<(), NativeError>,
    ) -> Result<(), Leave> {
        if self.to_subscribe.as_deref() != Some(names) {
            return Ok(());
        }
        match noted {
            Ok(()) => {
                self.to_subscribe = None;
                self.subscribe_now(names)
            }
            Err(error) if Meaning::of(error.code) == Meaning::Denied => Err(Leave::Failed(denied(
                &self.source.connection.brokers,
                &error,
            ))),
            Err(error) => {
                self.logs.warn("PRESENT", &format!("the brokers do not say which partitions there are; they are asked again: {error}"));
                self.lookups.ask(Question::Present(names.to_vec()));
                Ok(())
            }
        }
    }
}
