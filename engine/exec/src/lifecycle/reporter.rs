//! Work of a run that may block, and the messages by which its results reach the watching thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Sender;
use pseidon_expr::panics;
use pseidon_plan::PerSink;

use super::RunLifecycle;
use crate::attempt::AttemptSink;
use crate::blocking::BlockingPool;
use crate::failure::Failure;
use crate::outcome::RunError;
use crate::running::ReadPositions;

/// The identity of a run.
pub(crate) type RunId = u64;

/// A message to the thread that watches all runs.
pub(crate) enum WatchMessage {
    /// A new run for the thread to begin and watch.
    Begin(RunId, Box<RunLifecycle>),
    /// Work of a run that may block has a result.
    Result(RunId, BlockingResult),
}

/// The result of work that may block.
pub(crate) enum BlockingResult {
    /// The state was checked; contains the store's name.
    StateChecked(Result<String, RunError>),
    /// The sinks were opened.
    Opened(Result<PerSink<AttemptSink>, Failure>),
    /// Sinks that were opened after a stop request are closed again.
    Discarded,
    /// Nothing of the attempt is left.
    Closed {
        /// How far it had read.
        read: ReadPositions,
        /// The same for those splits that are not completely committed.
        uncommitted: ReadPositions,
    },
    /// The work panicked; contains the panic's message and place.
    Panicked(String),
}

/// Has work done that may block, and reports its result.
pub(crate) struct Reporter {
    id: RunId,
    messages: Sender<WatchMessage>,
    blocking: Arc<BlockingPool>,
}

impl Reporter {
    /// Creates the reporter of a run.
    pub(crate) fn new(
        id: RunId,
        messages: Sender<WatchMessage>,
        blocking: Arc<BlockingPool>,
    ) -> Reporter {
        Reporter {
            id,
            messages,
            blocking,
        }
    }

    /// Does work that may block on another thread, and reports its result.
    pub(crate) fn run_blocking(&self, work: impl FnOnce() -> BlockingResult + Send + 'static) {
        let (id, messages) = (self.id, self.messages.clone());
        self.blocking.run(move || {
            let result = catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|panic| BlockingResult::Panicked(panics::describe(panic.as_ref())));
            // There is no receiver when the process is exiting.
            let _ = messages.send(WatchMessage::Result(id, result));
        });
    }
}
