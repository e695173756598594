//! The phase in which the sinks of an attempt are opened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::{Committer, InstanceId};
use pseidon_plan::PerSink;
use pseidon_plugin::stop::Stop;

use super::ending::{RunEnd, WRONG_PHASE, internal_error};
use super::reporter::BlockingResult;
use super::{RunLifecycle, RunPhase};
use crate::attempt::AttemptSink;
use crate::control::Control;
use crate::failure::{Failure, guarded};
use crate::instance::instance_name;
use crate::opening::SinkOpener;
use crate::outcome::RunError;
use crate::running::RunningAttempt;

/// How long sinks that are being opened may take to give up after a stop request.
const OPENING_GRACE: Duration = Duration::from_secs(2);

/// The sinks are being opened, which may take long.
pub(super) struct OpeningPhase {
    stop: Stop,
    instance: InstanceId,
    /// The committers of the sinks that are or were opened.
    committers: Arc<Mutex<Vec<Arc<Committer>>>>,
    /// Whether the state store was unreachable for one of them.
    has_missed_store: bool,
    /// Set after a stop request: the deadline for the sinks to give up.
    pub(super) give_up: Option<Instant>,
}

impl OpeningPhase {
    /// Whether the state store is unreachable for a sink; `None` as long as it was for none, since
    /// most of them have not sent a request yet.
    pub(super) fn store_is_unreachable(&mut self) -> Option<bool> {
        let committers = self.committers.lock();
        let is_unreachable = committers.iter().any(|open| open.store_is_unreachable());
        self.has_missed_store |= is_unreachable;
        self.has_missed_store.then_some(is_unreachable)
    }
}

impl RunLifecycle {
    /// Begins an attempt. An attempt that follows a failure after a stop request only publishes
    /// what is committed.
    pub(super) fn attempt(&mut self) -> RunEnd {
        self.began = Instant::now();
        if !self.stop_requested {
            // What another plan has left is found again by this attempt.
            self.deadline = None;
        }
        let stop = Stop::new();
        if self.deadline.is_some() || self.is_reloading() {
            stop.stop_reading();
        }
        let instance = match instance_name() {
            Ok(instance) => instance,
            Err(error) => return Some(Err(RunError::Failed(error))),
        };
        let (run, committers) = (&self.run, Arc::default());
        let opener = SinkOpener {
            plan: run.plan.clone(),
            store: run.store.clone(),
            store_id: self.store_id.clone(),
            instance: instance.clone(),
            accept_changed_plan: run.accept_changed_plan,
            acknowledged: self.acknowledged.clone(),
            suspects: self.suspects.clone(),
            was_open: self.was_open,
            committers: Arc::clone(&committers),
            lanes: run.resources.lanes().clone(),
            stop: stop.clone(),
            metrics: run.metrics.clone(),
        };
        self.phase = RunPhase::Opening(OpeningPhase {
            stop,
            instance,
            committers,
            has_missed_store: false,
            give_up: None,
        });
        self.reporter
            .run_blocking(move || BlockingResult::Opened(guarded(|| opener.open())));
        None
    }

    /// The user may request a stop while sinks are opened. If opening does not end in time, it is
    /// left behind; what it opens is closed before the run ends.
    pub(super) fn advance_opening(&mut self, now: Instant) -> RunEnd {
        while let Some(control) = self.next_request() {
            let RunPhase::Opening(opening) = &mut self.phase else {
                return None;
            };
            match control {
                Control::Pause => self.pause.set(true),
                Control::Resume => self.pause.set(false),
                // Nothing is open yet.
                Control::Roll => {}
                // What is being opened is closed like an attempt that has read nothing.
                Control::Reload => self.reload(now),
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

    pub(super) fn opened(&mut self, opened: Result<PerSink<AttemptSink>, Failure>) -> RunEnd {
        self.refresh();
        let RunPhase::Opening(OpeningPhase {
            stop,
            instance,
            give_up,
            ..
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
        if self.reloading_since.is_some() {
            stop.stop_reading();
        }
        self.was_open = true;
        self.phase = RunPhase::Running(Box::new(RunningAttempt::open(
            &self.run, sinks, stop, instance,
        )));
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
        let started = running.start_sources(run, store_id, pause);
        match started {
            Ok(()) => None,
            Err(failure) => self.close(Err(failure)),
        }
    }
}
