//! The loop of a thread that runs jobs, and their retries.

use std::any::Any;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use pseidon_delivery::{Reason, WithCauses};
use pseidon_plugin::threads::wait_until;

use super::super::file_system;
use super::queue::{Job, JobStep, QueueKind};
use super::{FIRST_WAIT, JobRunner};

const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long a thread without jobs waits before it exits.
const LINGER: Duration = Duration::from_secs(1);
/// A warning is logged for every tenth failure of a file, beginning with the first.
const FAILURES_PER_WARNING: u32 = 10;
/// How many ids of done files are remembered, since they may still be in the store.
const MAX_REMEMBERED: usize = 10_000;

impl JobRunner {
    /// Runs the jobs of a queue, until there are none for a while.
    pub(super) fn run(&self, kind: QueueKind) {
        loop {
            let mut is_any_done = false;
            while let Some(job) = self.next(kind) {
                is_any_done |= self.run_job(job, |job| self.attempt(job));
            }
            if is_any_done {
                // After the writers' last step nothing else removes these files from the store.
                if let Err(error) = self.sink.committer.commit_idle() {
                    tracing::debug!(
                        error = %WithCauses(&error),
                        "cannot remove done files from the state store yet"
                    );
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
        attempt: impl FnOnce(&Job) -> Result<Option<JobStep>, Reason>,
    ) -> bool {
        let attempt = catch_unwind(AssertUnwindSafe(|| attempt(&job)));
        match attempt.unwrap_or_else(|panic| {
            Err(format!("internal error: {}", panic_message(&*panic)).into())
        }) {
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

    /// Remembers that a file is done.
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

    /// Schedules another attempt after a failure.
    fn retry_later(&self, mut job: Job, reason: &Reason) {
        if job.failures.is_multiple_of(FAILURES_PER_WARNING) && !self.is_over() {
            let (sink, file) = (self.sink.committer.sink(), &job.moving.visible);
            let reason = WithCauses(reason).to_string();
            tracing::warn!(%sink, file, reason, "a committed file is not done; retrying");
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << job.failures.min(6))
            .min(MAX_WAIT);
        job.failures += 1;
        job.needs_repair = needs_repair(reason);
        self.state.lock().push(Instant::now() + wait, job);
    }

    /// The gauge that counts the jobs at this step.
    pub(super) fn gauge(&self, step: &JobStep) -> &IntGauge {
        match step {
            JobStep::Publish => &self.unpublished,
            JobStep::Relocate(_) | JobStep::Report(..) => &self.waiting,
        }
    }

    /// Whether the sink was closed and its grace period is over.
    pub(super) fn is_over(&self) -> bool {
        self.state
            .lock()
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Whether a person has to repair a folder.
fn needs_repair(reason: &Reason) -> bool {
    let mut cause = reason.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return file_system::needs_repair(error);
        }
        cause = error.source();
    }
    false
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use crate::sink::access::Access;
    use std::path::Path;
    use std::sync::Arc;

    use parking_lot::{Condvar, Mutex};
    use pseidon_delivery::committer::Positions;
    use pseidon_delivery::embedded::EmbeddedStore;
    use pseidon_delivery::{Claimant, Committer, StateStore};
    use pseidon_plugin::metrics::Metrics;

    use super::super::super::entry::Move;
    use super::super::super::host::Host;
    use super::super::SinkContext;
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
            access: Access::of_mode("0640"),
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
            needs_repair: false,
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
