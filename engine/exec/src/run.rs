//! A run: attempts at running the plan until one comes to its end.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::committer::Seen;
use pseidon_delivery::{Position, SinkId, SplitId, StateStore, StoreError, StoredPlan, random};
use pseidon_plan::Plan;
use pseidon_plan::chain::PlannedSource;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{SourceHandle, SourceSetup};
use pseidon_plugin::stop::{Pause, Stop};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::attempt::{Attempt, AttemptId, OpenSink, Over};
use crate::failure::{Failure, Failures, PlanChanged, guarded, spawn};
use crate::intake::Intake;
use crate::opening::Opening;
use crate::pools::Pools;
use crate::sharing::Sharing;
use crate::view::View;

/// The waits between attempts after failures that may pass.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often what is known of a run is brought up to date.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An attempt that lasted this long counts as a success: the next failure waits the shortest time again.
const STEADY: Duration = Duration::from_secs(60);
/// After failures the run counts as healthy again when an attempt has lasted this long, and twice as long as the one before.
const LEAST_STEADY: Duration = Duration::from_secs(10);
/// How long sinks that are being opened may take to give up once the user has said stop.
const OPENING_GRACE: Duration = Duration::from_secs(2);

/// What a user tells a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop reading, commit what was read, leave within the grace.
    Stop,
    /// Leave at once. What is not committed is read again at the next start.
    LeaveNow,
    /// Read nothing more for now.
    Pause,
    /// Read on.
    Resume,
    /// Commit and publish what is open now.
    Roll,
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The sources came to their end.
    Complete,
    /// It was stopped, and everything that was read is committed.
    Stopped,
    /// It was left before everything was committed.
    Left,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The plan is not the one that a crashed run left work behind with.
    #[error(transparent)]
    PlanChanged(PlanChanged),
    /// It cannot go on without the user.
    #[error("{0}")]
    Failed(String),
    /// The state store shows what cannot be, or refuses us. To go on, or to begin anew with what it holds now, would lose or double records.
    #[error("{0}")]
    State(String),
    /// The state store refused before anything was read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a run needs.
pub struct Run<'a> {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The threads that do the work.
    pub pools: &'a Pools,
    /// Where its state is.
    pub store: Arc<dyn StateStore>,
    /// What to count.
    pub metrics: Metrics,
    /// Whether a plan that differs from the one that crashed is accepted.
    pub accept_changed_plan: bool,
    /// What the user says.
    pub control: Receiver<Control>,
    /// Where the run can be seen.
    pub view: Arc<View>,
}

/// What outlives an attempt.
struct Course {
    /// Whether sources may read.
    pause: Pause,
    /// What the store has acknowledged, for each sink of the plan.
    acknowledged: Vec<Arc<Seen>>,
    /// Whether all sinks could be opened once.
    was_open: bool,
    /// Until when the run has to end, once the user has said stop.
    deadline: Option<Instant>,
    /// How far attempts that failed had read splits of which not everything was committed, by the number of their source.
    uncommitted: HashMap<(usize, SplitId), Position>,
    /// How long an attempt has to last until the failures before it count as overcome.
    steady_after: Duration,
}

/// What became of opening the sinks.
enum Opened {
    Sinks(Vec<OpenSink>),
    /// The user has said stop meanwhile.
    Stopped,
}

impl Run<'_> {
    /// Runs the plan until its sources end, it is stopped, or it cannot go on. Blocks.
    pub fn run(self) -> Result<Finished, RunError> {
        let finished = self.attempts();
        self.metrics.set_run_trouble(None);
        finished
    }

    fn attempts(&self) -> Result<Finished, RunError> {
        let pause = Pause::default();
        let Some(store_id) = self.open_state(&pause)? else { return Ok(Finished::Stopped) };
        let acknowledged = self.plan.sinks.iter().map(|_| Arc::default()).collect();
        let mut course =
            Course { pause, acknowledged, was_open: false, deadline: None, uncommitted: HashMap::new(), steady_after: LEAST_STEADY };
        let mut wait = FIRST_WAIT;
        let (mut failures_in_a_row, mut fences_in_a_row) = (0, 0);
        loop {
            let began = Instant::now();
            let failure = match self.attempt(&store_id, &mut course) {
                Ok(finished) => return Ok(finished),
                Err(failure) => failure,
            };
            course.steady_after = (began.elapsed() * 2).clamp(LEAST_STEADY, STEADY);
            if began.elapsed() > STEADY {
                (wait, failures_in_a_row, fences_in_a_row) = (FIRST_WAIT, 0, 0);
            }
            let pause = match failure {
                Failure::Fatal(reason) => return Err(RunError::Failed(reason)),
                Failure::State(reason) => return Err(RunError::State(reason)),
                Failure::OtherPlan(changed) => return Err(RunError::PlanChanged(changed)),
                Failure::Fenced(reason) => {
                    // Once is a take-over. Again and again it is several instances that take the splits from each other.
                    fences_in_a_row += 1;
                    let pause = if fences_in_a_row == 1 { Duration::ZERO } else { with_jitter(wait) };
                    if fences_in_a_row > 1 {
                        wait = (wait * 2).min(LONGEST_WAIT);
                        self.metrics.set_run_trouble(Some(format!("restarted {fences_in_a_row} times, at last because {reason}")));
                    }
                    tracing::warn!(reason, "open files are discarded; restarting from the committed positions in {pause:?}");
                    pause
                }
                Failure::Stopped | Failure::Gone(_) => {
                    let reason = if let Failure::Gone(reason) = failure { reason } else { "it was left although this was not asked for" };
                    tracing::warn!(reason, "internal error; restarting from the committed positions in {wait:?}");
                    self.metrics.set_run_trouble(Some(format!("restarting after an internal error: {reason}")));
                    let pause = wait;
                    wait = (wait * 2).min(LONGEST_WAIT);
                    pause
                }
                Failure::Refused { stage, reason } => {
                    tracing::warn!(stage, reason, "records were refused; restarting from the committed positions without them");
                    Duration::ZERO
                }
                Failure::Transient { stage, reason } => {
                    failures_in_a_row += 1;
                    let pause = self.pause_after(&stage, &reason, failures_in_a_row, wait)?;
                    self.metrics.set_run_trouble(Some(format!("restarting because `{stage}` failed: {reason}")));
                    wait = (wait * 2).min(LONGEST_WAIT);
                    pause
                }
            };
            if self.is_stopped_within(pause, &course.pause) {
                return Ok(stopped_between_attempts(&course));
            }
        }
    }

    /// Looks at the state before anything is read, and waits for a store that does not answer. Returns the store's name; `None` if the user
    /// has said stop meanwhile.
    fn open_state(&self, pause: &Pause) -> Result<Option<String>, RunError> {
        let mut wait = FIRST_WAIT;
        loop {
            match self.look_at_state() {
                Err(RunError::Store(StoreError::Unavailable(reason))) => {
                    tracing::warn!(reason, "the state store does not answer; it is asked again in {wait:?}");
                    self.metrics.store_unreachable.set(1);
                    if self.is_stopped_within(wait, pause) {
                        return Ok(None);
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                other => {
                    self.metrics.store_unreachable.set(0);
                    return other.map(Some);
                }
            }
        }
    }

    fn look_at_state(&self) -> Result<String, RunError> {
        let store_id = self.store.identity()?;
        for weakness in self.store.weaknesses()? {
            tracing::warn!("the state store is weaker than exactly-once needs: {weakness}");
        }
        self.check_plan()?;
        Ok(store_id)
    }

    /// How long to wait before the next attempt; a stage whose `:retry` is used up ends the run.
    fn pause_after(&self, stage: &str, reason: &str, failures: u64, wait: Duration) -> Result<Duration, RunError> {
        let retry = self.plan.sinks.iter().find(|sink| sink.id.as_str() == stage).and_then(|sink| sink.retry);
        let pause = match retry {
            Some((times, _)) if failures > times => {
                return Err(RunError::Failed(format!("stage `{stage}` failed {failures} times in a row: {reason}")));
            }
            Some((_, interval)) => interval,
            None => wait,
        };
        tracing::warn!(stage, reason, "restarting from the committed positions in {pause:?}");
        Ok(pause)
    }

    /// Keeps the plan's text. Refuses the plan when a sink that it does not have holds work of another plan; of the sinks that it has, each
    /// split is looked at when it is taken.
    fn check_plan(&self) -> Result<(), RunError> {
        let has = |sink: &SinkId| self.plan.sinks.iter().any(|planned| planned.id == *sink);
        for sink in self.store.sinks()?.iter().filter(|sink| !has(sink)) {
            let records = self.store.records(sink)?;
            let ahead: usize = records.iter().map(|(_, record)| record.ahead.len()).sum();
            let staged = self.store.staged(sink)?.len();
            if ahead + staged > 0 && !self.accept_changed_plan {
                let plan = records.into_iter().find_map(|(_, record)| record.plan);
                let left = format!("`{sink}`, which it does not have any more: {ahead} lanes ahead, {staged} files not yet published");
                return Err(RunError::PlanChanged(PlanChanged { plan, left }));
            }
        }
        let (fingerprint, text) = (self.plan.fingerprint.clone(), self.plan.text.clone());
        if self.store.plan(&fingerprint)?.as_ref() != Some(&text) {
            self.store.add_plan(&StoredPlan { fingerprint, text })?;
            self.forget_plans()?;
        }
        Ok(())
    }

    /// Forgets the texts of plans that no record names any more.
    fn forget_plans(&self) -> Result<(), StoreError> {
        let mut unused: HashSet<String> = self.store.plans()?.into_iter().filter(|plan| *plan != self.plan.fingerprint).collect();
        if unused.is_empty() {
            return Ok(());
        }
        for sink in self.store.sinks()? {
            for plan in self.store.records(&sink)?.into_iter().filter_map(|(_, record)| record.plan) {
                unused.remove(&plan);
            }
        }
        self.store.forget_plans(&unused.into_iter().collect::<Vec<_>>())
    }

    /// Waits before the next attempt. Gives whether the user wants none.
    fn is_stopped_within(&self, wait: Duration, pause: &Pause) -> bool {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            self.view.pulse.beat();
            match self.control.recv_deadline(deadline.min(Instant::now() + LOOK_EVERY)) {
                Ok(Control::Stop | Control::LeaveNow) => return true,
                Ok(Control::Pause) => pause.set(true),
                Ok(Control::Resume) => pause.set(false),
                // Nothing is open between two attempts.
                Ok(Control::Roll) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(deadline.saturating_duration_since(Instant::now())),
            }
        }
        false
    }

    /// One attempt. One that follows a failure after the user has said stop only brings to its end what is committed.
    fn attempt(&self, store_id: &str, course: &mut Course) -> Result<Finished, Failure> {
        let stop = Stop::new();
        if course.deadline.is_some() {
            stop.stop_reading();
        }
        let instance = instance_name().map_err(|error| Failure::Fatal(error.to_string()))?;
        let sinks = match self.open_sinks(store_id, &instance, &stop, course)? {
            Opened::Sinks(sinks) => sinks,
            Opened::Stopped => return Ok(stopped_between_attempts(course)),
        };
        course.was_open = true;
        let (report, reported) = unbounded();
        let (over, is_over) = bounded(1);
        let attempt = Arc::new(Attempt {
            id: AttemptId::new(),
            plan: self.plan.clone(),
            sinks,
            stop,
            failures: Failures(report),
            metrics: self.metrics.clone(),
            tap: self.view.tap.clone(),
            last_bad: self.view.last_bad.clone(),
            read: Mutex::default(),
            _over: Over(over),
        });
        self.view.show(&attempt);
        self.pools.open(&attempt);
        let outcome = std::thread::scope(|scope| {
            let outcome = self
                .start(scope, store_id, &instance, &attempt, &course.pause)
                .and_then(|done| self.watch(&attempt, course, &reported, &done));
            // Whatever the outcome, every thread has to end before the scope does.
            attempt.stop.leave_now();
            outcome
        });
        let outcome = match outcome {
            Ok(Finished::Stopped) if course.uncommitted.iter().any(|(split, upto)| attempt.read.lock().get(split) < Some(upto)) => {
                Ok(stopped_between_attempts(course))
            }
            // Another instance has what was not committed.
            Err(failure @ Failure::Fenced(_)) => Err(failure),
            Err(failure) => {
                course.uncommitted.extend(attempt.uncommitted());
                Err(failure)
            }
            other => other,
        };
        self.pools.close(attempt.id);
        drop(attempt);
        // ETL threads may still hold batches of it; its sinks are closed, and their locks free, when the last is gone.
        let _ = is_over.recv();
        outcome
    }

    /// Opens the sinks on a thread of its own, since that may take long and the user may say stop meanwhile. A thread that does not hear that
    /// is left behind; what it opens is closed at once.
    fn open_sinks(&self, store_id: &str, instance: &str, stop: &Stop, course: &mut Course) -> Result<Opened, Failure> {
        let opening = Opening {
            plan: self.plan.clone(),
            store: self.store.clone(),
            store_id: store_id.to_owned(),
            instance: instance.to_owned(),
            accept_changed_plan: self.accept_changed_plan,
            acknowledged: course.acknowledged.clone(),
            was_open: course.was_open,
            lanes: self.pools.lanes().clone(),
            stop: stop.clone(),
            metrics: self.metrics.clone(),
        };
        let (done, opened) = bounded(1);
        std::thread::Builder::new()
            .name("opening".to_owned())
            .spawn(move || {
                // If no one waits any more, the sinks are closed here.
                let _ = done.send(guarded(|| opening.open()));
            })
            .map_err(|error| Failure::Fatal(format!("cannot start a thread: {error}")))?;
        let mut give_up = None;
        loop {
            self.view.pulse.beat();
            select! {
                recv(opened) -> sinks => match sinks {
                    _ if give_up.is_some() => return Ok(Opened::Stopped),
                    Ok(sinks) => return sinks.map(Opened::Sinks),
                    Err(_) => return Err(Failure::Gone("the sinks were not opened")),
                },
                recv(self.control) -> control => match control {
                    Ok(Control::Pause) => course.pause.set(true),
                    Ok(Control::Resume) => course.pause.set(false),
                    // Nothing is open yet.
                    Ok(Control::Roll) => {}
                    Ok(Control::Stop) if give_up.is_none() => {
                        stop.leave_now();
                        give_up = Some(Instant::now() + OPENING_GRACE);
                    }
                    Ok(Control::Stop | Control::LeaveNow) | Err(_) => {
                        stop.leave_now();
                        return Ok(Opened::Stopped);
                    }
                },
                default(LOOK_EVERY) => {
                    if give_up.is_some_and(|at| at <= Instant::now()) {
                        return Ok(Opened::Stopped);
                    }
                }
            }
        }
    }

    /// Starts the threads of all sources. The receiver gets one message for each source whose records are all durable.
    fn start<'scope, 'env>(
        &'env self,
        scope: &'scope std::thread::Scope<'scope, 'env>,
        store_id: &str,
        instance: &str,
        attempt: &'env Arc<Attempt>,
        pause: &Pause,
    ) -> Result<Receiver<()>, Failure> {
        let settings = &self.plan.settings;
        let failures = &attempt.failures;
        let (source_done, done) = unbounded();
        for (number, planned) in self.plan.sources.iter().enumerate() {
            let durable = Arc::new(Mutex::new(HashMap::new()));
            let (handle, events) = SourceHandle::new(self.pools.budget().clone(), attempt.stop.clone(), pause.clone(), durable.clone());
            let (queue, writers) = (self.pools.queue(), self.pools.writers());
            let intake = Intake { attempt, source: number, queue, writers, durable };
            let source_done = source_done.clone();
            let (well, ended_well) = bounded(1);
            let sharing = Sharing::new(self.store.clone(), planned.stage.clone(), instance.to_owned(), settings.lease);
            spawn(scope, format!("intake-{}", planned.stage), failures.clone(), move || {
                intake.work(events, sharing)?;
                // A source that failed says so itself, and is not done.
                if ended_well.recv().is_ok() {
                    let _ = source_done.send(());
                }
                Ok(())
            })?;
            let setup = SourceSetup {
                pipeline: self.plan.name.clone(),
                stage: planned.stage.clone(),
                base: self.plan.base.clone(),
                wanted: planned.columns.meta,
                io_threads: settings.io_threads,
                memory: settings.memory / 4 / self.plan.sources.len().max(1),
                instance: instance.to_owned(),
                state: self.state_name(store_id, planned),
                metrics: self.metrics.clone(),
            };
            spawn(scope, format!("source-{}", planned.stage), failures.clone(), move || {
                planned.source.run(&setup, handle).map_err(|error| Failure::of_source(&planned.stage, error))?;
                let _ = well.send(());
                Ok(())
            })?;
        }
        Ok(done)
    }

    /// Names the state of a source's positions; see [`SourceSetup::state`].
    fn state_name(&self, store_id: &str, source: &PlannedSource) -> String {
        let sinks = source.sinks.iter().map(|number| self.plan.sinks[*number].id.as_str());
        let parts: Vec<&str> = [store_id, &self.plan.name, &source.stage].into_iter().chain(sinks).collect();
        // Names hold no NUL.
        Sha256::digest(parts.join("\0")).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Waits for the sources to end, for a failure or for the user.
    fn watch(
        &self,
        attempt: &Arc<Attempt>,
        course: &mut Course,
        failures: &Receiver<Failure>,
        done: &Receiver<()>,
    ) -> Result<Finished, Failure> {
        let (mut left, began) = (self.plan.sources.len(), Instant::now());
        let mut other_plan = None;
        while left > 0 {
            self.view.pulse.beat();
            let patience =
                course.deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
            select! {
                recv(failures) -> failure => match failure {
                    Ok(Failure::OtherPlan(changed)) => {
                        attempt.stop.stop_reading();
                        course.deadline.get_or_insert_with(|| Instant::now() + self.plan.settings.shutdown_grace);
                        other_plan = Some(changed);
                    }
                    Ok(failure) => return Err(failure),
                    Err(_) => return Err(Failure::Gone("no failure can be reported any more")),
                },
                recv(done) -> ended => match ended {
                    Ok(()) => left -= 1,
                    // A source's thread has ended without saying that everything is durable; it is about to say why.
                    Err(_) => return Err(failures.recv().unwrap_or(Failure::Gone("a source has ended without saying why"))),
                },
                recv(self.control) -> control => match control {
                    Ok(Control::Stop) => {
                        attempt.stop.stop_reading();
                        course.deadline = Some(Instant::now() + self.plan.settings.shutdown_grace);
                    }
                    Ok(Control::LeaveNow) | Err(_) => return Ok(Finished::Left),
                    Ok(Control::Pause) => course.pause.set(true),
                    Ok(Control::Resume) => course.pause.set(false),
                    Ok(Control::Roll) => self.roll(attempt),
                },
                default(patience) => {
                    if began.elapsed() >= course.steady_after {
                        // What this attempt has not taken again is another instance's.
                        course.uncommitted.clear();
                        self.metrics.set_run_trouble(None);
                    }
                    self.metrics.memory_used.set(self.pools.budget().used() as i64);
                    let unreachable = attempt.sinks.iter().any(|open| open.committer.store_is_unreachable());
                    self.metrics.store_unreachable.set(i64::from(unreachable));
                    if course.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        tracing::warn!("not everything could be committed within the shutdown grace; the rest is read again at the next start");
                        return other_plan.map_or(Ok(Finished::Left), |changed| Err(Failure::OtherPlan(changed)));
                    }
                }
            }
        }
        if let Some(changed) = other_plan {
            return Err(Failure::OtherPlan(changed));
        }
        Ok(if course.deadline.is_some() { Finished::Stopped } else { Finished::Complete })
    }

    /// Has everything committed and published that is open, and does not wait for it.
    fn roll(&self, attempt: &Attempt) {
        let sinks: Vec<usize> = (0..attempt.sinks.len()).collect();
        drop(self.pools.writers().flush(attempt.id, &sinks, None));
    }
}

/// How a run ends that is stopped while nothing of it is open.
fn stopped_between_attempts(course: &Course) -> Finished {
    if !course.uncommitted.is_empty() {
        tracing::warn!("records that were read before the last failure are not committed; they are read again at the next start");
        return Finished::Left;
    }
    Finished::Stopped
}

/// At least half of the wait, so that instances that disturb each other do not do it in step.
fn with_jitter(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    wait / 2 + wait / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

/// Names this attempt unlike any other: the machine and process, for people, random bits for the process, and after a `.` the attempt. Machines
/// may share a name, containers a process number, and clocks a time.
fn instance_name() -> std::io::Result<String> {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    if PROCESS.get().is_none() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
        // Of two threads that come here at once, the first one's name counts.
        let _ = PROCESS.set(format!("{host}-{}-{}", std::process::id(), random::hexadecimal(8)?));
    }
    let process = PROCESS.get().map_or("", String::as_str);
    Ok(format!("{process}.{}", ATTEMPTS.fetch_add(1, Ordering::Relaxed)))
}
