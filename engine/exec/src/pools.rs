//! The threads and the memory that runs share.
//!
//! One process may run many plans at once, such as one for each log of a table: they queue their batches for the same ETL threads and hand
//! their lanes to the same writer threads, so that threads and memory do not grow with the number of plans.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use pseidon_plan::Settings;
use pseidon_plugin::budget::{Budget, LaneMemory};

use crate::attempt::{Attempt, AttemptId};
use crate::etl::{self, Unit};
use crate::writers::{self, WriterMessage};

/// How many messages may wait for a writer.
const WRITER_QUEUE: usize = 256;

/// ETL threads, writer threads, and the memory budget. Dropping it ends the threads, once no run uses them any more.
pub struct Pools {
    queue: Option<Sender<Unit>>,
    writers: Vec<Sender<WriterMessage>>,
    threads: Vec<JoinHandle<()>>,
    budget: Arc<Budget>,
    lanes: Arc<LaneMemory>,
}

impl Pools {
    /// Starts the threads. Half of the memory is for records in flight, a quarter for open lanes.
    pub fn start(settings: &Settings) -> io::Result<Pools> {
        let mut threads = Vec::new();
        let mut writers = Vec::new();
        for index in 0..settings.writer_threads {
            let (sender, messages) = bounded(WRITER_QUEUE);
            threads.push(writers::start(index, messages)?);
            writers.push(sender);
        }
        let (queue, units) = bounded::<Unit>(settings.etl_threads * 2);
        for index in 0..settings.etl_threads {
            let (units, writers): (Receiver<Unit>, _) = (units.clone(), writers.clone());
            threads.push(spawn(format!("etl-{index}"), move || etl::work(units, &writers))?);
        }
        let (budget, lanes) = (Budget::new(settings.memory / 2), LaneMemory::new(settings.memory / 4));
        Ok(Pools { queue: Some(queue), writers, threads, budget, lanes })
    }

    /// The bytes of records in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many batches wait for an ETL thread.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    pub(crate) fn lanes(&self) -> &Arc<LaneMemory> {
        &self.lanes
    }

    pub(crate) fn queue(&self) -> Option<Sender<Unit>> {
        self.queue.clone()
    }

    pub(crate) fn writers(&self) -> &[Sender<WriterMessage>] {
        &self.writers
    }

    /// Every writer thread makes its writers for the attempt's sinks.
    pub(crate) fn open(&self, attempt: &Arc<Attempt>) {
        for writer in &self.writers {
            // A writer thread only ends with the pools.
            let _ = writer.send(WriterMessage::Open(attempt.clone()));
        }
    }

    /// Every writer thread throws away what is open of the attempt. Returns when all have.
    pub(crate) fn close(&self, attempt: AttemptId) {
        let (done, closed) = bounded(self.writers.len());
        for writer in &self.writers {
            let _ = writer.send(WriterMessage::Close(attempt, done.clone()));
        }
        drop(done);
        closed.iter().for_each(drop);
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        // The ETL threads end when the queue does, and the writers when nobody can send to them any more.
        self.queue = None;
        self.writers.clear();
        for thread in self.threads.drain(..) {
            // A thread of a pool survives panics of what it works on.
            let _ = thread.join();
        }
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(work)
}
