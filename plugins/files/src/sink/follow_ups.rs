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

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use pseidon_delivery::{Committer, failpoint};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::threads::{BackgroundThread, spawn, wait_until};
use serde_json::json;

use super::follow_up::FollowUp;
use super::hook::Hook;
use super::place::{Move, PublishOutcome, sync_dirs};
use super::relocate::{Relocation, relocate, remove_note};
use super::staging::shown;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long jobs may still run when the sink is closed.
const GRACE: Duration = Duration::from_secs(5);
/// How long after that a system call may still take before its thread is abandoned.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a thread without jobs waits before it exits.
const LINGER: Duration = Duration::from_secs(1);
/// A warning is logged for every tenth failure of a file, beginning with the first.
const FAILURES_PER_WARNING: u32 = 10;
/// The label of `bad_records` for records whose file was found broken.
const IN_BROKEN_FILE: &str = "in_broken_file";
/// How many ids of done files are remembered, since they may still be in the store.
const MAX_REMEMBERED: usize = 10_000;
/// How many files may wait before the writers wait as well. Each is an entry in the state store.
pub(super) const MAX_WAITING: usize = 1000;

/// The sink to which the files belong.
pub(super) struct SinkContext {
    /// The pipeline's name.
    pub(super) pipeline: String,
    /// The hook that is called for each file.
    pub(super) hook: Option<Hook>,
    /// Removes files that are done from the state store.
    pub(super) committer: Arc<Committer>,
    /// Counts the waiting files, and the records in broken files.
    pub(super) metrics: Metrics,
    /// The sink's stage.
    pub(super) stage: String,
}

/// The committed files of a sink that are not done. Dropping it stops its threads, after a grace
/// period.
pub(super) struct FollowUps {
    runner: Arc<JobRunner>,
    threads: Mutex<Vec<BackgroundThread>>,
}

struct JobRunner {
    sink: SinkContext,
    state: Mutex<JobQueues>,
    changed: Condvar,
    unpublished: IntGauge,
    waiting: IntGauge,
}

#[derive(Default)]
struct JobQueues {
    files: JobQueue,
    reports: JobQueue,
    /// The ids of the files of all jobs.
    job_ids: HashSet<String>,
    /// The ids of the files that were done last, the oldest first.
    done: VecDeque<String>,
    added: u64,
    /// Until when jobs may run; `None` until the sink is closed.
    deadline: Option<Instant>,
}

/// The jobs that one thread runs one after the other.
#[derive(Default)]
struct JobQueue {
    /// Ordered by due time and then by arrival.
    jobs: BTreeMap<(Instant, u64), Job>,
    has_thread: bool,
}

/// Selects a queue, and so its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Files,
    Reports,
}

/// One file and the next step for it.
struct Job {
    id: String,
    moving: Move,
    step: JobStep,
    failures: u32,
}

#[derive(Clone, Debug)]
enum JobStep {
    /// The file is committed, and has to get its visible name.
    Publish,
    /// The file is published, and has to be moved to its destination.
    Relocate(FollowUp),
    /// The file is at this final path, and has to be reported.
    Report(FollowUp, PathBuf),
}

impl JobStep {
    fn queue(&self) -> QueueKind {
        match self {
            JobStep::Publish | JobStep::Relocate(_) => QueueKind::Files,
            JobStep::Report(..) => QueueKind::Reports,
        }
    }
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
    pub(super) fn publish_later(&self, id: String, moving: Move) {
        self.add(
            Job {
                id,
                moving,
                step: JobStep::Publish,
                failures: 0,
            },
            Instant::now() + FIRST_WAIT,
        );
    }

    /// Does the follow-up of a published file. Does nothing if the file has a job or is done
    /// already.
    pub(super) fn follow(&self, id: String, moving: Move, follow_up: FollowUp) {
        self.add(
            Job {
                id,
                moving,
                step: JobStep::Relocate(follow_up),
                failures: 0,
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
            .filter(|job| matches!(job.step, JobStep::Publish))
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

impl JobQueues {
    fn queue(&mut self, kind: QueueKind) -> &mut JobQueue {
        match kind {
            QueueKind::Files => &mut self.files,
            QueueKind::Reports => &mut self.reports,
        }
    }

    fn push(&mut self, due: Instant, job: Job) {
        self.added += 1;
        let key = (due, self.added);
        self.queue(job.step.queue()).jobs.insert(key, job);
    }
}

impl JobRunner {
    fn run(&self, kind: QueueKind) {
        loop {
            let mut is_any_done = false;
            while let Some(job) = self.next(kind) {
                is_any_done |= self.run_job(job, |job| self.attempt(job));
            }
            if is_any_done {
                // After the writers' last step nothing else removes these files from the store.
                if let Err(error) = self.sink.committer.commit_idle() {
                    tracing::debug!(%error, "cannot remove done files from the state store yet");
                }
            }
            if self.try_exit(kind) {
                return;
            }
        }
    }

    /// Runs `attempt`, the next step of a job. A panic in it, such as one in the parser of a
    /// damaged file, counts as a failure of this job. Returns whether the job is done.
    fn run_job(
        &self,
        mut job: Job,
        attempt: impl FnOnce(&Job) -> Result<Option<JobStep>, String>,
    ) -> bool {
        let attempt = catch_unwind(AssertUnwindSafe(|| attempt(&job)));
        match attempt
            .unwrap_or_else(|panic| Err(format!("internal error: {}", panic_message(&*panic))))
        {
            Ok(Some(step)) => {
                self.gauge(&job.step).dec();
                self.gauge(&step).inc();
                job.step = step;
                self.state.lock().push(Instant::now(), job);
                self.changed.notify_all();
                false
            }
            Ok(None) => {
                self.gauge(&job.step).dec();
                self.sink.committer.published([job.id.clone()]);
                self.finish(job);
                true
            }
            Err(reason) => {
                self.retry_later(job, &reason);
                false
            }
        }
    }

    /// Waits for the next job. `None` if there was no job for [`LINGER`], or if the sink is closed
    /// and no job is left that may still run.
    fn next(&self, kind: QueueKind) -> Option<Job> {
        let mut state = self.state.lock();
        let patience = Instant::now() + LINGER;
        loop {
            let now = Instant::now();
            if let Some(deadline) = state.deadline {
                let fresh = state
                    .queue(kind)
                    .jobs
                    .iter()
                    .find(|(_, job)| job.failures == 0)
                    .map(|(key, _)| *key);
                match fresh.filter(|_| now < deadline) {
                    Some(key) => return state.queue(kind).jobs.remove(&key),
                    // Files that are still being moved may add reports.
                    None if kind == QueueKind::Reports
                        && state.files.has_thread
                        && now < deadline =>
                    {
                        wait_until(&self.changed, &mut state, deadline);
                        continue;
                    }
                    None => return None,
                }
            }
            match state
                .queue(kind)
                .jobs
                .first_key_value()
                .map(|((due, _), _)| *due)
            {
                Some(due) if due <= now => {
                    return state.queue(kind).jobs.pop_first().map(|(_, job)| job);
                }
                Some(due) => _ = wait_until(&self.changed, &mut state, due),
                None if now >= patience
                    && !(kind == QueueKind::Reports && state.files.has_thread) =>
                {
                    return None;
                }
                None => _ = wait_until(&self.changed, &mut state, patience.max(now + LINGER)),
            }
        }
    }

    /// Marks the queue's thread as exited, unless it has a job by now. Returns whether the thread
    /// exits.
    fn try_exit(&self, kind: QueueKind) -> bool {
        let mut state = self.state.lock();
        let is_closed = state.deadline.is_some();
        if !is_closed && !state.queue(kind).jobs.is_empty() {
            return false;
        }
        state.queue(kind).has_thread = false;
        self.changed.notify_all();
        true
    }

    /// Does the next step of a job. Returns the step after it, or `None` if the job is done. An
    /// error is a message without a final period.
    fn attempt(&self, job: &Job) -> Result<Option<JobStep>, String> {
        let is_over = || self.is_over();
        match &job.step {
            JobStep::Publish => {
                let mut changed: BTreeSet<PathBuf> = job.moving.dirs().collect();
                let cannot = |error: std::io::Error| {
                    format!("cannot publish {}: {error}", shown(&job.moving))
                };
                if let PublishOutcome::NotHere(obstacle) =
                    job.moving.apply(&mut changed).map_err(cannot)?
                {
                    return Err(format!(
                        "cannot publish {}: {}",
                        shown(&job.moving),
                        job.moving.explain(&obstacle)
                    ));
                }
                sync_dirs(&changed).map_err(cannot)?;
                Ok(job.moving.follow_up.clone().map(JobStep::Relocate))
            }
            JobStep::Relocate(follow_up) => {
                let place = relocate(&job.id, &job.moving, follow_up, &is_over)
                    .map_err(|error| format!("cannot move {}: {error}", shown(&job.moving)))?;
                failpoint::reach("moved");
                match place {
                    Relocation::Broken(path, reason) => {
                        tracing::warn!(
                            file = %path.display(),
                            reason,
                            records = follow_up.records,
                            "quarantined a broken file"
                        );
                        let labels = [self.sink.stage.as_str(), IN_BROKEN_FILE];
                        self.sink
                            .metrics
                            .bad_records
                            .with_label_values(&labels)
                            .inc_by(follow_up.records);
                        Ok(None)
                    }
                    Relocation::Final(path) if self.sink.hook.is_some() => {
                        Ok(Some(JobStep::Report(follow_up.clone(), path)))
                    }
                    Relocation::Final(_) => self.clean_up(job, follow_up),
                }
            }
            JobStep::Report(follow_up, path) => {
                let Some(hook) = &self.sink.hook else {
                    return Ok(None);
                };
                let path = path.to_string_lossy();
                let json = json!({
                    "pipeline": self.sink.pipeline,
                    "sink": self.sink.committer.sink().as_str(),
                    "path": path,
                    "records": follow_up.records,
                    "bytes": job.moving.bytes,
                    "positions": follow_up.positions,
                });
                hook.call(&path, &json.to_string(), &is_over)?;
                failpoint::reach("hooked");
                self.clean_up(job, follow_up)
            }
        }
    }

    /// Removes the note of a file whose steps are all done.
    fn clean_up(&self, job: &Job, follow_up: &FollowUp) -> Result<Option<JobStep>, String> {
        let cleared = remove_note(&job.id, &job.moving, follow_up);
        cleared
            .map(|()| None)
            .map_err(|error| format!("cannot clean up beside {}: {error}", shown(&job.moving)))
    }

    fn finish(&self, job: Job) {
        if job.failures > 0 {
            tracing::info!(
                sink = %self.sink.committer.sink(),
                file = job.moving.visible,
                "file is done after earlier failures"
            );
        }
        let mut state = self.state.lock();
        state.job_ids.remove(&job.id);
        state.done.push_back(job.id);
        if state.done.len() > MAX_REMEMBERED {
            state.done.pop_front();
        }
    }

    fn retry_later(&self, mut job: Job, reason: &str) {
        if job.failures.is_multiple_of(FAILURES_PER_WARNING) && !self.is_over() {
            let (sink, file) = (self.sink.committer.sink(), &job.moving.visible);
            tracing::warn!(%sink, file, reason, "a committed file is not done; retrying");
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << job.failures.min(6))
            .min(MAX_WAIT);
        job.failures += 1;
        self.state.lock().push(Instant::now() + wait, job);
    }

    /// The gauge that counts the jobs at this step.
    fn gauge(&self, step: &JobStep) -> &IntGauge {
        match step {
            JobStep::Publish => &self.unpublished,
            JobStep::Relocate(_) | JobStep::Report(..) => &self.waiting,
        }
    }

    /// Whether the sink was closed and its grace period is over.
    fn is_over(&self) -> bool {
        self.state
            .lock()
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pseidon_delivery::committer::Positions;
    use pseidon_delivery::embedded::EmbeddedStore;
    use pseidon_delivery::{Claimant, StateStore};

    use super::super::host::Host;
    use super::*;

    fn runner(dir: &Path) -> JobRunner {
        let store: Arc<dyn StateStore> = Arc::new(EmbeddedStore::open(dir, "p").unwrap());
        let claimant = Claimant {
            owner: "i".into(),
            plan: "p".into(),
            accepts_other_plans: false,
        };
        let committer = Arc::new(Committer::new(
            "lake".into(),
            store,
            claimant,
            Positions::InStore,
            Arc::default(),
        ));
        let metrics = Metrics::new();
        let sink = SinkContext {
            pipeline: "p".into(),
            hook: None,
            committer,
            metrics: metrics.clone(),
            stage: "lake".into(),
        };
        let gauge = |gauges: &prometheus::IntGaugeVec| gauges.with_label_values(&["lake"]);
        let (unpublished, waiting) = (
            gauge(&metrics.unpublished_files),
            gauge(&metrics.waiting_files),
        );
        JobRunner {
            sink,
            state: Mutex::default(),
            changed: Condvar::new(),
            unpublished,
            waiting,
        }
    }

    fn job(base: &Path) -> Job {
        let moving = Move {
            host: Host::this(),
            disk: None,
            inode: None,
            bytes: None,
            base: base.to_owned(),
            hidden: ".open/1.open".into(),
            visible: "a.json".into(),
            extension: "json".into(),
            follow_up: None,
        };
        Job {
            id: "i/1.open".into(),
            moving,
            step: JobStep::Publish,
            failures: 0,
        }
    }

    #[test]
    fn a_panic_fails_one_job_and_not_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let runner = runner(&dir.path().join("state"));
        assert!(!runner.run_job(job(dir.path()), |_| panic!("a footer of {} bytes", 7)));
        let failed = runner.state.lock().files.jobs.pop_first().unwrap().1;
        assert_eq!(failed.failures, 1);
        assert!(runner.run_job(failed, |_| Ok(None)));
    }
}
