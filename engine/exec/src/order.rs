//! What the ETL threads finish in any order leaves in order for each split.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pseidon_delivery::{Position, Resume};
use pseidon_plugin::batch::Split;
use pseidon_plugin::sink::Chunk;

/// A batch's way out: what goes to which sink.
pub(crate) struct Outcome {
    /// The first position after the batch.
    pub(crate) next: Position,
    /// What the source needs beside that position.
    pub(crate) resume: Option<Resume>,
    /// Whether the split ends there.
    pub(crate) ends: bool,
    /// Chunks with the number of their sink.
    pub(crate) chunks: Vec<(usize, Chunk)>,
}

/// A split in this attempt: its batches by the numbers in which they were emitted.
pub(crate) struct OrderedSplit {
    pub(crate) split: Arc<Split>,
    state: Mutex<State>,
    dispatched: Condvar,
}

#[derive(Default)]
struct State {
    emitted: u64,
    next: u64,
    early: BTreeMap<u64, Outcome>,
}

impl OrderedSplit {
    pub(crate) fn new(split: Arc<Split>) -> Self {
        OrderedSplit { split, state: Mutex::default(), dispatched: Condvar::new() }
    }

    /// Numbers the next batch.
    pub(crate) fn number(&self) -> u64 {
        let mut state = self.state.lock();
        state.emitted += 1;
        state.emitted - 1
    }

    /// A batch is through. Dispatches it, and those behind it that waited for it, while the split is locked so that their order holds.
    pub(crate) fn complete<E>(&self, number: u64, outcome: Outcome, mut dispatch: impl FnMut(Outcome) -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state.lock();
        state.early.insert(number, outcome);
        loop {
            let next = state.next;
            let Some(outcome) = state.early.remove(&next) else { return Ok(()) };
            dispatch(outcome)?;
            state.next += 1;
            if state.next == state.emitted {
                self.dispatched.notify_all();
            }
        }
    }

    /// Waits until everything emitted is dispatched, at most `patience`. Gives whether it is.
    pub(crate) fn wait_until_dispatched(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        if state.next < state.emitted {
            self.dispatched.wait_for(&mut state, patience);
        }
        state.next == state.emitted
    }
}
