//! What the delivery protocol asks of a state store.
//!
//! Two stores exist: [`embedded`](crate::embedded), a redb file beside the pipeline, and Redis, which instances on several machines can
//! share.

use std::io::Read;

use thiserror::Error;

use crate::{Commit, CommitRecord, SinkId, SplitId, Staged};

/// The store of one pipeline. Every call blocks until the store has answered; what it has acknowledged survives a crash as well as
/// [`StateStore::weaknesses`] says.
pub trait StateStore: Send + Sync {
    /// Names the store's content: made at random when the store is first used, kept from then on.
    fn identity(&self) -> Result<String, StoreError>;

    /// What may be lost when the store's machine crashes, as sentences for the user. Empty when every acknowledged write is on disk.
    fn weaknesses(&self) -> Result<Vec<String>, StoreError>;

    /// Takes splits over: raises each epoch by one, adds `owner` to the owners, and gives the records with the new epoch and, in
    /// [`CommitRecord::owners`], the owners *without* the new one. One atomic step for each split; the answers are in the order of
    /// `splits`. Asking again under the same name, because an answer was lost, gives the same owners.
    fn take(&self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, StoreError>;

    /// Writes who alone owns splits that are still held under these epochs, or nobody; other splits are left alone. Called when earlier
    /// owners are known to be cut off, and when splits are given back.
    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError>;

    /// Applies a step atomically, or nothing of it.
    ///
    /// When it cannot be applied, the answer is the gravest that holds for any of its splits. First what only a store that lost data shows:
    /// an epoch or a sequence *below* the step's. Then [`CommitError::Fenced`], with every split that was taken over. Then a sequence
    /// above the step's.
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError>;

    /// All that is staged and not yet published, in no particular order.
    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError>;

    /// Removes entries from what is staged, whoever staged them. Unknown ids are fine.
    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError>;

    /// The commit records of every split of a sink.
    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError>;

    /// The sinks that have commit records.
    fn sinks(&self) -> Result<Vec<SinkId>, StoreError>;

    /// The plan that wrote these records last.
    fn plan(&self) -> Result<Option<StoredPlan>, StoreError>;

    /// Replaces it.
    fn set_plan(&self, plan: &StoredPlan) -> Result<(), StoreError>;

    /// Small values that a plugin keeps with the pipeline, such as an inferred schema.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Sets one.
    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError>;
}

/// The plan under which commit records were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// A digest of everything that decides lanes and their contents.
    pub fingerprint: String,
    /// The pipeline file's text, so that a crashed run can be finished with it. Secrets are not filled in.
    pub text: String,
}

/// The store did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It may work again later; what was asked may or may not have happened.
    #[error("state store unavailable: {0}")]
    Unavailable(String),
    /// It will not work without the user.
    #[error("{0}")]
    Failed(String),
}

/// A commit was not applied.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Another instance has taken these splits.
    #[error("another instance has taken over {}", .0.iter().map(SplitId::as_str).collect::<Vec<_>>().join(", "))]
    Fenced(Vec<SplitId>),
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

/// A new [identity](StateStore::identity): 128 random bits from the operating system, in hexadecimal.
pub fn new_identity() -> Result<String, StoreError> {
    let mut random = [0u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|error| StoreError::Failed(format!("cannot read /dev/urandom: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
