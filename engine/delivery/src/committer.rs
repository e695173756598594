//! The committer connects a sink's ledger and the store: one commit at a time, retried until the
//! store has answered.

mod acknowledged;
mod answers;
mod ownership;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use thiserror::Error;

pub use self::acknowledged::AcknowledgedVersions;
pub use self::ownership::SplitToBegin;
use crate::copies::PositionCopies;
use crate::{
    Claimant, Commit, CommitError, LaneCommit, Ledger, Reason, SinkId, SplitCommit, SplitId,
    StagedEntry, StagedId, StateStore, UnfinishedWork,
};

/// Makes a sink's lanes durable in the store. Shared by the sink's writer threads, which may commit
/// at the same time.
pub struct Committer {
    sink: SinkId,
    store: Arc<dyn StateStore>,
    claimant: Claimant,
    /// Locked after `step` and `copies`, if these are locked too.
    ledger: Mutex<Ledger>,
    /// Held from preparing a step until it is confirmed, so that steps are strictly sequential.
    step: Mutex<()>,
    /// The ids that are published and still in the store; removed with the next step.
    published: Mutex<Vec<StagedId>>,
    positions: Positions,
    /// If the target holds the positions: what the store knows of them.
    copies: Mutex<PositionCopies>,
    /// The splits whose copies may be behind the target. Locked last. `copies` is locked while the
    /// store is asked, and a commit into the target must not wait for that, so this set has its own
    /// lock.
    uncopied: Mutex<HashSet<SplitId>>,
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
    #[error(transparent)]
    Fenced(CommitError),
    /// The store shows an impossible state; continuing would lose or duplicate records.
    #[error(transparent)]
    Fatal(Reason),
    /// Another plan has left work that only it can finish.
    #[error("{0}")]
    OtherPlan(UnfinishedWork),
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
            uncopied: Mutex::default(),
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

    /// Where the low positions are stored.
    pub fn positions(&self) -> Positions {
        self.positions
    }

    /// The instance that commits, and the plan that it runs.
    pub fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    /// Whether the store did not answer the last request.
    pub fn store_is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    fn step_of(
        &self,
        splits: Vec<SplitCommit>,
        staged: Vec<StagedEntry>,
        published: Vec<StagedId>,
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
    fn forgotten(&self, published: &[StagedId]) {
        let forgotten: HashSet<&StagedId> = published.iter().collect();
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
            let mut ledger = self.ledger.lock();
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
        let mut ledger = self.ledger.lock();
        ledger.confirm(lanes, &prepared);
        if self.positions == Positions::InTarget {
            // Before the ledger is unlocked: a thread that sees that a split is finished may release
            // it, and the copy has to say so too.
            let moved = prepared.into_iter().map(|commit| commit.split);
            self.uncopied.lock().extend(moved);
        }
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
        let uncopied = std::mem::take(&mut *self.uncopied.lock());
        let splits = copies.prepare(&uncopied, &self.ledger.lock());
        if splits.is_empty() {
            return Ok(());
        }
        let commit = self.step_of(splits, Vec::new(), Vec::new());
        if let Err(error) = self.commit_until_answered(&commit) {
            self.uncopied.lock().extend(uncopied);
            return Err(error);
        }
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
    pub fn published(&self, ids: impl IntoIterator<Item = StagedId>) {
        self.published.lock().extend(ids);
    }
}

/// The wall-clock time in seconds since 1970. It is stored for people and for retention; no step
/// depends on it.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
