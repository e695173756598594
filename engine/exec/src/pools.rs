//! The threads and the memory that runs share.
//!
//! One process may run many plans at once, such as one for each log of a table: they queue their
//! batches for the same ETL threads and hand their lanes to the same writer threads, so that
//! threads and memory do not grow with the number of plans.

use std::io;
use std::sync::Arc;

use pseidon_plan::Settings;
use pseidon_plugin::budget::{Budget, LaneMemory};

use crate::attempt::{Attempt, AttemptId};
use crate::blocking::BlockingPool;
use crate::etl::{self, Workplace};
use crate::queue::UnitQueue;
use crate::sync::{JoinHandle, spawn};
use crate::watch::Watch;
use crate::writers::{Writers, WrittenSink};

/// How many batches of a run may wait for an ETL thread, for each of the threads.
const BATCHES_PER_THREAD: usize = 2;

/// The part of the memory that ETL threads may fill with what they are at work on, and the least
/// that each of them may.
const WORKING_PART: usize = 32;
const LEAST_WORKING: usize = 4 << 20;

/// ETL threads, writer threads, threads for the rest, and the memory budget. Dropping it ends the
/// threads, once no run uses them any more.
pub struct Pools {
    watch: Watch,
    blocking: Arc<BlockingPool>,
    queue: Arc<UnitQueue>,
    writers: Arc<Writers>,
    etl: Vec<JoinHandle>,
    budget: Arc<Budget>,
    lanes: Arc<LaneMemory>,
}

impl Pools {
    /// Starts the threads. Of the memory three eighths are for records that were read, and an
    /// eighth for what is made of them and waits for writers; a quarter is for open lanes, and the
    /// last quarter for what sources hold by themselves.
    pub fn start(settings: &Settings) -> io::Result<Pools> {
        let (budget, lanes) = (
            Budget::new(settings.memory / 8 * 3),
            LaneMemory::new(settings.memory / 4),
        );
        let queue = UnitQueue::new(
            settings.etl_threads * BATCHES_PER_THREAD,
            settings.memory / 8,
        );
        let largest =
            (settings.memory / WORKING_PART / settings.etl_threads.max(1)).max(LEAST_WORKING);
        let writers = Arc::new(Writers::start(settings.writer_threads)?);
        let blocking = Arc::new(BlockingPool::start()?);
        let watch = Watch::start(blocking.clone())?;
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
            let workplace = Workplace {
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

    /// The bytes of records in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many batches wait for an ETL thread.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Does something that may block on a thread that runs share. A panic in it is printed, and
    /// ends nothing else.
    pub fn run_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.blocking.run(work);
    }

    pub(crate) fn blocking(&self) -> &Arc<BlockingPool> {
        &self.blocking
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(crate) fn lanes(&self) -> &Arc<LaneMemory> {
        &self.lanes
    }

    pub(crate) fn queue(&self) -> &Arc<UnitQueue> {
        &self.queue
    }

    pub(crate) fn writers(&self) -> &Arc<Writers> {
        &self.writers
    }

    /// Makes the writers of the attempt's sinks.
    pub(crate) fn open(&self, attempt: &Attempt) {
        let sinks: Vec<WrittenSink> = attempt
            .sinks
            .iter()
            .map(|sink| sink.written(&self.lanes, &attempt.metrics))
            .collect();
        self.writers.open(attempt.id, &sinks, &attempt.failures);
    }

    /// Throws away what waits and what is open of the attempt. Returns when all of its writers are
    /// gone.
    pub(crate) fn close(&self, attempt: AttemptId) {
        self.queue.forget(attempt);
        self.writers.close(attempt);
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.queue.end();
        for thread in self.etl.drain(..) {
            // A panic in what a thread works on is a failure of the attempt; the thread survives
            // it.
            let _ = thread.join();
        }
    }
}
