//! A run on its way: the state is looked at, then attempts follow one another, each of which opens
//! its sinks, runs, and is closed.
//!
//! Nothing here blocks. A stage that waits for something that may block has it done elsewhere and
//! receives the outcome as [`News`]; one that waits for the user, for failures or for a time is
//! advanced by the thread that [watches](crate::watch) all runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Select, TryRecvError};
use pseidon_delivery::StoreError;
use pseidon_delivery::committer::Seen;
use pseidon_plugin::stop::{Pause, Stop};

use crate::attempt::OpenSink;
use crate::failure::{Failure, guarded};
use crate::opening::Opening;
use crate::restarts::Restarts;
use crate::run::{Control, Finished, Run, RunError, instance_name};
use crate::running::{ReadUpTo, Running};
use crate::watch::Reporter;

/// How long sinks that are being opened may take to give up once the user has said stop.
const OPENING_GRACE: Duration = Duration::from_secs(2);

/// How the run has ended, if it has.
pub(crate) type End = Option<Result<Finished, RunError>>;

/// What came of something that may block.
pub(crate) enum News {
    /// The state was looked at; the store's name.
    Looked(Result<String, RunError>),
    /// The sinks were opened.
    Opened(Result<Vec<OpenSink>, Failure>),
    /// Nothing of the attempt is left.
    Closed {
        /// How far it had read.
        read: ReadUpTo,
        /// The same for those splits of which not everything is committed.
        uncommitted: ReadUpTo,
    },
    /// It panicked.
    Panicked,
}

/// A run with all that outlives its attempts.
pub(crate) struct Course {
    run: Run,
    reporter: Reporter,
    stage: Stage,
    store_id: String,
    /// Whether sources may read.
    pause: Pause,
    /// What the store has acknowledged, for each sink of the plan.
    acknowledged: Vec<Arc<Seen>>,
    /// Whether all sinks could be opened once.
    was_open: bool,
    /// Until when the run has to end, once the user has said stop.
    deadline: Option<Instant>,
    /// How far attempts that failed had read splits of which not everything was committed.
    uncommitted: ReadUpTo,
    /// When the attempt began.
    began: Instant,
    restarts: Restarts,
    /// Dropped last.
    on_end: OnEnd,
}

enum Stage {
    /// The state is looked at before anything is read.
    Looking,
    Opening(OpeningStage),
    Running(Box<Running>),
    /// What is left of the attempt is thrown away; this is how it has ended.
    Closing(Result<Finished, Failure>),
    Pausing {
        until: Instant,
        then: Then,
    },
}

/// What follows a pause.
#[derive(Clone, Copy)]
enum Then {
    /// The state is looked at once more.
    Look,
    Attempt,
}

/// The sinks are opened, which may take long.
struct OpeningStage {
    stop: Stop,
    instance: String,
    /// The user has said stop, and this is how long they may take to notice.
    give_up: Option<Instant>,
}

/// The callback for the run's end. Dropped without having been called, it reports an internal
/// error.
struct OnEnd(Option<EndCallback>);

/// Called with how the run has ended.
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
        self.call(Err(internal_error()));
    }
}

fn internal_error() -> RunError {
    RunError::Failed(
        "internal error: a part of the run has panicked; what is not committed is read again"
            .to_owned(),
    )
}

impl Course {
    pub(crate) fn new(run: Run, on_end: EndCallback, reporter: Reporter) -> Course {
        Course {
            acknowledged: run.plan.sinks.iter().map(|_| Arc::default()).collect(),
            run,
            reporter,
            stage: Stage::Looking,
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

    /// Begins with a look at the state.
    pub(crate) fn begin(&mut self) -> End {
        self.run.view.pulse.beat();
        self.stage = Stage::Looking;
        let state = self.run.state();
        self.reporter.ask(move || News::Looked(state.look()));
        None
    }

    /// A step of it has panicked: the attempt is closed, or the run ends.
    pub(crate) fn abort(&mut self) -> End {
        match self.stage {
            Stage::Running(_) => self.close(Err(Failure::Fatal(internal_error().to_string()))),
            _ => Some(Err(internal_error())),
        }
    }

    /// Drops everything, and then reports how it has ended. May block.
    pub(crate) fn end(self: Box<Self>, end: Result<Finished, RunError>) {
        let Course {
            run,
            mut on_end,
            stage,
            reporter,
            ..
        } = *self;
        run.metrics.set_run_trouble(None);
        drop((run, stage, reporter));
        on_end.call(end);
    }

    /// Adds what it waits for.
    pub(crate) fn listen<'a>(&'a self, select: &mut Select<'a>) {
        match &self.stage {
            Stage::Looking | Stage::Closing(_) => {}
            Stage::Opening(_) | Stage::Pausing { .. } => _ = select.recv(&self.run.control),
            Stage::Running(running) => {
                select.recv(&self.run.control);
                select.recv(&running.failures);
                select.recv(&running.done);
            }
        }
    }

    /// When something is due by time.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Looking | Stage::Closing(_) => None,
            Stage::Opening(opening) => opening.give_up,
            Stage::Running(_) => self.deadline,
            Stage::Pausing { until, .. } => Some(*until),
        }
    }

    /// Updates what is shown of the run, and has its intakes look at the time. About once a second.
    pub(crate) fn look(&mut self) {
        self.run.view.pulse.beat();
        let Stage::Running(running) = &self.stage else {
            return;
        };
        let metrics = &self.run.metrics;
        if self.began.elapsed() >= self.restarts.steady_after() {
            // What this attempt has not taken again is another instance's.
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

    /// Takes the outcome of something that may block.
    pub(crate) fn handle(&mut self, news: News) -> End {
        match news {
            News::Looked(looked) => self.looked(looked),
            News::Opened(opened) => self.opened(opened),
            News::Closed { read, uncommitted } => self.closed(&read, uncommitted),
            News::Panicked => Some(Err(internal_error())),
        }
    }

    /// Does what the user, failures and the time make necessary.
    pub(crate) fn advance(&mut self, now: Instant) -> End {
        match &self.stage {
            Stage::Looking | Stage::Closing(_) => None,
            Stage::Opening(_) => self.advance_opening(now),
            Stage::Running(_) => self.advance_running(now),
            Stage::Pausing { until, then } => {
                let (until, then) = (*until, *then);
                self.advance_pause(until, then, now)
            }
        }
    }

    fn said(&self) -> Option<Control> {
        match self.run.control.try_recv() {
            Ok(control) => Some(control),
            Err(TryRecvError::Empty) => None,
            // No stop can come any more.
            Err(TryRecvError::Disconnected) => Some(Control::LeaveNow),
        }
    }

    fn looked(&mut self, looked: Result<String, RunError>) -> End {
        match looked {
            Err(RunError::Store(StoreError::Unavailable(reason))) => {
                let wait = self.restarts.store_is_away();
                tracing::warn!(
                    reason,
                    "the state store does not answer; it is asked again in {wait:?}"
                );
                self.run.metrics.store_unreachable.set(1);
                self.stage = Stage::Pausing {
                    until: Instant::now() + wait,
                    then: Then::Look,
                };
                None
            }
            looked => {
                self.run.metrics.store_unreachable.set(0);
                self.restarts.store_is_back();
                match looked {
                    Ok(store_id) => {
                        self.store_id = store_id;
                        self.attempt()
                    }
                    Err(error) => Some(Err(error)),
                }
            }
        }
    }

    fn advance_pause(&mut self, until: Instant, then: Then, now: Instant) -> End {
        while let Some(control) = self.said() {
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
            Then::Look => self.begin(),
            Then::Attempt => self.attempt(),
        }
    }

    /// Begins an attempt. One that follows a failure after the user has said stop only brings to
    /// its end what is committed.
    fn attempt(&mut self) -> End {
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
        let opening = Opening {
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
        self.stage = Stage::Opening(OpeningStage {
            stop,
            instance,
            give_up: None,
        });
        self.reporter
            .ask(move || News::Opened(guarded(|| opening.open())));
        None
    }

    /// The user may say stop while sinks are opened. Opening that does not end in time is left
    /// behind; what it opens is closed at once.
    fn advance_opening(&mut self, now: Instant) -> End {
        while let Some(control) = self.said() {
            let Stage::Opening(opening) = &mut self.stage else {
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
        let is_given_up = matches!(&self.stage, Stage::Opening(opening) if opening.give_up.is_some_and(|at| at <= now));
        is_given_up.then(|| Ok(self.stopped_between_attempts()))
    }

    fn opened(&mut self, opened: Result<Vec<OpenSink>, Failure>) -> End {
        let Stage::Opening(OpeningStage {
            stop,
            instance,
            give_up,
        }) = &self.stage
        else {
            return Some(Err(internal_error()));
        };
        if give_up.is_some() {
            self.run.pools.run_blocking(move || drop(opened));
            return Some(Ok(self.stopped_between_attempts()));
        }
        let sinks = match opened {
            Ok(sinks) => sinks,
            Err(failure) => return self.failed(failure),
        };
        let (stop, instance) = (stop.clone(), instance.clone());
        self.was_open = true;
        self.stage = Stage::Running(Box::new(Running::open(&self.run, sinks, stop)));
        let Course {
            run,
            stage: Stage::Running(running),
            store_id,
            pause,
            ..
        } = self
        else {
            return Some(Err(internal_error()));
        };
        let started = running.start_sources(run, store_id, &instance, pause);
        match started {
            Ok(()) => None,
            Err(failure) => self.close(Err(failure)),
        }
    }

    /// Looks whether the sources have ended, something has failed or the user has said something.
    fn advance_running(&mut self, now: Instant) -> End {
        let grace = self.run.plan.settings.shutdown_grace;
        let Stage::Running(running) = &mut self.stage else {
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
                // What has ended says why before it is gone.
                Err(TryRecvError::Disconnected) => {
                    let failure = running
                        .failures
                        .try_recv()
                        .unwrap_or(Failure::Gone("a source has ended without saying why"));
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
        while let Some(control) = self.said() {
            let Stage::Running(running) = &self.stage else {
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
                "not everything could be committed within the shutdown grace; the rest is read again at the next start"
            );
            let Stage::Running(running) = &mut self.stage else {
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

    /// Ends the attempt. Whatever the outcome, all work on it has ended, and its sinks are closed
    /// and their locks free, when the next one begins.
    fn close(&mut self, outcome: Result<Finished, Failure>) -> End {
        let stage = std::mem::replace(&mut self.stage, Stage::Closing(outcome));
        let (Stage::Running(running), pools) = (stage, self.run.pools.clone()) else {
            return Some(Err(internal_error()));
        };
        running.leave_now();
        self.reporter.ask(move || {
            let (read, uncommitted) = running.close(&pools);
            News::Closed { read, uncommitted }
        });
        None
    }

    fn closed(&mut self, read: &ReadUpTo, uncommitted: ReadUpTo) -> End {
        // What it has read again is its own to commit.
        self.uncommitted
            .retain(|split, upto| read.get(split) < Some(upto));
        let next = Stage::Pausing {
            until: Instant::now(),
            then: Then::Attempt,
        };
        let Stage::Closing(outcome) = std::mem::replace(&mut self.stage, next) else {
            return Some(Err(internal_error()));
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
    fn failed(&mut self, failure: Failure) -> End {
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
                        "restarted {fences} times, at last because {reason}"
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
                    "it was left although this was not asked for"
                };
                let pause = self.restarts.broke();
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
        self.stage = Stage::Pausing {
            until: Instant::now() + pause,
            then: Then::Attempt,
        };
        None
    }

    /// How the run ends when it is stopped while nothing of it is open.
    fn stopped_between_attempts(&self) -> Finished {
        if !self.uncommitted.is_empty() {
            tracing::warn!(
                "records that were read before the last failure are not committed; they are read again at the next start"
            );
            return Finished::Left;
        }
        Finished::Stopped
    }
}
