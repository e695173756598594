//! The receivers of the records that a consumer reads: one run, or many runs that each read one
//! topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntGauge;
use pseidon_delivery::Position;
use pseidon_plugin::Outbox;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::budget::Budget;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{
    SourceEndCallback, SourceError, SourceExit, SourceHandle, SourceSetup,
};
use pseidon_plugin::stop::Stop;

use super::first_subscriptions::FirstSubscriptions;
use crate::native::{CommittedOffset, TopicPartition};

/// How long a run may wait for room in its engine's queue, and with how many events, before its
/// partitions are paused, which discards what librdkafka has fetched ahead.
const FULL_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_WAITING: usize = 16;

/// A run that receives records.
pub(super) struct Outlet {
    /// The queue to its engine.
    pub(super) outbox: Outbox,
    /// The metadata that its pipeline uses.
    pub(super) wanted: WantedMetadata,
    /// Its stage, which is the first part of its splits' names.
    pub(super) stage: String,
    pub(super) lag: IntGauge,
    /// 1 while no broker can be reached.
    pub(super) unreachable: IntGauge,
    pub(super) metrics: Metrics,
    /// What its topics had at their first subscriptions, with `:start :latest`; `None` until the state
    /// has answered and the topics were looked up.
    pub(super) first_subscriptions: Mutex<Option<FirstSubscriptions>>,
    /// Identifies its state in the metadata of offsets that are committed to the group.
    state: String,
    /// Whether its partitions are paused.
    paused: AtomicBool,
    /// Since when events wait for room.
    full_since: Mutex<Option<Instant>>,
    /// Called when reading for the run has ended, if the consumer is shared.
    ended: Mutex<Option<SourceEndCallback>>,
}

/// A durable position of a partition, as it is committed to the group.
pub(super) struct GroupOffset {
    pub(super) at: TopicPartition,
    pub(super) next: Position,
    /// Names the state of the run that has read the partition.
    pub(super) metadata: String,
}

impl Outlet {
    /// The outlet of a run.
    pub(super) fn new(
        setup: &SourceSetup,
        handle: SourceHandle,
        ended: Option<SourceEndCallback>,
    ) -> Outlet {
        Outlet {
            outbox: Outbox::new(handle),
            wanted: setup.wanted,
            stage: setup.stage.clone(),
            lag: setup.metrics.lag.with_label_values(&[&setup.stage]),
            unreachable: setup
                .metrics
                .source_unreachable
                .with_label_values(&[&setup.stage]),
            metrics: setup.metrics.clone(),
            first_subscriptions: Mutex::default(),
            state: setup.state.clone(),
            paused: AtomicBool::new(false),
            full_since: Mutex::new(None),
            ended: Mutex::new(ended),
        }
    }

    /// Reports why reading for the run failed.
    pub(super) fn fail(&self, error: SourceError) {
        self.report(Err(error));
    }

    /// Reports that everything that was read for the run is durable, or that the run does not wait
    /// for that.
    pub(super) fn end(&self) {
        self.report(Ok(()));
    }

    /// Reports an outcome. Only the first one counts.
    fn report(&self, outcome: Result<(), SourceError>) {
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            ended(outcome);
        }
    }

    /// What is committed to the group when everything below `next` is durable.
    pub(super) fn group_offset(&self, at: TopicPartition, next: Position) -> GroupOffset {
        GroupOffset {
            at,
            next,
            metadata: self.metadata_of(next),
        }
    }

    /// The metadata of an offset that is committed to the group from the run's state.
    fn metadata_of(&self, offset: Position) -> String {
        format!("pseidon {} {offset}", self.state)
    }

    /// The group's offset, if it was committed from the run's current state, by this instance or
    /// another one; `None` if another tool or pipeline committed it, which says nothing about that
    /// state.
    pub(super) fn written_offset(&self, committed: &CommittedOffset) -> Option<Position> {
        let offset = Position::try_from(committed.offset).ok()?;
        (committed.metadata == self.metadata_of(offset) && !self.state.is_empty()).then_some(offset)
    }

    /// Whether its partitions are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether its partitions are to be paused; `None` if that has not changed since the last call.
    pub(super) fn pause_change(&self) -> Option<bool> {
        let now = self.outbox.handle().is_paused() || self.is_full();
        (self.paused.swap(now, Ordering::Relaxed) != now).then_some(now)
    }

    /// Whether its engine accepts nothing more for now.
    fn is_full(&self) -> bool {
        let waiting = self.outbox.waiting();
        let mut since = self.full_since.lock();
        if waiting == 0 {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert_with(Instant::now);
        waiting > MAX_WAITING || since.elapsed() >= FULL_TIMEOUT
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.fail(consumer_failed());
    }
}

/// The error of a run whose consumer ended without reporting an outcome.
pub(super) fn consumer_failed() -> SourceError {
    SourceError::Transient("internal error: the shared consumer has ended; restarting it".into())
}

/// Adds an item to those of its run.
pub(super) fn add_to_run<T>(
    by_run: &mut Vec<(Arc<Outlet>, Vec<T>)>,
    outlet: &Arc<Outlet>,
    item: T,
) {
    match by_run
        .iter_mut()
        .find(|(known, _)| Arc::ptr_eq(known, outlet))
    {
        Some((_, others)) => others.push(item),
        None => by_run.push((outlet.clone(), vec![item])),
    }
}

/// All outlets of a consumer.
pub(super) enum Outlets {
    /// Everything goes to one run, and reading ends with it.
    One(Arc<Outlet>),
    /// Each topic has a run of its own; runs attach and detach.
    ByTopic {
        /// The attached runs, by topic.
        topics: HashMap<String, Arc<Outlet>>,
        /// The memory that all of them share.
        budget: Arc<Budget>,
        /// Signals the end of reading.
        stop: Stop,
    },
}

impl Outlets {
    /// The run of a topic, if one is attached.
    pub(super) fn outlet_of(&self, topic: &str) -> Option<&Arc<Outlet>> {
        match self {
            Outlets::One(outlet) => Some(outlet),
            Outlets::ByTopic { topics, .. } => topics.get(topic),
        }
    }

    /// All attached runs.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        let (one, many) = match self {
            Outlets::One(outlet) => (Some(outlet), None),
            Outlets::ByTopic { topics, .. } => (None, Some(topics.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Whether reading has to end.
    pub(super) fn is_stopped(&self) -> bool {
        match self {
            Outlets::One(outlet) => outlet.outbox.handle().is_stopped(),
            Outlets::ByTopic { stop, .. } => stop.reading_stopped(),
        }
    }

    /// Waits for room in memory, at most `timeout`. Returns whether there is room.
    pub(super) fn wait_for_room(&self, timeout: Duration) -> Result<bool, SourceExit> {
        match self {
            Outlets::One(outlet) => Ok(outlet.outbox.send_waiting(timeout)?
                && outlet.outbox.handle().wait_for_room(timeout)?),
            Outlets::ByTopic { stop, .. } if stop.reading_stopped() => Err(SourceExit::Stopped),
            Outlets::ByTopic { budget, .. } => Ok(budget.wait_for_room(timeout)),
        }
    }

    /// Sends the events that wait for room in the engines' queues.
    pub(super) fn send_waiting(&self) -> Result<(), SourceExit> {
        match self {
            Outlets::One(outlet) => _ = outlet.outbox.send_waiting(Duration::ZERO)?,
            // A run that has ended accepts nothing more and reports that itself.
            Outlets::ByTopic { topics, .. } => topics
                .values()
                .for_each(|outlet| _ = outlet.outbox.send_waiting(Duration::ZERO)),
        }
        Ok(())
    }
}
