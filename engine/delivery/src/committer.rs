//! The committer connects a sink's ledger and the store: one commit at a time, retried until the
//! store has answered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use thiserror::Error;

use crate::copies::PositionCopies;
use crate::{
    Claimant, Commit, CommitError, CommitRecord, LaneCommit, Ledger, Position, ResumeToken, SinkId,
    SplitCommit, SplitId, StagedEntry, StateStore, StoreError,
};

/// The wait before the first retry of a commit that the store did not answer; it doubles up to
/// [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Makes a sink's lanes durable in the store. Shared by the sink's writer threads, which may commit
/// at the same time.
pub struct Committer {
    sink: SinkId,
    store: Arc<dyn StateStore>,
    claimant: Claimant,
    ledger: Mutex<Ledger>,
    /// Held from preparing a step until it is confirmed, so that steps are strictly sequential.
    step: Mutex<()>,
    /// The ids that are published and still in the store; removed with the next step.
    published: Mutex<Vec<String>>,
    positions: Positions,
    /// If the target holds the positions: what the store knows of them.
    copies: Mutex<PositionCopies>,
    seen: Arc<AcknowledgedVersions>,
    unreachable: AtomicBool,
    abandoned: Arc<AtomicBool>,
    /// Whether a step was abandoned without an answer. It may have been applied, so the sequence
    /// that the next step must expect is unknown.
    has_given_up: AtomicBool,
    wait: WaitFn,
}

/// How to wait before retrying a store that did not answer.
type WaitFn = Arc<dyn Fn(Duration) + Send + Sync>;

/// A split that was taken and is about to be read.
#[derive(Clone, Debug)]
pub struct SplitToBegin {
    /// The split.
    pub split: SplitId,
    /// The record that [`Committer::take`] returned.
    pub record: CommitRecord,
    /// Where to start a split that was never begun.
    pub start: Position,
    /// What the source needs beside that position.
    pub resume: Option<ResumeToken>,
}

/// The last epoch and sequence of each split that the store acknowledged to this process. It
/// outlives a committer, so that a restarted run notices a store that has lost data in between.
#[derive(Debug, Default)]
pub struct AcknowledgedVersions(Mutex<HashMap<SplitId, (u64, u64)>>);

impl AcknowledgedVersions {
    fn note(&self, split: &SplitId, epoch: u64, sequence: u64) {
        self.0.lock().insert(split.clone(), (epoch, sequence));
    }

    fn forget(&self, split: &SplitId) {
        self.0.lock().remove(split);
    }

    /// A takeover must have raised the epoch, and nothing lowers a sequence.
    fn check(&self, split: &SplitId, record: &CommitRecord) -> Result<(), CommitterError> {
        match self.0.lock().get(split) {
            Some((epoch, sequence)) if record.epoch <= *epoch || record.sequence < *sequence => {
                let (found_epoch, found) = (record.epoch, record.sequence);
                let what = format!(
                    "it shows epoch {found_epoch} and commit {found} of {split}, after epoch \
                     {epoch} and commit {sequence}"
                );
                Err(CommitterError::Fatal(lost_data(&what)))
            }
            _ => Ok(()),
        }
    }
}

fn lost_data(what: &str) -> String {
    format!(
        "the state store has lost data or was restored from an older copy: {what}. Continuing \
         would lose or duplicate records. Restore the store to its last state; or, to start over \
         in an empty target, rename the stages whose state was lost"
    )
}

/// Where a sink's low positions are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// In the state store, by the protocol's atomic step.
    InStore,
    /// In the target, in the same transaction as the records; the store holds epochs and owners.
    InTarget,
}

/// Why a commit was abandoned.
#[derive(Debug, Error)]
pub enum CommitterError {
    /// Another instance has the splits: discard the lanes and restart from the store.
    #[error("{0}")]
    Fenced(CommitError),
    /// The store shows an impossible state; continuing would lose or duplicate records.
    #[error("{0}")]
    Fatal(String),
    /// Another plan has left lanes ahead in a split. Only that plan can continue them.
    #[error("{split} was left by another version of the pipeline with {lanes} lanes ahead")]
    OtherPlan {
        /// The first such split.
        split: SplitId,
        /// The fingerprint of that plan, if it is known.
        plan: Option<String>,
        /// How many lanes are ahead.
        lanes: usize,
    },
    /// The run is leaving and does not wait any longer.
    #[error("stopped before the state store answered")]
    Stopped,
}

impl Committer {
    /// Creates the committer of `sink` for one instance. When `abandoned` becomes true, commits
    /// stop waiting for a store that does not answer.
    pub fn new(
        sink: SinkId,
        store: Arc<dyn StateStore>,
        claimant: Claimant,
        positions: Positions,
        abandoned: Arc<AtomicBool>,
    ) -> Self {
        Committer {
            sink,
            store,
            claimant,
            ledger: Mutex::new(Ledger::default()),
            step: Mutex::new(()),
            published: Mutex::new(Vec::new()),
            positions,
            copies: Mutex::default(),
            seen: Arc::default(),
            unreachable: AtomicBool::new(false),
            abandoned,
            has_given_up: AtomicBool::new(false),
            // Parked instead of asleep: a thread that learns that the store is back can wake this
            // one, and an early wake-up does no harm.
            wait: Arc::new(std::thread::park_timeout),
        }
    }

    /// The same committer, which records in `seen` what the store has acknowledged. All committers
    /// of a sink in one process share it.
    pub fn with_acknowledged(mut self, seen: Arc<AcknowledgedVersions>) -> Self {
        self.seen = seen;
        self
    }

    /// The same committer, which calls `wait` before it retries a store that did not answer. `wait`
    /// may return early.
    pub fn with_wait(mut self, wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.wait = Arc::new(wait);
        self
    }

    /// The sink whose lanes are committed.
    pub fn sink(&self) -> &SinkId {
        &self.sink
    }

    /// The committing instance.
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    /// Whether the store did not answer the last request.
    pub fn store_is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Raises the epochs of splits and returns their records, each with its previous owners. Call
    /// [`Committer::begin`] next.
    ///
    /// # Errors
    /// [`CommitterError::OtherPlan`] if another plan has left lanes ahead in one of them. The
    /// epochs are raised all the same, so the instance with that plan must take the splits again.
    pub fn take(&self, splits: &[SplitId]) -> Result<Vec<CommitRecord>, CommitterError> {
        let records =
            self.until_answered(
                || match self.store.take(&self.sink, splits, &self.claimant) {
                    Err(CommitError::Store(error)) => Err(error),
                    other => Ok(other),
                },
            )?;
        let records = records.map_err(CommitterError::Fenced)?;
        for (split, record) in splits.iter().zip(&records) {
            self.seen.check(split, record)?;
        }
        let is_other = |record: &CommitRecord| {
            !record.ahead.is_empty() && record.plan.as_ref() != Some(&self.claimant.plan)
        };
        match splits
            .iter()
            .zip(&records)
            .find(|(_, record)| !self.claimant.accepts_other_plans && is_other(record))
        {
            Some((split, record)) => Err(CommitterError::OtherPlan {
                split: split.clone(),
                plan: record.plan.clone(),
                lanes: record.ahead.len(),
            }),
            None => Ok(records),
        }
    }

    /// Makes this instance the sole owner of splits whose earlier owners are fenced: they cannot
    /// commit anything any more. `taken` has the splits with the epochs that [`Committer::take`]
    /// returned.
    pub fn become_sole_owner(&self, taken: &[(SplitId, u64)]) -> Result<(), CommitterError> {
        self.until_answered(|| {
            self.store
                .set_owner(&self.sink, taken, Some(&self.claimant.owner))
        })
    }

    /// Fences a dead instance off, whatever splits it has. After this returns, nothing that it ever
    /// sent is applied; see [`StateStore::fence`].
    pub fn fence(&self, owner: &str) -> Result<(), CommitterError> {
        self.until_answered(|| self.store.fence(&self.sink, owner))
    }

    /// The instances that are owners in a commit record of the sink. All others must take splits
    /// before they can commit anything.
    pub fn owners(&self) -> Result<BTreeSet<String>, CommitterError> {
        self.until_answered(|| self.store.owners(&self.sink))
    }

    /// Removes splits that were finished at least `retention` ago and for which `is_gone` returns
    /// true: the source does not find them any more. Returns their number.
    pub fn forget_finished(
        &self,
        retention: Duration,
        is_gone: impl Fn(&SplitId) -> bool,
    ) -> Result<usize, CommitterError> {
        let until = now().saturating_sub(retention.as_secs());
        let records = self.until_answered(|| self.store.records(&self.sink))?;
        let is_over = |record: &CommitRecord| record.finished.is_some_and(|at| at <= until);
        let over: Vec<SplitId> = records
            .into_iter()
            .filter(|(split, record)| is_over(record) && is_gone(split))
            .map(|(split, _)| split)
            .collect();
        self.until_answered(|| self.store.forget_splits(&self.sink, &over))?;
        Ok(over.len())
    }

    /// Starts to own the splits. The start of splits that were never begun is stored first, in one
    /// step for all of them: a start such as "the latest" must mean the same after a crash.
    pub fn begin(&self, mut splits: Vec<SplitToBegin>) -> Result<(), CommitterError> {
        let _step = self.step.lock();
        let is_new = |begin: &&SplitToBegin| begin.record.low.is_none();
        let first = |begin: &SplitToBegin| SplitCommit {
            resume: begin.resume.clone(),
            ..SplitCommit::to_low(
                begin.split.clone(),
                begin.record.epoch,
                begin.record.sequence,
                begin.start,
            )
        };
        let begun: Vec<SplitCommit> = splits.iter().filter(is_new).map(first).collect();
        if !begun.is_empty() {
            self.commit_until_answered(&self.step_of(begun, Vec::new(), Vec::new()))?;
        }
        let mut ledger = self.ledger.lock();
        for begin in &mut splits {
            if begin.record.low.is_none() {
                begin.record.sequence += 1;
                begin.record.low = Some(begin.start);
                begin.record.resume = begin.resume.take();
            }
        }
        let mut copies = self.copies.lock();
        for begin in splits {
            self.seen
                .note(&begin.split, begin.record.epoch, begin.record.sequence);
            if self.positions == Positions::InTarget {
                copies.take(begin.split.clone(), &begin.record);
            }
            ledger.take(begin.split, begin.record, begin.start);
        }
        Ok(())
    }

    fn step_of(
        &self,
        splits: Vec<SplitCommit>,
        staged: Vec<StagedEntry>,
        published: Vec<String>,
    ) -> Commit {
        Commit {
            owner: self.claimant.owner.clone(),
            splits,
            staged,
            published,
        }
    }

    /// Locks the ledger, to dispatch a whole unit at once.
    pub fn ledger(&self) -> parking_lot::MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Makes lanes durable in one atomic step, with the entries that are staged for them. Blocks
    /// until the store has answered.
    pub fn commit(
        &self,
        lanes: &[LaneCommit],
        staged: Vec<StagedEntry>,
    ) -> Result<(), CommitterError> {
        self.commit_through(lanes, |splits| {
            let commit = self.step_of(splits.to_vec(), staged, self.published.lock().clone());
            self.commit_until_answered(&commit)?;
            self.forgotten(&commit.published);
            Ok(())
        })
    }

    /// Drops ids that the store has removed.
    fn forgotten(&self, published: &[String]) {
        let forgotten: HashSet<&String> = published.iter().collect();
        self.published.lock().retain(|id| !forgotten.contains(id));
    }

    /// Like [`Committer::commit`] for a sink whose target holds the positions: `apply` writes them
    /// there, in the same transaction as the records. Without lanes, the step contains the
    /// positions that moved because records were filtered out; `apply` is not called if none did.
    pub fn commit_through(
        &self,
        lanes: &[LaneCommit],
        apply: impl FnOnce(&[SplitCommit]) -> Result<(), CommitterError>,
    ) -> Result<(), CommitterError> {
        let _step = self.step.lock();
        let prepared = {
            let ledger = self.ledger.lock();
            let named = lanes
                .iter()
                .flat_map(|lane| &lane.splits)
                .map(|(split, _)| split);
            let lost: Vec<SplitId> = named.filter(|split| !ledger.has(split)).cloned().collect();
            if !lost.is_empty() {
                return Err(CommitterError::Fenced(CommitError::Fenced(lost)));
            }
            if lanes.is_empty() {
                ledger.prepare_idle(now())
            } else {
                ledger.prepare(lanes, now())
            }
        };
        if prepared.is_empty() {
            return Ok(());
        }
        apply(&prepared)?;
        self.ledger.lock().confirm(lanes, &prepared);
        Ok(())
    }

    /// Writes the low positions that moved although no lane was committed (records that were
    /// filtered out), and removes published entries. If the target holds the positions, the sink's
    /// writer does that, with [`Committer::commit_through`]; then this copies the target's current
    /// positions into the store.
    pub fn commit_idle(&self) -> Result<(), CommitterError> {
        if self.positions == Positions::InTarget {
            return self.copy_positions();
        }
        let _step = self.step.lock();
        let splits = self.ledger.lock().prepare_idle(now());
        let published = self.published.lock().clone();
        if splits.is_empty() && published.is_empty() {
            return Ok(());
        }
        let commit = self.step_of(splits, Vec::new(), published);
        self.commit_until_answered(&commit)?;
        self.forgotten(&commit.published);
        self.ledger.lock().confirm(&[], &commit.splits);
        Ok(())
    }

    /// Does not wait for a step in progress: the target may not answer for long, and what it has
    /// acknowledged can be copied meanwhile.
    fn copy_positions(&self) -> Result<(), CommitterError> {
        let mut copies = self.copies.lock();
        let splits = copies.prepare(&self.ledger.lock());
        if splits.is_empty() {
            return Ok(());
        }
        let commit = self.step_of(splits, Vec::new(), Vec::new());
        self.commit_until_answered(&commit)?;
        copies.confirm(&commit.splits);
        Ok(())
    }

    /// The entries that are staged in the store and not yet published. Blocks until the store has
    /// answered.
    pub fn staged(&self) -> Result<Vec<StagedEntry>, CommitterError> {
        self.until_answered(|| self.store.staged(&self.sink))
    }

    /// Notes that the entries with these ids are visible now; the next step removes them from the
    /// store.
    pub fn published(&self, ids: impl IntoIterator<Item = String>) {
        self.published.lock().extend(ids);
    }

    /// Releases splits: everything of them must have been committed. Another instance can take them
    /// at once.
    pub fn release(&self, splits: &[SplitId]) -> Result<(), CommitterError> {
        self.commit_idle()?;
        let held: Vec<_> = {
            let mut ledger = self.ledger.lock();
            splits
                .iter()
                .filter_map(|split| {
                    ledger
                        .drop_split(split)
                        .map(|(epoch, finished)| (split.clone(), epoch, finished))
                })
                .collect()
        };
        self.copies.lock().drop_splits(splits);
        for (split, _, _) in held.iter().filter(|(_, _, finished)| *finished) {
            // It will hardly be taken again, and there may be millions of finished splits.
            self.seen.forget(split);
        }
        let held: Vec<_> = held
            .into_iter()
            .map(|(split, epoch, _)| (split, epoch))
            .collect();
        self.release_unbegun(&held)
    }

    /// Releases splits that were taken and not begun, under the epochs that [`Committer::take`]
    /// returned.
    pub fn release_unbegun(&self, taken: &[(SplitId, u64)]) -> Result<(), CommitterError> {
        if taken.is_empty() {
            return Ok(());
        }
        self.until_answered(|| self.store.set_owner(&self.sink, taken, None))
    }

    fn commit_until_answered(&self, commit: &Commit) -> Result<(), CommitterError> {
        if self.has_given_up.load(Ordering::Relaxed) {
            return Err(CommitterError::Stopped);
        }
        let mut asked_before = false;
        let outcome = self.until_answered(|| {
            let answer = match self.store.commit(&self.sink, commit) {
                Err(CommitError::Store(error)) => Err(error),
                // The answer to an earlier attempt was lost: only this committer can have written
                // this sequence under this epoch.
                Err(CommitError::Sequence {
                    expected, found, ..
                }) if asked_before && found == expected + 1 => Ok(Ok(())),
                other => Ok(other),
            };
            asked_before = true;
            answer
        });
        self.has_given_up
            .fetch_or(outcome.is_err(), Ordering::Relaxed);
        let outcome = outcome?;
        match outcome {
            Ok(()) => {
                commit
                    .splits
                    .iter()
                    .for_each(|step| self.seen.note(&step.split, step.epoch, step.sequence + 1));
                Ok(())
            }
            Err(fenced @ (CommitError::Fenced(_) | CommitError::OwnerFenced(_))) => {
                Err(CommitterError::Fenced(fenced))
            }
            Err(other) => Err(CommitterError::Fatal(lost_data(&other.to_string()))),
        }
    }

    fn until_answered<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, CommitterError> {
        let mut wait = FIRST_WAIT;
        loop {
            match ask() {
                Ok(answer) => {
                    if self.unreachable.swap(false, Ordering::Relaxed) {
                        tracing::info!(sink = %self.sink, "state store answers again");
                    }
                    return Ok(answer);
                }
                Err(StoreError::Failed(reason)) => return Err(CommitterError::Fatal(reason)),
                Err(StoreError::Unavailable(reason)) => {
                    if !self.unreachable.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            sink = %self.sink,
                            reason,
                            "state store does not answer; nothing is committed until it does"
                        );
                    }
                }
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(CommitterError::Stopped);
            }
            (self.wait)(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// The wall-clock time in seconds since 1970. It is stored for people and for retention; no step
/// depends on it.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
