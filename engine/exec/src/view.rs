//! A view of a run for observers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow::array::UInt32Array;
use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::rows::Rows;

use crate::attempt::Attempt;
use crate::lanes::LaneStatus;

/// A liveness signal: the working thread beats regularly, and an observer sees how long ago the
/// last beat was.
pub struct Pulse {
    began: Instant,
    /// Milliseconds from `began` to the last beat.
    last: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Signals that all is well.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// The time since the last beat.
    pub fn silent_for(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// What observers can see of a run. One view lives as long as its run, over all of its attempts.
/// Observing costs the run nothing measurable.
#[derive(Default)]
pub struct View {
    /// Beats as long as the run makes progress, including while it waits for servers and between
    /// attempts.
    pub pulse: Pulse,
    attempt: Mutex<Weak<Attempt>>,
    pub(crate) tap: Arc<Tap>,
    pub(crate) last_bad: Arc<RecentBadRecords>,
}

/// How many invalid records are remembered.
const MAX_RECENT: usize = 20;

/// The last invalid records.
#[derive(Default)]
pub(crate) struct RecentBadRecords(Mutex<VecDeque<RecentBadRecord>>);

/// An invalid record, for observers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentBadRecord {
    /// The stage that could not process it.
    pub stage: String,
    /// The split of the record.
    pub split: SplitId,
    /// Its position in the split.
    pub position: Position,
    /// The reason.
    pub reason: String,
}

impl RecentBadRecords {
    pub(crate) fn note(&self, bad: RecentBadRecord) {
        let mut last = self.0.lock();
        if last.len() == MAX_RECENT {
            last.pop_front();
        }
        last.push_back(bad);
    }
}

/// The positions of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPositions {
    /// The name of the sink in the state store.
    pub sink: String,
    /// Each split with the position below which all of its records are durable in the sink, ordered
    /// by name.
    pub splits: Vec<(SplitId, Position)>,
}

impl View {
    /// The positions of every sink; empty between two attempts.
    pub fn positions(&self) -> Vec<SinkPositions> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &crate::attempt::AttemptSink| {
            let mut splits: Vec<_> = sink.committer.ledger().lows().into_iter().collect();
            splits.sort();
            SinkPositions {
                sink: sink.stage.clone(),
                splits,
            }
        };
        attempt.sinks.iter().map(of_sink).collect()
    }

    /// The open lanes of every sink: the sink's name, and its lanes ordered by name.
    pub fn open_lanes(&self) -> Vec<(String, Vec<LaneStatus>)> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &crate::attempt::AttemptSink| {
            let lanes = sink.shown.list();
            (!lanes.is_empty()).then(|| (sink.stage.clone(), lanes))
        };
        attempt.sinks.iter().filter_map(of_sink).collect()
    }

    /// The last invalid records, the newest last.
    pub fn last_bad(&self) -> Vec<RecentBadRecord> {
        self.last_bad.0.lock().iter().cloned().collect()
    }

    /// Returns up to `count` of the next rows that pass a stage; `None` if none pass within
    /// `patience`.
    pub fn rows(&self, stage: &str, count: usize, patience: Duration) -> Option<Rows> {
        let (reply, rows) = bounded(1);
        self.tap.open(TapRequest {
            stage: stage.to_owned(),
            count,
            reply,
        });
        rows.recv_timeout(patience).ok()
    }

    pub(crate) fn show(&self, attempt: &Arc<Attempt>) {
        *self.attempt.lock() = Arc::downgrade(attempt);
    }
}

/// Lets observers see rows as they pass.
#[derive(Default)]
pub(crate) struct Tap {
    /// Whether there is a request: the only thing that is checked while there is none.
    is_open: AtomicBool,
    wish: Mutex<Option<TapRequest>>,
}

struct TapRequest {
    stage: String,
    count: usize,
    reply: Sender<Rows>,
}

impl Tap {
    /// Opens a request. A newer request replaces an older one.
    fn open(&self, wish: TapRequest) {
        *self.wish.lock() = Some(wish);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Called when rows have passed a stage.
    pub(crate) fn show(&self, stage: &str, rows: &Rows) {
        if !self.is_open.load(Ordering::Relaxed) || rows.is_empty() {
            return;
        }
        let mut place = self.wish.lock();
        let Some(wish) = place.take_if(|wish| wish.stage == stage) else {
            return;
        };
        self.is_open.store(false, Ordering::Relaxed);
        drop(place);
        let last = rows.len().saturating_sub(wish.count);
        let numbers = UInt32Array::from_iter_values(last as u32..rows.len() as u32);
        if let Ok(rows) = rows.take(&numbers) {
            // The requester may have stopped waiting.
            let _ = wish.reply.send(rows);
        }
    }
}
