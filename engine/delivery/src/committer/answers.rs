//! Requests to the store, repeated until it has answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::acknowledged::lost_data;
use super::{Committer, CommitterError};
use crate::{Commit, CommitError, StoreError, WithCauses};

/// The wait before the first retry of a commit that the store did not answer; it doubles up to
/// [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Committer {
    /// Sends a step until the store has answered.
    pub(super) fn commit_until_answered(&self, commit: &Commit) -> Result<(), CommitterError> {
        if self.has_given_up.load(Ordering::Relaxed) {
            return Err(CommitterError::Stopped);
        }
        let mut asked_before = false;
        let outcome = self.until_answered(|| {
            let answer = match self.store.commit(&self.sink, commit) {
                Err(CommitError::Store(error)) => Err(error),
                // The answer to an earlier attempt was lost: only this committer can have written
                // this sequence under this epoch.
                Err(CommitError::Sequence {
                    expected, found, ..
                }) if asked_before && found == expected + 1 => Ok(Ok(())),
                other => Ok(other),
            };
            asked_before = true;
            answer
        });
        self.has_given_up
            .fetch_or(outcome.is_err(), Ordering::Relaxed);
        let outcome = outcome?;
        match outcome {
            Ok(()) => {
                commit
                    .splits
                    .iter()
                    .for_each(|step| self.seen.note(&step.split, step.epoch, step.sequence + 1));
                Ok(())
            }
            Err(fenced @ (CommitError::Fenced(_) | CommitError::OwnerFenced(_))) => {
                Err(CommitterError::Fenced(fenced))
            }
            Err(other) => Err(CommitterError::Fatal(lost_data(other))),
        }
    }

    /// Sends a request until the store has answered.
    pub(super) fn until_answered<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, CommitterError> {
        let mut wait = FIRST_WAIT;
        loop {
            match ask() {
                Ok(answer) => {
                    if self.unreachable.swap(false, Ordering::Relaxed) {
                        tracing::info!(sink = %self.sink, "state store answers again");
                    }
                    return Ok(answer);
                }
                Err(StoreError::Failed(reason)) => return Err(CommitterError::Fatal(reason)),
                Err(StoreError::Unavailable(reason)) => {
                    if !self.unreachable.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            sink = %self.sink,
                            reason = WithCauses(&reason).to_string(),
                            "state store does not answer; nothing is committed until it does"
                        );
                    }
                }
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(CommitterError::Stopped);
            }
            (self.wait)(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
