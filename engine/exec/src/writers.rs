//! The writer threads, which write into the sinks' lanes and commit them.
//!
//! They work for many runs. A sink has as many writers as there are threads, and each of its
//! [lanes](crate::lanes) belongs to one writer; which thread does a writer's next task is decided
//! when the task's turn has come ([`schedule`]). So a writer runs on at most one thread at a time,
//! in the order of its tasks, and nothing else depends on the thread that it runs on: if a task
//! takes long because its target hangs, another thread takes the place of this one ([`crew`]).

mod crew;
#[cfg(all(test, feature = "model"))]
mod model;
mod schedule;
mod task;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use pseidon_delivery::{Committer, Reason, SplitId};
use pseidon_plan::{PerSink, SinkIndex};
use pseidon_plugin::budget::LaneMemory;
use pseidon_plugin::sink::{Chunk, Sink, SinkError};

use self::crew::{Crew, JobId};
use self::schedule::{DiscardedWriters, Job, NextWakeUp, Schedule, WriterKey};
use self::task::{CloseNotifier, SharedFlush, Task};
use crate::answer::{AnswerReceiver, answer};
use crate::attempt::AttemptId;
use crate::failure::{Failure, Failures, guarded};
use crate::lanes::{Finding, LaneStatuses, Lanes, LanesSetup, Suspects};
use crate::queue::UnwrittenCharge;
use crate::sync::{Condvar, JoinHandle, Mutex, has_ended, now, spawn, when_about_to_wait};

/// How often to check whether a thread is away.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// The maximum sleep of a thread without work.
const IDLE: Duration = Duration::from_secs(3600);

/// The writer threads. They exit when this is dropped.
pub(crate) struct Writers {
    pool: Arc<WriterPool>,
}

/// A sink whose lanes are written.
#[derive(Clone)]
pub(crate) struct WriterSink {
    /// The stage of the sink.
    pub(crate) stage: String,
    /// The sink to write to.
    pub(crate) sink: Arc<dyn Sink>,
    /// Commits the sink's lanes.
    pub(crate) committer: Arc<Committer>,
    /// The number of the writer that has all lanes, for a sink that requires a single writer.
    pub(crate) only_writer: Option<usize>,
    /// The memory that the open lanes of all sinks may use for buffers.
    pub(crate) memory: Arc<LaneMemory>,
    /// Counts its writers that are blocked.
    pub(crate) blocked: IntGauge,
    /// Where the status of its open lanes is shown.
    pub(crate) shown: LaneStatuses,
    /// What is known of the records because of which its lanes have failed; `None` if it has no
    /// error policy for them.
    pub(crate) suspects: Option<Arc<Suspects>>,
}

/// The state that the threads share.
struct WriterPool {
    /// How many writers a sink has.
    count: usize,
    state: Mutex<PoolState>,
    /// Notified when something is ready, or when the pool is dropped.
    ready: Condvar,
    /// Notified when the pool is dropped.
    over: Condvar,
}

struct PoolState {
    schedule: Schedule<SinkWriter>,
    crew: Crew,
    threads: Vec<JoinHandle>,
    /// How many threads sleep, and the earliest time at which one of them wakes up by itself.
    sleeping: usize,
    wakes: Option<Instant>,
    is_over: bool,
}

/// A writer with what is needed to report its failures.
struct SinkWriter {
    stage: String,
    failures: Failures,
    lanes: Lanes,
}

/// Makes a writer retry what its target did not accept.
struct WriterWaker {
    pool: Weak<WriterPool>,
    key: WriterKey,
}

impl Wake for WriterWaker {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.state.lock().schedule.wake(self.key, now());
            pool.ready.notify_one();
        }
    }
}

impl Writers {
    /// Starts `count` threads, and one that replaces those that are away. An error means that the
    /// system refused a thread.
    pub(crate) fn start(count: usize) -> io::Result<Writers> {
        let state = PoolState {
            schedule: Schedule::new(now()),
            crew: Crew::new(count),
            threads: Vec::new(),
            sleeping: 0,
            wakes: None,
            is_over: false,
        };
        let pool = Arc::new(WriterPool {
            count,
            state: Mutex::new(state),
            ready: Condvar::new(),
            over: Condvar::new(),
        });
        let writers = Writers { pool: pool.clone() };
        pool.call_in()?;
        let watched = pool.clone();
        let watch = spawn("writer-watch".to_owned(), move || watched.watch())?;
        pool.state.lock().threads.push(watch);
        Ok(writers)
    }

    /// How many writers a sink has.
    pub(crate) fn count(&self) -> usize {
        self.pool.count
    }

    /// Creates the writers of a new attempt's sinks.
    pub(crate) fn open(
        &self,
        attempt: AttemptId,
        sinks: &PerSink<WriterSink>,
        failures: &Failures,
    ) {
        let mut writers = Vec::new();
        for (index, sink) in sinks.enumerate() {
            for writer in (0..self.pool.count)
                .filter(|writer| sink.only_writer.is_none_or(|only| only == *writer))
            {
                let key = (attempt, index, writer);
                let waker = Waker::from(Arc::new(WriterWaker {
                    pool: Arc::downgrade(&self.pool),
                    key,
                }));
                let lanes = Lanes::new(sink.lanes(self.pool.count, waker));
                writers.push((
                    key,
                    SinkWriter {
                        stage: sink.stage.clone(),
                        failures: failures.clone(),
                        lanes,
                    },
                ));
            }
        }
        self.pool
            .state
            .lock()
            .schedule
            .open(attempt, writers, now());
        self.pool.ready.notify_all();
    }

    /// Sends a writer rows of one of its lanes. Never waits. Rows of an attempt that has failed or
    /// is over are dropped.
    pub(crate) fn write(
        &self,
        attempt: AttemptId,
        sink: SinkIndex,
        writer: usize,
        chunk: Chunk,
        unwritten: UnwrittenCharge,
    ) {
        let key = (attempt, sink, writer);
        let mut state = self.pool.state.lock();
        let refused = state
            .schedule
            .give(key, Task::Write(chunk, unwritten), now());
        let is_on_thread = state.schedule.is_on_thread(key);
        drop(state);
        if !is_on_thread {
            self.pool.ready.notify_one();
        }
        drop(refused);
    }

    /// Commits and publishes those lanes of these sinks that hold records of these splits; `None`
    /// means all splits. If that fails the answer is withheld; the failure is reported by then.
    pub(crate) fn flush(
        &self,
        attempt: AttemptId,
        sinks: &[SinkIndex],
        splits: Option<&[SplitId]>,
    ) -> AnswerReceiver {
        let (done, answer) = answer();
        let mut refused = Vec::new();
        let mut state = self.pool.state.lock();
        if state.schedule.is_open(attempt) {
            let keys: Vec<WriterKey> = sinks
                .iter()
                .flat_map(|sink| state.schedule.writers_of(attempt, *sink))
                .collect();
            let flush = Arc::new(SharedFlush::new(keys.len(), done));
            for key in keys {
                let task = Task::Flush(splits.map(<[SplitId]>::to_vec), flush.clone());
                refused.extend(state.schedule.give(key, task, now()));
            }
        }
        drop(state);
        self.pool.ready.notify_all();
        answer
    }

    /// Discards what is open of an attempt. Returns when all of its writers are dropped.
    pub(crate) fn close(&self, attempt: AttemptId) {
        let (done, answer) = answer();
        let (discarded, closed) = self
            .pool
            .state
            .lock()
            .schedule
            .close(attempt, CloseNotifier(done));
        drop(closed);
        self.pool.discard(discarded);
        answer.wait();
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.pool.state.lock();
            state.is_over = true;
            std::mem::take(&mut state.threads)
        };
        self.pool.ready.notify_all();
        self.pool.over.notify_all();
        for thread in threads {
            // A panic in a writer is a failure of its attempt; the thread survives it.
            let _ = thread.join();
        }
    }
}

impl WriterPool {
    /// Starts the threads that are missing.
    fn call_in(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !has_ended(thread));
        for _ in 0..state.crew.call_in() {
            let pool = self.clone();
            match spawn("writer".to_owned(), move || pool.work()) {
                Ok(thread) => state.threads.push(thread),
                Err(error) => {
                    state.crew.start_failed();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Replaces threads that are away. If no thread can be started, the others must wait until the
    /// next check.
    fn replace(self: &Arc<Self>) {
        if let Err(error) = self.call_in() {
            tracing::warn!(%error, "cannot start a writer thread; sinks may wait for blocked ones");
        }
    }

    /// Checks regularly whether a job takes long.
    fn watch(self: Arc<Self>) {
        let mut state = self.state.lock();
        while !state.is_over {
            state.crew.look(now());
            drop(state);
            self.replace();
            state = self.state.lock();
            if !state.is_over {
                self.over.wait_for(&mut state, CHECK_INTERVAL);
            }
        }
    }

    /// Does one job after another, until the pool is dropped or this thread is surplus.
    fn work(self: Arc<Self>) {
        let current: Rc<Cell<Option<JobId>>> = Rc::default();
        let (pool, waiting) = (self.clone(), current.clone());
        when_about_to_wait(move || {
            if let Some(job) = waiting.get() {
                pool.state.lock().crew.wait(job);
                pool.replace();
            }
        });
        let mut state = self.state.lock();
        while !state.is_over {
            let Some(job) = state.schedule.next(now()) else {
                let until = state.schedule.next_ready().unwrap_or_else(|| now() + IDLE);
                state.wakes = Some(state.wakes.map_or(until, |wakes| wakes.min(until)));
                state.sleeping += 1;
                self.ready
                    .wait_for(&mut state, until.saturating_duration_since(now()));
                state.sleeping -= 1;
                state.wakes = None;
                continue;
            };
            let id = state.crew.begin(now());
            // Sleeping threads may have to wake up earlier than they intended when they fell
            // asleep.
            let is_early = state
                .schedule
                .next_ready()
                .is_some_and(|ready| state.wakes.is_none_or(|wakes| ready < wakes));
            if state.sleeping > 0 && is_early {
                self.ready.notify_one();
            }
            drop(state);
            current.set(Some(id));
            self.perform(job);
            current.set(None);
            state = self.state.lock();
            if state.crew.end(id) {
                break;
            }
        }
        drop(state);
        // The writer that this thread returned may have a task for another thread now.
        self.ready.notify_one();
    }

    /// Does a job. If it fails, the whole attempt has failed: the failure is reported, then what is
    /// open of the attempt is discarded.
    fn perform(&self, job: Job<SinkWriter>) {
        let Job {
            key,
            mut writer,
            task,
        } = job;
        let done = guarded(|| writer.perform(task));
        match done {
            Ok(next) => {
                let over = self.state.lock().schedule.done(key, writer, next, now());
                if let Some(writer) = over {
                    self.discard(DiscardedWriters {
                        writers: vec![(key, writer)],
                        tasks: Vec::new(),
                    });
                }
            }
            Err(failure) => {
                writer.failures.report(failure);
                let mut discarded = self.state.lock().schedule.fail(key.0);
                discarded.writers.push((key, writer));
                self.discard(discarded);
            }
        }
    }

    /// Drops writers and tasks while nothing is locked, and answers those who wait for it.
    fn discard(&self, discarded: DiscardedWriters<SinkWriter>) {
        let DiscardedWriters { writers, tasks } = discarded;
        drop(tasks);
        let mut keys = Vec::with_capacity(writers.len());
        for (key, writer) in writers {
            let failures = writer.failures.clone();
            let drop_it = move || {
                drop(writer);
                Ok(())
            };
            if let Err(failure) = guarded(drop_it) {
                failures.report(failure);
            }
            keys.push(key);
        }
        let closed = self.state.lock().schedule.dropped(&keys);
        drop(closed);
    }
}

impl WriterSink {
    /// The context of one of its writers.
    fn lanes(&self, writers: usize, waker: Waker) -> LanesSetup {
        LanesSetup {
            sink: self.sink.clone(),
            committer: self.committer.clone(),
            writers,
            memory: self.memory.clone(),
            blocked: self.blocked.clone(),
            waker,
            shown: self.shown.clone(),
            suspects: self.suspects.clone(),
        }
    }
}

impl SinkWriter {
    /// Does a task; a new writer has none.
    fn perform(&mut self, task: Option<Task>) -> Result<NextWakeUp, Failure> {
        if let Some(task) = task {
            task.perform(&mut self.lanes)
                .map_err(|error| self.failure(error))?;
        }
        Ok(NextWakeUp {
            tick_every: self.lanes.check_every(),
            resume_at: self.lanes.resume_at(),
        })
    }

    /// The failure of the attempt because of this error.
    fn failure(&mut self, error: SinkError) -> Failure {
        let culprit = match self.lanes.search(&error) {
            Finding::Nothing => return Failure::of_sink(&self.stage, error),
            Finding::Parts => None,
            Finding::Culprit(split, position) => Some((split, position)),
        };
        Failure::Unwritable {
            stage: self.stage.clone(),
            reason: Reason::of(error),
            culprit,
        }
    }
}
