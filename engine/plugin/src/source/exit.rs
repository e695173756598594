//! Why a source stops reading.

use pseidon_delivery::Reason;
use thiserror::Error;

/// The run is ending: the source returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the run is ending")]
pub struct Stopped;

/// Why a source cannot continue.
#[derive(Clone, Debug, Error)]
pub enum SourceError {
    /// A retry may succeed; the run restarts after a backoff.
    #[error(transparent)]
    Transient(Reason),
    /// A retry will fail until the user changes something.
    #[error(transparent)]
    Fatal(Reason),
}

/// Why a source stops reading before it is exhausted.
#[derive(Clone, Debug)]
pub enum SourceExit {
    /// The run is ending.
    Stopped,
    /// The source cannot continue.
    Failed(SourceError),
}

impl SourceExit {
    /// An error that the user has to resolve.
    pub fn fatal(reason: impl Into<Reason>) -> SourceExit {
        SourceExit::Failed(SourceError::Fatal(reason.into()))
    }

    /// An error that a retry may resolve.
    pub fn transient(reason: impl Into<Reason>) -> SourceExit {
        SourceExit::Failed(SourceError::Transient(reason.into()))
    }

    /// The outcome of a run of a source: to be stopped is not an error.
    pub fn outcome(run: Result<(), SourceExit>) -> Result<(), SourceError> {
        match run {
            Ok(()) | Err(SourceExit::Stopped) => Ok(()),
            Err(SourceExit::Failed(error)) => Err(error),
        }
    }
}

impl From<Stopped> for SourceExit {
    fn from(_: Stopped) -> Self {
        SourceExit::Stopped
    }
}

impl From<SourceError> for SourceExit {
    fn from(error: SourceError) -> Self {
        SourceExit::Failed(error)
    }
}
