//! A tap on the stages of a run: it shows an observer rows that pass.

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::UInt32Array;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use pseidon_plugin::rows::Rows;

/// Lets observers see rows as they pass.
#[derive(Default)]
pub(crate) struct Tap {
    /// Whether there is a request: the only thing that is checked while there is none.
    is_open: AtomicBool,
    wish: Mutex<Option<TapRequest>>,
}

/// A request for the next rows that pass a stage.
pub(crate) struct TapRequest {
    pub(crate) stage: String,
    /// How many rows are wanted at most.
    pub(crate) count: usize,
    pub(crate) reply: Sender<Rows>,
}

impl Tap {
    /// Opens a request. A newer request replaces an older one.
    pub(crate) fn open(&self, wish: TapRequest) {
        *self.wish.lock() = Some(wish);
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Whether there is a request for rows of this stage.
    pub(crate) fn awaits(&self, stage: &str) -> bool {
        self.is_open.load(Ordering::Relaxed)
            && self
                .wish
                .lock()
                .as_ref()
                .is_some_and(|wish| wish.stage == stage)
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
