//! The thread that watches all runs.
//!
//! It advances each [`RunLifecycle`] from phase to phase and never waits for one of them: work that
//! may block runs on the threads of the [`BlockingPool`], and its results arrive here.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, unbounded};
use pseidon_expr::panics;

use crate::blocking::BlockingPool;
use crate::lifecycle::RunLifecycle;
use crate::lifecycle::ending::RunEnd;
use crate::lifecycle::reporter::{Reporter, RunId, WatchMessage};
use crate::outcome::{Finished, RunError};
use crate::setup::RunSetup;

/// How often the view and the metrics of a run are updated.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The channel to the thread, which exits when this is dropped and no run is left.
pub(crate) struct RunWatcher {
    messages: Sender<WatchMessage>,
    runs: AtomicU64,
}

impl RunWatcher {
    pub(crate) fn start(blocking: Arc<BlockingPool>) -> io::Result<RunWatcher> {
        let (messages, received) = unbounded();
        std::thread::Builder::new()
            .name("runs".to_owned())
            .spawn(move || work(&received, &blocking))?;
        Ok(RunWatcher {
            messages,
            runs: AtomicU64::new(0),
        })
    }

    /// Watches a run from now on. `on_end` is called on a thread that it may block.
    pub(crate) fn add(
        &self,
        run: RunSetup,
        on_end: impl FnOnce(Result<Finished, RunError>) + Send + 'static,
    ) {
        let (id, blocking) = (
            self.runs.fetch_add(1, Ordering::Relaxed),
            run.resources.blocking().clone(),
        );
        let reporter = Reporter::new(id, self.messages.clone(), blocking);
        // Without a receiver the run is dropped, which reports an internal error.
        let _ = self.messages.send(WatchMessage::Begin(
            id,
            Box::new(RunLifecycle::new(run, Box::new(on_end), reporter)),
        ));
    }
}

type WatchedRuns = BTreeMap<RunId, Box<RunLifecycle>>;

fn work(messages: &Receiver<WatchMessage>, blocking: &BlockingPool) {
    let mut runs = WatchedRuns::new();
    let mut next_refresh = Instant::now() + REFRESH_INTERVAL;
    loop {
        wait(messages, &runs, next_refresh);
        loop {
            match messages.try_recv() {
                Ok(WatchMessage::Begin(id, run)) => {
                    runs.insert(id, run);
                    step(&mut runs, id, blocking, RunLifecycle::begin);
                }
                // Dropping a result for a run that has ended may take long.
                Ok(WatchMessage::Result(id, result)) if !runs.contains_key(&id) => {
                    blocking.run(move || drop(result))
                }
                Ok(WatchMessage::Result(id, result)) => {
                    step(&mut runs, id, blocking, |run| run.handle(result))
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = Instant::now();
        let is_refresh_due = now >= next_refresh;
        if is_refresh_due {
            next_refresh = now + REFRESH_INTERVAL;
        }
        for id in runs.keys().copied().collect::<Vec<_>>() {
            step(&mut runs, id, blocking, |run| {
                if is_refresh_due {
                    run.refresh();
                }
                run.advance(now)
            });
        }
    }
}

/// Advances a run, and drops it if it has ended. A panic ends only this run.
fn step(
    runs: &mut WatchedRuns,
    id: RunId,
    blocking: &BlockingPool,
    step: impl FnOnce(&mut RunLifecycle) -> RunEnd,
) {
    let Some(run) = runs.get_mut(&id) else {
        return;
    };
    let end = catch_unwind(AssertUnwindSafe(|| step(run)))
        .unwrap_or_else(|panic| run.abort(&panics::describe(panic.as_ref())));
    if let Some(end) = end
        && let Some(run) = runs.remove(&id)
    {
        // Dropping its plan and its state may take long.
        blocking.run(move || run.end(end));
    }
}

/// Waits until there is something to do.
fn wait(messages: &Receiver<WatchMessage>, runs: &WatchedRuns, until: Instant) {
    let mut select = Select::new();
    select.recv(messages);
    runs.values().for_each(|run| run.listen(&mut select));
    let until = runs
        .values()
        .filter_map(|run| run.due())
        .fold(until, Instant::min);
    // Whether something is ready or the time has come, the caller checks everything.
    let _ = select.ready_deadline(until);
}
