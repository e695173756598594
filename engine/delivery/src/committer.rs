//! A sink's ledger and the store, brought together: one commit at a time, repeated until the store has answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    Commit, CommitError, CommitRecord, LaneCommit, Ledger, Position, SinkId, SplitCommit, SplitId, Staged, StateStore, StoreError,
};

/// The wait before the first repetition of a commit that the store did not answer; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Makes a sink's lanes durable in the store. Shared by the sink's writer threads, which may commit at the same time.
pub struct Committer {
    sink: SinkId,
    store: Arc<dyn StateStore>,
    ledger: Mutex<Ledger>,
    /// Held from preparing a step until it is confirmed, so that steps follow one another.
    step: Mutex<()>,
    /// What is published and still named in the store; forgotten with the next step.
    published: Mutex<Vec<String>>,
    positions: Positions,
    seen: Arc<Seen>,
    unreachable: AtomicBool,
    abandoned: Arc<AtomicBool>,
}

/// The last epoch and sequence of each split that the store acknowledged to this process. It outlives a committer, so that a run that starts
/// anew notices a store that has lost data in between.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<SplitId, (u64, u64)>>);

impl Seen {
    fn note(&self, split: &SplitId, epoch: u64, sequence: u64) {
        self.0.lock().insert(split.clone(), (epoch, sequence));
    }

    /// A take-over must have raised the epoch, and nothing lowers a sequence.
    fn check(&self, split: &SplitId, record: &CommitRecord) -> Result<(), Abandon> {
        match self.0.lock().get(split) {
            Some((epoch, sequence)) if record.epoch <= *epoch || record.sequence < *sequence => {
                let (found_epoch, found) = (record.epoch, record.sequence);
                let what = format!("it shows epoch {found_epoch} and commit {found} of {split}, after epoch {epoch} and commit {sequence}");
                Err(Abandon::Fatal(lost_data(&what)))
            }
            _ => Ok(()),
        }
    }
}

fn lost_data(what: &str) -> String {
    format!(
        "the state store has lost data or was restored from an older copy: {what}. Going on would lose or double records: bring the store \
         back to its last state, or start under another pipeline name"
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
    /// The run is being ended without waiting any longer.
    #[error("stopped before the state store answered")]
    Stopped,
}

impl Committer {
    /// The committer of `sink`. When `abandoned` becomes true, commits stop waiting for a store that does not answer.
    pub fn new(sink: SinkId, store: Arc<dyn StateStore>, positions: Positions, abandoned: Arc<AtomicBool>) -> Self {
        let ledger = Mutex::new(Ledger::default());
        let unreachable = AtomicBool::new(false);
        let seen = Arc::default();
        Committer { sink, store, ledger, step: Mutex::new(()), published: Mutex::new(Vec::new()), positions, seen, unreachable, abandoned }
    }

    /// The same, remembering in `seen` what the store has acknowledged. All committers of a sink in one process share it.
    pub fn remembering(mut self, seen: Arc<Seen>) -> Self {
        self.seen = seen;
        self
    }

    /// The sink.
    pub fn sink(&self) -> &SinkId {
        &self.sink
    }

    /// Whether the store did not answer when it was asked last.
    pub fn store_is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// Raises the epochs of splits and gives their records, each with its previous owners. Follow with [`Committer::begin`].
    pub fn take(&self, splits: &[SplitId], owner: &str) -> Result<Vec<CommitRecord>, Abandon> {
        let records = self.until_answered(|| self.store.take(&self.sink, splits, owner))?;
        for (split, record) in splits.iter().zip(&records) {
            self.seen.check(split, record)?;
        }
        Ok(records)
    }

    /// The owners before `owner` are cut off: nothing of theirs can be committed any more. `taken` is what [`Committer::take`] gave.
    pub fn cut_off_others(&self, taken: &[(SplitId, u64)], owner: &str) -> Result<(), Abandon> {
        self.until_answered(|| self.store.set_owner(&self.sink, taken, Some(owner)))
    }

    /// From now on the split is ours, with `record` as [`Committer::take`] gave it. A split that was never begun starts at `start`, which
    /// is written down first: a start such as "the latest" must mean the same after a crash.
    pub fn begin(&self, split: SplitId, mut record: CommitRecord, start: Position) -> Result<(), Abandon> {
        let _step = self.step.lock();
        if record.low.is_none() {
            let begun = SplitCommit {
                split: split.clone(),
                epoch: record.epoch,
                sequence: record.sequence,
                low: start,
                ahead: Vec::new(),
                caught_up: Vec::new(),
            };
            self.commit_until_answered(&Commit { splits: vec![begun], ..Commit::default() })?;
            record.sequence += 1;
            record.low = Some(start);
        }
        self.seen.note(&split, record.epoch, record.sequence);
        self.ledger.lock().take(split, record, start);
        Ok(())
    }

    /// Locks the ledger, to dispatch a whole unit in one go.
    pub fn ledger(&self) -> parking_lot::MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Makes lanes durable in one atomic step, with what is staged for them. Blocks until the store has answered.
    pub fn commit(&self, lanes: &[LaneCommit], staged: Vec<Staged>) -> Result<(), Abandon> {
        self.commit_through(lanes, |splits| {
            let published = self.published.lock().clone();
            let commit = Commit { splits: splits.to_vec(), staged, published };
            self.commit_until_answered(&commit)?;
            self.published.lock().retain(|id| !commit.published.contains(id));
            Ok(())
        })
    }

    /// Like [`Committer::commit`] for a sink whose target holds the positions: `apply` writes them there, in the same transaction as the
    /// records. With no lanes, it is about the positions that moved because records were filtered out; `apply` is not called if none did.
    pub fn commit_through(&self, lanes: &[LaneCommit], apply: impl FnOnce(&[SplitCommit]) -> Result<(), Abandon>) -> Result<(), Abandon> {
        let _step = self.step.lock();
        let prepared = {
            let ledger = self.ledger.lock();
            let lost: Vec<SplitId> = {
                let mine: std::collections::HashSet<_> = ledger.splits().collect();
                lanes.iter().flat_map(|lane| &lane.splits).map(|(split, _)| split).filter(|split| !mine.contains(split)).cloned().collect()
            };
            if !lost.is_empty() {
                return Err(Abandon::Fenced(CommitError::Fenced(lost)));
            }
            if lanes.is_empty() { ledger.prepare_idle() } else { ledger.prepare(lanes) }
        };
        if prepared.is_empty() {
            return Ok(());
        }
        apply(&prepared)?;
        self.ledger.lock().confirm(lanes, &prepared);
        Ok(())
    }

    /// Writes the low positions that moved although no lane was committed (records that were filtered out), and forgets what is published.
    /// Does nothing where the target holds the positions: there the sink's writer does it, with [`Committer::commit_through`].
    pub fn commit_idle(&self) -> Result<(), Abandon> {
        if self.positions == Positions::InTarget {
            return Ok(());
        }
        let _step = self.step.lock();
        let splits = self.ledger.lock().prepare_idle();
        let published = self.published.lock().clone();
        if splits.is_empty() && published.is_empty() {
            return Ok(());
        }
        let commit = Commit { splits, staged: Vec::new(), published };
        self.commit_until_answered(&commit)?;
        self.published.lock().retain(|id| !commit.published.contains(id));
        self.ledger.lock().confirm(&[], &commit.splits);
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

    /// Gives splits back: everything of them must have been committed. Another instance can take them without ado.
    pub fn release(&self, splits: &[SplitId]) -> Result<(), Abandon> {
        self.commit_idle()?;
        let held: Vec<_> = {
            let mut ledger = self.ledger.lock();
            splits.iter().filter_map(|split| ledger.drop_split(split).map(|epoch| (split.clone(), epoch))).collect()
        };
        self.until_answered(|| self.store.set_owner(&self.sink, &held, None))
    }

    fn commit_until_answered(&self, commit: &Commit) -> Result<(), Abandon> {
        let mut asked_before = false;
        let outcome = self.until_answered(|| {
            let answer = match self.store.commit(&self.sink, commit) {
                Err(CommitError::Store(error)) => Err(error),
                // The answer to an earlier attempt was lost on its way: only we can have written this sequence under this epoch.
                Err(CommitError::Sequence { expected, found, .. }) if asked_before && found == expected + 1 => Ok(Ok(())),
                other => Ok(other),
            };
            asked_before = true;
            answer
        })?;
        match outcome {
            Ok(()) => {
                commit.splits.iter().for_each(|step| self.seen.note(&step.split, step.epoch, step.sequence + 1));
                Ok(())
            }
            Err(fenced @ CommitError::Fenced(_)) => Err(Abandon::Fenced(fenced)),
            Err(other) => Err(Abandon::Fatal(lost_data(&other.to_string()))),
        }
    }

    fn until_answered<T>(&self, mut ask: impl FnMut() -> Result<T, StoreError>) -> Result<T, Abandon> {
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
            // Parked rather than asleep: whoever knows that the store is back can wake the thread, and waking it too early does no harm.
            std::thread::park_timeout(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
