//! The background work on committed files, which no writer waits for.
//!
//! A file that could not be published is retried. A published file is moved (fail point `moved`)
//! and reported to the hook (fail point `hooked`, after a success). Only then the file is done, and
//! is removed from the state store. A failed step is retried without limit, with increasing waits,
//! while other files continue. When the sink is closed, jobs that have not failed yet get a few
//! seconds; the rest stays in the state store for the next run.
//!
//! Files and reports have a thread each, which exits when it has no jobs: a hook that hangs delays
//! no file. When too many files wait, the writers wait as well ([`FollowUps::is_full`]).
//!
//! The [`runner`] of a queue takes its jobs one after the other ([`queue`]), and does the next of
//! their [`steps`].

mod queue;
mod runner;
mod steps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use pseidon_delivery::{Committer, StagedId};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::threads::{BackgroundThread, spawn, wait_until};

use self::queue::{Job, JobQueues, JobStep, QueueKind};
use super::access::Access;
use super::entry::Move;
use super::follow_up::FollowUp;
use super::hook::Hook;

const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long jobs may still run when the sink is closed.
const GRACE: Duration = Duration::from_secs(5);
/// How long after that a system call may still take before its thread is abandoned.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many files may wait before the writers wait as well. Each is an entry in the state store.
pub(super) const MAX_WAITING: usize = 1000;

/// The sink to which the files belong.
pub(super) struct SinkContext {
    /// The pipeline's name, which hooks receive.
    pub(super) pipeline: String,
    /// With which folders and copies are created.
    pub(super) access: Access,
    /// The hook that is called for each file.
    pub(super) hook: Option<Hook>,
    /// Removes files that are done from the state store.
    pub(super) committer: Arc<Committer>,
    /// Counts the waiting files, and the records in broken files.
    pub(super) metrics: Metrics,
    /// The sink's stage, which labels its metrics.
    pub(super) stage: String,
}

/// The committed files of a sink that are not done. Dropping it stops its threads, after a grace
/// period.
pub(super) struct FollowUps {
    runner: Arc<JobRunner>,
    threads: Mutex<Vec<BackgroundThread>>,
}

/// Runs the jobs of both queues, each in a thread.
struct JobRunner {
    sink: SinkContext,
    state: Mutex<JobQueues>,
    changed: Condvar,
    unpublished: IntGauge,
    waiting: IntGauge,
}

impl FollowUps {
    /// Creates the queues without jobs. Threads start with the first job.
    pub(super) fn new(sink: SinkContext) -> FollowUps {
        let unpublished = sink
            .metrics
            .unpublished_files
            .with_label_values(&[&sink.stage]);
        let waiting = sink.metrics.waiting_files.with_label_values(&[&sink.stage]);
        let runner = JobRunner {
            sink,
            state: Mutex::default(),
            changed: Condvar::new(),
            unpublished,
            waiting,
        };
        FollowUps {
            runner: Arc::new(runner),
            threads: Mutex::default(),
        }
    }

    /// Schedules another attempt to publish a committed file, and then its follow-up. Does nothing
    /// if the file has a job or is done already.
    pub(super) fn publish_later(&self, id: StagedId, moving: Move) {
        self.add(
            Job {
                id,
                moving,
                step: JobStep::Publish,
                failures: 0,
                needs_repair: false,
            },
            Instant::now() + FIRST_WAIT,
        );
    }

    /// Does the follow-up of a published file. Does nothing if the file has a job or is done
    /// already.
    pub(super) fn follow(&self, id: StagedId, moving: Move, follow_up: FollowUp) {
        self.add(
            Job {
                id,
                moving,
                step: JobStep::Relocate(follow_up),
                failures: 0,
                needs_repair: false,
            },
            Instant::now(),
        );
    }

    /// Whether so many files wait that no more should be written.
    pub(super) fn is_full(&self) -> bool {
        self.runner.state.lock().job_ids.len() >= MAX_WAITING
    }

    fn add(&self, job: Job, due: Instant) {
        {
            let mut state = self.runner.state.lock();
            if state.done.contains(&job.id) || !state.job_ids.insert(job.id.clone()) {
                return;
            }
            self.runner.gauge(&job.step).inc();
            state.push(due, job);
            self.runner.changed.notify_all();
        }
        self.start(QueueKind::Files);
        // Its thread has to exist before the first report is queued.
        if self.runner.sink.hook.is_some() {
            self.start(QueueKind::Reports);
        }
    }

    fn start(&self, kind: QueueKind) {
        if std::mem::replace(&mut self.runner.state.lock().queue(kind).has_thread, true) {
            return;
        }
        let runner = self.runner.clone();
        match spawn("follow-ups", move || runner.run(kind)) {
            Ok(started) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(started);
            }
            Err(error) => {
                self.runner.state.lock().queue(kind).has_thread = false;
                tracing::warn!(%error, "cannot start a thread; files are moved and reported later");
            }
        }
    }
}

impl Drop for FollowUps {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut state = self.runner.state.lock();
        state.deadline = Some(deadline);
        // Committed files get a last chance to become visible.
        state
            .files
            .jobs
            .values_mut()
            .filter(|job| matches!(job.step, JobStep::Publish) || job.needs_repair)
            .for_each(|job| job.failures = 0);
        self.runner.changed.notify_all();
        let mut is_hanging = false;
        while (state.files.has_thread || state.reports.has_thread) && !is_hanging {
            // A thread may hang in a system call or wait for a slow response. The next run finds
            // its work done or repeats it.
            is_hanging = wait_until(&self.runner.changed, &mut state, deadline + PATIENCE);
        }
        let left = state
            .files
            .jobs
            .values()
            .filter(|job| matches!(job.step, JobStep::Publish))
            .count();
        if left > 0 {
            tracing::warn!(
                sink = %self.runner.sink.committer.sink(),
                files = left,
                "committed files are not published yet; the next run retries"
            );
        }
        let misplaced = state.files.jobs.values().filter(|job| job.needs_repair);
        let sink = &self.runner.sink;
        let name = sink.committer.sink();
        sink.metrics
            .set_misplaced_files(name.as_str(), misplaced.count() as u64);
        for job in state.files.jobs.values().chain(state.reports.jobs.values()) {
            self.runner.gauge(&job.step).dec();
        }
        drop(state);
        if !is_hanging {
            self.threads
                .get_mut()
                .drain(..)
                .for_each(BackgroundThread::join);
        }
    }
}
