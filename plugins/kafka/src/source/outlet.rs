//! Who gets the records that a consumer reads: the one run it reads for, or many runs, each with a
//! topic of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntGauge;
use pseidon_delivery::Position;
use pseidon_plugin::Outbox;
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::budget::Budget;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{Ended, SourceError, SourceHandle, SourceSetup};
use pseidon_plugin::stop::Stop;

use super::failure::Leave;
use crate::native::Committed;

/// A run waits that long for room in its engine's queue, or with that many events, before its
/// partitions are paused: that throws away what librdkafka has fetched ahead.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_WAITING: usize = 16;

/// A run that takes records in.
pub(super) struct Outlet {
    /// The way to its engine.
    pub(super) outbox: Outbox,
    /// Which metadata it wants.
    pub(super) wanted: MetaWanted,
    /// Its stage: the first part of its splits' names.
    pub(super) stage: String,
    pub(super) lag: IntGauge,
    /// 1 while no broker can be reached.
    pub(super) unreachable: IntGauge,
    pub(super) metrics: Metrics,
    /// Names its state, beside the offsets of the group that were written from it.
    state: String,
    /// Whether its partitions are paused.
    paused: AtomicBool,
    /// Since when events wait for room.
    full_since: Mutex<Option<Instant>>,
    /// Called when reading for the run has ended, where the consumer is shared.
    ended: Mutex<Option<Ended>>,
}

impl Outlet {
    /// The outlet of a run.
    pub(super) fn new(setup: &SourceSetup, handle: SourceHandle, ended: Option<Ended>) -> Outlet {
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
            state: setup.state.clone(),
            paused: AtomicBool::new(false),
            full_since: Mutex::new(None),
            ended: Mutex::new(ended),
        }
    }

    /// Says why nothing more is read for it.
    pub(super) fn fail(&self, error: SourceError) {
        self.say(Err(error));
    }

    /// Says that everything that was read for it is durable, or that its run does not wait for
    /// that.
    pub(super) fn end(&self) {
        self.say(Ok(()));
    }

    /// The first outcome counts.
    fn say(&self, outcome: Result<(), SourceError>) {
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            ended(outcome);
        }
    }

    /// What stands beside an offset of the group that is written from the run's state.
    pub(super) fn note_of(&self, offset: Position) -> String {
        format!("pseidon {} {offset}", self.state)
    }

    /// Whether the group's offset was written from the state that the run has now, by this instance
    /// or another one. One that another tool or another pipeline wrote says nothing about that
    /// state.
    pub(super) fn has_written(&self, committed: &Committed) -> Option<Position> {
        let offset = Position::try_from(committed.offset).ok()?;
        (committed.metadata == self.note_of(offset) && !self.state.is_empty()).then_some(offset)
    }

    /// Whether its partitions are paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether its partitions are to be paused or resumed since the last call; if so, which.
    pub(super) fn changed_pause(&self) -> Option<bool> {
        let now = self.outbox.handle().is_paused() || self.is_full();
        (self.paused.swap(now, Ordering::Relaxed) != now).then_some(now)
    }

    /// Whether its engine takes nothing more for now.
    fn is_full(&self) -> bool {
        let waiting = self.outbox.waiting();
        let mut since = self.full_since.lock();
        if waiting == 0 {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert_with(Instant::now);
        waiting > MOST_WAITING || since.elapsed() >= PATIENCE
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.fail(consumer_failed());
    }
}

/// The error of a run whose consumer has ended without a word.
pub(super) fn consumer_failed() -> SourceError {
    SourceError::Transient(
        "internal error: the shared consumer has ended; it is made again".to_owned(),
    )
}

/// All outlets of a consumer.
pub(super) enum Outlets {
    /// Everything goes to one run, and reading ends with it.
    One(Arc<Outlet>),
    /// Each topic has a run of its own; they come and go.
    ByTopic {
        /// The runs that are here.
        topics: HashMap<String, Arc<Outlet>>,
        /// The memory that all of them share.
        budget: Arc<Budget>,
        /// The end of reading.
        stop: Stop,
    },
}

impl Outlets {
    /// Who gets the records of a topic, if anybody is there.
    pub(super) fn of(&self, topic: &str) -> Option<&Arc<Outlet>> {
        match self {
            Outlets::One(outlet) => Some(outlet),
            Outlets::ByTopic { topics, .. } => topics.get(topic),
        }
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        let (one, many) = match self {
            Outlets::One(outlet) => (Some(outlet), None),
            Outlets::ByTopic { topics, .. } => (None, Some(topics.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Whether reading ends.
    pub(super) fn is_stopped(&self) -> bool {
        match self {
            Outlets::One(outlet) => outlet.outbox.handle().is_stopped(),
            Outlets::ByTopic { stop, .. } => stop.reading_stopped(),
        }
    }

    /// Waits for room in memory, at most `patience`. Gives whether there is.
    pub(super) fn wait_for_room(&self, patience: Duration) -> Result<bool, Leave> {
        match self {
            Outlets::One(outlet) => Ok(outlet.outbox.send_waiting(patience)?
                && outlet.outbox.handle().wait_for_room(patience)?),
            Outlets::ByTopic { stop, .. } if stop.reading_stopped() => Err(Leave::Stopped),
            Outlets::ByTopic { budget, .. } => Ok(budget.wait_for_room(patience)),
        }
    }

    /// Sends what waits for room in the engines' queues.
    pub(super) fn send_waiting(&self) -> Result<(), Leave> {
        match self {
            Outlets::One(outlet) => _ = outlet.outbox.send_waiting(Duration::ZERO)?,
            // A run that has ended takes nothing more, and says so itself.
            Outlets::ByTopic { topics, .. } => topics
                .values()
                .for_each(|outlet| _ = outlet.outbox.send_waiting(Duration::ZERO)),
        }
        Ok(())
    }
}
