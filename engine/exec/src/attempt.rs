//! An attempt at running a plan, as the threads of the pools know it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use pseidon_delivery::{Committer, Position, SplitId};
use pseidon_plan::Plan;
use pseidon_plugin::budget::LaneMemory;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::Sink;
use pseidon_plugin::stop::Stop;

use crate::failure::Failures;
use crate::lanes::ShownLanes;
use crate::view::{LastBad, Tap};
use crate::writers::WrittenSink;

/// What an attempt's batches and lanes need on their way.
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) sinks: Vec<OpenSink>,
    pub(crate) stop: Stop,
    pub(crate) failures: Failures,
    pub(crate) metrics: Metrics,
    pub(crate) tap: Arc<Tap>,
    pub(crate) last_bad: Arc<LastBad>,
    /// The position after the last record that was read of each split, or below which all of it was
    /// durable when it was taken, by the number of its source.
    pub(crate) read: Mutex<HashMap<(usize, SplitId), Position>>,
    /// Dropped last.
    pub(crate) _over: Over,
}

impl Attempt {
    /// How far splits were read of which not everything is durable in every sink that it reaches.
    pub(crate) fn uncommitted(&self) -> HashMap<(usize, SplitId), Position> {
        // A sink that gets none of the records writes its positions down seldom, and nothing of
        // them is missing in it.
        let settled: Vec<HashMap<SplitId, Position>> = self
            .sinks
            .iter()
            .map(|sink| sink.committer.ledger().settled().into_iter().collect())
            .collect();
        let is_uncommitted = |((source, split), upto): &(&(usize, SplitId), &Position)| {
            let sinks = &self.plan.sources[*source].sinks;
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

/// Tells attempts of one process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId(u64);

impl AttemptId {
    /// One that was never given before.
    pub(crate) fn new() -> AttemptId {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        AttemptId(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A sink in an attempt.
pub(crate) struct OpenSink {
    pub(crate) stage: String,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) committer: Arc<Committer>,
    /// The writer that has all lanes, for a sink that wants one.
    pub(crate) only_writer: Option<usize>,
    /// Its open lanes, for a person who looks at the run.
    pub(crate) shown: ShownLanes,
}

impl OpenSink {
    /// What the writer threads need of it.
    pub(crate) fn written(&self, memory: &Arc<LaneMemory>, metrics: &Metrics) -> WrittenSink {
        let stage = self.committer.sink().stage_and_place().0;
        WrittenSink {
            stage: self.stage.clone(),
            sink: self.sink.clone(),
            committer: self.committer.clone(),
            only_writer: self.only_writer,
            memory: memory.clone(),
            blocked: metrics.sink_blocked.with_label_values(&[stage]),
            shown: self.shown.clone(),
        }
    }
}

/// Says when nobody holds the attempt any more: its sinks are closed then.
pub(crate) struct Over(pub(crate) Sender<()>);

impl Drop for Over {
    fn drop(&mut self) {
        // Nobody waits for an attempt that could not be started.
        let _ = self.0.send(());
    }
}
