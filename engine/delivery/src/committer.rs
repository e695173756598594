//! A sink's ledger and the store, brought together: one commit at a time, repeated until the store
//! has answered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use thiserror::Error;

use crate::copies::Copies;
use crate::{
    Claimant, Commit, CommitError, CommitRecord, LaneCommit, Ledger, Position, Resume, SinkId,
    SplitCommit, SplitId, Staged, StateStore, StoreError,
};

/// The wait before the first repetition of a commit that the store did not answer; it doubles up to
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
    /// Held from preparing a step until it is confirmed, so that steps follow one another.
    step: Mutex<()>,
    /// What is published and still named in the store; forgotten with the next step.
    published: Mutex<Vec<String>>,
    positions: Positions,
    /// Where the target holds the positions: what the store knows of them.
    copies: Mutex<Copies>,
    seen: Arc<Seen>,
    unreachable: AtomicBool,
    abandoned: Arc<AtomicBool>,
    /// Whether a step was given up without an answer. It may have been applied, so the next step
    /// would not know what it follows.
    has_given_up: AtomicBool,
    wait: Wait,
}

/// How to wait before a store that did not answer is asked again.
type Wait = Arc<dyn Fn(Duration) + Send + Sync>;

/// A split that was taken, about to be read.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The split.
    pub split: SplitId,
    /// As [`Committer::take`] returned it.
    pub record: CommitRecord,
    /// Where a split that was never begun starts.
    pub start: Position,
    /// What the source needs beside that position.
    pub resume: Option<Resume>,
}

/// The last epoch and sequence of each split that the store acknowledged to this process. It
/// outlives a committer, so that a run that starts anew notices a store that has lost data in
/// between.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<SplitId, (u64, u64)>>);

impl Seen {
    fn note(&self, split: &SplitId, epoch: u64, sequence: u64) {
        self.0.lock().insert(split.clone(), (epoch, sequence));
    }

    fn forget(&self, split: &SplitId) {
        self.0.lock().remove(split);
    }

    /// A take-over must have raised the epoch, and nothing lowers a sequence.
    fn check(&self, split: &SplitId, record: &CommitRecord) -> Result<(), Abandon> {
        match self.0.lock().get(split) {
            Some((epoch, sequence)) if record.epoch <= *epoch || record.sequence < *sequence => {
                let (found_epoch, found) = (record.epoch, record.sequence);
                let what = format!(
                    "it shows epoch {found_epoch} and commit {found} of {split}, after epoch {epoch} and commit {sequence}"
                );
                Err(Abandon::Fatal(lost_data(&what)))
            }
            _ => Ok(()),
        }
    }
}

fn lost_data(what: &str) -> String {
    format!(
        "the state store has lost data or was restored from an older copy: {what}. Going on would lose or double records: bring the store \
         back to its last state; or, to begin again in an empty target, give the stages that lost it other names"
    )
}

/// Where a sink's low positions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// In the state store, by the protocol's atomic step.
    InStore,
    /// In the target, in the same transaction as the records; the store holds epochs and owners.
    InTarget,
}

/// Why a commit was given up.
#[derive(Debug, Error)]
pub enum Abandon {
    /// Another instance has the splits: throw the lanes away and start anew from the store.
    #[error("{0}")]
    Fenced(CommitError),
    /// The store shows what cannot be; going on would lose or double records.
    #[error("{0}")]
    Fatal(String),
    /// Another plan has left lanes ahead in a split, which only that plan can continue.
    #[error("{split} was left by another version of the pipeline with {lanes} lanes ahead")]
    OtherPlan {
        /// The first such split.
        split: SplitId,
        /// The fingerprint of that plan, if it is known.
        plan: Option<String>,
        /// How many lanes are ahead.
        lanes: usize,
    },
    /// The run is being ended without waiting any longer.
    #[error("stopped before the state store answered")]
    Stopped,
}

impl Committer {
    /// The committer of `sink` for one instance. When `abandoned` becomes true, commits stop
    /// waiting for a store that does not answer.
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
            // Parked rather than asleep: a thread that knows that the store is back can wake this
            // one, and waking it too early does no harm.
            wait: Arc::new(std::thread::park_timeout),
        }
    }

    /// The same, remembering in `seen` what the store has acknowledged. All committers of a sink in
    /// one process share it.
    pub fn remembering(mut self, seen: Arc<Seen>) -> Self {
        self.seen = seen;
        self
    }

    /// The same, calling `wait` before a store that did not answer is asked again. It may return
    /// early.
    pub fn waiting_by(mut self, wait: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.wait = Arc::new(wait);
        self
    }

    /// The sink.
    pub fn sink(&self) -> &SinkId {
        &self.sink
    }

    /// The instance that commits.
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    /// Whether the store did not answer when it was asked last.
    pub fn store_is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Raises the epochs of splits and returns their records, each with its previous owners. Follow
    /// with [`Committer::begin`].
    ///
    /// # Errors
    /// [`Abandon::OtherPlan`] when another plan has left lanes ahead in one of them. The epochs are
    /// raised all the same, so that plan's instance has to take the splits again.
    pub fn take(&self, splits: &[SplitId]) -> Result<Vec<CommitRecord>, Abandon> {
        let records =
            self.until_answered(
                || match self.store.take(&self.sink, splits, &self.claimant) {
                    Err(CommitError::Store(error)) => Err(error),
                    other => Ok(other),
                },
            )?;
        let records = records.map_err(Abandon::Fenced)?;
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
            Some((split, record)) => Err(Abandon::OtherPlan {
                split: split.clone(),
                plan: record.plan.clone(),
                lanes: record.ahead.len(),
            }),
            None => Ok(records),
        }
    }

    /// The owners before this instance are cut off: nothing of theirs can be committed any more.
    /// `taken` are splits with the epochs that [`Committer::take`] returned.
    pub fn cut_off_others(&self, taken: &[(SplitId, u64)]) -> Result<(), Abandon> {
        self.until_answered(|| {
            self.store
                .set_owner(&self.sink, taken, Some(&self.claimant.owner))
        })
    }

    /// Cuts a dead instance off, whatever splits it has. After this returns, nothing that it ever
    /// sent is applied; see [`StateStore::fence`].
    pub fn fence(&self, owner: &str) -> Result<(), Abandon> {
        self.until_answered(|| self.store.fence(&self.sink, owner))
    }

    /// The instances that are on a commit record of the sink: all others can commit nothing unless
    /// they take splits first.
    pub fn owners(&self) -> Result<BTreeSet<String>, Abandon> {
        self.until_answered(|| self.store.owners(&self.sink))
    }

    /// Forgets splits that were finished at least `retention` ago and that `is_gone` names: the
    /// source does not find them any more. Returns how many there were.
    pub fn forget_finished(
        &self,
        retention: Duration,
        is_gone: impl Fn(&SplitId) -> bool,
    ) -> Result<usize, Abandon> {
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

    /// From now on the splits are ours. Where splits that were never begun start is written down
    /// first, in one step for all of them: a start such as "the latest" must mean the same after a
    /// crash.
    pub fn begin(&self, mut splits: Vec<Begin>) -> Result<(), Abandon> {
        let _step = self.step.lock();
        let is_new = |begin: &&Begin| begin.record.low.is_none();
        let first = |begin: &Begin| SplitCommit {
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
        staged: Vec<Staged>,
        published: Vec<String>,
    ) -> Commit {
        Commit {
            owner: self.claimant.owner.clone(),
            splits,
            staged,
            published,
        }
    }

    /// Locks the ledger, to dispatch a whole unit in one go.
    pub fn ledger(&self) -> parking_lot::MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Makes lanes durable in one atomic step, with what is staged for them. Blocks until the store
    /// has answered.
    pub fn commit(&self, lanes: &[LaneCommit], staged: Vec<Staged>) -> Result<(), Abandon> {
        self.commit_through(lanes, |splits| {
            let commit = self.step_of(splits.to_vec(), staged, self.published.lock().clone());
            self.commit_until_answered(&commit)?;
            self.forgotten(&commit.published);
            Ok(())
        })
    }

    /// The store has forgotten these.
    fn forgotten(&self, published: &[String]) {
        let forgotten: HashSet<&String> = published.iter().collect();
        self.published.lock().retain(|id| !forgotten.contains(id));
    }

    /// Like [`Committer::commit`] for a sink whose target holds the positions: `apply` writes them
    /// there, in the same transaction as the records. With no lanes, it is about the positions that
    /// moved because records were filtered out; `apply` is not called if none did.
    pub fn commit_through(
        &self,
        lanes: &[LaneCommit],
        apply: impl FnOnce(&[SplitCommit]) -> Result<(), Abandon>,
    ) -> Result<(), Abandon> {
        let _step = self.step.lock();
        let prepared = {
            let ledger = self.ledger.lock();
            let named = lanes
                .iter()
                .flat_map(|lane| &lane.splits)
                .map(|(split, _)| split);
            let lost: Vec<SplitId> = named.filter(|split| !ledger.has(split)).cloned().collect();
            if !lost.is_empty() {
                return Err(Abandon::Fenced(CommitError::Fenced(lost)));
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
    /// filtered out), and forgets what is published. Where the target holds the positions, the
    /// sink's writer does that, with [`Committer::commit_through`]; then this copies into the store
    /// what the target has by now.
    pub fn commit_idle(&self) -> Result<(), Abandon> {
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

    /// Does not wait for a step that is under way: the target may not answer for long, and what it
    /// has acknowledged can be copied meanwhile.
    fn copy_positions(&self) -> Result<(), Abandon> {
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

    /// What is staged in the store now and not yet published. Blocks until the store has answered.
    pub fn staged(&self) -> Result<Vec<Staged>, Abandon> {
        self.until_answered(|| self.store.staged(&self.sink))
    }

    /// What was staged under these ids is visible now; the next step takes them out of the store.
    pub fn published(&self, ids: impl IntoIterator<Item = String>) {
        self.published.lock().extend(ids);
    }

    /// Gives splits back: everything of them must have been committed. Another instance can take
    /// them at once.
    pub fn release(&self, splits: &[SplitId]) -> Result<(), Abandon> {
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
            // It will hardly be taken again, and there may be millions of them.
            self.seen.forget(split);
        }
        let held: Vec<_> = held
            .into_iter()
            .map(|(split, epoch, _)| (split, epoch))
            .collect();
        self.give_back(&held)
    }

    /// Gives splits back that were taken and not begun, under the epochs that [`Committer::take`]
    /// returned.
    pub fn give_back(&self, taken: &[(SplitId, u64)]) -> Result<(), Abandon> {
        if taken.is_empty() {
            return Ok(());
        }
        self.until_answered(|| self.store.set_owner(&self.sink, taken, None))
    }

    fn commit_until_answered(&self, commit: &Commit) -> Result<(), Abandon> {
        if self.has_given_up.load(Ordering::Relaxed) {
            return Err(Abandon::Stopped);
        }
        let mut asked_before = false;
        let outcome = self.until_answered(|| {
            let answer = match self.store.commit(&self.sink, commit) {
                Err(CommitError::Store(error)) => Err(error),
                // The answer to an earlier attempt was lost on its way: only we can have written
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
                Err(Abandon::Fenced(fenced))
            }
            Err(other) => Err(Abandon::Fatal(lost_data(&other.to_string()))),
        }
    }

    fn until_answered<T>(
        &self,
        mut ask: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, Abandon> {
        let mut wait = FIRST_WAIT;
        loop {
            match ask() {
                Ok(answer) => {
                    if self.unreachable.swap(false, Ordering::Relaxed) {
                        tracing::info!(sink = %self.sink, "state store answers again");
                    }
                    return Ok(answer);
                }
                Err(StoreError::Failed(reason)) => return Err(Abandon::Fatal(reason)),
                Err(StoreError::Unavailable(reason)) => {
                    if !self.unreachable.swap(true, Ordering::Relaxed) {
                        tracing::warn!(sink = %self.sink, reason, "state store does not answer; nothing is committed until it does");
                    }
                }
            }
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(Abandon::Stopped);
            }
            (self.wait)(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// The wall-clock time in seconds since 1970. It is written down for people and for retention; no
/// step rests on it.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
