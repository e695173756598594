//! Reading: from joining the group to leaving it, for one run or for many.
//!
//! The consumer's thread never waits for one run or one broker. Partitions arrive in steps
//! ([`arrivals`]) and leave after what was read of them is committed ([`departures`]); between two
//! fetches [`Reader::pass`] advances each of them by a step. [`membership`] joins the group,
//! [`notes`] stores which partitions there were at first, [`pauses`] keeps what is fetched within
//! the memory, [`runs`] attaches runs to a shared consumer. Errors of single partitions are handled
//! in [`gaps`], topics are watched in [`topics`], and periodic work is done in [`ticks`], such as
//! the commit of the group's offsets ([`group_offsets`]). [`pace`] determines how long fetches wait
//! and when a tick is due. In the end, what was read is committed before the consumer leaves the
//! group ([`ending`]).
//!
//! Most of these modules have a struct for their part of the state. Their steps, which need several
//! parts, are methods of [`Reader`].

mod arrivals;
mod departures;
mod ending;
mod gaps;
mod group_offsets;
mod membership;
mod notes;
mod pace;
mod pauses;
mod runs;
mod ticks;
mod topics;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::Position;
use pseidon_delivery::failpoint::reach;
use pseidon_plugin::batch::Batch;
use pseidon_plugin::source::{SourceError, SourceExit, SourceHandle, SourceSetup};

use self::arrivals::Arrivals;
use self::departures::Departures;
use self::ending::Phase;
use self::group_offsets::GroupOffsets;
use self::membership::Membership;
use self::notes::PendingNote;
use self::pace::Pace;
use self::pauses::Pauses;
pub(super) use self::runs::Command;
use self::runs::Runs;
use self::topics::TopicWatch;
use super::KafkaSource;
use super::assignment::{AppendOutcome, AssignedPartition, Assignment};
use super::lookup::{LookupResponse, Lookups};
use super::outlet::{Outlet, Outlets};
use crate::logs::ClientLogs;
use crate::native::{Consumer, Event, MessageBatch, TopicPartition};

/// The maximum number of messages of one fetch: all of a response as a rule. Then librdkafka's queue
/// is empty, and the next response is under way while these messages are processed.
const FETCH_MESSAGES: usize = 64 << 10;
/// How often a source that waits for messages checks whether a run has stopped or attached.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Reads for one run, until everything is read or the run is stopped.
pub(super) fn run(
    source: &KafkaSource,
    setup: &SourceSetup,
    handle: SourceHandle,
) -> Result<(), SourceExit> {
    let consumer = Consumer::new(&source.config(setup), ClientLogs::new(&setup.stage))
        .map_err(SourceError::Fatal)?;
    let outlet = Arc::new(Outlet::new(setup, handle, None));
    let mut reader = Reader::new(source, setup, &consumer, Outlets::One(outlet.clone()))?;
    reader.request_note(&outlet, source.topics.subscription());
    reader.subscribe(source.topics.subscription())?;
    match reader.read() {
        Ok(()) | Err(SourceExit::Stopped) => reader.finish(),
        failed => failed,
    }
}

/// A consumer with the state of its partitions.
pub(super) struct Reader<'a> {
    source: &'a KafkaSource,
    consumer: &'a Consumer,
    lookups: Lookups,
    runs: Runs,
    logs: ClientLogs,
    /// Partitions that are read.
    assignment: Assignment,
    /// Partitions that were assigned and are not read yet.
    arrivals: Arrivals,
    /// Partitions that are not read any more and not committed yet.
    departures: Departures,
    topics: TopicWatch,
    /// Partitions of which librdkafka has found that records below the position no longer exist.
    truncated: BTreeSet<TopicPartition>,
    membership: Membership,
    /// Notes of runs that are not known yet.
    notes: Vec<PendingNote>,
    phase: Phase,
    pauses: Pauses,
    pace: Pace,
    group_offsets: GroupOffsets,
}

impl<'a> Reader<'a> {
    /// A reader without a subscription.
    pub(super) fn new(
        source: &'a KafkaSource,
        setup: &SourceSetup,
        consumer: &'a Consumer,
        outlets: Outlets,
    ) -> Result<Reader<'a>, SourceExit> {
        Ok(Reader {
            source,
            consumer,
            lookups: Lookups::start(source, consumer.client())?,
            runs: Runs::new(outlets),
            logs: ClientLogs::new(&setup.stage),
            assignment: Assignment::default(),
            arrivals: Arrivals::default(),
            departures: Departures::new(source),
            topics: TopicWatch::default(),
            truncated: BTreeSet::new(),
            membership: Membership::new(source.group(setup)),
            notes: Vec::new(),
            phase: Phase::default(),
            pauses: Pauses::default(),
            pace: Pace::new(),
            group_offsets: GroupOffsets::default(),
        })
    }

    /// The outlets, to be closed after reading has ended.
    pub(super) fn into_outlets(self) -> Outlets {
        self.runs.outlets
    }

    fn read(&mut self) -> Result<(), SourceExit> {
        let mut fetched = MessageBatch::with_capacity(FETCH_MESSAGES);
        while !self.runs.outlets.is_stopped() {
            self.wait_for_room(&mut fetched)?;
            let timeout = self.fetch_timeout();
            self.pass(&mut fetched, timeout)?;
            if self.departures.is_empty()
                && let Some(error) = self.phase.take_failure()
            {
                return Err(SourceExit::Failed(error));
            }
            if self.source.until_latest && self.is_complete() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a finite run has read everything.
    fn is_complete(&self) -> bool {
        self.membership.is_assigned
            && self.notes.is_empty()
            && self.arrivals.is_empty()
            && self.departures.is_empty()
            && self.assignment.is_done()
            && self.topics.are_settled()
    }

    /// How long a fetch may wait for messages.
    fn fetch_timeout(&mut self) -> Duration {
        let is_busy = !(self.arrivals.is_empty() && self.departures.is_empty())
            || self.notes.iter().any(PendingNote::is_asked);
        self.pace.fetch_timeout(is_busy)
    }

    fn emit(&self, outlet: &Outlet, batch: Batch) -> Result<(), SourceExit> {
        outlet
            .outbox
            .emit(batch)
            .or_else(|stopped| self.runs.continue_without(stopped))
    }

    /// Fetches once, emits what arrived, and advances everything else by a step.
    fn pass(&mut self, fetched: &mut MessageBatch, timeout: Duration) -> Result<(), SourceExit> {
        self.fetch(fetched, timeout);
        reach("kafka-fetched");
        self.append(fetched)?;
        if !fetched.is_full() {
            self.flush()?;
        }
        fetched.clear();
        for event in self.consumer.events() {
            self.handle_event(event)?;
        }
        self.runs.outlets.send_waiting()?;
        self.handle_responses()?;
        self.advance_arrivals()?;
        self.advance_departures()?;
        self.detach_stopped()?;
        self.run_commands()?;
        if self.pace.start_tick() {
            self.tick()?;
        }
        Ok(())
    }

    /// Waits for messages, at most `timeout`. Returns early if there is other work.
    fn fetch(&self, fetched: &mut MessageBatch, timeout: Duration) {
        let mut left = timeout;
        loop {
            let wait = left.min(CHECK_INTERVAL);
            self.consumer.fetch(fetched, wait);
            left -= wait;
            if left.is_zero() || !fetched.is_empty() || self.has_other_work() {
                return;
            }
        }
    }

    /// Whether a run has stopped or attached, or the group has sent an event, and that is not
    /// handled yet.
    fn has_other_work(&self) -> bool {
        self.consumer.has_events() || self.runs.have_changed()
    }

    fn append(&mut self, fetched: &MessageBatch) -> Result<(), SourceExit> {
        let mut from = 0;
        loop {
            match self.assignment.append(fetched, from) {
                AppendOutcome::All => return Ok(()),
                AppendOutcome::Full {
                    batch,
                    outlet,
                    next,
                } => {
                    self.emit(&outlet, *batch)?;
                    from = next;
                }
                AppendOutcome::Stopped { at } => {
                    if let Some(message) = fetched.get(at)
                        && let Some(error) = message.error()
                    {
                        self.handle_message_error(message, &error)?;
                    }
                    from = at + 1;
                }
            }
        }
    }

    fn handle_responses(&mut self) -> Result<(), SourceExit> {
        while let Some(answer) = self.lookups.try_response()? {
            match answer {
                LookupResponse::Offsets(places) => self.handle_offsets(places)?,
                LookupResponse::Topics(asked, found) => self.handle_topics(asked, found)?,
                LookupResponse::Partitions(names, found) => {
                    self.handle_partitions(&names, found)?
                }
                LookupResponse::Gap(at, offsets) => self.handle_gap(&at, offsets)?,
            }
        }
        Ok(())
    }

    /// Emits every open batch.
    fn flush(&mut self) -> Result<(), SourceExit> {
        let open: Vec<_> = self
            .assignment
            .iter_mut()
            .filter_map(|assigned| Some((assigned.finish()?, assigned.outlet.clone())))
            .collect();
        open.into_iter()
            .try_for_each(|(batch, outlet)| self.emit(&outlet, batch))
    }

    fn handle_event(&mut self, event: Event) -> Result<(), SourceExit> {
        match event {
            Event::Assigned(partitions) => self.accept_assignment(partitions),
            Event::Revoked(partitions) if self.consumer.assignment_is_lost() => {
                self.handle_loss(&partitions)
            }
            Event::Revoked(partitions) => self.handle_revocation(partitions),
            Event::RebalanceFailed(error) => {
                self.logs
                    .warn("REBALANCE", &format!("the rebalance failed: {error}"));
                self.handle_total_loss()
            }
            Event::Error(error) => self.handle_client_error(&error),
        }
    }
}

fn names(assigned: &[AssignedPartition]) -> Vec<TopicPartition> {
    assigned.iter().map(|one| one.at.clone()).collect()
}

fn raw(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
