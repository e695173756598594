//! What the store has acknowledged to this process, and the check that it has not lost it.

use std::collections::HashMap;
use std::error::Error;

use parking_lot::Mutex;

use super::CommitterError;
use crate::{CommitRecord, Reason, SplitId};

/// The last epoch and sequence of each split that the store acknowledged to this process. It
/// outlives a committer, so that a restarted run notices a store that has lost data in between.
#[derive(Debug, Default)]
pub struct AcknowledgedVersions(Mutex<HashMap<SplitId, (u64, u64)>>);

impl AcknowledgedVersions {
    pub(super) fn note(&self, split: &SplitId, epoch: u64, sequence: u64) {
        self.0.lock().insert(split.clone(), (epoch, sequence));
    }

    pub(super) fn forget(&self, split: &SplitId) {
        self.0.lock().remove(split);
    }

    /// A takeover must have raised the epoch, and nothing lowers a sequence.
    pub(super) fn check(
        &self,
        split: &SplitId,
        record: &CommitRecord,
    ) -> Result<(), CommitterError> {
        match self.0.lock().get(split) {
            Some((epoch, sequence)) if record.epoch <= *epoch || record.sequence < *sequence => {
                let (found_epoch, found) = (record.epoch, record.sequence);
                let what = format!(
                    "it shows epoch {found_epoch} and commit {found} of {split}, after epoch \
                     {epoch} and commit {sequence}"
                );
                Err(CommitterError::Fatal(lost_data(Reason::new(what))))
            }
            _ => Ok(()),
        }
    }
}

/// The error for a store that has lost data; `evidence` says how that shows.
pub(super) fn lost_data(evidence: impl Error + Send + Sync + 'static) -> Reason {
    Reason::caused_by(
        "the state store has lost data or was restored from an older copy",
        evidence,
    )
    .followed_by(
        ". Continuing would lose or duplicate records. Restore the store to its last state; or, \
         to start over in an empty target, rename the stages whose state was lost",
    )
}
