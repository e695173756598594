//! One log's run, from its row to its end.
//!
//! No thread waits for it: planning, which may ask servers for columns, is done by threads that
//! logs share, and so is what follows from how the run ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use pseidon_delivery::{ScopedStore, StateStore, failpoint};
use pseidon_exec::{Control, Finished, PlanChanged, Run, RunError};
use pseidon_expr::panics;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_logs::{Log, LogError};
use pseidon_mysql::LogRow;
use pseidon_plan::Plan;
use serde_json::{Value, json};

use super::Template;
use crate::board::{Board, Entry, Live, State};
use crate::load::Text;

/// How long the version of a log that crashed is run before it is looked whether its work is done.
const FINISHING: Duration = Duration::from_secs(2);

/// What a log's run needs.
pub(super) struct Work {
    pub(super) template: Arc<Template>,
    pub(super) board: Arc<Board>,
    pub(super) entry: Arc<Entry>,
    pub(super) consumer: Arc<SharedConsumer>,
    pub(super) row: LogRow,
    pub(super) control: (Sender<Control>, Receiver<Control>),
    pub(super) end: End,
}

/// Reports how a log's run has ended. Dropped without an outcome, it reports an internal error.
pub(super) struct End {
    log: String,
    outcomes: Sender<(String, Outcome)>,
    is_reported: bool,
}

impl End {
    pub(super) fn new(log: String, outcomes: Sender<(String, Outcome)>) -> End {
        End {
            log,
            outcomes,
            is_reported: false,
        }
    }

    fn report(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.is_reported, true) {
            // There is no receiver once the process is being left.
            let _ = self.outcomes.send((self.log.clone(), outcome));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.report(Outcome::Failed(
            "internal error: the outcome of the log's run was lost".to_owned(),
        ));
    }
}

/// How a log's run has ended.
pub(super) enum Outcome {
    /// It was stopped.
    Ended {
        /// Whether everything that was read is committed.
        complete: bool,
    },
    /// It failed; it may work when started again.
    Failed(String),
    /// Its row has to be changed.
    Wrong(String),
    /// The state has lost data: no log can go on.
    StateLost(String),
}

impl Outcome {
    fn of(finished: Finished) -> Outcome {
        Outcome::Ended {
            complete: finished != Finished::Left,
        }
    }

    /// Whether nothing is left to be read again.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self, Outcome::Ended { complete: false })
    }
}

fn failed_by(panic: &(dyn Any + Send)) -> Outcome {
    Outcome::Failed(format!("internal error: {}", panics::message(panic)))
}

impl Work {
    /// Plans the log and starts its run. `end` reports the outcome; a panic is a failure of the
    /// log.
    pub(super) fn start(self) {
        let pools = self.board.pools.clone();
        pools.run_blocking(move || {
            let begun = catch_unwind(AssertUnwindSafe(|| {
                self.plan(&self.template.text, &self.row)
            }));
            match begun.unwrap_or_else(|panic| Err(failed_by(panic.as_ref()))) {
                Ok(plan) => self.start_plan(plan),
                Err(outcome) => self.finish(outcome),
            }
        });
    }

    fn start_plan(self, plan: Arc<Plan>) {
        let run = self.run_of(plan.clone(), self.store(), self.control.clone());
        run.start(move |outcome| self.ended(plan, outcome));
    }

    /// The log's run has ended.
    fn ended(self, plan: Arc<Plan>, outcome: Result<Finished, RunError>) {
        let outcome = match outcome {
            Ok(finished) => Outcome::of(finished),
            Err(RunError::PlanChanged(changed)) => {
                let finished = catch_unwind(AssertUnwindSafe(|| self.finish_changed(&changed)));
                match finished.unwrap_or_else(|panic| Err(failed_by(panic.as_ref()))) {
                    Ok(None) => return self.start_plan(plan),
                    Ok(Some(finished)) => Outcome::of(finished),
                    Err(outcome) => outcome,
                }
            }
            Err(RunError::State(reason)) => Outcome::StateLost(reason),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        drop(plan);
        self.finish(outcome);
    }

    /// Reports how the log has ended, after dropping what logs share: the supervisor may close it
    /// then.
    fn finish(self, outcome: Outcome) {
        let Work {
            template,
            board,
            entry,
            consumer,
            mut end,
            ..
        } = self;
        drop((template, board, entry, consumer));
        end.report(outcome);
    }

    fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(ScopedStore::new(
            self.template.store.clone(),
            self.row.log(),
        ))
    }

    /// Finishes what a run of another version of the log has left. Returns how the log has ended if
    /// it is not to be run now. Blocks.
    fn finish_changed(&self, changed: &PlanChanged) -> Result<Option<Finished>, Outcome> {
        let PlanChanged { plan, left } = changed;
        tracing::warn!(
            log = self.row.log(),
            left,
            "changed since its run crashed; what that run left is finished as it was"
        );
        let finished = self.finish_previous(&self.store(), plan.as_deref())?;
        // What ended it early was meant for the log, whatever version of it runs.
        let is_told_to_end = self
            .control
            .1
            .try_iter()
            .any(|control| matches!(control, Control::Stop | Control::LeaveNow));
        Ok((is_told_to_end || finished == Finished::Left).then_some(finished))
    }

    /// Runs the version of the log that crashed for a while, and stops it gracefully. `plan` is
    /// that version's fingerprint.
    fn finish_previous(
        &self,
        store: &Arc<dyn StateStore>,
        plan: Option<&str>,
    ) -> Result<Finished, Outcome> {
        let failed = |reason: String| {
            Outcome::Failed(format!(
                "what its last run left cannot be finished: {reason}"
            ))
        };
        let stored = plan
            .map(|plan| store.plan(plan))
            .transpose()
            .map_err(|error| failed(error.to_string()))?
            .flatten();
        let (text, row) = stored
            .and_then(|stored| self.read_plan(&stored))
            .ok_or_else(|| failed("its plan is not known".to_owned()))?;
        let plan = self.plan(&text, &row).map_err(|outcome| match outcome {
            Outcome::Wrong(reason) | Outcome::Failed(reason) => failed(reason),
            other @ (Outcome::Ended { .. } | Outcome::StateLost(_)) => other,
        })?;
        let (control, said) = unbounded();
        let (over, is_over) = bounded::<()>(0);
        std::thread::scope(|scope| {
            let control_of_timer = control.clone();
            let timer = move || {
                // Its time begins when it has got something to read: after a crash the group may
                // keep that for a while.
                let mut deadline = None;
                while let Err(TryRecvError::Empty) = is_over.try_recv() {
                    let is_up = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                    if is_up || !self.control.1.is_empty() {
                        break;
                    }
                    if deadline.is_none()
                        && self
                            .entry
                            .view
                            .positions()
                            .iter()
                            .any(|sink| !sink.splits.is_empty())
                    {
                        deadline = Some(Instant::now() + FINISHING);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                let _ = control_of_timer.send(Control::Stop);
            };
            std::thread::Builder::new()
                .name("log-finishing".to_owned())
                .spawn_scoped(scope, timer)
                .map_err(|error| failed(format!("cannot start a thread: {error}")))?;
            let finished = self.run_of(plan, store.clone(), (control, said)).run();
            drop(over);
            finished.map_err(|error| match error {
                RunError::State(reason) => Outcome::StateLost(reason),
                other => failed(other.to_string()),
            })
        })
    }

    /// The log's run by this plan, which is about to be started.
    fn run_of(
        &self,
        plan: Arc<Plan>,
        store: Arc<dyn StateStore>,
        (control, said): (Sender<Control>, Receiver<Control>),
    ) -> Run {
        self.entry.view.pulse.beat();
        self.entry.set_live(Some(Live {
            plan: plan.clone(),
            control,
            since: Instant::now(),
        }));
        if self.entry.state() == State::Starting {
            self.entry.set_state(State::Running);
            tracing::info!(log = self.row.log(), "started");
        }
        Run {
            plan,
            pools: self.board.pools.clone(),
            store,
            metrics: self.entry.metrics.clone(),
            accept_changed_plan: self.template.accept_changed_plan,
            control: said,
            view: self.entry.view.clone(),
        }
    }

    /// The plan of a row in a version of the pipeline. What it is made from is its text, so that a
    /// crashed run can be finished with it.
    fn plan(&self, text: &Text, row: &LogRow) -> Result<Arc<Plan>, Outcome> {
        let log = Log::new(
            row,
            &self.template.settings,
            &text.base,
            self.consumer.clone(),
        )
        .map_err(|error| match error {
            LogError::Wrong(reason) => Outcome::Wrong(reason),
            LogError::Unreachable(reason) => Outcome::Failed(reason),
        })?;
        let mut plan = text
            .plan_for_log(Arc::new(log))
            .map_err(|reasons| Outcome::Wrong(format!("log `{}`: {reasons}", row.log())))?;
        // Names of logs and of pipelines hold no slash, so no other pipeline has this name.
        plan.name = format!("{}/{}", plan.name, row.log());
        failpoint::reach("planned");
        plan.text = json!({ "row": row.to_text(), "pipeline": text.text }).to_string();
        Ok(Arc::new(plan))
    }

    fn read_plan(&self, stored: &str) -> Option<(Text, LogRow)> {
        let stored: Value = serde_json::from_str(stored).ok()?;
        let row = LogRow::from_text(stored.get("row")?.as_str()?).ok()?;
        let text = stored.get("pipeline")?.as_str()?.to_owned();
        Some((
            Text {
                text,
                ..self.template.text.clone()
            },
            row,
        ))
    }
}
