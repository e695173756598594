//! A run, as its user sees it, and what it needs to know before it begins.

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

/// What a user tells a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop reading, commit what was read, leave within the grace.
    Stop,
    /// Leave at once. What is not committed is read again at the next start.
    LeaveNow,
    /// Read nothing more for now.
    Pause,
    /// Read on.
    Resume,
    /// Commit and publish what is open now.
    Roll,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The sources came to their end.
    Complete,
    /// It was stopped, and everything that was read is committed.
    Stopped,
    /// It was left before everything was committed.
    Left,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The plan is not the one that a crashed run left work behind with.
    #[error(transparent)]
    PlanChanged(PlanChanged),
    /// It cannot go on without the user.
    #[error("{0}")]
    Failed(String),
    /// The state store shows what cannot be, or refuses us. To go on, or to begin anew with what it
    /// holds now, would lose or double records.
    #[error("{0}")]
    State(String),
    /// The state store refused before anything was read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a run needs.
pub struct Run {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The threads that do the work.
    pub pools: Arc<Pools>,
    /// Where its state is.
    pub store: Arc<dyn StateStore>,
    /// What to count.
    pub metrics: Metrics,
    /// Whether a plan that differs from the one that crashed is accepted.
    pub accept_changed_plan: bool,
    /// What the user says.
    pub control: Receiver<Control>,
    /// Where the run can be seen.
    pub view: Arc<View>,
}

/// What is looked at before anything is read.
pub(crate) struct RunState {
    plan: Arc<Plan>,
    store: Arc<dyn StateStore>,
    accept_changed_plan: bool,
}

impl Run {
    /// Runs the plan until its sources end, it is stopped, or it cannot go on. Blocks.
    pub fn run(self) -> Result<Finished, RunError> {
        let (tell, ended) = bounded(1);
        self.start(move |end| _ = tell.send(end));
        ended.recv().unwrap_or_else(|_| {
            Err(RunError::Failed(
                "internal error: the outcome of a run was not reported".to_owned(),
            ))
        })
    }

    /// The same without a thread that waits: `on_end` is called at the end, on a thread that it may
    /// block.
    pub fn start(self, on_end: impl FnOnce(Result<Finished, RunError>) + Send + 'static) {
        self.pools.clone().watch().add(self, on_end);
    }

    pub(crate) fn state(&self) -> RunState {
        RunState {
            plan: self.plan.clone(),
            store: self.store.clone(),
            accept_changed_plan: self.accept_changed_plan,
        }
    }

    /// How long to wait before the next attempt; a stage whose `:retry` is used up ends the run.
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

    /// Names the state of a source's positions; see [`pseidon_plugin::source::SourceSetup::state`].
    pub(crate) fn state_name(&self, store_id: &str, source: &PlannedSource) -> String {
        let sinks = source
            .sinks
            .iter()
            .map(|number| self.plan.sinks[*number].id.as_str());
        let parts: Vec<&str> = [store_id, &self.plan.name, &source.stage]
            .into_iter()
            .chain(sinks)
            .collect();
        // Names hold no NUL.
        Sha256::digest(parts.join("\0"))
            .iter()
            .take(12)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Has everything committed and published that is open, and does not wait for it.
    pub(crate) fn roll(&self, attempt: &Attempt) {
        let sinks: Vec<usize> = (0..attempt.sinks.len()).collect();
        drop(self.pools.writers().flush(attempt.id, &sinks, None));
    }
}

impl RunState {
    /// Looks at the state before anything is read. Returns the store's name. Blocks.
    pub(crate) fn look(&self) -> Result<String, RunError> {
        let store_id = self.store.identity()?;
        for weakness in self.store.weaknesses()? {
            tracing::warn!("the state store is weaker than exactly-once needs: {weakness}");
        }
        self.check_plan()?;
        Ok(store_id)
    }

    /// Keeps the plan's text. Refuses the plan when a sink that it does not have holds work of
    /// another plan; of the sinks that it has, each split is looked at when it is taken.
    fn check_plan(&self) -> Result<(), RunError> {
        let has = |sink: &SinkId| self.plan.sinks.iter().any(|planned| planned.id == *sink);
        for sink in self.store.sinks()?.iter().filter(|sink| !has(sink)) {
            let records = self.store.records(sink)?;
            let ahead: usize = records.iter().map(|(_, record)| record.ahead.len()).sum();
            let staged = self.store.staged(sink)?.len();
            if ahead + staged > 0 && !self.accept_changed_plan {
                let plan = records.into_iter().find_map(|(_, record)| record.plan);
                let left = format!(
                    "`{sink}`, which it does not have any more: {ahead} lanes ahead, {staged} files not yet published"
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

    /// Forgets the texts of plans that no record names any more.
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

/// Names this attempt unlike any other: the machine and process, for people, random bits for the
/// process, and after a `.` the attempt. Machines may share a name, containers a process number,
/// and clocks a time.
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
        // Of two threads that come here at once, the first one's name counts.
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
