//! A thread that does what follows publishing, so that no writer waits for it.
//!
//! It moves files (`moved` is reached when one has its place) and calls the hook (`hooked`, when that has succeeded), and only then reports
//! the file as done, which takes it out of the state store. What fails is tried again without end, after longer and longer waits, while
//! others go on. When the sink is closed what has not failed yet gets a few seconds; the rest is in the store, and the next run does it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pseidon_delivery::{Committer, failpoint};
use pseidon_plugin::metrics::Metrics;
use serde_json::json;

use super::follow_up::FollowUp;
use super::hook::Hook;
use super::place::Move;
use super::relocate::{Place, relocate};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long the closing of a sink waits.
const GRACE: Duration = Duration::from_secs(5);
/// How long after that a system call may still take.
const PATIENCE: Duration = Duration::from_secs(1);
/// After so many failures of a file another warning is due.
const FAILURES_TO_A_WARNING: u32 = 10;
/// What became of a record whose file was found broken, for the metrics.
const IN_BROKEN_FILE: &str = "in_broken_file";
/// How many ids are remembered that are done and perhaps still in the store.
const MOST_REMEMBERED: usize = 10_000;

/// What is known of the sink whose files these are.
pub(super) struct About {
    /// The pipeline's name.
    pub(super) pipeline: String,
    /// Who is called.
    pub(super) hook: Option<Hook>,
    /// What is told of files that are done.
    pub(super) committer: Arc<Committer>,
    /// What counts the records in broken files, and for which stage.
    pub(super) metrics: Metrics,
    /// The sink's stage.
    pub(super) stage: String,
}

/// The files of a sink that are published and not done. Dropping it closes it.
pub(super) struct FollowUps {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Work {
    about: About,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By when they are due, and in the order in which they came.
    jobs: BTreeMap<(Instant, u64), Job>,
    /// The ids of the jobs, and of the one that is being done.
    known: HashSet<String>,
    /// The ids that were done last.
    done: VecDeque<String>,
    added: u64,
    /// Until when jobs are done, once the sink is closed.
    deadline: Option<Instant>,
    /// The thread has left.
    left: bool,
}

/// What follows for one file.
struct Job {
    id: String,
    moving: Move,
    follow_up: FollowUp,
    /// Where it is, once it has its place.
    place: Option<Place>,
    failures: u32,
}

impl FollowUps {
    /// Nothing to do yet.
    pub(super) fn new(about: About) -> FollowUps {
        FollowUps { work: Arc::new(Work { about, state: Mutex::default(), changed: Condvar::new() }), thread: Mutex::new(None) }
    }

    /// The file has been published lastingly, and this follows; unless it is known, or done, already.
    pub(super) fn add(&self, id: String, moving: Move, follow_up: FollowUp) {
        {
            let mut state = self.work.state.lock();
            if state.done.contains(&id) || !state.known.insert(id.clone()) {
                return;
            }
            state.put(Instant::now(), Job { id, moving, follow_up, place: None, failures: 0 });
            self.work.changed.notify_all();
        }
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let work = self.work.clone();
            match std::thread::Builder::new().name("follow-ups".into()).spawn(move || work.run()) {
                Ok(started) => *thread = Some(started),
                Err(error) => tracing::warn!(%error, "no thread can be started; files are moved and reported later"),
            }
        }
    }
}

impl Drop for FollowUps {
    fn drop(&mut self) {
        let Some(thread) = self.thread.get_mut().take() else { return };
        let deadline = Instant::now() + GRACE;
        let mut state = self.work.state.lock();
        state.deadline = Some(deadline);
        self.work.changed.notify_all();
        while !state.left {
            if self.work.changed.wait_until(&mut state, deadline + PATIENCE).timed_out() {
                // It hangs in a system call or a slow answer. Whatever it still does, the next run finds done or does again.
                return;
            }
        }
        drop(state);
        let _ = thread.join();
    }
}

impl State {
    fn put(&mut self, due: Instant, job: Job) {
        self.added += 1;
        self.jobs.insert((due, self.added), job);
    }
}

impl Work {
    fn run(&self) {
        let mut is_any_done = false;
        while let Some(mut job) = self.next() {
            match self.attempt(&mut job) {
                Ok(()) => {
                    is_any_done = true;
                    self.about.committer.published([job.id.clone()]);
                    self.finish(job);
                }
                Err(reason) => self.put_off(job, &reason),
            }
        }
        if is_any_done {
            // After the last of the writers' steps nobody else takes these out of the store.
            if let Err(error) = self.about.committer.commit_idle() {
                tracing::debug!(%error, "files that are done stay in the state store");
            }
        }
        self.state.lock().left = true;
        self.changed.notify_all();
    }

    /// Waits for the next job; `None` when the sink is closed and it is time to leave.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            if let Some(deadline) = state.deadline {
                let fresh = state.jobs.iter().find(|(_, job)| job.failures == 0).map(|(key, _)| *key);
                return fresh.filter(|_| now < deadline).and_then(|key| state.jobs.remove(&key));
            }
            match state.jobs.first_key_value().map(|((due, _), _)| *due) {
                Some(due) if due <= now => return state.jobs.pop_first().map(|(_, job)| job),
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn attempt(&self, job: &mut Job) -> Result<(), String> {
        let is_over = || self.is_over();
        let place = match &job.place {
            Some(place) => place.clone(),
            None => {
                let place = relocate(&job.id, &job.moving, &job.follow_up, &is_over)
                    .map_err(|error| format!("cannot move {}: {error}", job.moving.base.join(&job.moving.visible).display()))?;
                failpoint::reach("moved");
                if let Place::Broken(path, reason) = &place {
                    tracing::warn!(file = %path.display(), reason, records = job.follow_up.records, "a broken file was put aside");
                    let broken = self.about.metrics.bad_records.with_label_values(&[self.about.stage.as_str(), IN_BROKEN_FILE]);
                    broken.inc_by(job.follow_up.records);
                }
                job.place.insert(place).clone()
            }
        };
        let (Place::Final(path), Some(hook)) = (place, &self.about.hook) else { return Ok(()) };
        let path = path.to_string_lossy();
        let json = json!({
            "pipeline": self.about.pipeline,
            "sink": self.about.committer.sink().as_str(),
            "path": path,
            "records": job.follow_up.records,
            "bytes": job.follow_up.bytes,
            "positions": job.follow_up.positions,
        });
        hook.call(&path, &json.to_string(), &is_over)?;
        failpoint::reach("hooked");
        Ok(())
    }

    fn finish(&self, job: Job) {
        if job.failures > 0 {
            tracing::info!(sink = %self.about.committer.sink(), file = job.moving.visible, "moved and reported after all");
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
            let (sink, file) = (self.about.committer.sink(), &job.moving.visible);
            tracing::warn!(%sink, file, reason, "cannot move or report a published file; it is tried again until it works");
        }
        let wait = FIRST_WAIT.saturating_mul(1 << job.failures.min(6)).min(LONGEST_WAIT);
        job.failures += 1;
        self.state.lock().put(Instant::now() + wait, job);
    }

    /// Whether the sink was closed, and its grace is over.
    fn is_over(&self) -> bool {
        self.state.lock().deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
