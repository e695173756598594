//! The schedule of the writer threads: the decisions, without threads and without a clock.
//!
//! A writer does one task at a time, in the order in which they were given to it. Its tick comes in
//! between as soon as it is due, however many tasks wait: files are closed and commits are made on
//! time under any load. Writers take turns by the time at which each became ready, so none of them
//! waits for another one's queue.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use pseidon_plan::SinkIndex;

use super::task::{CloseNotifier, Task};
use crate::attempt::AttemptId;

/// The identity of a writer: the attempt, the sink, the number of the writer among those of the
/// sink.
pub(super) type WriterKey = (AttemptId, SinkIndex, usize);

/// All writers. `W` is what a thread needs to do a writer's work.
pub(super) struct Schedule<W> {
    /// Ticks fall on multiples of their period from this time on, so that the ticks of hundreds of
    /// sinks are done together.
    began: Instant,
    slots: HashMap<WriterKey, WriterSlot<W>>,
    /// When each writer that is not on a thread becomes ready for one.
    agenda: BTreeSet<(Instant, WriterKey)>,
    attempts: HashMap<AttemptId, AttemptState>,
}

/// The slot of a writer. It exists until the writer has been dropped.
struct WriterSlot<W> {
    /// `None` while a thread works with the writer or drops it.
    writer: Option<W>,
    tasks: VecDeque<Task>,
    /// Since when a task waits although the writer is not on a thread.
    waits_since: Option<Instant>,
    /// The time of the next tick. `None` before the first one is known, and while the writer is
    /// opened or ticked. No other task moves it.
    next_tick: Option<Instant>,
    /// When the writer's target is to be retried. It is in the past if the writer was woken.
    resume_at: Option<Instant>,
    /// The time of its entry in the agenda.
    ready: Option<Instant>,
}

#[derive(Default)]
struct AttemptState {
    /// A job has failed: what is open is discarded, and new tasks are refused.
    has_failed: bool,
    /// The attempt is closed, and this is answered when the last writer is dropped.
    closing: Option<CloseNotifier>,
}

impl AttemptState {
    fn is_over(&self) -> bool {
        self.has_failed || self.closing.is_some()
    }
}

/// What a writer needs next.
#[derive(Clone, Copy, Debug)]
pub(super) struct NextWakeUp {
    /// The period of its ticks.
    pub(super) tick_every: Duration,
    /// When its target is to be retried, if that is blocked.
    pub(super) resume_at: Option<Instant>,
}

/// What a thread must do with a writer.
pub(super) struct Job<W> {
    pub(super) key: WriterKey,
    pub(super) writer: W,
    /// `None`: the writer is new and must be opened.
    pub(super) task: Option<Task>,
}

/// What must be dropped while the schedule is not locked, since that may take long. The caller must
/// call [`Schedule::dropped`] afterwards.
pub(super) struct DiscardedWriters<W> {
    pub(super) writers: Vec<(WriterKey, W)>,
    pub(super) tasks: Vec<Task>,
}

impl<W> Default for DiscardedWriters<W> {
    fn default() -> Self {
        DiscardedWriters {
            writers: Vec::new(),
            tasks: Vec::new(),
        }
    }
}

impl<W> Schedule<W> {
    pub(super) fn new(began: Instant) -> Schedule<W> {
        Schedule {
            began,
            slots: HashMap::new(),
            agenda: BTreeSet::new(),
            attempts: HashMap::new(),
        }
    }

    /// Adds the writers of a new attempt.
    pub(super) fn open(
        &mut self,
        attempt: AttemptId,
        writers: impl IntoIterator<Item = (WriterKey, W)>,
        now: Instant,
    ) {
        self.attempts.insert(attempt, AttemptState::default());
        for (key, writer) in writers {
            let slot = WriterSlot {
                writer: Some(writer),
                tasks: VecDeque::new(),
                waits_since: Some(now),
                next_tick: None,
                resume_at: None,
                ready: None,
            };
            self.slots.insert(key, slot);
            self.enter(key);
        }
    }

    /// The keys of a sink's writers.
    pub(super) fn writers_of(
        &self,
        attempt: AttemptId,
        sink: SinkIndex,
    ) -> impl Iterator<Item = WriterKey> {
        let mut keys: Vec<WriterKey> = self
            .slots
            .keys()
            .filter(|key| key.0 == attempt && key.1 == sink)
            .copied()
            .collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    /// Whether an attempt accepts tasks.
    pub(super) fn is_open(&self, attempt: AttemptId) -> bool {
        self.attempts
            .get(&attempt)
            .is_some_and(|state| !state.is_over())
    }

    /// Queues a task for a writer. If the attempt has failed or is over, the task is returned and must
    /// be refused.
    pub(super) fn give(&mut self, key: WriterKey, task: Task, now: Instant) -> Option<Task> {
        if !self.is_open(key.0) {
            return Some(task);
        }
        let Some(slot) = self.slots.get_mut(&key) else {
            return Some(task);
        };
        slot.tasks.push_back(task);
        if slot.writer.is_some() {
            slot.waits_since.get_or_insert(now);
            self.enter(key);
        }
        None
    }

    /// Whether a thread works with the writer: it does the writer's next task, or wakes another
    /// thread for it.
    pub(super) fn is_on_thread(&self, key: WriterKey) -> bool {
        self.slots
            .get(&key)
            .is_some_and(|slot| slot.writer.is_none())
    }

    /// The job of the writer whose turn it is, if one is ready.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job<W>> {
        let (ready, key) = *self.agenda.first()?;
        if ready > now {
            return None;
        }
        self.agenda.pop_first();
        let slot = self.slots.get_mut(&key)?;
        slot.ready = None;
        slot.waits_since = None;
        let writer = slot.writer.take()?;
        let task = match slot.next_tick {
            None => None,
            Some(tick) if tick <= now => {
                slot.next_tick = None;
                Some(Task::Tick)
            }
            Some(_) if slot.resume_at.is_some_and(|at| at <= now) => {
                slot.resume_at = None;
                Some(Task::Resume)
            }
            Some(_) => slot.tasks.pop_front(),
        };
        Some(Job { key, writer, task })
    }

    /// When the next writer becomes ready.
    pub(super) fn next_ready(&self) -> Option<Instant> {
        self.agenda.first().map(|(ready, _)| *ready)
    }

    /// A writer's target can be retried now.
    pub(super) fn wake(&mut self, key: WriterKey, now: Instant) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        slot.resume_at = Some(slot.resume_at.map_or(now, |at| at.min(now)));
        if slot.writer.is_some() {
            self.enter(key);
        }
    }

    /// A thread has done a writer's job. If the attempt is over by now, the writer is returned to
    /// be dropped.
    pub(super) fn done(
        &mut self,
        key: WriterKey,
        writer: W,
        next: NextWakeUp,
        now: Instant,
    ) -> Option<W> {
        if !self.is_open(key.0) {
            return Some(writer);
        }
        let next_tick = self.after(now, next.tick_every);
        let Some(slot) = self.slots.get_mut(&key) else {
            return Some(writer);
        };
        slot.writer = Some(writer);
        slot.next_tick.get_or_insert(next_tick);
        // The writer may have been woken meanwhile.
        slot.resume_at = [slot.resume_at.filter(|at| *at <= now), next.resume_at]
            .into_iter()
            .flatten()
            .min();
        slot.waits_since = (!slot.tasks.is_empty()).then_some(now);
        self.enter(key);
        None
    }

    /// A job failed, and with it the whole attempt: what is open of it must be discarded. The
    /// failure must have been reported before this call.
    pub(super) fn fail(&mut self, attempt: AttemptId) -> DiscardedWriters<W> {
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.has_failed = true;
        }
        self.clear(attempt)
    }

    /// Ends an attempt. `closed` is answered when the last of its writers has been dropped.
    pub(super) fn close(
        &mut self,
        attempt: AttemptId,
        closed: CloseNotifier,
    ) -> (DiscardedWriters<W>, Option<CloseNotifier>) {
        let discarded = self.clear(attempt);
        match self.attempts.get_mut(&attempt) {
            Some(state) => state.closing = Some(closed),
            None => return (discarded, Some(closed)),
        }
        (discarded, self.forget_if_gone(attempt))
    }

    /// These writers have been dropped. The returned answers are due now.
    pub(super) fn dropped(&mut self, keys: &[WriterKey]) -> Vec<CloseNotifier> {
        for key in keys {
            self.slots.remove(key);
        }
        let mut attempts: Vec<AttemptId> = keys.iter().map(|key| key.0).collect();
        attempts.dedup();
        attempts
            .into_iter()
            .filter_map(|attempt| self.forget_if_gone(attempt))
            .collect()
    }

    /// Removes what no thread has.
    fn clear(&mut self, attempt: AttemptId) -> DiscardedWriters<W> {
        let mut discarded = DiscardedWriters::default();
        for (key, slot) in self.slots.iter_mut().filter(|(key, _)| key.0 == attempt) {
            discarded
                .writers
                .extend(slot.writer.take().map(|writer| (*key, writer)));
            discarded.tasks.extend(slot.tasks.drain(..));
            if let Some(ready) = slot.ready.take() {
                self.agenda.remove(&(ready, *key));
            }
        }
        discarded
    }

    fn forget_if_gone(&mut self, attempt: AttemptId) -> Option<CloseNotifier> {
        if self.slots.keys().any(|key| key.0 == attempt) {
            return None;
        }
        let closed = self.attempts.get_mut(&attempt)?.closing.take()?;
        self.attempts.remove(&attempt);
        Some(closed)
    }

    /// Updates a writer's entry in the agenda.
    fn enter(&mut self, key: WriterKey) {
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        if let Some(ready) = slot.ready.take() {
            self.agenda.remove(&(ready, key));
        }
        slot.ready = [slot.waits_since, slot.next_tick, slot.resume_at]
            .into_iter()
            .flatten()
            .min();
        self.agenda.extend(slot.ready.map(|ready| (ready, key)));
    }

    /// The next multiple of the period.
    fn after(&self, now: Instant, period: Duration) -> Instant {
        let period = period.max(Duration::from_millis(1)).as_nanos();
        let rest = period - now.saturating_duration_since(self.began).as_nanos() % period;
        now + Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
    }
}
