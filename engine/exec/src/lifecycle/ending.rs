//! How the end of a run is reported.

use pseidon_delivery::Reason;

use crate::outcome::{Finished, RunError};

/// A bug: the phase of the run does not match what has happened.
pub(super) const WRONG_PHASE: &str = "a result arrived in another phase of the run";

/// How the run has ended, if it has.
pub(crate) type RunEnd = Option<Result<Finished, RunError>>;

/// The callback for the run's end. If it is dropped without a call, it reports an internal error.
pub(super) struct OnEnd(pub(super) Option<EndCallback>);

/// Callback with how the run has ended.
pub(crate) type EndCallback = Box<dyn FnOnce(Result<Finished, RunError>) + Send>;

impl OnEnd {
    /// Reports the end, the first time that it is called.
    pub(super) fn call(&mut self, end: Result<Finished, RunError>) {
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
pub(super) fn internal_error(reason: &str) -> RunError {
    RunError::Failed(internal_reason(reason))
}

/// The reason of [`internal_error`].
pub(super) fn internal_reason(reason: &str) -> Reason {
    format!("internal error: {reason}; uncommitted records will be re-read").into()
}
