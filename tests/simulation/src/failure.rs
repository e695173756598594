//! Why an attempt ends.

use std::fmt;

use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{Reason, WithCauses};
use pseidon_exec::sharing::SharingError;
use pseidon_exec::takeover::TakeoverError;
use pseidon_plugin::sink::SinkError;

/// Why an attempt has ended.
#[derive(Debug)]
pub(crate) enum Failure {
    Fenced(String),
    Transient(String),
    /// Another plan has left work that only it can finish.
    OtherPlan(String),
    /// The state is impossible: something has lost data.
    Evidence(String),
    Stopped,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Fenced(reason)
            | Failure::Transient(reason)
            | Failure::OtherPlan(reason)
            | Failure::Evidence(reason) => f.write_str(reason),
            Failure::Stopped => f.write_str("it was requested to leave"),
        }
    }
}

impl From<CommitterError> for Failure {
    fn from(abandon: CommitterError) -> Self {
        match abandon {
            CommitterError::Fenced(error) => Failure::Fenced(error.to_string()),
            CommitterError::OtherPlan(work) => Failure::OtherPlan(work.to_string()),
            CommitterError::Fatal(reason) => Failure::Evidence(with_causes(&reason)),
            CommitterError::Stopped => Failure::Stopped,
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Committer(abandon) => abandon.into(),
            SinkError::Transient(reason) | SinkError::Refused(reason) => {
                Failure::Transient(with_causes(&reason))
            }
            SinkError::Fatal(reason) | SinkError::Unwritable(reason) => {
                Failure::Evidence(with_causes(&reason))
            }
        }
    }
}

impl From<TakeoverError> for Failure {
    fn from(error: TakeoverError) -> Self {
        error.error.into()
    }
}

impl From<SharingError> for Failure {
    fn from(error: SharingError) -> Self {
        match error {
            SharingError::Lost(_) => Failure::Fenced(error.to_string()),
            SharingError::Store(reason) => Failure::Evidence(with_causes(&reason)),
        }
    }
}

fn with_causes(reason: &Reason) -> String {
    WithCauses(reason).to_string()
}
