//! A store in memory that does not always answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::store::{SplitVersion, refusal};
use pseidon_delivery::{
    Claimant, Commit, CommitError, CommitRecord, InstanceId, SinkId, SplitCommit, SplitId,
    StagedEntry, StagedId, StateStore, StoreError, StoredPlan, conformance,
};

#[derive(Default)]
struct Content {
    identity: Option<String>,
    records: BTreeMap<(SinkId, SplitId), CommitRecord>,
    staged: BTreeMap<(SinkId, StagedId), String>,
    fenced: BTreeSet<(SinkId, InstanceId)>,
    plans: HashMap<String, String>,
    notes: HashMap<String, String>,
}

/// The fate of the next requests to commit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Answered,
    /// The request does not arrive.
    Unheard,
    /// The step is applied, but the answer is lost.
    AnswerLost,
}

#[derive(Clone, Default)]
pub(crate) struct MemoryStore {
    content: Arc<Mutex<Content>>,
    pub(crate) fates: Arc<Mutex<Vec<Fate>>>,
}

impl Content {
    fn is_fenced(&self, sink: &SinkId, owner: &InstanceId) -> bool {
        self.fenced.contains(&(sink.clone(), owner.clone()))
    }

    fn record(&self, sink: &SinkId, split: &SplitId) -> CommitRecord {
        let record = self.records.get(&(sink.clone(), split.clone()));
        record.cloned().unwrap_or_default()
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

    fn apply(&mut self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let shown = |step: &SplitCommit| {
            let record = self.record(sink, &step.split);
            SplitVersion {
                epoch: record.epoch,
                sequence: record.sequence,
            }
        };
        let shown: Vec<SplitVersion> = commit.splits.iter().map(shown).collect();
        if let Some(refused) = refusal(
            &commit.owner,
            self.is_fenced(sink, &commit.owner),
            &commit.splits,
            &shown,
        ) {
            return Err(refused);
        }
        for step in &commit.splits {
            let record = self
                .records
                .entry((sink.clone(), step.split.clone()))
                .or_default();
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
}

impl MemoryStore {
    fn commit_one(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let fate = self.fates.lock().pop().unwrap_or(Fate::Answered);
        let unanswered = || {
            // The committer must not wait for the store to come back.
            std::thread::current().unpark();
            Err(StoreError::Unavailable("no answer".into()).into())
        };
        if fate == Fate::Unheard {
            return unanswered();
        }
        let answer = self.content.lock().apply(sink, commit);
        if fate == Fate::AnswerLost {
            unanswered()
        } else {
            answer
        }
    }
}

impl StateStore for MemoryStore {
    fn identity(&self) -> Result<String, StoreError> {
        let mut content = self.content.lock();
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
        let mut content = self.content.lock();
        if content.is_fenced(sink, owner) {
            return Err(CommitError::OwnerFenced(owner.clone()));
        }
        let take = |split: &SplitId| {
            let record = content
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

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        let taken_since = self.content.lock().change_held(sink, splits, |record| {
            record.owners = vec![claimant.owner.clone()];
            record.plan = Some(claimant.plan.clone());
        });
        if taken_since.is_empty() {
            Ok(())
        } else {
            Err(CommitError::Fenced(taken_since))
        }
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        let mut content = self.content.lock();
        content.change_held(sink, splits, |record| record.owners.clear());
        Ok(())
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        let owners = self.owners(sink)?;
        let mut content = self.content.lock();
        content
            .fenced
            .retain(|(of, other)| of != sink || owners.contains(other));
        content.fenced.insert((sink.clone(), owner.clone()));
        Ok(())
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        let content = self.content.lock();
        Ok(content
            .records
            .iter()
            .filter(|((of, _), _)| of == sink)
            .flat_map(|(_, record)| record.owners.clone())
            .collect())
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        steps
            .iter()
            .map(|(sink, commit)| self.commit_one(sink, commit))
            .collect()
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        let content = self.content.lock();
        let of_sink = content.staged.iter().filter(|((of, _), _)| of == sink);
        Ok(of_sink
            .map(|((_, id), detail)| StagedEntry {
                id: id.clone(),
                detail: detail.clone(),
            })
            .collect())
    }

    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError> {
        self.content
            .lock()
            .staged
            .retain(|(of, id), _| of != sink || !ids.contains(id));
        Ok(())
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let content = self.content.lock();
        let of_sink = content.records.iter().filter(|((of, _), _)| of == sink);
        Ok(of_sink
            .map(|((_, split), record)| (split.clone(), record.clone()))
            .collect())
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        let content = self.content.lock();
        Ok(splits
            .iter()
            .map(|split| content.record(sink, split))
            .collect())
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let sinks: BTreeSet<SinkId> = self
            .content
            .lock()
            .records
            .keys()
            .map(|(sink, _)| sink.clone())
            .collect();
        Ok(sinks.into_iter().collect())
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        let is_over = |record: &CommitRecord| {
            record.finished.is_some() && record.owners.is_empty() && record.ahead.is_empty()
        };
        self.content.lock().records.retain(|(of, split), record| {
            of != sink || !splits.contains(split) || !is_over(record)
        });
        Ok(())
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.content.lock().plans.keys().cloned().collect())
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        Ok(self.content.lock().plans.get(fingerprint).cloned())
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.content
            .lock()
            .plans
            .insert(plan.fingerprint.clone(), plan.text.clone());
        Ok(())
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        self.content
            .lock()
            .plans
            .retain(|fingerprint, _| !fingerprints.contains(fingerprint));
        Ok(())
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.content.lock().notes.get(key).cloned())
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.content.lock().notes.insert(key.into(), value.into());
        Ok(())
    }
}

#[test]
fn the_store_passes_the_conformance_suite() {
    let stores: Mutex<HashMap<String, MemoryStore>> = Mutex::default();
    conformance::check(&|pipeline| {
        Box::new(stores.lock().entry(pipeline.into()).or_default().clone())
    });
}
