//! The lifecycle of a run: the state is checked, then attempts follow one another. Each attempt
//! opens its sinks, runs, and is closed.
//!
//! Nothing here blocks. A phase that needs something that may block has it done on another thread
//! and receives the result as [`BlockingResult`]; a phase that waits for the user, for failures or
//! for a time is advanced by the thread that [watches](crate::watch) all runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Select, TryRecvError};
use pseidon_delivery::StoreError;
use pseidon_delivery::committer::AcknowledgedVersions;
use pseidon_plugin::stop::{Pause, Stop};

use crate::attempt::AttemptSink;
use crate::failure::{Failure, guarded};
use crate::opening::SinkOpener;
use crate::restarts::Restarts;
use crate::run::{Control, Finished, Run, RunError, instance_name};
use crate::running::{ReadPositions, RunningAttempt};
use crate::watch::Reporter;

/// How long sinks that are being opened may take to give up after a stop request.
const OPENING_GRACE: Duration = Duration::from_secs(2);

/// A bug: the phase of the run does not match what has happened.
const WRONG_PHASE: &str = "a result arrived in another phase of the run";

/// How the run has ended, if it has.
pub(crate) type RunEnd = Option<Result<Finished, RunError>>;

/// The result of work that may block.
pub(crate) enum BlockingResult {
    /// The state was checked; contains the store's name.
    StateChecked(Result<String, RunError>),
    /// The sinks were opened.
    Opened(Result<Vec<AttemptSink>, Failure>),
    /// Sinks that were opened after a stop request are closed again.
    Discarded,
    /// Nothing of the attempt is left.
    Closed {
        /// How far it had read.
        read: ReadPositions,
        /// The same for those splits that are not completely committed.
        uncommitted: ReadPositions,
    },
    /// The work panicked; contains the panic's message and place.
    Panicked(String),
}

/// A run with everything that outlives its attempts.
pub(crate) struct RunLifecycle {
    run: Run,
    reporter: Reporter,
    phase: RunPhase,
    store_id: String,
    /// Whether sources may read.
    pause: Pause,
    /// What the store has acknowledged, for each sink of the plan.
    acknowledged: Vec<Arc<AcknowledgedVersions>>,
    /// Whether all sinks were opened successfully once.
    was_open: bool,
    /// The deadline of the run after a stop request.
    deadline: Option<Instant>,
    /// How far failed attempts had read splits that were not completely committed.
    uncommitted: ReadPositions,
    /// When the attempt began.
    began: Instant,
    restarts: Restarts,
    /// Dropped last.
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

/// The sinks are being opened, which may take long.
struct OpeningPhase {
    stop: Stop,
    instance: String,
    /// Set after a stop request: the deadline for the sinks to give up.
    give_up: Option<Instant>,
}

/// The callback for the run's end. If it is dropped without a call, it reports an internal error.
struct OnEnd(Option<EndCallback>);

/// Callback with how the run has ended.
pub(crate) type EndCallback = Box<dyn FnOnce(Result<Finished, RunError>) + Send>;

impl OnEnd {
    fn call(&mut self, end: Result<Finished, RunError>) {
        if let Some(on_end) = self.0.take() {
            on_end(end);
        }
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        self.call(Err(internal_error("the outcome of the run was lost")));
    }
}

/// The error for a bug: a panic, or a state that cannot occur.
fn internal_error(reason: &str) -> RunError {
    RunError::Failed(format!(
        "internal error: {reason}; uncommitted records will be re-read"
    ))
}

impl RunLifecycle {
    pub(crate) fn new(run: Run, on_end: EndCallback, reporter: Reporter) -> RunLifecycle {
        RunLifecycle {
            acknowledged: run.plan.sinks.iter().map(|_| Arc::default()).collect(),
            run,
            reporter,
            phase: RunPhase::CheckingState,
            store_id: String::new(),
            pause: Pause::default(),
            was_open: false,
            deadline: None,
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
        let error = internal_error(panic);
        match self.phase {
            RunPhase::Running(_) => self.close(Err(Failure::Fatal(error.to_string()))),
            _ => Some(Err(error)),
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
        let RunPhase::Running(running) = &self.phase else {
            return;
        };
        let metrics = &self.run.metrics;
        if self.began.elapsed() >= self.restarts.steady_after() {
            // Splits that this attempt has not taken again belong to another instance.
            self.uncommitted.clear();
            metrics.set_run_trouble(None);
        }
        metrics
            .memory_used
            .set(self.run.pools.budget().used() as i64);
        let unreachable = running
            .attempt
            .sinks
            .iter()
            .any(|open| open.committer.store_is_unreachable());
        metrics.store_unreachable.set(i64::from(unreachable));
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
                    reason,
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

    /// Begins an attempt. An attempt that follows a failure after a stop request only publishes
    /// what is committed.
    fn attempt(&mut self) -> RunEnd {
        self.began = Instant::now();
        let stop = Stop::new();
        if self.deadline.is_some() {
            stop.stop_reading();
        }
        let instance = match instance_name() {
            Ok(instance) => instance,
            Err(error) => return Some(Err(RunError::Failed(error.to_string()))),
        };
        let run = &self.run;
        let opener = SinkOpener {
            plan: run.plan.clone(),
            store: run.store.clone(),
            store_id: self.store_id.clone(),
            instance: instance.clone(),
            accept_changed_plan: run.accept_changed_plan,
            acknowledged: self.acknowledged.clone(),
            was_open: self.was_open,
            lanes: run.pools.lanes().clone(),
            stop: stop.clone(),
            metrics: run.metrics.clone(),
        };
        self.phase = RunPhase::Opening(OpeningPhase {
            stop,
            instance,
            give_up: None,
        });
        self.reporter
            .run_blocking(move || BlockingResult::Opened(guarded(|| opener.open())));
        None
    }

    /// The user may request a stop while sinks are opened. If opening does not end in time, it is
    /// left behind; what it opens is closed before the run ends.
    fn advance_opening(&mut self, now: Instant) -> RunEnd {
        while let Some(control) = self.next_request() {
            let RunPhase::Opening(opening) = &mut self.phase else {
                return None;
            };
            match control {
                Control::Pause => self.pause.set(true),
                Control::Resume => self.pause.set(false),
                // Nothing is open yet.
                Control::Roll => {}
                Control::Stop if opening.give_up.is_none() => {
                    opening.stop.leave_now();
                    opening.give_up = Some(now + OPENING_GRACE);
                }
                Control::Stop | Control::LeaveNow => {
                    opening.stop.leave_now();
                    return Some(Ok(self.stopped_between_attempts()));
                }
            }
        }
        let is_given_up = match &self.phase {
            RunPhase::Opening(opening) => opening.give_up.is_some_and(|at| at <= now),
            _ => false,
        };
        is_given_up.then(|| Ok(self.stopped_between_attempts()))
    }

    fn opened(&mut self, opened: Result<Vec<AttemptSink>, Failure>) -> RunEnd {
        let RunPhase::Opening(OpeningPhase {
            stop,
            instance,
            give_up,
        }) = &self.phase
        else {
            return Some(Err(internal_error(WRONG_PHASE)));
        };
        if give_up.is_some() {
            // The run ends after that, since a process that exits earlier leaves hidden folders
            // behind. The deadline holds for this too.
            self.reporter.run_blocking(move || {
                drop(opened);
                BlockingResult::Discarded
            });
            return None;
        }
        let sinks = match opened {
            Ok(sinks) => sinks,
            Err(failure) => return self.failed(failure),
        };
        let (stop, instance) = (stop.clone(), instance.clone());
        self.was_open = true;
        self.phase = RunPhase::Running(Box::new(RunningAttempt::open(&self.run, sinks, stop)));
        let RunLifecycle {
            run,
            phase: RunPhase::Running(running),
            store_id,
            pause,
            ..
        } = self
        else {
            return Some(Err(internal_error(WRONG_PHASE)));
        };
        let started = running.start_sources(run, store_id, &instance, pause);
        match started {
            Ok(()) => None,
            Err(failure) => self.close(Err(failure)),
        }
    }

    /// Checks whether the sources have ended, something has failed or the user has requested
    /// something.
    fn advance_running(&mut self, now: Instant) -> RunEnd {
        let grace = self.run.plan.settings.shutdown_grace;
        let RunPhase::Running(running) = &mut self.phase else {
            return None;
        };
        while let Ok(failure) = running.failures.try_recv() {
            match failure {
                Failure::OtherPlan(changed) => {
                    running.attempt.stop.stop_reading();
                    self.deadline.get_or_insert(now + grace);
                    running.other_plan = Some(changed);
                }
                failure => return self.close(Err(failure)),
            }
        }
        while running.left > 0 {
            match running.done.try_recv() {
                Ok(()) => running.left -= 1,
                Err(TryRecvError::Empty) => break,
                // A source that ends has reported why before it is dropped.
                Err(TryRecvError::Disconnected) => {
                    let failure = running
                        .failures
                        .try_recv()
                        .unwrap_or(Failure::Gone("a source has ended without reporting why"));
                    return self.close(Err(failure));
                }
            }
        }
        if running.left == 0 {
            let finished = if self.deadline.is_some() {
                Finished::Stopped
            } else {
                Finished::Complete
            };
            let outcome = running
                .other_plan
                .take()
                .map_or(Ok(finished), |changed| Err(Failure::OtherPlan(changed)));
            return self.close(outcome);
        }
        while let Some(control) = self.next_request() {
            let RunPhase::Running(running) = &self.phase else {
                return None;
            };
            match control {
                Control::Stop => {
                    running.attempt.stop.stop_reading();
                    self.deadline = Some(now + grace);
                }
                Control::LeaveNow => return self.close(Ok(Finished::Left)),
                Control::Pause => self.pause.set(true),
                Control::Resume => self.pause.set(false),
                Control::Roll => self.run.roll(&running.attempt),
            }
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            tracing::warn!(
                "not everything could be committed within the shutdown grace; \
                 the rest is re-read at the next start"
            );
            let RunPhase::Running(running) = &mut self.phase else {
                return None;
            };
            let outcome = running
                .other_plan
                .take()
                .map_or(Ok(Finished::Left), |changed| {
                    Err(Failure::OtherPlan(changed))
                });
            return self.close(outcome);
        }
        None
    }

    /// Closes the attempt. Whatever the outcome, all work on it has ended, and its sinks are closed
    /// and their locks free, before the next one begins.
    fn close(&mut self, outcome: Result<Finished, Failure>) -> RunEnd {
        let phase = std::mem::replace(&mut self.phase, RunPhase::Closing(outcome));
        let (RunPhase::Running(running), pools) = (phase, self.run.pools.clone()) else {
            return Some(Err(internal_error(WRONG_PHASE)));
        };
        running.leave_now();
        self.reporter.run_blocking(move || {
            let (read, uncommitted) = running.close(&pools);
            BlockingResult::Closed { read, uncommitted }
        });
        None
    }

    fn closed(&mut self, read: &ReadPositions, uncommitted: ReadPositions) -> RunEnd {
        // What it has read again is its own to commit.
        self.uncommitted
            .retain(|split, upto| read.get(split) < Some(upto));
        let next = RunPhase::Pausing {
            until: Instant::now(),
            then: NextPhase::Attempt,
        };
        let RunPhase::Closing(outcome) = std::mem::replace(&mut self.phase, next) else {
            return Some(Err(internal_error(WRONG_PHASE)));
        };
        match outcome {
            Ok(Finished::Stopped) if !self.uncommitted.is_empty() => {
                Some(Ok(self.stopped_between_attempts()))
            }
            Ok(finished) => Some(Ok(finished)),
            // Another instance has what was not committed.
            Err(failure @ Failure::Fenced(_)) => self.failed(failure),
            Err(failure) => {
                self.uncommitted.extend(uncommitted);
                self.failed(failure)
            }
        }
    }

    /// The attempt has failed: the run ends, or another attempt follows after a pause.
    fn failed(&mut self, failure: Failure) -> RunEnd {
        self.restarts.attempt_lasted(self.began.elapsed());
        let metrics = &self.run.metrics;
        let pause = match failure {
            Failure::Fatal(reason) => return Some(Err(RunError::Failed(reason))),
            Failure::State(reason) => return Some(Err(RunError::State(reason))),
            Failure::OtherPlan(changed) => return Some(Err(RunError::PlanChanged(changed))),
            Failure::Fenced(reason) => {
                let (fences, pause) = self.restarts.fenced();
                if fences > 1 {
                    metrics.set_run_trouble(Some(format!(
                        "restarted {fences} times, most recently because {reason}"
                    )));
                }
                tracing::warn!(
                    reason,
                    "open files are discarded; restarting from the committed positions in {pause:?}"
                );
                pause
            }
            Failure::Stopped | Failure::Gone(_) => {
                let reason = if let Failure::Gone(reason) = failure {
                    reason
                } else {
                    "the attempt was left without a request"
                };
                let pause = self.restarts.part_ended();
                tracing::warn!(
                    reason,
                    "internal error; restarting from the committed positions in {pause:?}"
                );
                metrics.set_run_trouble(Some(format!(
                    "restarting after an internal error: {reason}"
                )));
                pause
            }
            Failure::Refused { stage, reason } => {
                tracing::warn!(
                    stage,
                    reason,
                    "records were refused; restarting from the committed positions without them"
                );
                Duration::ZERO
            }
            Failure::Transient { stage, reason } => {
                let (failures, wait) = self.restarts.failed();
                let pause = match self.run.pause_after(&stage, &reason, failures, wait) {
                    Ok(pause) => pause,
                    Err(error) => return Some(Err(error)),
                };
                metrics.set_run_trouble(Some(format!(
                    "restarting because `{stage}` failed: {reason}"
                )));
                pause
            }
        };
        if pause.is_zero() {
            return self.attempt();
        }
        self.phase = RunPhase::Pausing {
            until: Instant::now() + pause,
            then: NextPhase::Attempt,
        };
        None
    }

    /// How the run ends if it is stopped while nothing of it is open.
    fn stopped_between_attempts(&self) -> Finished {
        if !self.uncommitted.is_empty() {
            tracing::warn!(
                "records that were read before the last failure are not committed; \
                 they are re-read at the next start"
            );
            return Finished::Left;
        }
        Finished::Stopped
    }
}
