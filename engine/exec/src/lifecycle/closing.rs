//! The end of an attempt, and what follows it: another attempt, or the end of the run.

use std::time::{Duration, Instant};

use pseidon_delivery::WithCauses;
use pseidon_plugin::metrics::RunTrouble;

use super::ending::{RunEnd, WRONG_PHASE, internal_error};
use super::reporter::BlockingResult;
use super::{NextPhase, RunLifecycle, RunPhase};
use crate::failure::Failure;
use crate::outcome::{Finished, RunError};
use crate::running::ReadPositions;

impl RunLifecycle {
    /// Closes the attempt. Whatever the outcome, all work on it has ended, and its sinks are closed
    /// and their locks free, before the next one begins.
    pub(super) fn close(&mut self, outcome: Result<Finished, Failure>) -> RunEnd {
        let phase = std::mem::replace(&mut self.phase, RunPhase::Closing(outcome));
        let (RunPhase::Running(running), resources) = (phase, self.run.resources.clone()) else {
            return Some(Err(internal_error(WRONG_PHASE)));
        };
        running.leave_now();
        self.reporter.run_blocking(move || {
            let (read, uncommitted) = running.close(&resources);
            BlockingResult::Closed { read, uncommitted }
        });
        None
    }

    pub(super) fn closed(&mut self, read: &ReadPositions, uncommitted: ReadPositions) -> RunEnd {
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
    pub(super) fn failed(&mut self, failure: Failure) -> RunEnd {
        self.restarts.attempt_lasted(self.began.elapsed());
        let metrics = &self.run.metrics;
        let pause = match failure {
            Failure::Fatal(reason) => return Some(Err(RunError::Failed(reason))),
            Failure::State(reason) => return Some(Err(RunError::State(reason))),
            Failure::OtherPlan(changed) => return Some(Err(RunError::PlanChanged(changed))),
            Failure::Fenced(reason) => {
                let (fences, pause) = self.restarts.fenced();
                if fences > 1 {
                    let what = format!("restarted {fences} times, most recently because {reason}");
                    metrics.set_run_trouble(Some(what.into()));
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
                let what = format!("restarting after an internal error: {reason}");
                metrics.set_run_trouble(Some(what.into()));
                pause
            }
            failure @ Failure::Refused { .. } => {
                warn_of_records(&failure);
                Duration::ZERO
            }
            failure @ Failure::Unwritable { .. } => {
                warn_of_records(&failure);
                self.search_pause(&failure)
            }
            Failure::Transient { stage, reason } => {
                let (failures, wait) = self.restarts.failed();
                let shown = WithCauses(&reason).to_string();
                let pause = match self.run.pause_after(&stage, reason, failures, wait) {
                    Ok(pause) => pause,
                    Err(error) => return Some(Err(error)),
                };
                metrics.set_run_trouble(Some(RunTrouble {
                    what: format!("restarting because `{stage}` failed"),
                    reason: Some(shown),
                }));
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

    /// How long the run pauses before it searches on for records that cannot be written. A long
    /// search is shown.
    fn search_pause(&mut self, failure: &Failure) -> Duration {
        let (restarts, pause) = self.restarts.searched();
        if let Failure::Unwritable { stage, reason, .. } = failure
            && !pause.is_zero()
        {
            self.run.metrics.set_run_trouble(Some(RunTrouble {
                what: format!(
                    "restarted {restarts} times to find records that `{stage}` cannot write"
                ),
                reason: Some(WithCauses(reason).to_string()),
            }));
        }
        pause
    }

    /// How the run ends if it is stopped while nothing of it is open.
    pub(super) fn stopped_between_attempts(&self) -> Finished {
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

/// Logs that the next attempt treats some records in another way.
fn warn_of_records(failure: &Failure) {
    match failure {
        Failure::Refused { stage, reason } => tracing::warn!(
            stage,
            reason = WithCauses(reason).to_string(),
            "records were refused; restarting from the committed positions without them"
        ),
        Failure::Unwritable {
            stage,
            reason,
            culprit: Some((split, position)),
        } => tracing::warn!(
            stage,
            %split,
            position,
            reason = WithCauses(reason).to_string(),
            "found a record that cannot be written; restarting from the committed positions \
             without it"
        ),
        Failure::Unwritable {
            stage,
            reason,
            culprit: None,
        } => tracing::warn!(
            stage,
            reason = WithCauses(reason).to_string(),
            "records cannot be written; restarting from the committed positions with fewer of \
             them at once"
        ),
        _ => {}
    }
}
