//! What is done with committed files in the background, so that no writer waits for it.
//!
//! A file that could not be published is tried again. A published file is moved (`moved` is reached
//! when one has its place) and reported to the hook (`hooked`, when that has succeeded). Only then
//! the file counts as done, which takes it out of the state store. What fails is tried again
//! without end, after longer and longer waits, while others go on. When the sink is closed, what
//! has not failed yet gets a few seconds; the rest is in the state store, and the next run does it.
//!
//! Files and reports have a thread each, which leaves when there is nothing to do: a hook that
//! hangs holds up no file. When too many files wait, the writers wait as well
//! ([`FollowUps::is_full`]).

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
use pseidon_plugin::threads::{Background, spawn, wait_until};
use serde_json::json;

use super::follow_up::FollowUp;
use super::hook::Hook;
use super::place::{Move, Outcome, sync_dirs};
use super::relocate::{Place, forget_note, relocate};
use super::staging::shown;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long the closing of a sink waits.
const GRACE: Duration = Duration::from_secs(5);
/// How long after that a system call may still take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a thread waits for more before it leaves.
const LINGER: Duration = Duration::from_secs(1);
/// After so many failures of a file another warning is due.
const FAILURES_TO_A_WARNING: u32 = 10;
/// What became of a record whose file was found broken, for the metrics.
const IN_BROKEN_FILE: &str = "in_broken_file";
/// How many ids are remembered that are done and perhaps still in the store.
const MOST_REMEMBERED: usize = 10_000;
/// How many files may wait before the writers wait too. Each is an entry in the state store.
pub(super) const MOST_WAITING: usize = 1000;

/// What is known of the sink whose files these are.
pub(super) struct SinkContext {
    /// The pipeline's name.
    pub(super) pipeline: String,
    /// What is called for each file.
    pub(super) hook: Option<Hook>,
    /// Takes files that are done out of the state store.
    pub(super) committer: Arc<Committer>,
    /// Counts what waits, and the records in broken files.
    pub(super) metrics: Metrics,
    /// The sink's stage.
    pub(super) stage: String,
}

/// The committed files of a sink that are not done. Dropping it closes it.
pub(super) struct FollowUps {
    work: Arc<Work>,
    threads: Mutex<Vec<Background>>,
}

struct Work {
    sink: SinkContext,
    state: Mutex<State>,
    changed: Condvar,
    unpublished: IntGauge,
    waiting: IntGauge,
}

#[derive(Default)]
struct State {
    files: Queue,
    reports: Queue,
    /// The ids of all jobs.
    known: HashSet<String>,
    /// The ids that were done last.
    done: VecDeque<String>,
    added: u64,
    /// Until when jobs are done, once the sink is closed.
    deadline: Option<Instant>,
}

/// The jobs that one thread does, one after the other.
#[derive(Default)]
struct Queue {
    /// By when they are due, and in the order in which they came.
    jobs: BTreeMap<(Instant, u64), Job>,
    has_thread: bool,
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueKind {
    Files,
    Reports,
}

/// What is left to do for one file.
struct Job {
    id: String,
    moving: Move,
    step: Step,
    failures: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// It is committed, and has to get its visible name.
    Publish,
    /// It is published, and has to get to its place.
    Relocate(FollowUp),
    /// It is in its place, and has to be reported.
    Report(FollowUp, PathBuf),
}

impl Step {
    fn queue(&self) -> QueueKind {
        match self {
            Step::Publish | Step::Relocate(_) => QueueKind::Files,
            Step::Report(..) => QueueKind::Reports,
        }
    }
}

impl FollowUps {
    /// Nothing to do yet.
    pub(super) fn new(sink: SinkContext) -> FollowUps {
        let unpublished = sink
            .metrics
            .unpublished_files
            .with_label_values(&[&sink.stage]);
        let waiting = sink.metrics.waiting_files.with_label_values(&[&sink.stage]);
        let work = Work {
            sink,
            state: Mutex::default(),
            changed: Condvar::new(),
            unpublished,
            waiting,
        };
        FollowUps {
            work: Arc::new(work),
            threads: Mutex::default(),
        }
    }

    /// The committed file could not be published: it is tried again, and then what follows is done.
    /// Nothing changes if it is known, or done, already.
    pub(super) fn publish_later(&self, id: String, moving: Move) {
        self.add(
            Job {
                id,
                moving,
                step: Step::Publish,
                failures: 0,
            },
            Instant::now() + FIRST_WAIT,
        );
    }

    /// The file has been published, and this follows; unless it is known, or done, already.
    pub(super) fn follow(&self, id: String, moving: Move, follow_up: FollowUp) {
        self.add(
            Job {
                id,
                moving,
                step: Step::Relocate(follow_up),
                failures: 0,
            },
            Instant::now(),
        );
    }

    /// Whether so many files wait that no more should be written.
    pub(super) fn is_full(&self) -> bool {
        self.work.state.lock().known.len() >= MOST_WAITING
    }

    fn add(&self, job: Job, due: Instant) {
        {
            let mut state = self.work.state.lock();
            if state.done.contains(&job.id) || !state.known.insert(job.id.clone()) {
                return;
            }
            self.work.gauge(&job.step).inc();
            state.put(due, job);
            self.work.changed.notify_all();
        }
        self.start(QueueKind::Files);
        // Its thread has to be there before the first report is.
        if self.work.sink.hook.is_some() {
            self.start(QueueKind::Reports);
        }
    }

    fn start(&self, kind: QueueKind) {
        if std::mem::replace(&mut self.work.state.lock().queue(kind).has_thread, true) {
            return;
        }
        let work = self.work.clone();
        match spawn("follow-ups", move || work.run(kind)) {
            Ok(started) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(started);
            }
            Err(error) => {
                self.work.state.lock().queue(kind).has_thread = false;
                tracing::warn!(%error, "cannot start a thread; files are moved and reported later");
            }
        }
    }
}

impl Drop for FollowUps {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut state = self.work.state.lock();
        state.deadline = Some(deadline);
        // What is committed gets a last chance to become visible.
        state
            .files
            .jobs
            .values_mut()
            .filter(|job| matches!(job.step, Step::Publish))
            .for_each(|job| job.failures = 0);
        self.work.changed.notify_all();
        let mut is_hanging = false;
        while (state.files.has_thread || state.reports.has_thread) && !is_hanging {
            // A thread may hang in a system call or a slow answer. Whatever it still does, the next
            // run finds done or does again.
            is_hanging = wait_until(&self.work.changed, &mut state, deadline + PATIENCE);
        }
        let left = state
            .files
            .jobs
            .values()
            .filter(|job| matches!(job.step, Step::Publish))
            .count();
        if left > 0 {
            tracing::warn!(sink = %self.work.sink.committer.sink(), files = left, "committed files are not published; the next run tries again");
        }
        for job in state.files.jobs.values().chain(state.reports.jobs.values()) {
            self.work.gauge(&job.step).dec();
        }
        drop(state);
        if !is_hanging {
            self.threads.get_mut().drain(..).for_each(Background::join);
        }
    }
}

impl State {
    fn queue(&mut self, kind: QueueKind) -> &mut Queue {
        match kind {
            QueueKind::Files => &mut self.files,
            QueueKind::Reports => &mut self.reports,
        }
    }

    fn put(&mut self, due: Instant, job: Job) {
        self.added += 1;
        let key = (due, self.added);
        self.queue(job.step.queue()).jobs.insert(key, job);
    }
}

impl Work {
    fn run(&self, kind: QueueKind) {
        loop {
            let mut is_any_done = false;
            while let Some(job) = self.next(kind) {
                is_any_done |= self.work_by(job, |job| self.attempt(job));
            }
            if is_any_done {
                // After the last of the writers' steps nothing else takes these out of the store.
                if let Err(error) = self.sink.committer.commit_idle() {
                    tracing::debug!(%error, "files that are done stay in the state store");
                }
            }
            if self.leave(kind) {
                return;
            }
        }
    }

    /// Does the next step of a job. A panic in it is a failure of this job, such as one in the
    /// parser of a damaged file. Returns whether the job is done.
    fn work_by(
        &self,
        mut job: Job,
        attempt: impl FnOnce(&Job) -> Result<Option<Step>, String>,
    ) -> bool {
        let attempt = catch_unwind(AssertUnwindSafe(|| attempt(&job)));
        match attempt.unwrap_or_else(|panic| Err(format!("internal error: {}", text_of(&*panic)))) {
            Ok(Some(step)) => {
                self.gauge(&job.step).dec();
                self.gauge(&step).inc();
                job.step = step;
                self.state.lock().put(Instant::now(), job);
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
                self.put_off(job, &reason);
                false
            }
        }
    }

    /// Waits for the next job; `None` when there has been none for a while, or the sink is closed
    /// and it is time to leave.
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
                    // More reports may come from the files that are still being moved.
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

    /// Ends the queue's thread, unless it has a job by now. Returns whether it ends.
    fn leave(&self, kind: QueueKind) -> bool {
        let mut state = self.state.lock();
        let is_closed = state.deadline.is_some();
        if !is_closed && !state.queue(kind).jobs.is_empty() {
            return false;
        }
        state.queue(kind).has_thread = false;
        self.changed.notify_all();
        true
    }

    /// Does the next step of a job. Returns the step after it, if there is one. An error is a
    /// sentence.
    fn attempt(&self, job: &Job) -> Result<Option<Step>, String> {
        let is_over = || self.is_over();
        match &job.step {
            Step::Publish => {
                let mut changed: BTreeSet<PathBuf> = job.moving.dirs().collect();
                let cannot = |error: std::io::Error| {
                    format!("cannot publish {}: {error}", shown(&job.moving))
                };
                if let Outcome::NotHere(obstacle) =
                    job.moving.apply(&mut changed).map_err(cannot)?
                {
                    return Err(format!(
                        "cannot publish {}: {}",
                        shown(&job.moving),
                        job.moving.explain(&obstacle)
                    ));
                }
                sync_dirs(&changed).map_err(cannot)?;
                Ok(job.moving.follow_up.clone().map(Step::Relocate))
            }
            Step::Relocate(follow_up) => {
                let place = relocate(&job.id, &job.moving, follow_up, &is_over)
                    .map_err(|error| format!("cannot move {}: {error}", shown(&job.moving)))?;
                failpoint::reach("moved");
                match place {
                    Place::Broken(path, reason) => {
                        tracing::warn!(file = %path.display(), reason, records = follow_up.records, "quarantined a broken file");
                        let labels = [self.sink.stage.as_str(), IN_BROKEN_FILE];
                        self.sink
                            .metrics
                            .bad_records
                            .with_label_values(&labels)
                            .inc_by(follow_up.records);
                        Ok(None)
                    }
                    Place::Final(path) if self.sink.hook.is_some() => {
                        Ok(Some(Step::Report(follow_up.clone(), path)))
                    }
                    Place::Final(_) => self.clear(job, follow_up),
                }
            }
            Step::Report(follow_up, path) => {
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
                self.clear(job, follow_up)
            }
        }
    }

    /// Everything was done for a file.
    fn clear(&self, job: &Job, follow_up: &FollowUp) -> Result<Option<Step>, String> {
        let cleared = forget_note(&job.id, &job.moving, follow_up);
        cleared
            .map(|()| None)
            .map_err(|error| format!("cannot clean up beside {}: {error}", shown(&job.moving)))
    }

    fn finish(&self, job: Job) {
        if job.failures > 0 {
            tracing::info!(sink = %self.sink.committer.sink(), file = job.moving.visible, "a file that failed before is done");
        }
        let mut state = self.state.lock();
        state.known.remove(&job.id);
        state.done.push_back(job.id);
        if state.done.len() > MOST_REMEMBERED {
            state.done.pop_front();
        }
    }

    fn put_off(&self, mut job: Job, reason: &str) {
        if job.failures.is_multiple_of(FAILURES_TO_A_WARNING) && !self.is_over() {
            let (sink, file) = (self.sink.committer.sink(), &job.moving.visible);
            tracing::warn!(%sink, file, reason, "a committed file is not done; trying again until it is");
        }
        let wait = FIRST_WAIT
            .saturating_mul(1 << job.failures.min(6))
            .min(LONGEST_WAIT);
        job.failures += 1;
        self.state.lock().put(Instant::now() + wait, job);
    }

    /// Counts the jobs at this step.
    fn gauge(&self, step: &Step) -> &IntGauge {
        match step {
            Step::Publish => &self.unpublished,
            Step::Relocate(_) | Step::Report(..) => &self.waiting,
        }
    }

    /// Whether the sink was closed, and its grace is over.
    fn is_over(&self) -> bool {
        self.state
            .lock()
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> &str {
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

    fn work(dir: &Path) -> Work {
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
        Work {
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
            step: Step::Publish,
            failures: 0,
        }
    }

    #[test]
    fn a_panic_is_a_failure_of_one_job_and_the_thread_lives() {
        let dir = tempfile::tempdir().unwrap();
        let work = work(&dir.path().join("state"));
        assert!(!work.work_by(job(dir.path()), |_| panic!("a footer of {} bytes", 7)));
        let put_off = work.state.lock().files.jobs.pop_first().unwrap().1;
        assert_eq!(put_off.failures, 1);
        assert!(work.work_by(put_off, |_| Ok(None)));
    }
}
