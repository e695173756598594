//! Why an attempt at running a plan ends before its time.

use crossbeam_channel::Sender;
use pseidon_delivery::committer::Abandon;
use pseidon_plugin::sink::SinkError;
use pseidon_plugin::source::SourceError;
use thiserror::Error;

use crate::sharing::SharingError;

/// Work that another version of the pipeline has left.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pipeline has changed since a run of it crashed, and its state still holds work of the old version ({left})"
)]
pub struct PlanChanged {
    /// The fingerprint of that version's plan, if it is known; its text is in the store.
    pub plan: Option<String>,
    /// What it has left, as a sentence.
    pub left: String,
}

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another instance has some of our splits: start anew from the store, at once.
    Fenced(String),
    /// A target has refused records that its sink knows by now: start again from the store, at
    /// once, without them.
    Refused {
        /// The sink's stage.
        stage: String,
        /// What was refused.
        reason: String,
    },
    /// It may work when tried again.
    Transient {
        /// The stage where it happened.
        stage: String,
        /// What happened.
        reason: String,
    },
    /// It will not.
    Fatal(String),
    /// Another version of the pipeline has left work that only it can finish.
    OtherPlan(PlanChanged),
    /// The state store shows what cannot be: it has lost data.
    State(String),
    /// The run was told to leave. Never the cause of an attempt's end: the one who told it so knows
    /// how it ends.
    Stopped,
    /// A part of the engine has ended by itself: an error of the engine, but a new attempt has new
    /// parts.
    Gone(&'static str),
}

/// Where threads report failures; the first one decides.
#[derive(Clone)]
pub(crate) struct Failures(pub(crate) Sender<Failure>);

impl Failures {
    pub(crate) fn report(&self, failure: Failure) {
        // Nobody listens once the attempt has ended, and then nothing has to be said.
        let _ = self.0.send(failure);
    }
}

impl From<Abandon> for Failure {
    fn from(abandon: Abandon) -> Self {
        match abandon {
            Abandon::Fenced(error) => Failure::Fenced(error.to_string()),
            Abandon::Fatal(reason) => Failure::State(reason),
            Abandon::OtherPlan { ref plan, .. } => Failure::OtherPlan(PlanChanged {
                plan: plan.clone(),
                left: abandon.to_string(),
            }),
            Abandon::Stopped => Failure::Stopped,
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
            SinkError::Abandon(abandon) => abandon.into(),
            SinkError::Refused(reason) => Failure::Refused {
                stage: stage.to_owned(),
                reason,
            },
            SinkError::Transient(reason) => Failure::Transient {
                stage: stage.to_owned(),
                reason,
            },
            SinkError::Fatal(reason) => Failure::Fatal(format!("sink `{stage}`: {reason}")),
        }
    }

    pub(crate) fn of_source(stage: &str, error: SourceError) -> Failure {
        match error {
            SourceError::Transient(reason) => Failure::Transient {
                stage: stage.to_owned(),
                reason,
            },
            SourceError::Fatal(reason) => Failure::Fatal(format!("source `{stage}`: {reason}")),
        }
    }
}

/// Does `work`; a panic in it is a failure of the attempt, not of the process.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        Err(Failure::Fatal(format!(
            "internal error in thread `{name}`; what is not committed is read again"
        )))
    })
}
