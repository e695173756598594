//! Who gets the records that a consumer reads: the one run it reads for, or many runs, each with a topic of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use prometheus::IntGauge;
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::budget::Budget;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup};
use pseidon_plugin::stop::Stop;

use super::failure::Leave;

/// A run that takes records in.
pub(super) struct Outlet {
    pub(super) handle: SourceHandle,
    /// Which metadata it wants.
    pub(super) wanted: MetaWanted,
    /// Its stage: the first part of its splits' names.
    pub(super) stage: String,
    pub(super) lag: IntGauge,
    /// 1 while no broker can be reached.
    pub(super) unreachable: IntGauge,
    /// Whether its partitions are paused since its run is.
    paused: AtomicBool,
    /// Where it hears why nothing more is read for it.
    failed: Option<Sender<SourceError>>,
}

impl Outlet {
    /// The outlet of a run.
    pub(super) fn new(setup: &SourceSetup, handle: SourceHandle, failed: Option<Sender<SourceError>>) -> Outlet {
        Outlet {
            handle,
            wanted: setup.wanted,
            stage: setup.stage.clone(),
            lag: setup.metrics.lag.with_label_values(&[&setup.stage]),
            unreachable: setup.metrics.source_unreachable.with_label_values(&[&setup.stage]),
            paused: AtomicBool::new(false),
            failed,
        }
    }

    /// Says why nothing more is read for it.
    pub(super) fn fail(&self, error: SourceError) {
        if let Some(failed) = &self.failed {
            // Its run may have ended by itself.
            let _ = failed.send(error);
        }
    }

    /// Whether its partitions are paused since its run is.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether its run was paused or resumed since the last call; if so, which.
    pub(super) fn changed_pause(&self) -> Option<bool> {
        let now = self.handle.is_paused();
        (self.paused.swap(now, Ordering::Relaxed) != now).then_some(now)
    }
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
            Outlets::One(outlet) => outlet.handle.is_stopped(),
            Outlets::ByTopic { stop, .. } => stop.reading_stopped(),
        }
    }

    /// Waits for room in memory, at most `patience`. Gives whether there is.
    pub(super) fn wait_for_room(&self, patience: Duration) -> Result<bool, Leave> {
        match self {
            Outlets::One(outlet) => Ok(outlet.handle.wait_for_room(patience)?),
            Outlets::ByTopic { stop, .. } if stop.reading_stopped() => Err(Leave::Stopped),
            Outlets::ByTopic { budget, .. } => Ok(budget.wait_for_room(patience)),
        }
    }

    /// Sleeps, unless reading ends.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Leave> {
        match self {
            Outlets::One(outlet) => Ok(outlet.handle.sleep(time)?),
            Outlets::ByTopic { stop, .. } if stop.sleep(time) => Err(Leave::Stopped),
            Outlets::ByTopic { .. } => Ok(()),
        }
    }
}
