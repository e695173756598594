//! What an operator changes in the state of a pipeline while no instance runs: the positions of its
//! splits, or all of it.
//!
//! Each change is one atomic step of the store, over all sinks and splits: after a crash the store
//! has the old state or the new one, never a part of each. It raises the epochs of the splits, so
//! that no instance that was frozen since commits over it.

use thiserror::Error;

use crate::store::SplitVersion;
use crate::{CommitRecord, Position, ResumeToken, SinkId, SplitId, StateStore, StoreError};

/// A store whose content an operator can change.
pub trait OperatorStore: StateStore {
    /// Moves splits, all of them or none: sets [`CommitRecord::low`], `resume` and `finished`, and
    /// raises epoch and sequence. A split that the store does not know is created.
    ///
    /// # Errors
    /// An instance may be working on one of them, or has left work: see [`OperatorError`].
    fn move_splits(&self, moves: &[SplitMove]) -> Result<(), OperatorError>;

    /// Forgets the positions of all splits, the plans and the notes; and for a store in a folder,
    /// the files of groups beside it. The store keeps its identity. Splits that an instance on
    /// another machine might hold keep their epochs.
    ///
    /// # Errors
    /// An instance may be working, or has left committed work that is not visible.
    fn clear(&self) -> Result<(), OperatorError>;
}

/// A new position of a split in a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMove {
    /// The sink whose record changes.
    pub sink: SinkId,
    /// The split.
    pub split: SplitId,
    /// The version that the store has shown; the default if it does not know the split.
    pub seen: SplitVersion,
    /// The new low position.
    pub to: Position,
    /// What the source needs beside it.
    pub resume: Option<ResumeToken>,
    /// When the split was finished; `None` if records may follow.
    pub finished: Option<u64>,
}

/// Why an operator's change was not applied.
#[derive(Clone, Debug, Error)]
pub enum OperatorError {
    /// An instance has the split, or has crashed and not released it.
    #[error("an instance has {0} and has not released it")]
    Held(SplitId),
    /// A crashed instance has left lanes ahead of the position.
    #[error("lanes are ahead of the position of {0}: a crashed run has not been finished")]
    Ahead(SplitId),
    /// Committed files are not visible yet.
    #[error("committed files of `{0}` are not visible yet")]
    Staged(SinkId),
    /// The state has changed since it was read.
    #[error("the state has changed meanwhile")]
    Changed,
    /// The store failed or did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SplitMove {
    /// The record after the move.
    pub(crate) fn apply(&self, record: CommitRecord) -> CommitRecord {
        CommitRecord {
            epoch: self.seen.epoch + 1,
            sequence: self.seen.sequence + 1,
            low: Some(self.to),
            resume: self.resume.clone(),
            finished: self.finished,
            // No plan has left anything between the old position and the new one.
            plan: None,
            ..record
        }
    }
}
