//! Threads and memory that runs share.
//!
//! One process may run many plans at once, such as one for each topic of a table: they queue their
//! batches for the same ETL threads and hand their lanes to the same writer threads, so threads and
//! memory do not grow with the number of plans.

use std::io;
use std::sync::Arc;

use pseidon_plan::Settings;
use pseidon_plugin::budget::{Budget, LaneMemory};

use crate::attempt::{Attempt, AttemptId};
use crate::blocking::BlockingPool;
use crate::etl::{self, EtlContext};
use crate::queue::BatchQueue;
use crate::sync::{JoinHandle, spawn};
use crate::watch::RunWatcher;
use crate::writers::{WriterSink, Writers};

/// How many batches of a run may wait for an ETL thread, per thread.
const BATCHES_PER_THREAD: usize = 2;

/// The part of the memory that ETL threads may use for their current work, and the minimum for each
/// of them.
const WORKING_PART: usize = 32;
const MIN_WORKING: usize = 4 << 20;

/// ETL threads, writer threads, threads for other work, and the memory budget. The threads exit
/// when this is dropped and no run uses them any more.
pub struct Pools {
    watch: RunWatcher,
    blocking: Arc<BlockingPool>,
    queue: Arc<BatchQueue>,
    writers: Arc<Writers>,
    etl: Vec<JoinHandle>,
    budget: Arc<Budget>,
    lanes: Arc<LaneMemory>,
}

impl Pools {
    /// Starts the threads. Of the memory three eighths are for records that were read, and one
    /// eighth is for their results that wait for writers; a quarter is for open lanes, and the last
    /// quarter for what sources buffer themselves.
    pub fn start(settings: &Settings) -> io::Result<Pools> {
        let (budget, lanes) = (
            Budget::new(settings.memory / 8 * 3),
            LaneMemory::new(settings.memory / 4),
        );
        let queue = BatchQueue::new(
            settings.etl_threads * BATCHES_PER_THREAD,
            settings.memory / 8,
        );
        let largest =
            (settings.memory / WORKING_PART / settings.etl_threads.max(1)).max(MIN_WORKING);
        let writers = Arc::new(Writers::start(settings.writer_threads)?);
        let blocking = Arc::new(BlockingPool::start()?);
        let watch = RunWatcher::start(blocking.clone())?;
        let mut pools = Pools {
            watch,
            blocking,
            queue,
            writers,
            etl: Vec::new(),
            budget,
            lanes,
        };
        for index in 0..settings.etl_threads {
            let workplace = EtlContext {
                queue: pools.queue.clone(),
                writers: pools.writers.clone(),
                largest,
            };
            pools.etl.push(spawn(format!("etl-{index}"), move || {
                etl::work(&workplace)
            })?);
        }
        Ok(pools)
    }

    /// The budget for records in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many batches wait for an ETL thread.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Runs work that may block on a thread that runs share. A panic in it is printed, and affects
    /// nothing else.
    pub fn run_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.blocking.run(work);
    }

    pub(crate) fn blocking(&self) -> &Arc<BlockingPool> {
        &self.blocking
    }

    pub(crate) fn watch(&self) -> &RunWatcher {
        &self.watch
    }

    pub(crate) fn lanes(&self) -> &Arc<LaneMemory> {
        &self.lanes
    }

    pub(crate) fn queue(&self) -> &Arc<BatchQueue> {
        &self.queue
    }

    pub(crate) fn writers(&self) -> &Arc<Writers> {
        &self.writers
    }

    /// Creates the writers of the attempt's sinks.
    pub(crate) fn open(&self, attempt: &Attempt) {
        let sinks: Vec<WriterSink> = attempt
            .sinks
            .iter()
            .map(|sink| sink.written(&self.lanes, &attempt.metrics))
            .collect();
        self.writers.open(attempt.id, &sinks, &attempt.failures);
    }

    /// Discards what waits and what is open of the attempt. Returns when all of its writers are
    /// dropped.
    pub(crate) fn close(&self, attempt: AttemptId) {
        self.queue.forget(attempt);
        self.writers.close(attempt);
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.queue.end();
        for thread in self.etl.drain(..) {
            // A panic while a thread works on a batch is a failure of the attempt; the thread
            // survives it.
            let _ = thread.join();
        }
    }
}
