//! A run: the interface for its caller, and the checks before it begins.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use pseidon_delivery::{SinkId, StateStore, StoreError, StoredPlan, random};
use pseidon_plan::Plan;
use pseidon_plan::chain::PlannedSource;
use pseidon_plugin::metrics::Metrics;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::attempt::Attempt;
use crate::failure::PlanChanged;
use crate::pools::Pools;
use crate::view::View;

/// A request of the user to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop reading, commit what was read, stop within the grace period.
    Stop,
    /// Leave at once. Uncommitted records are re-read at the next start.
    LeaveNow,
    /// Pause reading.
    Pause,
    /// Resume reading.
    Resume,
    /// Commit and publish what is open now.
    Roll,
}

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All sources are exhausted.
    Complete,
    /// It was stopped, and everything that was read is committed.
    Stopped,
    /// It was left before everything was committed.
    Left,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// A crashed run of another plan left uncommitted work behind.
    #[error(transparent)]
    PlanChanged(PlanChanged),
    /// It cannot continue until the user changes something.
    #[error("{0}")]
    Failed(String),
    /// The state store shows an impossible state, or has fenced this instance. To continue, or to
    /// restart with what it holds now, would lose or duplicate records.
    #[error("{0}")]
    State(String),
    /// The state store refused before anything was read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The parameters of a run.
pub struct Run {
    /// The plan to run.
    pub plan: Arc<Plan>,
    /// The threads and memory that the run uses.
    pub pools: Arc<Pools>,
    /// The state store of the pipeline.
    pub store: Arc<dyn StateStore>,
    /// The metrics to update.
    pub metrics: Metrics,
    /// Whether the run may continue the work of a crashed run of another plan.
    pub accept_changed_plan: bool,
    /// Requests of the user.
    pub control: Receiver<Control>,
    /// Shows the run to observers.
    pub view: Arc<View>,
}

/// What is checked before anything is read.
pub(crate) struct StateCheck {
    plan: Arc<Plan>,
    store: Arc<dyn StateStore>,
    accept_changed_plan: bool,
}

impl Run {
    /// Runs the plan until its sources are exhausted, it is stopped, or it fails. Blocks.
    pub fn run(self) -> Result<Finished, RunError> {
        let (tell, ended) = bounded(1);
        self.start(move |end| _ = tell.send(end));
        ended.recv().unwrap_or_else(|_| {
            Err(RunError::Failed(
                "internal error: the outcome of a run was not reported".to_owned(),
            ))
        })
    }

    /// Like [`Run::run`], but without a thread that waits: `on_end` is called at the end, on a
    /// thread that it may block.
    pub fn start(self, on_end: impl FnOnce(Result<Finished, RunError>) + Send + 'static) {
        self.pools.clone().watch().add(self, on_end);
    }

    pub(crate) fn state(&self) -> StateCheck {
        StateCheck {
            plan: self.plan.clone(),
            store: self.store.clone(),
            accept_changed_plan: self.accept_changed_plan,
        }
    }

    /// How long to wait before the next attempt. An error if the stage's `:retry` is exhausted: it
    /// ends the run.
    pub(crate) fn pause_after(
        &self,
        stage: &str,
        reason: &str,
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
                return Err(RunError::Failed(format!(
                    "stage `{stage}` failed {failures} times in a row: {reason}"
                )));
            }
            Some((_, interval)) => interval,
            None => wait,
        };
        tracing::warn!(
            stage,
            reason,
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
            .map(|number| self.plan.sinks[*number].id.as_str());
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
        let sinks: Vec<usize> = (0..attempt.sinks.len()).collect();
        drop(self.pools.writers().flush(attempt.id, &sinks, None));
    }
}

impl StateCheck {
    /// Checks the state before anything is read. Returns the store's name. Blocks.
    pub(crate) fn check(&self) -> Result<String, RunError> {
        let store_id = self.store.identity()?;
        for weakness in self.store.weaknesses()? {
            tracing::warn!("the state store is weaker than exactly-once needs: {weakness}");
        }
        self.check_plan()?;
        Ok(store_id)
    }

    /// Stores the plan's text. Refuses the plan if a sink that it does not have holds work of
    /// another plan. For the sinks that it has, each split is checked when it is taken.
    fn check_plan(&self) -> Result<(), RunError> {
        let has = |sink: &SinkId| self.plan.sinks.iter().any(|planned| planned.id == *sink);
        for sink in self.store.sinks()?.iter().filter(|sink| !has(sink)) {
            let records = self.store.records(sink)?;
            let ahead: usize = records.iter().map(|(_, record)| record.ahead.len()).sum();
            let staged = self.store.staged(sink)?.len();
            if ahead + staged > 0 && !self.accept_changed_plan {
                let plan = records.into_iter().find_map(|(_, record)| record.plan);
                let left = format!(
                    "`{sink}`, which no longer exists: {ahead} lanes ahead, {staged} files not yet \
                     published"
                );
                return Err(RunError::PlanChanged(PlanChanged { plan, left }));
            }
        }
        let (fingerprint, text) = (self.plan.fingerprint.clone(), self.plan.text.clone());
        if self.store.plan(&fingerprint)?.as_ref() != Some(&text) {
            self.store.add_plan(&StoredPlan { fingerprint, text })?;
            self.forget_plans()?;
        }
        Ok(())
    }

    /// Removes the texts of plans that no record names any more.
    fn forget_plans(&self) -> Result<(), StoreError> {
        let mut unused: HashSet<String> = self
            .store
            .plans()?
            .into_iter()
            .filter(|plan| *plan != self.plan.fingerprint)
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        for sink in self.store.sinks()? {
            for plan in self
                .store
                .records(&sink)?
                .into_iter()
                .filter_map(|(_, record)| record.plan)
            {
                unused.remove(&plan);
            }
        }
        self.store
            .forget_plans(&unused.into_iter().collect::<Vec<_>>())
    }
}

/// Returns a unique name for this attempt: machine and process number for people, random bits for
/// the process, and the attempt after a `.`. Machines may share a name, containers a process
/// number, and clocks a time.
pub(crate) fn instance_name() -> std::io::Result<String> {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    if PROCESS.get().is_none() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(40)
            .collect();
        // If two threads get here at once, the first one's name counts.
        let _ = PROCESS.set(format!(
            "{host}-{}-{}",
            std::process::id(),
            random::hexadecimal(8)?
        ));
    }
    let process = PROCESS.get().map_or("", String::as_str);
    Ok(format!(
        "{process}.{}",
        ATTEMPTS.fetch_add(1, Ordering::Relaxed)
    ))
}
