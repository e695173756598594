//! Opening the sinks of an attempt.

use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::committer::AcknowledgedVersions;
use pseidon_delivery::{Claimant, Committer, InstanceId, StateStore};
use pseidon_plan::{PerSink, Plan};
use pseidon_plugin::budget::LaneMemory;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{SinkError, SinkSetup};
use pseidon_plugin::stop::Stop;
use pseidon_plugin::waiting::about_to_wait;

use crate::attempt::AttemptSink;
use crate::failure::Failure;
use crate::lanes::{LaneStatuses, Suspects};

/// What is needed to open the sinks.
pub(crate) struct SinkOpener {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) store_id: String,
    pub(crate) instance: InstanceId,
    pub(crate) accept_changed_plan: bool,
    /// What the store has acknowledged, for each sink of the plan.
    pub(crate) acknowledged: PerSink<Arc<AcknowledgedVersions>>,
    /// What is known of the records because of which lanes have failed, for each sink of the plan.
    pub(crate) suspects: PerSink<Arc<Suspects>>,
    /// Whether all sinks were opened successfully once.
    pub(crate) was_open: bool,
    /// Gets the committer of each sink before it is opened.
    pub(crate) committers: Arc<Mutex<Vec<Arc<Committer>>>>,
    pub(crate) lanes: Arc<LaneMemory>,
    pub(crate) stop: Stop,
    pub(crate) metrics: Metrics,
}

impl SinkOpener {
    /// Opens all sinks, one after another.
    pub(crate) fn open(&self) -> Result<PerSink<AttemptSink>, Failure> {
        let settings = &self.plan.settings;
        let mut sinks = PerSink::default();
        let known = self.acknowledged.iter().zip(&self.suspects);
        for (planned, (seen, suspects)) in self.plan.sinks.iter().zip(known) {
            let claimant = Claimant {
                owner: self.instance.clone(),
                plan: self.plan.fingerprint.clone(),
                accepts_other_plans: self.accept_changed_plan,
            };
            let (store, positions) = (self.store.clone(), planned.protocol.positions());
            let committer = Committer::new(
                planned.id.clone(),
                store,
                claimant,
                positions,
                self.stop.abandoned(),
            );
            let committer = Arc::new(committer.with_acknowledged(seen.clone()).with_wait(|wait| {
                about_to_wait();
                std::thread::park_timeout(wait);
            }));
            self.committers.lock().push(committer.clone());
            let setup = SinkSetup {
                pipeline: self.plan.name.clone(),
                base: self.plan.base.clone(),
                instance: self.instance.clone(),
                store: self.store_id.clone(),
                trusts_state: settings.trusts_state(),
                keeps_state: self.plan.keeps_state,
                committer: committer.clone(),
                memory: self.lanes.clone(),
                stop: self.stop.clone(),
                metrics: self.metrics.clone(),
            };
            let opened = planned.prepared.open(setup).map_err(|error| match error {
                // A sink that was opened once can be opened again, after the user has fixed what
                // changed: a permission, a mount.
                SinkError::Fatal(reason) if self.was_open => SinkError::Transient(reason),
                other => other,
            });
            let sink = opened.map_err(|error| Failure::of_sink(planned.id.as_str(), error))?;
            let only_writer = sink
                .rules()
                .single_writer
                .then(|| sinks.len() % settings.writer_threads.get());
            sinks.push(AttemptSink {
                stage: planned.id.to_string(),
                sink,
                committer,
                only_writer,
                shown: LaneStatuses::default(),
                suspects: (!planned.is_quarantine).then(|| suspects.clone()),
            });
        }
        Ok(sinks)
    }
}
