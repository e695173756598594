//! An attempt at running a plan, as the threads of the pools see it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use pseidon_delivery::{Committer, Position, SplitId};
use pseidon_plan::{PerSink, Plan, SourceIndex};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::Sink;
use pseidon_plugin::stop::Stop;

use crate::bad_records::BadRecordHistory;
use crate::catch_up::CatchUp;
use crate::failure::Failures;
use crate::fields::SeenFields;
use crate::fields::added::SeenAdditions;
use crate::lanes::{LaneStatuses, Suspects};
use crate::limits::Limits;
use crate::tap::Tap;
use crate::throttles::Throttles;

/// The shared state that an attempt's batches and lanes need.
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) sinks: PerSink<AttemptSink>,
    pub(crate) stop: Stop,
    pub(crate) failures: Failures,
    pub(crate) metrics: Metrics,
    pub(crate) tap: Arc<Tap>,
    pub(crate) bad_records: Arc<BadRecordHistory>,
    pub(crate) seen_fields: Arc<SeenFields>,
    pub(crate) seen_additions: Arc<SeenAdditions>,
    pub(crate) limits: Limits,
    pub(crate) throttles: Throttles,
    /// In a run that only finishes the work of an earlier version: what is left of it.
    pub(crate) catch_up: Option<CatchUp>,
    /// The stop signals of the sources that were started.
    pub(crate) source_stops: Mutex<HashMap<SourceIndex, Stop>>,
    /// For each split, keyed with its source: the position after the last record that was read, or,
    /// before any was, the one below which everything was durable when it was taken.
    pub(crate) read: Mutex<HashMap<(SourceIndex, SplitId), Position>>,
    /// The last field, and so dropped last: it notifies when nothing of the attempt is left.
    pub(crate) _over: DropNotifier,
}

impl Attempt {
    /// Stops reading the sources of which no further record may pass their limit, if this one is one
    /// of them.
    pub(crate) fn end_at_limit(&self, source: SourceIndex) {
        let stops = self.source_stops.lock();
        for ended in self.limits.ended_with(source) {
            stops.get(&ended).into_iter().for_each(Stop::stop_reading);
        }
    }

    /// How far splits were read that are not yet completely durable in every sink that they reach.
    pub(crate) fn uncommitted(&self) -> HashMap<(SourceIndex, SplitId), Position> {
        // A sink that receives none of the records stores its positions rarely, and it misses
        // nothing of them.
        let settled: PerSink<HashMap<SplitId, Position>> = self
            .sinks
            .iter()
            .map(|sink| sink.committer.ledger().settled().into_iter().collect())
            .collect();
        let is_uncommitted = |((source, split), upto): &(&(SourceIndex, SplitId), &Position)| {
            let sinks = &self.plan.source(*source).sinks;
            sinks.iter().any(|sink| {
                settled[*sink]
                    .get(split)
                    .is_some_and(|settled| settled < *upto)
            })
        };
        self.read
            .lock()
            .iter()
            .filter(is_uncommitted)
            .map(|(split, upto)| (split.clone(), *upto))
            .collect()
    }
}

/// The identity of an attempt within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId(u64);

impl AttemptId {
    /// Returns a new id.
    pub(crate) fn new() -> AttemptId {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        AttemptId(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A sink that is open in an attempt.
pub(crate) struct AttemptSink {
    pub(crate) stage: String,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) committer: Arc<Committer>,
    /// The number of the writer that has all lanes, for a sink that requires a single writer.
    pub(crate) only_writer: Option<usize>,
    /// The status of its open lanes, for people.
    pub(crate) shown: LaneStatuses,
    /// What is known of the records because of which its lanes have failed; `None` for a quarantine,
    /// which has no error policy for them.
    pub(crate) suspects: Option<Arc<Suspects>>,
}

/// Notifies when the last reference to the attempt is dropped: its sinks are closed then.
pub(crate) struct DropNotifier(pub(crate) Sender<()>);

impl Drop for DropNotifier {
    fn drop(&mut self) {
        // There is no receiver if the attempt could not be started.
        let _ = self.0.send(());
    }
}
