//! Scopes: many runs in one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, InstanceId, SinkId, SplitId,
    StagedEntry, StagedId, StateStore, StoreError, StoredPlan,
};

/// Separates a scope's name from the names in it. Neither a scope's name nor the name of a sink of
/// the store itself may contain it.
const SEPARATOR: char = '/';

/// A part of another store: a run in it sees only its own sinks, plan and notes. So hundreds of
/// runs share one connection or file.
pub struct ScopedStore {
    whole: Arc<dyn StateStore>,
    prefix: String,
}

impl ScopedStore {
    /// Creates the part of `whole` that belongs to `scope`, a name without a slash.
    pub fn new(whole: Arc<dyn StateStore>, scope: &str) -> ScopedStore {
        debug_assert!(
            !scope.contains(SEPARATOR),
            "a scope's name must not contain the separator"
        );
        ScopedStore {
            whole,
            prefix: format!("{scope}{SEPARATOR}"),
        }
    }

    fn sink(&self, sink: &SinkId) -> SinkId {
        SinkId::from(format!("{}{sink}", self.prefix))
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl StateStore for ScopedStore {
    /// Differs from that of any other scope, since it distinguishes the files of runs.
    fn identity(&self) -> Result<String, StoreError> {
        let whole = self.whole.identity()?;
        let digest = Sha256::digest(format!("{whole}{SEPARATOR}{}", self.prefix));
        Ok(digest
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// Always empty: the weaknesses are those of the whole store, and are reported once, by the
    /// code that opened it.
    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        self.whole.take(&self.sink(sink), splits, owner)
    }

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        self.whole.hold(&self.sink(sink), splits, claimant)
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        self.whole.release(&self.sink(sink), splits)
    }

    /// The names of sources are scoped, and with them their splits: a claim belongs to one source.
    fn claim(&self, source: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        self.whole.claim(&self.key(source), round)
    }

    fn unclaim(
        &self,
        source: &str,
        splits: &[SplitId],
        owner: &InstanceId,
        leaves: bool,
    ) -> Result<(), StoreError> {
        self.whole.unclaim(&self.key(source), splits, owner, leaves)
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        self.whole.fence(&self.sink(sink), owner)
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        self.whole.owners(&self.sink(sink))
    }

    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.whole.commit(&self.sink(sink), commit)
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let sinks: Vec<SinkId> = steps.iter().map(|(sink, _)| self.sink(sink)).collect();
        let steps: Vec<_> = sinks
            .iter()
            .zip(steps)
            .map(|(sink, (_, commit))| (sink, *commit))
            .collect();
        self.whole.commit_many(&steps)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        self.whole.staged(&self.sink(sink))
    }

    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError> {
        self.whole.forget(&self.sink(sink), ids)
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        self.whole.records(&self.sink(sink))
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        self.whole.records_of(&self.sink(sink), splits)
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        self.whole.forget_splits(&self.sink(sink), splits)
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let all = self.whole.sinks()?;
        Ok(all
            .iter()
            .filter_map(|sink| sink.as_str().strip_prefix(&self.prefix))
            .map(SinkId::from)
            .collect())
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        let all = self.whole.plans()?;
        Ok(all
            .iter()
            .filter_map(|fingerprint| fingerprint.strip_prefix(&self.prefix))
            .map(str::to_owned)
            .collect())
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        self.whole.plan(&self.key(fingerprint))
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.whole.add_plan(&StoredPlan {
            fingerprint: self.key(&plan.fingerprint),
            text: plan.text.clone(),
        })
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        let keys: Vec<String> = fingerprints
            .iter()
            .map(|fingerprint| self.key(fingerprint))
            .collect();
        self.whole.forget_plans(&keys)
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.whole.note(&self.key(key))
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.whole.set_note(&self.key(key), value)
    }
}
