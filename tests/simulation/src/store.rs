//! The state store's content, in memory: what a store answers, without any network in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::{Commit, CommitError, CommitRecord, SinkId, SplitId, Staged, StateStore, StoreError, StoredPlan};

/// Everything that one pipeline's store holds.
#[derive(Clone, Default)]
pub struct Content {
    identity: Option<String>,
    records: BTreeMap<(SinkId, SplitId), CommitRecord>,
    staged: BTreeMap<(SinkId, String), String>,
    plan: Option<StoredPlan>,
    notes: HashMap<String, String>,
}

impl Content {
    /// The record of a split.
    pub fn record(&self, sink: &SinkId, split: &SplitId) -> CommitRecord {
        self.records.get(&(sink.clone(), split.clone())).cloned().unwrap_or_default()
    }

    /// Every record.
    pub fn all_records(&self) -> impl Iterator<Item = (&SinkId, &SplitId, &CommitRecord)> {
        self.records.iter().map(|((sink, split), record)| (sink, split, record))
    }

    /// Every staged entry.
    pub fn all_staged(&self) -> impl Iterator<Item = (&SinkId, &str)> {
        self.staged.keys().map(|(sink, id)| (sink, id.as_str()))
    }

    /// [`StateStore::take`]
    pub fn take(&mut self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Vec<CommitRecord> {
        let take = |split: &SplitId| {
            let record = self.records.entry((sink.clone(), split.clone())).or_default();
            record.epoch += 1;
            record.owners.retain(|other| other != owner);
            let before = record.clone();
            record.owners.push(owner.into());
            before
        };
        splits.iter().map(take).collect()
    }

    /// [`StateStore::set_owner`]
    pub fn set_owner(&mut self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) {
        for (split, epoch) in splits {
            if let Some(record) = self.records.get_mut(&(sink.clone(), split.clone()))
                && record.epoch == *epoch
            {
                record.owners = owner.iter().map(|owner| (*owner).to_owned()).collect();
            }
        }
    }

    /// [`StateStore::commit`]
    pub fn commit(&mut self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.check(sink, commit)?;
        for step in &commit.splits {
            let record = self.records.entry((sink.clone(), step.split.clone())).or_default();
            record.sequence += 1;
            record.low = Some(step.low);
            record.ahead.extend(step.ahead.iter().cloned());
            for lane in &step.caught_up {
                record.ahead.remove(lane);
            }
        }
        for id in &commit.published {
            self.staged.remove(&(sink.clone(), id.clone()));
        }
        self.staged.extend(commit.staged.iter().map(|entry| ((sink.clone(), entry.id.clone()), entry.detail.clone())));
        Ok(())
    }

    /// The gravest reason first.
    fn check(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let shown: Vec<(u64, u64)> = commit.splits.iter().map(|step| self.epoch_and_sequence(sink, &step.split)).collect();
        let steps = || commit.splits.iter().zip(&shown);
        for (step, (found, _)) in steps() {
            if *found < step.epoch {
                return Err(CommitError::Epoch { split: step.split.clone(), expected: step.epoch, found: *found });
            }
        }
        let sequence_error = |is_wrong: fn(u64, u64) -> bool| {
            let (step, (_, found)) = steps().find(|(step, (_, found))| is_wrong(*found, step.sequence))?;
            Some(CommitError::Sequence { split: step.split.clone(), expected: step.sequence, found: *found })
        };
        if let Some(lost) = sequence_error(|found, expected| found < expected) {
            return Err(lost);
        }
        let fenced: Vec<SplitId> = steps().filter(|(step, (epoch, _))| *epoch > step.epoch).map(|(step, _)| step.split.clone()).collect();
        if !fenced.is_empty() {
            return Err(CommitError::Fenced(fenced));
        }
        sequence_error(|found, expected| found > expected).map_or(Ok(()), Err)
    }

    fn epoch_and_sequence(&self, sink: &SinkId, split: &SplitId) -> (u64, u64) {
        self.records.get(&(sink.clone(), split.clone())).map_or((0, 0), |record| (record.epoch, record.sequence))
    }

    /// [`StateStore::staged`]
    pub fn staged(&self, sink: &SinkId) -> Vec<Staged> {
        let of_sink = self.staged.iter().filter(|((of, _), _)| of == sink);
        of_sink.map(|((_, id), detail)| Staged { id: id.clone(), detail: detail.clone() }).collect()
    }

    /// [`StateStore::plan`]
    pub fn plan(&self) -> Option<StoredPlan> {
        self.plan.clone()
    }

    /// [`StateStore::set_plan`]
    pub fn set_plan(&mut self, plan: &StoredPlan) {
        self.plan = Some(plan.clone());
    }
}

/// The store without a network: every call is answered at once.
#[derive(Clone, Default)]
pub struct Direct(Arc<Mutex<Content>>);

impl StateStore for Direct {
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

    fn take(&self, sink: &SinkId, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, StoreError> {
        Ok(self.0.lock().take(sink, splits, owner))
    }

    fn set_owner(&self, sink: &SinkId, splits: &[(SplitId, u64)], owner: Option<&str>) -> Result<(), StoreError> {
        self.0.lock().set_owner(sink, splits, owner);
        Ok(())
    }

    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.0.lock().commit(sink, commit)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<Staged>, StoreError> {
        Ok(self.0.lock().staged(sink))
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        self.0.lock().staged.retain(|(of, id), _| of != sink || !ids.contains(id));
        Ok(())
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let content = self.0.lock();
        let of_sink = content.records.iter().filter(|((of, _), _)| of == sink);
        Ok(of_sink.map(|((_, split), record)| (split.clone(), record.clone())).collect())
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let sinks: BTreeSet<SinkId> = self.0.lock().records.keys().map(|(sink, _)| sink.clone()).collect();
        Ok(sinks.into_iter().collect())
    }

    fn plan(&self) -> Result<Option<StoredPlan>, StoreError> {
        Ok(self.0.lock().plan())
    }

    fn set_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.0.lock().set_plan(plan);
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
