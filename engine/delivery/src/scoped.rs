//! Many runs in one store.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{Commit, CommitError, CommitRecord, SinkId, SplitId, Staged, StateStore, StoreError, StoredPlan};

/// Parts a scope's name from what is in it. Neither a scope's name nor the name of a sink of the store itself may hold it.
const SEPARATOR: char = '/';

/// A part of another store: a run in it sees its own sinks, plan and notes only. So hundreds of runs share one connection or file.
pub struct ScopedStore {
    whole: Arc<dyn StateStore>,
    prefix: String,
}

impl ScopedStore {
    /// The part of `whole` that belongs to `scope`, a name without a slash.
    pub fn new(whole: Arc<dyn StateStore>, scope: &str) -> ScopedStore {
        debug_assert!(!scope.contains(SEPARATOR), "a scope's name holds no separator");
        ScopedStore { whole, prefix: format!("{scope}{SEPARATOR}") }
    }

    fn sink(&self, sink: &SinkId) -> SinkId {
        SinkId::from(format!("{}{sink}", self.prefix))
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl StateStore for ScopedStore {
    /// Unlike that of any other scope, since files of runs are told apart by it.
    fn identity(&self) -> Result<String, StoreError> {
        let whole = self.whole.identity()?;
        let digest = Sha256::digest(format!("{whole}{SEPARATOR}{}", self.prefix));
        Ok(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// None: they are those of the whole store, and whoever opened that tells them once.
    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn take(&self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, StoreError> {
        self.whole.take(&self.sink(sink), splits, owner)
    }

    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError> {
        self.whole.set_owner(&self.sink(sink), splits, owner)
    }

    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.whole.commit(&self.sink(sink), commit)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError> {
        self.whole.staged(&self.sink(sink))
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        self.whole.forget(&self.sink(sink), ids)
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        self.whole.records(&self.sink(sink))
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let all = self.whole.sinks()?;
        Ok(all.iter().filter_map(|sink| sink.as_str().strip_prefix(&self.prefix)).map(SinkId::from).collect())
    }

    /// The plan of a scope is two notes, of which the fingerprint is written last: without it there is no plan.
    fn plan(&self) -> Result<Option<StoredPlan>, StoreError> {
        let Some(fingerprint) = self.whole.note(&self.key("plan"))? else { return Ok(None) };
        let text = self.whole.note(&self.key("plan-text"))?.unwrap_or_default();
        Ok(Some(StoredPlan { fingerprint, text }))
    }

    fn set_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.whole.set_note(&self.key("plan-text"), &plan.text)?;
        self.whole.set_note(&self.key("plan"), &plan.fingerprint)
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.whole.note(&self.key(key))
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.whole.set_note(&self.key(key), value)
    }
}
