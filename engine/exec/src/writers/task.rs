//! What a writer is asked to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pseidon_delivery::SplitId;
use pseidon_plugin::sink::{Chunk, SinkError};

use crate::answer::Answerer;
use crate::lanes::Lanes;
use crate::queue::Unwritten;

/// One step of a writer.
pub(super) enum Task {
    /// Take rows in. They count as unwritten until then.
    Write(Chunk, Unwritten),
    /// Commit and publish the lanes that hold records of these splits, or every lane.
    Flush(Option<Vec<SplitId>>, Arc<Flush>),
    /// Commit what is due by time.
    Tick,
    /// Try again what the target did not take.
    Resume,
}

impl Task {
    /// Does it.
    pub(super) fn perform(self, lanes: &mut Lanes) -> Result<(), SinkError> {
        match self {
            Task::Write(chunk, unwritten) => lanes.write(chunk, unwritten),
            Task::Flush(splits, flush) => {
                lanes.flush(splits.as_deref(), move || flush.finish_part())
            }
            Task::Tick => lanes.tick(),
            Task::Resume => lanes.resume(),
        }
    }
}

/// A flush of several writers. It is answered when all of them are done. When one fails or is
/// refused, the answer is withheld.
pub(super) struct Flush {
    done: Answerer,
    /// The writers that are not done.
    parts: AtomicUsize,
}

impl Flush {
    /// A flush of as many writers.
    pub(super) fn new(parts: usize, done: Answerer) -> Flush {
        let flush = Flush {
            done,
            parts: AtomicUsize::new(parts),
        };
        if parts == 0 {
            flush.done.give();
        }
        flush
    }

    fn finish_part(&self) {
        if self.parts.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.give();
        }
    }
}

/// Answers when all writers of an attempt are gone.
pub(super) struct Closed(pub(super) Answerer);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.give();
    }
}
