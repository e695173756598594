//! The content of the state store, in memory: the answers of a store, without a network.

mod claims;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::store::{SplitVersion, refusal};
use pseidon_delivery::{
    Claimant, Commit, CommitError, CommitRecord, InstanceId, SinkId, SplitId, StagedEntry,
    StagedId, StateStore, StoreError, StoredPlan,
};

pub use self::claims::SharedSource;

/// The content of one pipeline's store.
#[derive(Clone, Default)]
pub struct StoreContent {
    identity: Option<String>,
    records: BTreeMap<(SinkId, SplitId), CommitRecord>,
    staged: BTreeMap<(SinkId, StagedId), String>,
    fenced: BTreeSet<(SinkId, InstanceId)>,
    plans: BTreeMap<String, String>,
    notes: HashMap<String, String>,
    shared: SharedSource,
}

impl StoreContent {
    /// The record of a split.
    pub fn record(&self, sink: &SinkId, split: &SplitId) -> CommitRecord {
        self.records
            .get(&(sink.clone(), split.clone()))
            .cloned()
            .unwrap_or_default()
    }

    /// Every record.
    pub fn all_records(&self) -> impl Iterator<Item = (&SinkId, &SplitId, &CommitRecord)> {
        self.records
            .iter()
            .map(|((sink, split), record)| (sink, split, record))
    }

    /// The id of every staged entry, with its sink.
    pub fn all_staged(&self) -> impl Iterator<Item = (&SinkId, &StagedId)> {
        self.staged.keys().map(|(sink, id)| (sink, id))
    }

    fn is_fenced(&self, sink: &SinkId, owner: &InstanceId) -> bool {
        self.fenced.contains(&(sink.clone(), owner.clone()))
    }

    /// [`StateStore::take`]
    pub fn take(
        &mut self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        if self.is_fenced(sink, owner) {
            return Err(CommitError::OwnerFenced(owner.clone()));
        }
        let take = |split: &SplitId| {
            let record = self
                .records
                .entry((sink.clone(), split.clone()))
                .or_default();
            record.epoch += 1;
            record.owners.retain(|other| other != owner);
            let before = record.clone();
            record.owners.push(owner.clone());
            before
        };
        Ok(splits.iter().map(take).collect())
    }

    /// [`StateStore::hold`]
    pub fn hold(
        &mut self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        let taken_since = self.change_held(sink, splits, |record| {
            record.owners = vec![claimant.owner.clone()];
            record.plan = Some(claimant.plan.clone());
        });
        if taken_since.is_empty() {
            Ok(())
        } else {
            Err(CommitError::Fenced(taken_since))
        }
    }

    /// [`StateStore::release`]
    pub fn release(&mut self, sink: &SinkId, splits: &[(SplitId, u64)]) {
        self.change_held(sink, splits, |record| record.owners.clear());
    }

    /// Changes the records of splits that are still held under these epochs. Returns the others.
    fn change_held(
        &mut self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        change: impl Fn(&mut CommitRecord),
    ) -> Vec<SplitId> {
        let mut others = Vec::new();
        for (split, epoch) in splits {
            let record = self.records.get_mut(&(sink.clone(), split.clone()));
            match record.filter(|record| record.epoch == *epoch) {
                Some(record) => change(record),
                None => others.push(split.clone()),
            }
        }
        others
    }

    /// [`StateStore::records_of`]
    pub fn records_of(&self, sink: &SinkId, splits: &[SplitId]) -> Vec<CommitRecord> {
        splits
            .iter()
            .map(|split| self.record(sink, split))
            .collect()
    }

    /// [`StateStore::sinks`]
    pub fn sinks(&self) -> Vec<SinkId> {
        let sinks: BTreeSet<SinkId> = self.records.keys().map(|(sink, _)| sink.clone()).collect();
        sinks.into_iter().collect()
    }

    /// [`StateStore::fence`]. Marks of owners without a record are dropped as soon as that is
    /// allowed.
    pub fn fence(&mut self, sink: &SinkId, owner: &InstanceId) {
        let owners = self.owners(sink);
        self.fenced
            .retain(|(of, other)| of != sink || owners.contains(other));
        self.fenced.insert((sink.clone(), owner.clone()));
    }

    /// [`StateStore::owners`]
    pub fn owners(&self, sink: &SinkId) -> BTreeSet<InstanceId> {
        self.all_records()
            .filter(|(of, _, _)| *of == sink)
            .flat_map(|(_, _, record)| record.owners.clone())
            .collect()
    }

    /// [`StateStore::commit`]
    pub fn commit(&mut self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let key = |split: &SplitId| (sink.clone(), split.clone());
        let shown = |split| {
            self.records
                .get(&key(split))
                .map_or(SplitVersion::default(), |record| SplitVersion {
                    epoch: record.epoch,
                    sequence: record.sequence,
                })
        };
        let shown: Vec<SplitVersion> = commit
            .splits
            .iter()
            .map(|step| shown(&step.split))
            .collect();
        if let Some(refused) = refusal(
            &commit.owner,
            self.is_fenced(sink, &commit.owner),
            &commit.splits,
            &shown,
        ) {
            return Err(refused);
        }
        for step in &commit.splits {
            let record = self.records.entry(key(&step.split)).or_default();
            record.sequence += 1;
            record.low = Some(step.low);
            record.ahead.extend(step.ahead.iter().cloned());
            for lane in &step.caught_up {
                record.ahead.remove(lane);
            }
            record.finished = step.finished;
            record.resume = step.resume.clone().or(record.resume.take());
        }
        for id in &commit.published {
            self.staged.remove(&(sink.clone(), id.clone()));
        }
        self.staged.extend(
            commit
                .staged
                .iter()
                .map(|entry| ((sink.clone(), entry.id.clone()), entry.detail.clone())),
        );
        Ok(())
    }

    /// The claims of the source that instances share.
    pub fn shared(&mut self) -> &mut SharedSource {
        &mut self.shared
    }

    /// [`StateStore::staged`]
    pub fn staged(&self, sink: &SinkId) -> Vec<StagedEntry> {
        let of_sink = self.staged.iter().filter(|((of, _), _)| of == sink);
        of_sink
            .map(|((_, id), detail)| StagedEntry {
                id: id.clone(),
                detail: detail.clone(),
            })
            .collect()
    }
}

/// The store without a network: every call is answered at once.
#[derive(Clone, Default)]
pub struct DirectStore(Arc<Mutex<StoreContent>>);

impl StateStore for DirectStore {
    fn identity(&self) -> Result<String, StoreError> {
        let mut content = self.0.lock();
        if content.identity.is_none() {
            content.identity = Some(pseidon_delivery::store::new_identity()?);
        }
        Ok(content.identity.clone().unwrap_or_default())
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec!["nothing survives the process".into()])
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        self.0.lock().take(sink, splits, owner)
    }

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        self.0.lock().hold(sink, splits, claimant)
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        self.0.lock().release(sink, splits);
        Ok(())
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        self.0.lock().fence(sink, owner);
        Ok(())
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        Ok(self.0.lock().owners(sink))
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let mut content = self.0.lock();
        steps
            .iter()
            .map(|(sink, commit)| content.commit(sink, commit))
            .collect()
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        Ok(self.0.lock().staged(sink))
    }

    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError> {
        self.0
            .lock()
            .staged
            .retain(|(of, id), _| of != sink || !ids.contains(id));
        Ok(())
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let content = self.0.lock();
        let of_sink = content.all_records().filter(|(of, _, _)| *of == sink);
        Ok(of_sink
            .map(|(_, split, record)| (split.clone(), record.clone()))
            .collect())
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        Ok(self.0.lock().records_of(sink, splits))
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        let is_over = |record: &CommitRecord| {
            record.finished.is_some() && record.owners.is_empty() && record.ahead.is_empty()
        };
        self.0.lock().records.retain(|(of, split), record| {
            of != sink || !splits.contains(split) || !is_over(record)
        });
        Ok(())
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        Ok(self.0.lock().sinks())
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.lock().plans.keys().cloned().collect())
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().plans.get(fingerprint).cloned())
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.0
            .lock()
            .plans
            .insert(plan.fingerprint.clone(), plan.text.clone());
        Ok(())
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        self.0
            .lock()
            .plans
            .retain(|plan, _| !fingerprints.contains(plan));
        Ok(())
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().notes.get(key).cloned())
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.0.lock().notes.insert(key.into(), value.into());
        Ok(())
    }
}
