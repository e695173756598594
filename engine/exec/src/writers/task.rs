//! The tasks of a writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pseidon_delivery::SplitId;
use pseidon_plugin::sink::{Chunk, SinkError};

use crate::answer::AnswerSender;
use crate::lanes::Lanes;
use crate::queue::UnwrittenCharge;

/// One step of a writer.
pub(super) enum Task {
    /// Write rows. They count as unwritten until then.
    Write(Chunk, UnwrittenCharge),
    /// Commit and publish the lanes that hold records of these splits, or every lane.
    Flush(Option<Vec<SplitId>>, Arc<SharedFlush>),
    /// Commit what is due by time.
    Tick,
    /// Retry what the target did not accept.
    Resume,
}

impl Task {
    /// Does the task on the lanes of a writer. An error fails the attempt.
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

/// A flush of several writers. It is answered when all of them are done. If one fails or is
/// refused, the answer is withheld.
pub(super) struct SharedFlush {
    done: AnswerSender,
    /// The number of writers that are not done.
    parts: AtomicUsize,
}

impl SharedFlush {
    /// Creates a flush of `parts` writers.
    pub(super) fn new(parts: usize, done: AnswerSender) -> SharedFlush {
        let flush = SharedFlush {
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

/// Answers when all writers of an attempt are dropped.
pub(super) struct CloseNotifier(pub(super) AnswerSender);

impl Drop for CloseNotifier {
    fn drop(&mut self) {
        self.0.give();
    }
}
