//! The interface of a state store: what the delivery protocol requires of it.
//!
//! [`embedded`](crate::embedded) is the store that needs no server, a redb file beside the pipeline.
//! A plugin can implement a store that instances on several machines share.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::random;
use crate::{
    ClaimRound, Claimant, Claims, Commit, CommitRecord, InstanceId, Reason, SinkId, SplitCommit,
    SplitId, StagedEntry, StagedId,
};

/// The store of one pipeline. Every call blocks until the store has answered. What the store has
/// acknowledged survives a crash, except as stated by [`StateStore::weaknesses`].
pub trait StateStore: Send + Sync {
    /// The name of the store's content: chosen at random when the store is first used, constant
    /// from then on.
    fn identity(&self) -> Result<String, StoreError>;

    /// What a crash of the store's machine may lose, as sentences for the user. Empty if every
    /// acknowledged write is on disk.
    fn weaknesses(&self) -> Result<Vec<String>, StoreError>;

    /// Takes splits over: raises each epoch by one, adds the owner to the owners, and returns the
    /// records with the new epoch and everything else as it was before; [`CommitRecord::owners`]
    /// never contains the owner itself. One atomic step for each split; the answers are in the
    /// order of `splits`. A repeated call under the same name, after a lost answer, returns the
    /// same owners. A fenced owner takes nothing.
    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError>;

    /// Makes the claimant the sole owner of splits that it took under these epochs, and its plan
    /// the plan of their records. One atomic step for each split. Called when earlier owners are
    /// known to be fenced, before the first commit.
    ///
    /// # Errors
    /// [`CommitError::Fenced`] with all splits whose epoch has changed; they stay as they are.
    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError>;

    /// Removes the owners of splits that are still held under these epochs; other splits stay as
    /// they are.
    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError>;

    /// Runs one round of distributing the splits of a source among instances. Claims of instances
    /// whose lease has expired are free. A store that belongs to one process grants everything.
    fn claim(&self, source: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        let _ = source;
        Ok(Claims::all(round))
    }

    /// Releases claims; those of other instances stay. An instance that `leaves` no longer counts
    /// for the fair share.
    fn unclaim(
        &self,
        source: &str,
        splits: &[SplitId],
        owner: &InstanceId,
        leaves: bool,
    ) -> Result<(), StoreError> {
        let _ = (source, splits, owner, leaves);
        Ok(())
    }

    /// Fences an instance off from the sink: after this returns, no [`take`](StateStore::take) and
    /// no [`commit`](StateStore::commit) of that owner is ever applied, no matter when it was sent. (A
    /// [`hold`](StateStore::hold) is, under the current epoch; it lets the owner do nothing.) The
    /// owner must be dead, or must stop. Marks of owners that are on no commit record may be
    /// dropped: the epochs of all their splits have been raised.
    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError>;

    /// The instances that are owners in a commit record of the sink.
    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError>;

    /// Applies a step atomically, or not at all; see [`StateStore::commit_many`].
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let answer = self.commit_many(&[(sink, commit)]).pop();
        answer.unwrap_or_else(|| {
            Err(StoreError::Failed("the state store did not answer a commit".into()).into())
        })
    }

    /// Applies steps, each atomically or not at all, at the cost of one: a store with a disk syncs
    /// it once. The steps are applied in their order, and each has its own answer.
    ///
    /// If a step cannot be applied, the answer is the most severe that holds for any of its splits.
    /// First what only a store that lost data shows: an epoch or a sequence *below* the step's.
    /// Then [`CommitError::OwnerFenced`]. Then [`CommitError::Fenced`], with every split that was
    /// taken over. Then a sequence above the step's.
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>>;

    /// All entries that are staged and not yet published, in no particular order.
    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError>;

    /// Removes staged entries, no matter which instance staged them. Unknown ids are ignored.
    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError>;

    /// The commit records of every split of a sink.
    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError>;

    /// The commit records of these splits of a sink, in their order; the default for a split that
    /// the store does not know.
    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError>;

    /// Removes the records of splits that are finished and have no owner and no lane ahead; other
    /// splits stay. A removed split that appears again is a new one.
    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError>;

    /// The sinks that have commit records.
    fn sinks(&self) -> Result<Vec<SinkId>, StoreError>;

    /// The fingerprints of the stored plans, in no particular order.
    fn plans(&self) -> Result<Vec<String>, StoreError>;

    /// The text of the plan with this fingerprint, if it is stored.
    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError>;

    /// Whether the text of the plan with this fingerprint is stored.
    fn has_plan(&self, fingerprint: &str) -> Result<bool, StoreError> {
        Ok(self.plan(fingerprint)?.is_some())
    }

    /// Stores a plan's text beside those of other plans; replaces the text of the same plan.
    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError>;

    /// Removes the texts of plans. Unknown fingerprints are ignored.
    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError>;

    /// A small value that a plugin stores with the pipeline, such as an inferred schema.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Sets the value that [`StateStore::note`] returns for this key.
    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError>;
}

/// Implements all methods of a [`StateStore`] except those that commit: each calls the same method
/// of the store in this field. For stores that wrap another one.
#[macro_export]
macro_rules! forward_to_store {
    ($field:ident) => {
        $crate::forward_to_store! { $field:
            identity() -> String, StoreError;
            weaknesses() -> Vec<String>, StoreError;
            take(
                sink: &$crate::SinkId,
                splits: &[$crate::SplitId],
                owner: &$crate::InstanceId
            ) -> Vec<$crate::CommitRecord>, CommitError;
            hold(
                sink: &$crate::SinkId,
                splits: &[($crate::SplitId, u64)],
                claimant: &$crate::Claimant
            ) -> (), CommitError;
            release(sink: &$crate::SinkId, splits: &[($crate::SplitId, u64)]) -> (), StoreError;
            claim(source: &str, round: &$crate::ClaimRound<'_>) -> $crate::Claims, StoreError;
            unclaim(
                source: &str,
                splits: &[$crate::SplitId],
                owner: &$crate::InstanceId,
                leaves: bool
            ) -> (), StoreError;
            fence(sink: &$crate::SinkId, owner: &$crate::InstanceId) -> (), StoreError;
            owners(
                sink: &$crate::SinkId
            ) -> std::collections::BTreeSet<$crate::InstanceId>, StoreError;
            staged(sink: &$crate::SinkId) -> Vec<$crate::StagedEntry>, StoreError;
            forget(sink: &$crate::SinkId, ids: &[$crate::StagedId]) -> (), StoreError;
            records(
                sink: &$crate::SinkId
            ) -> Vec<($crate::SplitId, $crate::CommitRecord)>, StoreError;
            records_of(
                sink: &$crate::SinkId,
                splits: &[$crate::SplitId]
            ) -> Vec<$crate::CommitRecord>, StoreError;
            forget_splits(sink: &$crate::SinkId, splits: &[$crate::SplitId]) -> (), StoreError;
            sinks() -> Vec<$crate::SinkId>, StoreError;
            plans() -> Vec<String>, StoreError;
            plan(fingerprint: &str) -> Option<String>, StoreError;
            has_plan(fingerprint: &str) -> bool, StoreError;
            add_plan(plan: &$crate::StoredPlan) -> (), StoreError;
            forget_plans(fingerprints: &[String]) -> (), StoreError;
            note(key: &str) -> Option<String>, StoreError;
            set_note(key: &str, value: &str) -> (), StoreError;
        }
    };
    (
        $field:ident:
        $($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty, $error:ident;)*
    ) => {
        $(fn $name(&self, $($argument: $kind),*) -> Result<$answer, $crate::store::$error> {
            self.$field.$name($($argument),*)
        })*
    };
}

/// A plan under which commit records were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// A digest of everything that determines lanes and their contents.
    pub fingerprint: String,
    /// The text of the pipeline file, with what else is needed to finish a crashed run with it. The
    /// store does not interpret it. Secrets are not filled in.
    pub text: String,
}

/// Why the store did not do what was requested.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// A retry may succeed; the request may or may not have been applied.
    #[error("state store unavailable")]
    Unavailable(#[source] Reason),
    /// A retry will fail until the user changes something.
    #[error(transparent)]
    Failed(Reason),
}

/// Why a step was not applied.
#[derive(Clone, Debug, Error)]
pub enum CommitError {
    /// Another instance has taken these splits.
    #[error(
        "another instance has taken over {}",
        .0.iter().map(SplitId::as_str).collect::<Vec<_>>().join(", ")
    )]
    Fenced(Vec<SplitId>),
    /// Another instance has concluded that this one is dead, and has fenced it.
    #[error("another instance considered this one (`{0}`) dead and fenced it")]
    OwnerFenced(InstanceId),
    /// The store shows an older epoch than it once returned.
    #[error("the state store shows epoch {found} of {split}, but had returned {expected}")]
    Epoch {
        /// The first split that differs.
        split: SplitId,
        /// The epoch under which the split was taken.
        expected: u64,
        /// The epoch in the store; 0 if it does not know the split.
        found: u64,
    },
    /// The store shows another sequence than the last one that it acknowledged.
    #[error("the state store shows commit {found} of {split}, but {expected} was acknowledged")]
    Sequence {
        /// The first split that differs.
        split: SplitId,
        /// The sequence that the step expected.
        expected: u64,
        /// The sequence in the store.
        found: u64,
    },
    /// The store failed or did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The version of a split in the store, as far as it decides about a step: epoch and sequence, both
/// 0 for a split that the store does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitVersion {
    /// [`CommitRecord::epoch`]
    pub epoch: u64,
    /// [`CommitRecord::sequence`]
    pub sequence: u64,
}

/// Why a step cannot be applied to splits whose versions in the store are these, with the
/// precedence that [`StateStore::commit_many`] states. `shown` is in the order of `steps`. For
/// stores that decide in this process.
pub fn refusal(
    owner: &InstanceId,
    is_fenced: bool,
    steps: &[SplitCommit],
    shown: &[SplitVersion],
) -> Option<CommitError> {
    let both = || steps.iter().zip(shown.iter().copied());
    if let Some((step, shown)) = both().find(|(step, shown)| shown.epoch < step.epoch) {
        return Some(CommitError::Epoch {
            split: step.split.clone(),
            expected: step.epoch,
            found: shown.epoch,
        });
    }
    let wrong_sequence = |(step, shown): (&SplitCommit, SplitVersion)| CommitError::Sequence {
        split: step.split.clone(),
        expected: step.sequence,
        found: shown.sequence,
    };
    if let Some(behind) = both().find(|(step, shown)| shown.sequence < step.sequence) {
        return Some(wrong_sequence(behind));
    }
    if is_fenced {
        return Some(CommitError::OwnerFenced(owner.to_owned()));
    }
    let fenced: Vec<SplitId> = both()
        .filter(|(step, shown)| shown.epoch > step.epoch)
        .map(|(step, _)| step.split.clone())
        .collect();
    if !fenced.is_empty() {
        return Some(CommitError::Fenced(fenced));
    }
    both()
        .find(|(step, shown)| shown.sequence > step.sequence)
        .map(wrong_sequence)
}

/// Creates a new [identity](StateStore::identity): 128 random bits from the operating system, in
/// hexadecimal.
pub fn new_identity() -> Result<String, StoreError> {
    random::hexadecimal(16).map_err(StoreError::Failed)
}
