//! The run of one log, from its row to its outcome.
//!
//! No thread is dedicated to it. Planning, which may query servers for columns, and the handling of
//! the outcome are done by threads that all logs share.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use pseidon_delivery::{Reason, ScopedStore, StateStore, WithCauses, failpoint};
use pseidon_exec::{Control, Finished, PlanChanged, Run, RunError};
use pseidon_expr::panics;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_logs::{Log, LogError};
use pseidon_mysql::LogRow;
use pseidon_plan::Plan;
use pseidon_service::runs::{EntryState, LiveRun, RunEntry, RunRegistry};

use super::{LogTemplate, stored};
use crate::commands::run::earlier::{MAX_ROUNDS, check};
use crate::load::PipelineText;
use crate::load::kept::KeptPipeline;
use crate::reload::ReplacedPlans;

/// A run of a log that is ready to be started.
pub(super) struct LogRun {
    pub(super) template: Arc<LogTemplate>,
    pub(super) runs: Arc<RunRegistry>,
    pub(super) entry: Arc<RunEntry>,
    pub(super) consumer: Arc<SharedConsumer>,
    pub(super) row: LogRow,
    pub(super) control: (Sender<Control>, Receiver<Control>),
    pub(super) reporter: OutcomeReporter,
    /// The work of earlier versions that was found so far, one after another.
    pub(super) found_earlier: Vec<PlanChanged>,
    /// The last plans that were replaced since a table has changed. They may have left something.
    pub(super) replaced: ReplacedPlans,
    /// Whether the run of a current plan has ended for another plan.
    pub(super) was_open: bool,
}

/// Reports the outcome of a run to the supervisor. Dropped without an outcome, it reports an
/// internal error.
pub(super) struct OutcomeReporter {
    log: String,
    outcomes: Sender<(String, LogOutcome)>,
    is_reported: bool,
}

impl OutcomeReporter {
    pub(super) fn new(log: String, outcomes: Sender<(String, LogOutcome)>) -> OutcomeReporter {
        OutcomeReporter {
            log,
            outcomes,
            is_reported: false,
        }
    }

    fn report(&mut self, outcome: LogOutcome) {
        if !std::mem::replace(&mut self.is_reported, true) {
            // The receiver is gone when the process exits immediately.
            let _ = self.outcomes.send((self.log.clone(), outcome));
        }
    }
}

impl Drop for OutcomeReporter {
    fn drop(&mut self) {
        self.report(LogOutcome::Failed(
            "internal error: the outcome of the run was lost".to_owned(),
        ));
    }
}

/// The outcome of a run.
pub(super) enum LogOutcome {
    /// It ended, usually because it was stopped.
    Ended {
        /// Whether everything that was read is committed.
        complete: bool,
    },
    /// It failed; a restart may succeed.
    Failed(String),
    /// Its row is invalid and has to be changed.
    InvalidRow(String),
    /// The state store has lost data: no log can continue.
    StateLost(Reason),
}

impl LogOutcome {
    fn of(outcome: Result<Finished, RunError>) -> LogOutcome {
        match outcome {
            Ok(finished) => LogOutcome::Ended {
                complete: finished != Finished::Left,
            },
            Err(RunError::State(reason)) => LogOutcome::StateLost(reason),
            Err(error) => LogOutcome::Failed(WithCauses(&error).to_string()),
        }
    }

    /// Whether no uncommitted records are left to be re-read.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self, LogOutcome::Ended { complete: false })
    }
}

/// The outcome of a log whose earlier version cannot finish what it has left.
fn cannot_finish(reason: &dyn Display) -> LogOutcome {
    LogOutcome::Failed(format!("cannot finish its crashed run: {reason}"))
}

fn failed_by(panic: &(dyn Any + Send)) -> LogOutcome {
    LogOutcome::Failed(format!("internal error: {}", panics::describe(panic)))
}

impl LogRun {
    /// Plans the log and starts its run. The reporter receives the outcome; a panic is a failure of
    /// the log.
    pub(super) fn start(self) {
        let pools = self.runs.pools.clone();
        pools.run_blocking(move || match self.plan_now() {
            Ok(plan) => self.start_plan(plan),
            Err(outcome) => self.finish(outcome),
        });
    }

    /// Plans the log with its row, and with the tables as they are now. A panic is a failure.
    fn plan_now(&self) -> Result<Arc<Plan>, LogOutcome> {
        let planned = catch_unwind(AssertUnwindSafe(|| {
            let text = PipelineText {
                tables: self.template.tables.lock().clone(),
                ..self.template.text.clone()
            };
            self.plan(&text, &self.row)
        }));
        planned.unwrap_or_else(|panic| Err(failed_by(panic.as_ref())))
    }

    fn start_plan(self, plan: Arc<Plan>) {
        let run = self.prepare_run(plan.clone(), self.store(), self.control.clone());
        run.start(move |outcome| self.handle_outcome(plan, outcome));
    }

    /// Handles the outcome of the run: what an earlier version has left is finished first, and then
    /// the run is started again.
    fn handle_outcome(mut self, plan: Arc<Plan>, outcome: Result<Finished, RunError>) {
        let changed = match outcome {
            Err(RunError::PlanChanged(changed)) => changed,
            Ok(Finished::Reloading) => {
                self.was_open = true;
                return self.restart(plan);
            }
            outcome => {
                drop(plan);
                return self.finish(LogOutcome::of(outcome));
            }
        };
        let earlier = catch_unwind(AssertUnwindSafe(|| self.earlier_plan(&plan, &changed)));
        match earlier.unwrap_or_else(|panic| Err(failed_by(panic.as_ref()))) {
            Ok(earlier) => self.start_earlier(earlier, changed, plan),
            Err(outcome) => {
                drop(plan);
                self.finish(outcome);
            }
        }
    }

    /// Runs an earlier version until it has finished what it left, and then `plan`. A request to
    /// stop applies to the log, whichever version of it runs.
    fn start_earlier(mut self, earlier: Arc<Plan>, changed: PlanChanged, plan: Arc<Plan>) {
        tracing::warn!(
            log = self.row.log(),
            left = changed.left,
            "changed since its run crashed; finishing that run with its own version"
        );
        let run = Run {
            catch_up: Some(changed.splits.clone()),
            ..self.prepare_run(earlier, self.store(), self.control.clone())
        };
        self.found_earlier.push(changed);
        run.start(move |outcome| match outcome {
            Ok(Finished::CaughtUp | Finished::Complete) => self.start_plan(plan),
            // It may need splits of which a third version has left something.
            Err(RunError::PlanChanged(_)) => self.handle_outcome(plan, outcome),
            Ok(Finished::Reloading) => self.restart(plan),
            outcome => {
                drop(plan);
                self.finish(LogOutcome::of(outcome));
            }
        });
    }

    /// Plans the log again, with the tables as they are now, and continues with that plan instead
    /// of this one. If it cannot be planned, it continues with this one.
    fn restart(mut self, plan: Arc<Plan>) {
        self.replaced.push(plan.clone());
        let pools = self.runs.pools.clone();
        pools.run_blocking(move || {
            let next = match self.plan_now() {
                Ok(next) => next,
                Err(LogOutcome::InvalidRow(reason) | LogOutcome::Failed(reason)) => {
                    tracing::warn!(
                        log = self.row.log(),
                        reason,
                        "a table has changed and cannot be used; the log continues with the one \
                         that it has"
                    );
                    plan
                }
                Err(outcome) => return self.finish(outcome),
            };
            self.start_plan(next);
        });
    }

    /// Reports the outcome, after dropping what the logs share, since the supervisor may close it
    /// then.
    fn finish(self, outcome: LogOutcome) {
        let LogRun {
            template,
            runs,
            entry,
            consumer,
            mut reporter,
            ..
        } = self;
        drop((template, runs, entry, consumer));
        reporter.report(outcome);
    }

    fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(ScopedStore::new(
            self.template.store.clone(),
            self.row.log(),
        ))
    }

    /// The plan of the version of the log that has left this work.
    fn earlier_plan(&self, current: &Plan, changed: &PlanChanged) -> Result<Arc<Plan>, LogOutcome> {
        let rounds = self.found_earlier.iter().filter(|known| *known == changed);
        if rounds.count() >= MAX_ROUNDS {
            return Err(cannot_finish(&RunError::PlanChanged(changed.clone())));
        }
        if let Some(plan) = self.replaced.find(changed) {
            return Ok(plan);
        }
        let stored = changed.plan.as_deref().map(|plan| self.store().plan(plan));
        let stored = stored.transpose();
        let stored = stored.map_err(|error| cannot_finish(&WithCauses(&error)))?;
        let (text, row) = stored
            .flatten()
            .and_then(|stored| self.read_plan(&stored))
            .ok_or_else(|| cannot_finish(&"its plan is not in the state store"))?;
        let plan = self.plan(&text, &row).map_err(|outcome| match outcome {
            LogOutcome::InvalidRow(reason) | LogOutcome::Failed(reason) => cannot_finish(&reason),
            other @ (LogOutcome::Ended { .. } | LogOutcome::StateLost(_)) => other,
        })?;
        let fingerprint = changed.plan.as_deref().unwrap_or_default();
        check(&plan, fingerprint, current).map_err(|reason| cannot_finish(&reason))?;
        Ok(plan)
    }

    /// Prepares a run with this plan, and marks the entry as live.
    fn prepare_run(
        &self,
        plan: Arc<Plan>,
        store: Arc<dyn StateStore>,
        (control, controls): (Sender<Control>, Receiver<Control>),
    ) -> Run {
        self.entry.view.pulse.beat();
        self.entry.set_live(Some(LiveRun {
            plan: plan.clone(),
            control,
            since: Instant::now(),
        }));
        if self.entry.state() == EntryState::Starting {
            self.entry.set_state(EntryState::Running);
            tracing::info!(log = self.row.log(), "started");
        }
        Run {
            plan,
            pools: self.runs.pools.clone(),
            store,
            metrics: self.entry.metrics.clone(),
            accept_changed_plan: self.template.accept_changed_plan && !self.was_open,
            catch_up: None,
            was_open: self.was_open,
            control: controls,
            view: self.entry.view.clone(),
        }
    }

    /// Plans a version of the row with a version of the pipeline. The text of the plan holds both,
    /// so that a crashed run can be finished with it.
    fn plan(&self, text: &PipelineText, row: &LogRow) -> Result<Arc<Plan>, LogOutcome> {
        let log = Log::new(
            row,
            &self.template.settings,
            &text.base,
            self.consumer.clone(),
        )
        .map_err(|error| match error {
            LogError::InvalidRow(reason) => LogOutcome::InvalidRow(reason),
            LogError::Unreachable(reason) => LogOutcome::Failed(WithCauses(&reason).to_string()),
        })?;
        let mut plan = text
            .plan_for_log(Arc::new(log))
            .map_err(|reasons| LogOutcome::InvalidRow(format!("log `{}`: {reasons}", row.log())))?;
        // Names of logs and of pipelines do not contain a slash, so the name is unique.
        plan.name = format!("{}/{}", plan.name, row.log());
        failpoint::reach("planned");
        let (row, pipeline) = (row.to_text(), plan.stored);
        plan.stored = Arc::new(move || stored::print_plan(&row, &pipeline()));
        Ok(Arc::new(plan))
    }

    /// Reads what is stored of a plan, as written by [`LogRun::plan`].
    fn read_plan(&self, stored: &str) -> Option<(PipelineText, LogRow)> {
        let (row, pipeline) = stored::read_plan(stored)?;
        let KeptPipeline { text, tables } = KeptPipeline::read(&pipeline);
        let text = PipelineText {
            text,
            tables,
            ..self.template.text.clone()
        };
        Some((text, row))
    }
}
