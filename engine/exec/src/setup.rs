//! What a run works with, in all of its attempts.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use pseidon_delivery::{Reason, StateStore, UnfinishedSplit, WithCauses};
use pseidon_plan::{Plan, PlannedSource, SinkIndex};
use pseidon_plugin::metrics::Metrics;
use sha2::{Digest, Sha256};

use crate::attempt::Attempt;
use crate::control::Control;
use crate::outcome::RunError;
use crate::resources::Resources;
use crate::state_check::StateCheck;
use crate::view::View;

/// The parameters of a run, as its lifecycle uses them; see [`Run`](crate::run::Run).
pub(crate) struct RunSetup {
    pub(crate) plan: Arc<Plan>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) metrics: Metrics,
    pub(crate) accept_changed_plan: bool,
    pub(crate) catch_up: Option<Vec<UnfinishedSplit>>,
    pub(crate) was_open: bool,
    pub(crate) control: Receiver<Control>,
    pub(crate) view: Arc<View>,
}

impl RunSetup {
    pub(crate) fn state(&self) -> StateCheck {
        StateCheck {
            plan: self.plan.clone(),
            store: self.store.clone(),
            // A run that only finishes what is its own leaves the rest to its caller. One that
            // continues has the same sinks as the one before it, which was checked.
            ignores_other_plans: self.accept_changed_plan
                || self.catch_up.is_some()
                || self.was_open,
        }
    }

    /// How long to wait before the next attempt. An error if the stage's `:retry` is exhausted: it
    /// ends the run.
    pub(crate) fn pause_after(
        &self,
        stage: &str,
        reason: Reason,
        failures: u64,
        wait: Duration,
    ) -> Result<Duration, RunError> {
        let retry = self
            .plan
            .sinks
            .iter()
            .find(|sink| sink.id.as_str() == stage)
            .and_then(|sink| sink.retry);
        let pause = match retry {
            Some((times, _)) if failures > times => {
                return Err(RunError::Failed(Reason::caused_by(
                    format!("stage `{stage}` failed {failures} times in a row"),
                    reason,
                )));
            }
            Some((_, interval)) => interval,
            None => wait,
        };
        tracing::warn!(
            stage,
            reason = WithCauses(&reason).to_string(),
            "restarting from the committed positions in {pause:?}"
        );
        Ok(pause)
    }

    /// The name of the state of a source's positions; see
    /// [`pseidon_plugin::source::SourceSetup::state`].
    pub(crate) fn state_name(&self, store_id: &str, source: &PlannedSource) -> String {
        let sinks = source
            .sinks
            .iter()
            .map(|sink| self.plan.sinks[*sink].id.as_str());
        let parts: Vec<&str> = [store_id, &self.plan.name, &source.stage]
            .into_iter()
            .chain(sinks)
            .collect();
        // Names never contain NUL.
        Sha256::digest(parts.join("\0"))
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Commits and publishes all open lanes, without waiting for it.
    pub(crate) fn roll(&self, attempt: &Attempt) {
        let sinks: Vec<SinkIndex> = attempt.sinks.indexes().collect();
        drop(self.resources.writers().flush(attempt.id, &sinks, None));
    }
}
