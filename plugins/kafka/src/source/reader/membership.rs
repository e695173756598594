//! The membership in the consumer group: which topics are subscribed to, and whether the group has
//! admitted this instance.

use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceExit;

use super::super::failure::{ErrorClass, denied};
use super::super::lookup::LookupRequest;
use super::super::start::StartOption;
use super::Reader;
use crate::native::NativeError;

/// How long joining the group may take before it is reported as a problem.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The known state of the membership.
pub(super) struct Membership {
    /// Topics to subscribe to once their partitions are looked up.
    to_subscribe: Option<Vec<String>>,
    /// The number of topics that are subscribed to.
    topics: usize,
    /// Since when they are subscribed to.
    since: Instant,
    /// Whether the group has sent an assignment, even an empty one.
    pub(super) joined: bool,
    /// Why the group does not admit this instance.
    pub(super) problem: Option<String>,
}

impl Membership {
    /// Of a consumer without a subscription.
    pub(super) fn none() -> Membership {
        Membership {
            to_subscribe: None,
            topics: 0,
            since: Instant::now(),
            joined: false,
            problem: None,
        }
    }

    /// Records that the group has sent an assignment.
    pub(super) fn confirm(&mut self) {
        self.joined = true;
        self.problem = None;
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
        noted: Result<(), NativeError>,
    ) -> Result<(), SourceExit> {
        if self.membership.to_subscribe.as_deref() != Some(names) {
            return Ok(());
        }
        match noted {
            Ok(()) => {
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

    /// Why this instance is not a member of the group, if that is a problem.
    pub(super) fn membership_problem(&self) -> Option<String> {
        let problem = self.membership.problem.clone();
        problem.or_else(|| self.late_join())
    }

    fn late_join(&self) -> Option<String> {
        let Membership {
            topics,
            since,
            joined,
            ..
        } = self.membership;
        let is_late = topics > 0
            && !joined
            && !self.unreachable
            && since.elapsed() >= JOIN_TIMEOUT
            && self.topics.has_some_of(topics);
        is_late.then(|| {
            format!(
                "the group {} has not admitted this instance for {:.0?}",
                self.group,
                since.elapsed()
            )
        })
    }
}
