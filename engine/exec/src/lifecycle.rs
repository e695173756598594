//! The lifecycle of a run: the state is checked, then attempts follow one another. Each attempt
//! opens its sinks, runs, and is closed.
//!
//! Nothing here blocks. A phase that needs something that may block has it done on another thread
//! and receives the result as [`BlockingResult`]; a phase that waits for the user, for failures or
//! for a time is advanced by the thread that [watches](crate::watch) all runs.

mod closing;
pub(crate) mod ending;
mod opening;
pub(crate) mod reporter;
mod running;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Select, TryRecvError};
use pseidon_delivery::committer::AcknowledgedVersions;
use pseidon_delivery::{StoreError, WithCauses};
use pseidon_plan::PerSink;
use pseidon_plugin::stop::Pause;

use self::ending::{EndCallback, OnEnd, RunEnd, internal_error, internal_reason};
use self::opening::OpeningPhase;
use self::reporter::{BlockingResult, Reporter};
use crate::control::Control;
use crate::failure::Failure;
use crate::lanes::Suspects;
use crate::outcome::{Finished, RunError};
use crate::restarts::Restarts;
use crate::running::{ReadPositions, RunningAttempt};
use crate::setup::RunSetup;

/// A run with everything that outlives its attempts.
pub(crate) struct RunLifecycle {
    run: RunSetup,
    reporter: Reporter,
    phase: RunPhase,
    store_id: String,
    /// Whether sources may read.
    pause: Pause,
    /// What the store has acknowledged, for each sink of the plan.
    acknowledged: PerSink<Arc<AcknowledgedVersions>>,
    /// What is known of the records because of which lanes have failed, for each sink of the plan.
    suspects: PerSink<Arc<Suspects>>,
    /// Whether all sinks were opened successfully once.
    was_open: bool,
    /// The deadline of the run after a stop request, or after it has found work of another plan.
    deadline: Option<Instant>,
    /// Since when the run is to end for another plan.
    reloading_since: Option<Instant>,
    /// Whether the user has requested a stop.
    stop_requested: bool,
    /// How far failed attempts had read splits that were not completely committed.
    uncommitted: ReadPositions,
    /// When the attempt began.
    began: Instant,
    restarts: Restarts,
    /// The last field, and so dropped last: a run that is dropped without an outcome reports an
    /// internal error.
    on_end: OnEnd,
}

enum RunPhase {
    /// The state is checked before anything is read.
    CheckingState,
    Opening(OpeningPhase),
    Running(Box<RunningAttempt>),
    /// The remains of the attempt are discarded; contains how it has ended.
    Closing(Result<Finished, Failure>),
    Pausing {
        until: Instant,
        then: NextPhase,
    },
}

/// What follows a pause.
#[derive(Clone, Copy)]
enum NextPhase {
    /// The state is checked once more.
    CheckState,
    Attempt,
}

impl RunLifecycle {
    pub(crate) fn new(run: RunSetup, on_end: EndCallback, reporter: Reporter) -> RunLifecycle {
        RunLifecycle {
            acknowledged: run.plan.sinks.iter().map(|_| Arc::default()).collect(),
            suspects: run.plan.sinks.iter().map(|_| Arc::default()).collect(),
            reporter,
            phase: RunPhase::CheckingState,
            store_id: String::new(),
            pause: run.view.pause.clone(),
            was_open: run.was_open,
            run,
            deadline: None,
            reloading_since: None,
            stop_requested: false,
            uncommitted: HashMap::new(),
            began: Instant::now(),
            restarts: Restarts::new(),
            on_end: OnEnd(Some(on_end)),
        }
    }

    /// Begins with a check of the state.
    pub(crate) fn begin(&mut self) -> RunEnd {
        self.run.view.pulse.beat();
        self.phase = RunPhase::CheckingState;
        let state = self.run.state();
        self.reporter
            .run_blocking(move || BlockingResult::StateChecked(state.check()));
        None
    }

    /// Called when one of its steps has panicked: the attempt is closed, or the run ends. `panic` is
    /// the panic's message and place.
    pub(crate) fn abort(&mut self, panic: &str) -> RunEnd {
        match self.phase {
            RunPhase::Running(_) => self.close(Err(Failure::Fatal(internal_reason(panic)))),
            _ => Some(Err(internal_error(panic))),
        }
    }

    /// Drops everything, and then reports how the run has ended. May block.
    pub(crate) fn end(self: Box<Self>, end: Result<Finished, RunError>) {
        let RunLifecycle {
            run,
            mut on_end,
            phase,
            reporter,
            ..
        } = *self;
        run.metrics.set_run_trouble(None);
        drop((run, phase, reporter));
        on_end.call(end);
    }

    /// Adds the channels that it waits for.
    pub(crate) fn listen<'a>(&'a self, select: &mut Select<'a>) {
        match &self.phase {
            RunPhase::CheckingState | RunPhase::Closing(_) => {}
            RunPhase::Opening(_) | RunPhase::Pausing { .. } => _ = select.recv(&self.run.control),
            RunPhase::Running(running) => {
                select.recv(&self.run.control);
                select.recv(&running.failures);
                select.recv(&running.done);
            }
        }
    }

    /// The earliest time at which something is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.phase {
            RunPhase::CheckingState | RunPhase::Closing(_) => None,
            RunPhase::Opening(opening) => opening.give_up,
            RunPhase::Running(_) => self.deadline,
            RunPhase::Pausing { until, .. } => Some(*until),
        }
    }

    /// Updates the view and the metrics of the run, and wakes its intakes. Called about once a
    /// second.
    pub(crate) fn refresh(&mut self) {
        self.run.view.pulse.beat();
        let metrics = &self.run.metrics;
        let running = match &mut self.phase {
            RunPhase::Opening(opening) => {
                let unreachable = opening.store_is_unreachable().map(i64::from);
                return unreachable
                    .into_iter()
                    .for_each(|value| metrics.store_unreachable.set(value));
            }
            RunPhase::Running(running) => running,
            _ => return,
        };
        if self.began.elapsed() >= self.restarts.steady_after() {
            // Splits that this attempt has not taken again belong to another instance.
            self.uncommitted.clear();
            metrics.set_run_trouble(None);
        }
        metrics
            .memory_used
            .set(self.run.resources.budget().used() as i64);
        let unreachable = running
            .attempt
            .sinks
            .iter()
            .any(|open| open.committer.store_is_unreachable());
        metrics.store_unreachable.set(i64::from(unreachable));
        let grace = self.run.plan.settings.shutdown_grace;
        if let Some(since) = self.reloading_since.filter(|since| since.elapsed() > grace) {
            let what = format!(
                "a changed table is not used yet: what was read before it has not been committed \
                 for {} s",
                since.elapsed().as_secs()
            );
            metrics.set_run_trouble(Some(what.into()));
        }
        running.wake();
    }

    /// Handles the result of work that may block.
    pub(crate) fn handle(&mut self, result: BlockingResult) -> RunEnd {
        match result {
            BlockingResult::StateChecked(checked) => self.on_state_checked(checked),
            BlockingResult::Opened(opened) => self.opened(opened),
            BlockingResult::Discarded => Some(Ok(self.stopped_between_attempts())),
            BlockingResult::Closed { read, uncommitted } => self.closed(&read, uncommitted),
            BlockingResult::Panicked(panic) => Some(Err(internal_error(&panic))),
        }
    }

    /// Reacts to requests of the user, failures and time.
    pub(crate) fn advance(&mut self, now: Instant) -> RunEnd {
        match &self.phase {
            RunPhase::CheckingState | RunPhase::Closing(_) => None,
            RunPhase::Opening(_) => self.advance_opening(now),
            RunPhase::Running(_) => self.advance_running(now),
            RunPhase::Pausing { until, then } => {
                let (until, then) = (*until, *then);
                self.advance_pause(until, then, now)
            }
        }
    }

    fn reload(&mut self, now: Instant) {
        self.reloading_since.get_or_insert(now);
    }

    /// Whether the run is to end for another plan, and not because of a stop.
    fn is_reloading(&self) -> bool {
        self.reloading_since.is_some() && !self.stop_requested
    }

    fn next_request(&self) -> Option<Control> {
        match self.run.control.try_recv() {
            Ok(control) => Some(control),
            Err(TryRecvError::Empty) => None,
            // No stop request can come any more.
            Err(TryRecvError::Disconnected) => Some(Control::LeaveNow),
        }
    }

    fn on_state_checked(&mut self, checked: Result<String, RunError>) -> RunEnd {
        match checked {
            Err(RunError::Store(StoreError::Unavailable(reason))) => {
                let wait = self.restarts.store_unreachable();
                tracing::warn!(
                    reason = WithCauses(&reason).to_string(),
                    "the state store does not answer; retrying in {wait:?}"
                );
                self.run.metrics.store_unreachable.set(1);
                self.phase = RunPhase::Pausing {
                    until: Instant::now() + wait,
                    then: NextPhase::CheckState,
                };
                None
            }
            checked => {
                self.run.metrics.store_unreachable.set(0);
                self.restarts.store_answered();
                match checked {
                    Ok(store_id) => {
                        self.store_id = store_id;
                        self.attempt()
                    }
                    Err(error) => Some(Err(error)),
                }
            }
        }
    }

    fn advance_pause(&mut self, until: Instant, then: NextPhase, now: Instant) -> RunEnd {
        while let Some(control) = self.next_request() {
            match control {
                Control::Stop | Control::LeaveNow => {
                    return Some(Ok(self.stopped_between_attempts()));
                }
                // The next attempt reads nothing. If it can open the sinks, the next plan can too.
                Control::Reload => self.reload(now),
                Control::Pause => self.pause.set(true),
                Control::Resume => self.pause.set(false),
                // Nothing is open between two attempts.
                Control::Roll => {}
            }
        }
        match then {
            _ if now < until => None,
            NextPhase::CheckState => self.begin(),
            NextPhase::Attempt => self.attempt(),
        }
    }
}
