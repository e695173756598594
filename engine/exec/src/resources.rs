//! Threads and memory that the attempts of all runs share.

use std::io;
use std::sync::Arc;

use pseidon_plan::{PerSink, Settings};
use pseidon_plugin::budget::{Budget, LaneMemory};
use pseidon_plugin::metrics::Metrics;

use crate::attempt::{Attempt, AttemptId, AttemptSink};
use crate::blocking::BlockingPool;
use crate::etl::{self, EtlContext};
use crate::queue::BatchQueue;
use crate::sync::{JoinHandle, spawn};
use crate::writers::{WriterSink, Writers};

/// How many batches of a run may wait for an ETL thread, per thread.
const BATCHES_PER_THREAD: usize = 2;

/// The part of the memory that ETL threads may use for their current work, and the minimum for each
/// of them.
const WORKING_PART: usize = 32;
const MIN_WORKING: usize = 4 << 20;

/// ETL threads, writer threads, threads for work that may block, and the memory budget. The threads
/// exit when this is dropped.
pub(crate) struct Resources {
    blocking: Arc<BlockingPool>,
    queue: Arc<BatchQueue>,
    writers: Arc<Writers>,
    etl: Vec<JoinHandle>,
    budget: Arc<Budget>,
    lanes: Arc<LaneMemory>,
}

impl Resources {
    /// Starts the threads, and divides the memory as [`Pools::start`](crate::pools::Pools::start)
    /// says.
    pub(crate) fn start(settings: &Settings) -> io::Result<Resources> {
        let (budget, lanes) = (
            Budget::new(settings.memory.bytes() / 8 * 3),
            LaneMemory::new(settings.memory.bytes() / 4),
        );
        let queue = BatchQueue::new(
            settings.etl_threads.get() * BATCHES_PER_THREAD,
            settings.memory.bytes() / 8,
        );
        let largest = (settings.memory.bytes() / WORKING_PART / settings.etl_threads.get().max(1))
            .max(MIN_WORKING);
        let writers = Arc::new(Writers::start(settings.writer_threads.get())?);
        let blocking = Arc::new(BlockingPool::start()?);
        let mut resources = Resources {
            blocking,
            queue,
            writers,
            etl: Vec::new(),
            budget,
            lanes,
        };
        for index in 0..settings.etl_threads.get() {
            let workplace = EtlContext {
                queue: resources.queue.clone(),
                writers: resources.writers.clone(),
                blocking: resources.blocking.clone(),
                largest,
            };
            resources.etl.push(spawn(format!("etl-{index}"), move || {
                etl::work(&workplace)
            })?);
        }
        Ok(resources)
    }

    /// The budget for records in flight.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn blocking(&self) -> &Arc<BlockingPool> {
        &self.blocking
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
        let sinks: PerSink<WriterSink> = attempt
            .sinks
            .iter()
            .map(|sink| written(sink, &self.lanes, &attempt.metrics))
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

impl Drop for Resources {
    fn drop(&mut self) {
        self.queue.end();
        for thread in self.etl.drain(..) {
            // A panic while a thread works on a batch is a failure of the attempt; the thread
            // survives it.
            let _ = thread.join();
        }
    }
}

/// The part of a sink that the writer threads need.
fn written(sink: &AttemptSink, memory: &Arc<LaneMemory>, metrics: &Metrics) -> WriterSink {
    let stage = sink.committer.sink().stage_and_place().0;
    WriterSink {
        stage: sink.stage.clone(),
        sink: sink.sink.clone(),
        committer: sink.committer.clone(),
        only_writer: sink.only_writer,
        memory: memory.clone(),
        blocked: metrics.sink_blocked.with_label_values(&[stage]),
        shown: sink.shown.clone(),
        suspects: sink.suspects.clone(),
    }
}
