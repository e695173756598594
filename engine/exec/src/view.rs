//! A window onto a run, for those who watch it from outside.

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
use crate::lanes::ShownLane;

/// A sign of life: whoever works shows it now and then, whoever watches sees how long ago that was.
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
    /// Shows that all is well.
    pub fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How long ago that was last shown.
    pub fn silent_for(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// What can be seen of a run while it runs. One view lives as long as its run, over all of its
/// attempts. Looking costs the run nothing that can be measured.
#[derive(Default)]
pub struct View {
    /// Beats as long as the run goes on: also while it waits for servers, and before it is tried
    /// again.
    pub pulse: Pulse,
    attempt: Mutex<Weak<Attempt>>,
    pub(crate) tap: Arc<Tap>,
    pub(crate) last_bad: Arc<LastBad>,
}

/// How many bad records are remembered.
const MOST_BAD: usize = 20;

/// The last records that could not go on.
#[derive(Default)]
pub(crate) struct LastBad(Mutex<VecDeque<BadSeen>>);

/// A record that could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSeen {
    /// The stage that could not handle it.
    pub stage: String,
    /// Its split.
    pub split: SplitId,
    /// Its position there.
    pub position: Position,
    /// Why.
    pub reason: String,
}

impl LastBad {
    pub(crate) fn note(&self, bad: BadSeen) {
        let mut last = self.0.lock();
        if last.len() == MOST_BAD {
            last.pop_front();
        }
        last.push_back(bad);
    }
}

/// Where a sink stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPositions {
    /// The sink's lasting name.
    pub sink: String,
    /// Each split with the position below which all of its records are durable in the sink, ordered
    /// by name.
    pub splits: Vec<(SplitId, Position)>,
}

impl View {
    /// Where every sink stands; nothing between two attempts.
    pub fn positions(&self) -> Vec<SinkPositions> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &crate::attempt::OpenSink| {
            let mut splits: Vec<_> = sink.committer.ledger().lows().into_iter().collect();
            splits.sort();
            SinkPositions {
                sink: sink.stage.clone(),
                splits,
            }
        };
        attempt.sinks.iter().map(of_sink).collect()
    }

    /// The lanes that are open in every sink: the sink's name, and its lanes ordered by theirs.
    pub fn open_lanes(&self) -> Vec<(String, Vec<ShownLane>)> {
        let Some(attempt) = self.attempt.lock().upgrade() else {
            return Vec::new();
        };
        let of_sink = |sink: &crate::attempt::OpenSink| {
            let lanes = sink.shown.list();
            (!lanes.is_empty()).then(|| (sink.stage.clone(), lanes))
        };
        attempt.sinks.iter().filter_map(of_sink).collect()
    }

    /// The last records that could not go on, the newest last.
    pub fn last_bad(&self) -> Vec<BadSeen> {
        self.last_bad.0.lock().iter().cloned().collect()
    }

    /// Some of the next rows that come through a stage, at most `count`; `None` when none come
    /// within `patience`.
    pub fn rows(&self, stage: &str, count: usize, patience: Duration) -> Option<Rows> {
        let (reply, rows) = bounded(1);
        self.tap.open(Wish {
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

/// Where rows can be looked at as they pass.
#[derive(Default)]
pub(crate) struct Tap {
    /// Whether there is a wish: all that is looked at as long as there is none.
    is_open: AtomicBool,
    wish: Mutex<Option<Wish>>,
}

struct Wish {
    stage: String,
    count: usize,
    reply: Sender<Rows>,
}

impl Tap {
    /// A newer wish takes the place of an older one.
    fn open(&self, wish: Wish) {
        *self.wish.lock() = Some(wish);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Rows have come through a stage.
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
            // Who asked may have lost patience.
            let _ = wish.reply.send(rows);
        }
    }
}
