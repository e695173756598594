//! What the delivery protocol asks of a state store.
//!
//! Two stores exist: [`embedded`](crate::embedded), a redb file beside the pipeline, and Redis,
//! which instances on several machines can share.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::random;
use crate::{Claimant, Claims, Commit, CommitRecord, Round, SinkId, SplitCommit, SplitId, Staged};

/// The store of one pipeline. Every call blocks until the store has answered; what it has
/// acknowledged survives a crash as well as [`StateStore::weaknesses`] says.
pub trait StateStore: Send + Sync {
    /// Names the store's content: made at random when the store is first used, kept from then on.
    fn identity(&self) -> Result<String, StoreError>;

    /// What may be lost when the store's machine crashes, as sentences for the user. Empty when
    /// every acknowledged write is on disk.
    fn weaknesses(&self) -> Result<Vec<String>, StoreError>;

    /// Takes splits over: raises each epoch by one, adds the claimant to the owners, and returns
    /// the records with the new epoch and everything else as it was before;
    /// [`CommitRecord::owners`] never holds the claimant itself. One atomic step for each split;
    /// the answers are in the order of `splits`. A repeated call under the same name, because an
    /// answer was lost, returns the same owners.
    ///
    /// The claimant's plan becomes the record's where no lane is ahead, or where the claimant
    /// accepts other plans. A claimant that is fenced takes nothing.
    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        claimant: &Claimant,
    ) -> Result<Vec<CommitRecord>, CommitError>;

    /// A round of sharing the splits of a source with other instances. Claims of instances whose
    /// lease has run out are free. A store that belongs to one process grants everything.
    fn claim(&self, source: &str, round: &Round<'_>) -> Result<Claims, StoreError> {
        let _ = source;
        Ok(Claims::all(round))
    }

    /// Gives claims back; those of other instances are left alone. An instance that `leaves` does
    /// not count for the fair share any more.
    fn unclaim(
        &self,
        source: &str,
        splits: &[SplitId],
        owner: &str,
        leaves: bool,
    ) -> Result<(), StoreError> {
        let _ = (source, splits, owner, leaves);
        Ok(())
    }

    /// Writes who alone owns splits that are still held under these epochs, or that no instance
    /// does; other splits are left alone. Called when earlier owners are known to be cut off, and
    /// when splits are given back.
    fn set_owner(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        owner: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Cuts an instance off from the sink: after this returns, no [`take`](StateStore::take) and no
    /// [`commit`](StateStore::commit) of that owner is ever applied, whenever it was sent. The
    /// owner must be dead, or must stop. Marks of owners that are on no commit record may be
    /// dropped: the epochs of all their splits have been raised.
    fn fence(&self, sink: &SinkId, owner: &str) -> Result<(), StoreError>;

    /// The instances that are on a commit record of the sink.
    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<String>, StoreError>;

    /// Applies a step atomically, or nothing of it; see [`StateStore::commit_many`].
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let answer = self.commit_many(&[(sink, commit)]).pop();
        answer.unwrap_or_else(|| {
            Err(StoreError::Failed("the state store did not answer a step".into()).into())
        })
    }

    /// Applies steps, each atomically or not at all, for the price of one: a store with a disk
    /// syncs it once. The steps are applied in their order, and each has its own answer.
    ///
    /// When a step cannot be applied, the answer is the gravest that holds for any of its splits.
    /// First what only a store that lost data shows: an epoch or a sequence *below* the step's.
    /// Then [`CommitError::OwnerFenced`]. Then [`CommitError::Fenced`], with every split that was
    /// taken over. Then a sequence above the step's.
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>>;

    /// All that is staged and not yet published, in no particular order.
    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError>;

    /// Removes entries from what is staged, whichever instance staged them. Unknown ids are fine.
    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError>;

    /// The commit records of every split of a sink.
    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError>;

    /// Removes the records of splits that are finished and have no owner and no lane ahead; other
    /// splits are left alone. A split that turns up later is a new one.
    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError>;

    /// The sinks that have commit records.
    fn sinks(&self) -> Result<Vec<SinkId>, StoreError>;

    /// The fingerprints of the plans whose texts are kept, in no particular order.
    fn plans(&self) -> Result<Vec<String>, StoreError>;

    /// The text of the plan with this fingerprint.
    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError>;

    /// Keeps a plan's text beside those of other plans; the text of a plan that is kept already is
    /// replaced.
    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError>;

    /// Removes the texts of plans. Unknown fingerprints are fine.
    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError>;

    /// A small value that a plugin keeps with the pipeline, such as an inferred schema.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Sets one.
    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError>;
}

/// Writes all methods of a [`StateStore`] but those that commit: each calls the same method of the
/// store in this field. For stores that wrap another one.
#[macro_export]
macro_rules! forward_to_store {
    ($field:ident) => {
        $crate::forward_to_store! { $field:
            identity() -> String, StoreError;
            weaknesses() -> Vec<String>, StoreError;
            take(sink: &$crate::SinkId, splits: &[$crate::SplitId], claimant: &$crate::Claimant) -> Vec<$crate::CommitRecord>, CommitError;
            claim(source: &str, round: &$crate::Round<'_>) -> $crate::Claims, StoreError;
            unclaim(source: &str, splits: &[$crate::SplitId], owner: &str, leaves: bool) -> (), StoreError;
            set_owner(sink: &$crate::SinkId, splits: &[($crate::SplitId, u64)], owner: Option<&str>) -> (), StoreError;
            fence(sink: &$crate::SinkId, owner: &str) -> (), StoreError;
            owners(sink: &$crate::SinkId) -> std::collections::BTreeSet<String>, StoreError;
            staged(sink: &$crate::SinkId) -> Vec<$crate::Staged>, StoreError;
            forget(sink: &$crate::SinkId, ids: &[String]) -> (), StoreError;
            records(sink: &$crate::SinkId) -> Vec<($crate::SplitId, $crate::CommitRecord)>, StoreError;
            forget_splits(sink: &$crate::SinkId, splits: &[$crate::SplitId]) -> (), StoreError;
            sinks() -> Vec<$crate::SinkId>, StoreError;
            plans() -> Vec<String>, StoreError;
            plan(fingerprint: &str) -> Option<String>, StoreError;
            add_plan(plan: &$crate::StoredPlan) -> (), StoreError;
            forget_plans(fingerprints: &[String]) -> (), StoreError;
            note(key: &str) -> Option<String>, StoreError;
            set_note(key: &str, value: &str) -> (), StoreError;
        }
    };
    ($field:ident: $($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty, $error:ident;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> Result<$answer, $crate::store::$error> {
            self.$field.$name($($argument),*)
        })*
    };
}

/// A plan under which commit records were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// A digest of everything that decides lanes and their contents.
    pub fingerprint: String,
    /// The pipeline file's text, so that a crashed run can be finished with it. Secrets are not
    /// filled in.
    pub text: String,
}

/// The store did not do what was asked.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// It may work again later; what was asked may or may not have happened.
    #[error("state store unavailable: {0}")]
    Unavailable(String),
    /// It will not work without the user.
    #[error("{0}")]
    Failed(String),
}

/// A step was not applied.
#[derive(Clone, Debug, Error)]
pub enum CommitError {
    /// Another instance has taken these splits.
    #[error("another instance has taken over {}", .0.iter().map(SplitId::as_str).collect::<Vec<_>>().join(", "))]
    Fenced(Vec<SplitId>),
    /// Another instance has found this one dead, and has cut it off.
    #[error("another instance took this one (`{0}`) for dead and cut it off")]
    OwnerFenced(String),
    /// The store shows an older epoch than it once gave.
    #[error("the state store shows epoch {found} of {split}, but had given {expected}")]
    Epoch {
        /// The first split that differs.
        split: SplitId,
        /// The epoch that the split was taken under.
        expected: u64,
        /// What the store holds; 0 when it does not know the split.
        found: u64,
    },
    /// The store shows another sequence than the last one acknowledged.
    #[error("the state store shows commit {found} of {split}, but {expected} was acknowledged")]
    Sequence {
        /// The first split that differs.
        split: SplitId,
        /// What the step expected.
        expected: u64,
        /// What the store holds.
        found: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a store shows of a split, as far as it decides about a step: epoch and sequence, both 0 for
/// a split that it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitVersion {
    /// [`CommitRecord::epoch`]
    pub epoch: u64,
    /// [`CommitRecord::sequence`]
    pub sequence: u64,
}

/// Why a step cannot be applied to splits of which the store shows this, in the order that
/// [`StateStore::commit_many`] states. `shown` is in the order of `steps`. For stores that decide
/// in this process.
pub fn refusal(
    owner: &str,
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

/// A new [identity](StateStore::identity): 128 random bits from the operating system, in
/// hexadecimal.
pub fn new_identity() -> Result<String, StoreError> {
    random::hexadecimal(16).map_err(|error| StoreError::Failed(error.to_string()))
}
