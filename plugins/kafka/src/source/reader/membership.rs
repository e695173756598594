//! The membership in the consumer group: which topics are subscribed to, and whether the group has
//! admitted this instance.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceExit;

use super::super::Topics;
use super::super::failure::{ErrorClass, denied};
use super::super::lookup::LookupRequest;
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
    /// The names and patterns of the last subscription.
    subscription: Vec<String>,
    /// Topics to subscribe to once their partitions are looked up.
    to_subscribe: Option<Vec<String>>,
    /// With `:start :latest`, what was looked up before it was subscribed to.
    pub(super) looked_up: LookedUp,
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

/// Names and patterns that were looked up, and how many partitions topics had then.
#[derive(Default)]
pub(super) struct LookedUp {
    subscription: BTreeSet<String>,
    pub(super) partitions: HashMap<String, i32>,
    /// How often something was forgotten.
    pub(super) generation: u64,
}

impl LookedUp {
    /// Adds the answer to a request. For a name that was looked up before, the first one counts.
    fn add(&mut self, names: &[String], found: &HashMap<String, i32>) {
        for name in names {
            if !self.subscription.insert(name.clone()) {
                continue;
            }
            if name.starts_with('^') {
                let found = found.iter().map(|(topic, count)| (topic.clone(), *count));
                found.for_each(|(topic, count)| _ = self.partitions.entry(topic).or_insert(count));
            } else {
                let count = found.get(name).copied().unwrap_or(0);
                self.partitions.entry(name.clone()).or_insert(count);
            }
        }
    }

    /// Forgets what is not subscribed to any more.
    fn forget_all_but(&mut self, subscription: &[String]) {
        let known = self.subscription.len();
        self.subscription.retain(|name| subscription.contains(name));
        self.generation += u64::from(self.subscription.len() < known);
        let subscribed = Topics::valid(subscription);
        self.partitions
            .retain(|topic, _| subscribed.contains(topic) || subscription.contains(topic));
    }

    /// Whether all of these were looked up.
    pub(super) fn have(&self, subscription: &[String]) -> bool {
        subscription
            .iter()
            .all(|name| self.subscription.contains(name))
    }
}

impl Membership {
    /// Of a consumer without a subscription.
    pub(super) fn new(group: &str) -> Membership {
        Membership {
            group: group.to_owned(),
            subscription: Vec::new(),
            to_subscribe: None,
            looked_up: LookedUp::default(),
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
        self.membership.subscription = topics.to_vec();
        self.membership.looked_up.forget_all_but(topics);
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
            // Another subscription may have come meanwhile.
            let subscription = &self.membership.subscription;
            let names = names.iter().filter(|name| subscription.contains(name));
            let names: Vec<String> = names.cloned().collect();
            self.membership.looked_up.add(&names, counts);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_first_answer_for_a_name_counts() {
        let mut looked_up = LookedUp::default();
        let found = |counts: &[(&str, i32)]| -> HashMap<String, i32> {
            let counts = counts.iter();
            counts
                .map(|(topic, count)| ((*topic).to_owned(), *count))
                .collect()
        };
        looked_up.add(&names(&["missing"]), &found(&[]));
        looked_up.add(
            &names(&["missing", "t"]),
            &found(&[("missing", 1), ("t", 2)]),
        );
        assert_eq!(looked_up.partitions, found(&[("missing", 0), ("t", 2)]));
        assert!(looked_up.have(&names(&["t", "missing"])) && !looked_up.have(&names(&["u"])));

        looked_up.forget_all_but(&names(&["missing", "no name"]));
        assert!(!looked_up.have(&names(&["t"])));
        looked_up.add(
            &names(&["missing", "t"]),
            &found(&[("missing", 1), ("t", 3)]),
        );
        assert_eq!(looked_up.partitions, found(&[("missing", 0), ("t", 3)]));
    }
}
