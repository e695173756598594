//! Why an attempt at running a plan ends early.

use crossbeam_channel::Sender;
use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{Position, Reason, SplitId, UnfinishedSplit, UnfinishedWork};
use pseidon_expr::panics;
use pseidon_plugin::sink::SinkError;
use pseidon_plugin::source::SourceError;
use thiserror::Error;

use crate::sharing::SharingError;

/// Uncommitted work that another version of the pipeline has left.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pipeline has changed since a run of it crashed, and its state still holds work of the old \
     version ({left})"
)]
pub struct PlanChanged {
    /// The fingerprint of that version's plan, if it is known; its text is in the store.
    pub plan: Option<String>,
    /// What it has left, as a phrase for messages.
    pub left: String,
    /// The splits that it has left unfinished; none if it has only left staged files.
    pub splits: Vec<UnfinishedSplit>,
}

impl PlanChanged {
    fn of(work: UnfinishedWork) -> PlanChanged {
        PlanChanged {
            left: work.to_string(),
            plan: work.plan,
            splits: work.splits,
        }
    }
}

/// The kinds of failures.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another instance has some of our splits: restart from the store, at once.
    Fenced(String),
    /// A target has refused records, and its sink now knows which: restart from the store, at once,
    /// without them.
    Refused {
        /// The stage of the sink.
        stage: String,
        /// What was refused and why, in the words of the sink.
        reason: Reason,
    },
    /// Records cannot be written, and the next attempt knows more about which: restart from the
    /// store, at once.
    Unwritable {
        /// The stage of the sink.
        stage: String,
        /// Why they cannot be written.
        reason: Reason,
        /// The record, if it is known now.
        culprit: Option<(SplitId, Position)>,
    },
    /// A retry may succeed.
    Transient {
        /// The stage that failed.
        stage: String,
        /// What failed, with its causes.
        reason: Reason,
    },
    /// A retry will fail.
    Fatal(Reason),
    /// Another version of the pipeline has left work that only it can finish.
    OtherPlan(PlanChanged),
    /// The state store shows an impossible state: it has lost data.
    State(Reason),
    /// A stop of the run was requested. Never the cause of an attempt's end: the part that
    /// requested it determines how the attempt ends.
    Stopped,
    /// A part of the engine has ended by itself: an internal error, but a new attempt has new
    /// parts.
    Gone(&'static str),
}

/// The channel on which threads report failures; the first failure decides.
#[derive(Clone)]
pub(crate) struct Failures(pub(crate) Sender<Failure>);

impl Failures {
    pub(crate) fn report(&self, failure: Failure) {
        // There is no receiver once the attempt has ended, and then nothing must be reported.
        let _ = self.0.send(failure);
    }
}

impl From<CommitterError> for Failure {
    fn from(abandon: CommitterError) -> Self {
        match abandon {
            CommitterError::Fenced(error) => Failure::Fenced(error.to_string()),
            CommitterError::Fatal(reason) => Failure::State(reason),
            CommitterError::OtherPlan(work) => Failure::OtherPlan(PlanChanged::of(work)),
            CommitterError::Stopped => Failure::Stopped,
        }
    }
}

impl From<SharingError> for Failure {
    fn from(error: SharingError) -> Self {
        match error {
            SharingError::Lost(_) => Failure::Fenced(error.to_string()),
            SharingError::Store(reason) => Failure::State(reason),
        }
    }
}

impl Failure {
    pub(crate) fn of_sink(stage: &str, error: SinkError) -> Failure {
        match error {
            SinkError::Committer(abandon) => abandon.into(),
            SinkError::Refused(reason) => Failure::Refused {
                stage: stage.to_owned(),
                reason,
            },
            SinkError::Transient(reason) => Failure::Transient {
                stage: stage.to_owned(),
                reason,
            },
            // Its record was searched, and not found.
            SinkError::Fatal(reason) | SinkError::Unwritable(reason) => {
                Failure::Fatal(Reason::caused_by(format!("sink `{stage}`"), reason))
            }
        }
    }

    pub(crate) fn of_source(stage: &str, error: SourceError) -> Failure {
        match error {
            SourceError::Transient(reason) => Failure::Transient {
                stage: stage.to_owned(),
                reason,
            },
            SourceError::Fatal(reason) => {
                Failure::Fatal(Reason::caused_by(format!("source `{stage}`"), reason))
            }
        }
    }
}

/// Runs `work`; a panic in it is a failure of the attempt, not of the process.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let thread = std::thread::current();
        let (name, panic) = (
            thread.name().unwrap_or("?"),
            panics::describe(panic.as_ref()),
        );
        let what = format!(
            "internal error in thread `{name}`: {panic}; uncommitted records will be re-read"
        );
        Err(Failure::Fatal(what.into()))
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;

    use pseidon_delivery::WithCauses;

    use super::*;

    #[test]
    fn a_failure_of_a_sink_has_the_io_error_as_a_cause() {
        let reason = || {
            let full = io::Error::from_raw_os_error(28);
            Reason::caused_by("cannot write in /data", full)
        };
        let text = "cannot write in /data: No space left on device (os error 28)";
        for (error, expected) in [
            (SinkError::Fatal(reason()), format!("sink `out`: {text}")),
            (SinkError::Transient(reason()), text.to_owned()),
            (SinkError::Refused(reason()), text.to_owned()),
            (
                SinkError::Committer(CommitterError::Fatal(reason())),
                text.to_owned(),
            ),
        ] {
            let reason = match Failure::of_sink("out", error) {
                Failure::Fatal(reason)
                | Failure::State(reason)
                | Failure::Transient { reason, .. }
                | Failure::Refused { reason, .. } => reason,
                other => panic!("{other:?}"),
            };
            assert_eq!(WithCauses(&reason).to_string(), expected);
            let io_error =
                std::iter::successors(Some(&reason as &dyn Error), |&error| error.source())
                    .find_map(|error| error.downcast_ref::<io::Error>());
            assert_eq!(
                io_error.map(io::Error::kind),
                Some(io::ErrorKind::StorageFull)
            );
        }
    }
}
