//! A window onto a run, for those who watch it from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::UInt32Array;
use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::rows::Rows;

use crate::attempt::Attempt;

/// What can be seen of a run while it runs. One view lives as long as its run, over all of its attempts. Looking costs the run nothing
/// that can be measured.
#[derive(Default)]
pub struct View {
    attempt: Mutex<Weak<Attempt>>,
    pub(crate) tap: Arc<Tap>,
}

/// Where a sink stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPositions {
    /// The sink's lasting name.
    pub sink: String,
    /// Each split with the position below which all of its records are durable in the sink, ordered by name.
    pub splits: Vec<(SplitId, Position)>,
}

impl View {
    /// Where every sink stands; nothing between two attempts.
    pub fn positions(&self) -> Vec<SinkPositions> {
        let Some(attempt) = self.attempt.lock().upgrade() else { return Vec::new() };
        let of_sink = |sink: &crate::attempt::OpenSink| {
            let mut splits: Vec<_> = sink.committer.ledger().lows().into_iter().collect();
            splits.sort();
            SinkPositions { sink: sink.stage.clone(), splits }
        };
        attempt.sinks.iter().map(of_sink).collect()
    }

    /// Some of the next rows that come through a stage, at most `count`; `None` when none come within `patience`.
    pub fn rows(&self, stage: &str, count: usize, patience: Duration) -> Option<Rows> {
        let (reply, rows) = bounded(1);
        self.tap.open(Wish { stage: stage.to_owned(), count, reply });
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
        let Some(wish) = place.take_if(|wish| wish.stage == stage) else { return };
        self.is_open.store(false, Ordering::Relaxed);
        drop(place);
        let last = rows.len().saturating_sub(wish.count);
        let numbers = UInt32Array::from_iter_values(last as u32..rows.len() as u32);
        // Who asked may have lost patience.
        let _ = rows.take(&numbers).map(|rows| wish.reply.send(rows));
    }
}
