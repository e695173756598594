//! Which task is next, with a clock that the tests set.

use std::time::Instant;

use super::*;
use crate::answer::answer;
use crate::writers::schedule::{NextWakeUp, Schedule, WriterKey};
use crate::writers::task::{CloseNotifier, Task};

/// The target is not blocked.
fn ticked(period: Duration) -> NextWakeUp {
    NextWakeUp {
        tick_every: period,
        resume_at: None,
    }
}

/// Does what is due on one thread; the caller says how long each task takes.
struct Thread {
    schedule: Schedule<&'static str>,
    now: Instant,
}

impl Thread {
    fn new() -> Thread {
        let now = Instant::now();
        Thread {
            schedule: Schedule::new(now),
            now,
        }
    }

    fn open(&mut self, names: &[&'static str], period: Duration) -> (AttemptId, Vec<WriterKey>) {
        let attempt = AttemptId::new();
        let keys: Vec<WriterKey> = (0..names.len())
            .map(|number| (attempt, sink(number), 0))
            .collect();
        self.schedule.open(
            attempt,
            keys.iter().copied().zip(names.iter().copied()),
            self.now,
        );
        for _ in names {
            self.does_next(period, |_, task| {
                assert!(task.is_none(), "a writer is opened first");
                Duration::ZERO
            });
        }
        (attempt, keys)
    }

    fn write(&mut self, key: WriterKey, position: Position) -> bool {
        self.schedule
            .give(
                key,
                Task::Write(chunk(position), unwritten(key.0)),
                self.now,
            )
            .is_none()
    }

    /// Does the next task, which takes as long as `takes` says.
    fn does_next(&mut self, period: Duration, takes: impl FnOnce(&str, &Option<Task>) -> Duration) {
        let Some(job) = self.schedule.next(self.now) else {
            self.now = self.schedule.next_ready().expect("a writer becomes ready");
            return self.does_next(period, takes);
        };
        self.now += takes(job.writer, &job.task);
        assert!(
            self.schedule
                .done(job.key, job.writer, ticked(period), self.now)
                .is_none()
        );
    }
}

/// Writers that always have something to write are ticked as often as if they had nothing: a tick
/// waits at most for the write that is in progress when it is due.
#[test]
fn ticks_are_on_time_under_load() {
    for (period, write, tick) in [
        (1000, 1, 1),
        (1000, 700, 10),
        (1000, 999, 10),
        (1000, 1001, 10),
        (1000, 3000, 10),
        (250, 400, 300),
        (20, 7, 5),
    ] {
        for names in [vec!["one"], vec!["one", "two", "three"]] {
            let millis = Duration::from_millis;
            let mut thread = Thread::new();
            let began = thread.now;
            let (_, keys) = thread.open(&names, millis(period));
            let (mut last, mut longest, mut ticks) = (began, Duration::ZERO, 0);
            let mut written = 0;
            while thread.now < began + millis(period) * 100 {
                for key in &keys {
                    thread.write(*key, written);
                    written += 1;
                }
                let at = thread.now;
                let mut is_first_ticked = false;
                thread.does_next(millis(period), |name, task| match task {
                    Some(Task::Tick) => {
                        is_first_ticked = name == "one";
                        millis(tick)
                    }
                    _ => millis(write),
                });
                if is_first_ticked {
                    longest = longest.max(at - last);
                    last = thread.now;
                    ticks += 1;
                }
            }
            // A round of the other writers may be in between.
            let round = millis(write + tick) * names.len() as u32;
            assert!(
                ticks > 0 && longest <= millis(period) + round,
                "{period} {write} {tick} {names:?}: {ticks} ticks, {longest:?}"
            );
        }
    }
}

/// A writer whose ticks take longer than their period still writes in between.
#[test]
fn ticks_leave_room_for_writing() {
    let mut thread = Thread::new();
    let (_, keys) = thread.open(&["one"], PERIOD);
    let mut wrote = 0;
    for position in 0..100 {
        thread.write(keys[0], position);
        thread.does_next(PERIOD, |_, task| match task {
            Some(Task::Tick) => PERIOD * 3 / 2,
            _ => {
                wrote += 1;
                Duration::from_millis(100)
            }
        });
    }
    assert!(wrote >= 80, "{wrote} of 100 steps were writes");
}

#[test]
fn ticks_always_fall_on_multiples_of_their_period() {
    let mut thread = Thread::new();
    let began = thread.now;
    let (_, keys) = thread.open(&["one"], PERIOD);
    for days in [0, 1, 60, 4000] {
        for period in [
            Duration::ZERO,
            Duration::from_millis(1),
            Duration::from_millis(250),
            PERIOD,
            Duration::from_secs(3600),
        ] {
            thread.now =
                began + Duration::from_secs(days * 86_400) + Duration::from_micros(1_234_567);
            thread.does_next(period, |_, _| Duration::from_micros(10));
            let (next, period) = (
                thread.schedule.next_ready().expect("a tick"),
                period.max(Duration::from_millis(1)),
            );
            assert!(
                next > thread.now && next <= thread.now + period,
                "{days} days, {period:?}"
            );
            assert_eq!(
                (next - began).as_nanos() % period.as_nanos(),
                0,
                "{days} days, {period:?}"
            );
        }
    }
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_writer_is_on_one_thread_at_most_and_does_its_tasks_in_order() {
    let mut thread = Thread::new();
    let (_, keys) = thread.open(&["one", "two"], PERIOD);
    for position in 0..3 {
        assert!(thread.write(keys[0], position) && thread.write(keys[1], position));
    }
    let position = |task: &Option<Task>| match task {
        Some(Task::Write(chunk, _)) => chunk.rows.position(0),
        _ => panic!("a write was expected"),
    };
    let (first, second) = (
        thread.schedule.next(thread.now).expect("one"),
        thread.schedule.next(thread.now).expect("two"),
    );
    assert_ne!(first.key, second.key);
    assert!(
        thread.schedule.next(thread.now).is_none(),
        "both writers are on threads"
    );
    assert!(thread.write(first.key, 3), "the task is queued");
    assert!(thread.schedule.next(thread.now).is_none());
    assert_eq!((position(&first.task), position(&second.task)), (0, 0));
    assert!(
        thread
            .schedule
            .done(first.key, first.writer, ticked(PERIOD), thread.now)
            .is_none()
    );
    // The other writer never comes back; this one continues.
    for expected in 1..4 {
        thread.does_next(PERIOD, |name, task| {
            assert_eq!((name, position(task)), ("one", expected));
            Duration::ZERO
        });
    }
}

/// Tasks that are given to a writer after a failure, or at its end, are refused; a writer on a
/// thread ends when it comes back; the close is answered when the last writer has been dropped.
#[test]
fn an_attempt_ends_when_its_last_writer_is_dropped() {
    for has_failed in [false, true] {
        for is_at_work in [false, true] {
            let mut thread = Thread::new();
            let (attempt, keys) = thread.open(&["one", "two"], PERIOD);
            let (other, others) = thread.open(&["other"], PERIOD);
            assert!(
                thread.write(keys[0], 0) && thread.write(keys[1], 0) && thread.write(others[0], 0)
            );
            let at_work = is_at_work.then(|| thread.schedule.next(thread.now).expect("a writer"));
            let mut discarded = Vec::new();
            if has_failed {
                let failed = thread.schedule.fail(attempt);
                assert!(!thread.write(keys[0], 1) && !thread.write(keys[1], 1));
                assert_eq!(failed.tasks.len(), 2 - usize::from(is_at_work));
                discarded.extend(failed.writers);
            }
            let (done, closed) = answer();
            let (more, answer) = thread.schedule.close(attempt, CloseNotifier(done));
            discarded.extend(more.writers);
            assert_eq!(discarded.len(), 2 - usize::from(is_at_work));
            assert!(
                answer.is_none() && !thread.write(keys[0], 1) && !thread.schedule.is_open(attempt)
            );
            for (key, _) in discarded {
                assert!(closed.wait_for(Duration::ZERO).is_none());
                thread.schedule.dropped(&[key]).into_iter().for_each(drop);
            }
            if let Some(job) = at_work {
                assert!(
                    closed.wait_for(Duration::ZERO).is_none(),
                    "a writer is on a thread"
                );
                assert!(
                    thread
                        .schedule
                        .done(job.key, job.writer, ticked(PERIOD), thread.now)
                        .is_some(),
                    "the writer must be dropped"
                );
                assert!(
                    closed.wait_for(Duration::ZERO).is_none(),
                    "the writer is not dropped yet"
                );
                thread
                    .schedule
                    .dropped(&[job.key])
                    .into_iter()
                    .for_each(drop);
            }
            assert!(closed.wait());
            // The other attempt continues.
            assert!(thread.schedule.is_open(other));
            thread.does_next(PERIOD, |name, task| {
                assert!(name == "other" && task.is_some());
                Duration::ZERO
            });
        }
    }
}

#[test]
fn an_attempt_without_sinks_ends_at_once() {
    let mut thread = Thread::new();
    let (attempt, _) = thread.open(&[], PERIOD);
    let (done, closed) = answer();
    assert!(
        thread
            .schedule
            .close(attempt, CloseNotifier(done))
            .1
            .is_some()
    );
    assert!(closed.wait());
}

/// A writer whose target is blocked is resumed when that is due or when it is woken, even if that
/// happens while it is on a thread, and its tasks are done meanwhile.
#[test]
fn a_blocked_writer_is_resumed() {
    let mut thread = Thread::new();
    let (_, keys) = thread.open(&["one"], PERIOD * 1000);
    let blocked = |at| NextWakeUp {
        tick_every: PERIOD * 1000,
        resume_at: Some(at),
    };
    let due = thread.now + PERIOD;
    thread.write(keys[0], 0);
    let job = thread.schedule.next(thread.now).expect("a write");
    assert!(
        thread
            .schedule
            .done(job.key, job.writer, blocked(due), thread.now)
            .is_none()
    );
    thread.write(keys[0], 1);
    let job = thread.schedule.next(thread.now).expect("another write");
    assert!(
        matches!(job.task, Some(Task::Write(..))),
        "other lanes continue"
    );
    assert!(
        thread
            .schedule
            .done(job.key, job.writer, blocked(due), thread.now)
            .is_none()
    );
    assert_eq!(thread.schedule.next_ready(), Some(due));
    thread.now = due;
    let job = thread.schedule.next(thread.now).expect("the resume is due");
    assert!(matches!(job.task, Some(Task::Resume)));
    thread.schedule.wake(keys[0], thread.now);
    assert!(
        thread.schedule.next(thread.now).is_none(),
        "the writer is on a thread"
    );
    assert!(
        thread
            .schedule
            .done(job.key, job.writer, ticked(PERIOD * 1000), thread.now)
            .is_none()
    );
    let job = thread
        .schedule
        .next(thread.now)
        .expect("the writer was woken meanwhile");
    assert!(matches!(job.task, Some(Task::Resume)));
    assert!(
        thread
            .schedule
            .done(job.key, job.writer, ticked(PERIOD * 1000), thread.now)
            .is_none()
    );
    assert!(thread.schedule.next(thread.now).is_none());
    thread.schedule.wake(keys[0], thread.now);
    assert!(matches!(
        thread
            .schedule
            .next(thread.now)
            .expect("the writer is woken")
            .task,
        Some(Task::Resume)
    ));
}
