//! The membership in the consumer group: which topics are subscribed to, and whether the group has
//! admitted this instance.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::source::{SourceExit, Stopped};

use super::super::failure::{ErrorClass, denied};
use super::super::lookup::LookupRequest;
use super::super::outlet::{Outlet, Outlets};
use super::super::start::StartOption;
use super::Reader;
use super::topics::TopicWatch;
use crate::native::NativeError;

/// How long joining the group may take before it is reported as a problem.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The known state of the membership.
pub(super) struct Membership {
    /// The name of the group.
    pub(super) group: String,
    /// Topics to subscribe to once their partitions are looked up.
    to_subscribe: Option<Vec<String>>,
    /// With `:start :latest`, how many partitions topics had before they were subscribed to.
    partitions_before: HashMap<String, i32>,
    /// The number of topics that are subscribed to.
    topics: usize,
    /// Since when they are subscribed to.
    since: Instant,
    /// Whether the group has sent an assignment, even an empty one.
    pub(super) joined: bool,
    /// Whether it has sent one since it last took partitions away: only then is what is assigned all
    /// that there is to read.
    pub(super) is_assigned: bool,
    /// Whether no broker could be reached when one was last needed.
    pub(super) unreachable: bool,
    /// Why the group does not admit this instance.
    problem: Option<String>,
}

impl Membership {
    /// Of a consumer without a subscription.
    pub(super) fn new(group: &str) -> Membership {
        Membership {
            group: group.to_owned(),
            to_subscribe: None,
            partitions_before: HashMap::new(),
            topics: 0,
            since: Instant::now(),
            joined: false,
            is_assigned: false,
            unreachable: false,
            problem: None,
        }
    }

    /// Records that the group has sent an assignment.
    pub(super) fn confirm(&mut self) {
        self.joined = true;
        self.is_assigned = true;
        self.problem = None;
    }

    /// Records that the group has taken partitions away.
    pub(super) fn lose(&mut self) {
        self.is_assigned = false;
    }

    /// Records that other members use another assignment strategy, and returns the problem.
    pub(super) fn record_other_strategy(&mut self) -> &str {
        let group = &self.group;
        self.problem.insert(format!(
            "the group {group} has members with an assignment strategy other than \
             cooperative-sticky, so this instance cannot join it: stop the other consumers, or set \
             another :group"
        ))
    }

    /// Why this instance is not a member of the group, if that is a problem.
    pub(super) fn problem(&self, topics: &TopicWatch) -> Option<String> {
        let problem = self.problem.clone();
        problem.or_else(|| self.late_join(topics))
    }

    fn late_join(&self, topics: &TopicWatch) -> Option<String> {
        let is_late = self.topics > 0
            && !self.joined
            && !self.unreachable
            && self.since.elapsed() >= JOIN_TIMEOUT
            && topics.has_some_of(self.topics);
        is_late.then(|| {
            format!(
                "the group {} has not admitted this instance for {:.0?}",
                self.group,
                self.since.elapsed()
            )
        })
    }
}

impl Reader<'_> {
    /// Joins the group for these topics, or leaves it if there are none.
    pub(in super::super) fn subscribe(&mut self, topics: &[String]) -> Result<(), SourceExit> {
        if self.source.start == StartOption::Latest && !topics.is_empty() {
            self.membership.to_subscribe = Some(topics.to_vec());
            self.lookups
                .request(LookupRequest::Partitions(topics.to_vec()));
            return Ok(());
        }
        self.membership.to_subscribe = None;
        self.subscribe_now(topics)
    }

    fn subscribe_now(&mut self, topics: &[String]) -> Result<(), SourceExit> {
        self.membership.topics = topics.len();
        self.membership.since = Instant::now();
        let subscribed = if topics.is_empty() {
            self.consumer.unsubscribe()
        } else {
            self.consumer.subscribe(topics)
        };
        subscribed.map_err(|error| {
            let what = format!("cannot subscribe to {}", topics.join(", "));
            SourceExit::fatal(Reason::caused_by(what, error))
        })
    }

    /// Subscribes to topics whose partitions were looked up.
    pub(super) fn handle_partitions(
        &mut self,
        names: &[String],
        found: Result<HashMap<String, i32>, NativeError>,
    ) -> Result<(), SourceExit> {
        if let Ok(counts) = &found {
            for (topic, count) in counts {
                let before = &mut self.membership.partitions_before;
                before.entry(topic.clone()).or_insert(*count);
            }
        }
        if self.membership.to_subscribe.as_deref() != Some(names) {
            return Ok(());
        }
        match found {
            Ok(_) => {
                self.membership.to_subscribe = None;
                self.subscribe_now(names)
            }
            Err(error) if ErrorClass::of(error.code) == ErrorClass::Denied => Err(
                SourceExit::Failed(denied(&self.source.connection.brokers, error)),
            ),
            Err(error) => {
                self.logs.warn(
                    "PRESENT",
                    &format!("cannot look up the partitions; retrying: {error}"),
                );
                self.lookups
                    .request(LookupRequest::Partitions(names.to_vec()));
                Ok(())
            }
        }
    }

    /// With `:start :latest`, notes in the state of a run how many partitions its topics had when they
    /// were subscribed to for the first time. The engine handles events in order, so the note is
    /// stored before a partition is begun.
    pub(super) fn note_first_starts<'a>(
        &self,
        outlet: &Outlet,
        topics: impl Iterator<Item = &'a str>,
    ) -> Result<(), Stopped> {
        if self.source.start != StartOption::Latest {
            return Ok(());
        }
        let subscription = match &self.runs.outlets {
            Outlets::One(_) => self.source.topics.subscription().to_vec(),
            Outlets::ByTopic { .. } => topics.map(str::to_owned).collect(),
        };
        let before = &self.membership.partitions_before;
        let note = outlet.first_starts.lock().add(&subscription, before);
        match note {
            Some(note) => outlet.outbox.set_note(note).map(drop),
            None => Ok(()),
        }
    }
}
