//! The phase in which the sources of an attempt are read.

use std::time::Instant;

use crossbeam_channel::TryRecvError;

use super::ending::RunEnd;
use super::{RunLifecycle, RunPhase};
use crate::control::Control;
use crate::failure::Failure;
use crate::outcome::Finished;

/// How the attempt ends, if it ends now.
type AttemptEnd = Option<Result<Finished, Failure>>;

impl RunLifecycle {
    /// Checks whether the sources have ended, something has failed or the user has requested
    /// something.
    pub(super) fn advance_running(&mut self, now: Instant) -> RunEnd {
        let end = self
            .receive_failures(now)
            .or_else(|| self.receive_ended_sources())
            // What a source has found before it ended is known now.
            .or_else(|| self.receive_failures(now))
            .or_else(|| self.continue_after_sources(now))
            .or_else(|| self.receive_requests(now))
            .or_else(|| self.check_deadline(now))?;
        self.close(end)
    }

    fn receive_failures(&mut self, now: Instant) -> AttemptEnd {
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
                failure => return Some(Err(failure)),
            }
        }
        None
    }

    /// Counts the sources of the current phase that have ended.
    fn receive_ended_sources(&mut self) -> AttemptEnd {
        let RunPhase::Running(running) = &mut self.phase else {
            return None;
        };
        while running.left > 0 {
            match running.done.try_recv() {
                Ok(()) => running.left -= 1,
                Err(TryRecvError::Empty) => return None,
                // A source that ends has reported why before it is dropped.
                Err(TryRecvError::Disconnected) => {
                    let failure = running
                        .failures
                        .try_recv()
                        .unwrap_or(Failure::Gone("a source has ended without reporting why"));
                    return Some(Err(failure));
                }
            }
        }
        None
    }

    /// Ends the attempt, or starts the sources of the next phase, when those of the current one have
    /// ended.
    fn continue_after_sources(&mut self, now: Instant) -> AttemptEnd {
        let is_reloading = self.is_reloading();
        let RunLifecycle {
            run,
            phase: RunPhase::Running(running),
            store_id,
            pause,
            deadline,
            stop_requested,
            ..
        } = self
        else {
            return None;
        };
        let has_caught_up = running.has_caught_up(now);
        if has_caught_up {
            running.attempt.stop.stop_reading();
        }
        if running.left > 0 {
            return None;
        }
        if is_reloading {
            return Some(running.outcome(Finished::Reloading, true));
        }
        if deadline.is_some() {
            return Some(running.outcome(Finished::Stopped, *stop_requested));
        }
        if has_caught_up {
            return Some(running.outcome(Finished::CaughtUp, false));
        }
        match running.start_next_phase(run, store_id, pause) {
            Ok(true) => None,
            Ok(false) => Some(running.outcome(Finished::Complete, false)),
            Err(failure) => Some(Err(failure)),
        }
    }

    fn receive_requests(&mut self, now: Instant) -> AttemptEnd {
        while let Some(control) = self.next_request() {
            let RunPhase::Running(running) = &self.phase else {
                return None;
            };
            match control {
                Control::Stop => {
                    running.attempt.stop.stop_reading();
                    self.deadline = Some(now + self.run.plan.settings.shutdown_grace);
                    self.stop_requested = true;
                }
                Control::Reload => {
                    running.attempt.stop.stop_reading();
                    self.reload(now);
                }
                Control::LeaveNow => return Some(Ok(Finished::Left)),
                Control::Pause => self.pause.set(true),
                Control::Resume => self.pause.set(false),
                Control::Roll => self.run.roll(&running.attempt),
            }
        }
        None
    }

    fn check_deadline(&mut self, now: Instant) -> AttemptEnd {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return None;
        }
        tracing::warn!(
            "not everything could be committed within the shutdown grace; \
             the rest is re-read at the next start"
        );
        let is_reloading = self.is_reloading();
        let RunPhase::Running(running) = &mut self.phase else {
            return None;
        };
        if is_reloading {
            return Some(running.outcome(Finished::Reloading, true));
        }
        Some(running.outcome(Finished::Left, self.stop_requested))
    }
}
