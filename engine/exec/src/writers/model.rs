//! Model tests: the writer threads under a scheduler that tries orders of their steps: hand-over,
//! postponed tasks, flush, close and failure.
//!
//! Each model is run many times, each time with another order. A thread that waits for something
//! that never comes is found as well: the thread that watches the others continues forever, and a
//! run with too many steps fails.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::tests::{Event, Script, chunk, failures, sink, unwritten};
use super::*;
use crate::sync::about_to_wait;

/// How often each model is run under each scheduler. `PSEIDON_MODEL_RUNS` overrides it.
const RUNS: usize = 500;
/// More steps than any run that ends takes.
const MAX_STEPS: usize = 50_000;
/// The stack of a modelled thread, in bytes: it creates and closes a state file.
const STACK_BYTES: usize = 1 << 19;
/// No tick comes in a run.
const NEVER: Duration = Duration::from_secs(1_000_000);

fn explore(model: impl Fn() + Clone + Send + Sync + 'static) {
    let runs = std::env::var("PSEIDON_MODEL_RUNS").map_or(RUNS, |runs| {
        runs.parse().expect("PSEIDON_MODEL_RUNS is a number")
    });
    let mut config = Config::default();
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.stack_size = STACK_BYTES;
    Runner::new(RandomScheduler::new(runs), config.clone()).run(model.clone());
    Runner::new(PctScheduler::new(3, runs), config).run(model);
}

/// Blocks a writer until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
    }
}

/// A script whose writer may be on one thread only, and may not be used after it was dropped.
fn script(
    behave: impl Fn(&Event) -> Result<(), pseidon_plugin::sink::SinkError> + Send + Sync + 'static,
) -> Script {
    let (at_work, dropped) = (Mutex::new(false), Mutex::new(false));
    let mut script = Script::new(move |event| {
        assert!(
            !std::mem::replace(&mut *at_work.lock(), true),
            "{event:?}: the writer is on two threads"
        );
        assert!(
            !std::mem::replace(&mut *dropped.lock(), *event == Event::Dropped),
            "{event:?}: the writer was dropped"
        );
        let done = behave(event);
        *at_work.lock() = false;
        done
    });
    script.period = NEVER;
    script
}

fn write(writers: &Writers, attempt: AttemptId, position: u64) {
    writers.write(attempt, sink(0), 0, chunk(position), unwritten(attempt));
}

/// The target of one of two runs hangs, announced or not, until everything of the other run is
/// done; then all postponed tasks are done in order.
#[test]
fn a_hanging_writer_stops_no_other() {
    for says_so in [true, false] {
        explore(move || {
            let gate = Gate::default();
            let closed_gate = gate.clone();
            let hanging = script(move |event| {
                if *event == Event::Wrote(0) {
                    if says_so {
                        about_to_wait();
                    }
                    closed_gate.pass();
                }
                Ok(())
            });
            let other = script(|_| Ok(()));
            let writers = Arc::new(Writers::start(1).expect("a thread"));
            let (failures, reported) = failures();
            let (blocked, free) = (AttemptId::new(), AttemptId::new());
            writers.open(
                blocked,
                &PerSink::from_iter([hanging.sink("hanging")]),
                &failures,
            );
            writers.open(free, &PerSink::from_iter([other.sink("other")]), &failures);
            let giving = writers.clone();
            let giver = thread::spawn(move || {
                (0..3).for_each(|position| write(&giving, blocked, position));
                assert!(
                    giving.flush(blocked, &[sink(0)], None).wait(),
                    "the hanging run is flushed when it continues"
                );
            });
            (0..2).for_each(|position| write(&writers, free, position));
            assert!(
                writers.flush(free, &[sink(0)], None).wait(),
                "the other run is flushed"
            );
            writers.close(free);
            assert_eq!(other.wrote(), [0, 1]);
            assert_eq!(
                other.done(),
                [Event::Wrote(0), Event::Wrote(1), Event::Flushed]
            );
            gate.open();
            giver.join().expect("it was flushed");
            writers.close(blocked);
            assert_eq!(
                hanging.done(),
                [
                    Event::Wrote(0),
                    Event::Wrote(1),
                    Event::Wrote(2),
                    Event::Flushed
                ]
            );
            assert!(reported.is_empty());
        });
    }
}

/// A task that is given while all threads sleep is done, without anything else that would wake
/// them.
#[test]
fn a_task_wakes_a_thread() {
    explore(|| {
        let done = Gate::default();
        let opens = done.clone();
        let script = script(move |event| {
            if matches!(event, Event::Wrote(_)) {
                opens.open();
            }
            Ok(())
        });
        let writers = Writers::start(2).expect("threads");
        let (failures, _reported) = failures();
        let attempt = AttemptId::new();
        writers.open(
            attempt,
            &PerSink::from_iter([script.sink("sink")]),
            &failures,
        );
        write(&writers, attempt, 0);
        done.pass();
        writers.close(attempt);
        assert_eq!(script.done(), [Event::Wrote(0), Event::Dropped]);
    });
}

/// A task fails while others are given and a flush is waited for: the failure is reported before
/// the flush is seen to be refused and before a writer is dropped, and the close waits for all of
/// them.
#[test]
fn a_failure_is_reported_before_its_consequences() {
    for fails in [Event::Wrote(1), Event::Flushed, Event::Ticked] {
        explore(move || {
            let (failures, reported) = failures();
            let (seen, fails) = (reported.clone(), fails.clone());
            let mut failing = script(move |event| {
                // A lane whose own commit fails is dropped with it.
                let is_early =
                    *event == Event::Dropped && fails != Event::Flushed && seen.is_empty();
                assert!(!is_early, "dropped before the failure is reported");
                if *event == fails {
                    Err(pseidon_plugin::sink::SinkError::Transient(
                        "injected".into(),
                    ))
                } else {
                    Ok(())
                }
            });
            failing.period = Duration::from_millis(10);
            let well = script(|_| Ok(()));
            let writers = Arc::new(Writers::start(2).expect("threads"));
            let attempt = AttemptId::new();
            writers.open(
                attempt,
                &PerSink::from_iter([failing.sink("failing"), well.sink("well")]),
                &failures,
            );
            let giving = writers.clone();
            let giver = thread::spawn(move || {
                (0..2).for_each(|position| write(&giving, attempt, position))
            });
            // A flush that comes before the failing task is done.
            while writers.flush(attempt, &[sink(0), sink(1)], None).wait() {
                thread::yield_now();
            }
            assert!(
                !reported.is_empty(),
                "the flush was refused before the failure is reported"
            );
            giver.join().expect("the thread waits for nothing");
            writers.close(attempt);
            for script in [failing, well] {
                let done = script.done();
                let last = done.iter().rfind(|event| **event != Event::Ticked);
                assert!(
                    !matches!(last, Some(Event::Wrote(_))),
                    "the writer is still open: {done:?}"
                );
            }
        });
    }
}

/// A full lane's rows are written when its waker is called, whenever that happens, and the flush
/// that waits for them is answered.
#[test]
fn a_wake_up_is_never_lost() {
    explore(|| {
        let script = script(|_| Ok(()));
        let writers = Arc::new(Writers::start(1).expect("a thread"));
        let (failures, reported) = failures();
        let attempt = AttemptId::new();
        writers.open(
            attempt,
            &PerSink::from_iter([script.sink("sink")]),
            &failures,
        );
        script.fill();
        let room = script.clone();
        let giving = thread::spawn(move || room.make_room());
        (0..2).for_each(|position| write(&writers, attempt, position));
        assert!(
            writers.flush(attempt, &[sink(0)], None).wait(),
            "the lane is flushed when there is room"
        );
        giving.join().expect("the thread waits for nothing");
        writers.close(attempt);
        assert_eq!(
            script.done(),
            [Event::Wrote(0), Event::Wrote(1), Event::Flushed]
        );
        assert!(reported.is_empty());
    });
}

/// An attempt is closed while its writers work and tasks are given: nothing happens to it
/// afterwards, all waiting threads are answered, and its writers are dropped.
#[test]
fn a_close_waits_only_for_its_writers() {
    explore(|| {
        let gate = Gate::default();
        let other_gate = gate.clone();
        let slow = script(move |event| {
            if *event == Event::Wrote(0) {
                thread::yield_now();
            }
            Ok(())
        });
        let hanging = script(move |event| {
            if *event == Event::Wrote(0) {
                other_gate.pass();
            }
            Ok(())
        });
        let writers = Arc::new(Writers::start(1).expect("a thread"));
        let (failures, reported) = failures();
        let (closing, other) = (AttemptId::new(), AttemptId::new());
        writers.open(
            other,
            &PerSink::from_iter([hanging.sink("hanging")]),
            &failures,
        );
        writers.open(closing, &PerSink::from_iter([slow.sink("slow")]), &failures);
        write(&writers, other, 0);
        let giving = writers.clone();
        let giver = thread::spawn(move || {
            (0..2).for_each(|position| write(&giving, closing, position));
            // Done or refused, but answered.
            giving.flush(closing, &[sink(0)], None).wait();
        });
        writers.close(closing);
        let done = slow.done();
        assert!(
            done.is_empty() || done.last() == Some(&Event::Dropped),
            "{done:?}"
        );
        giver.join().expect("it was answered");
        gate.open();
        writers.close(other);
        assert_eq!(slow.done(), done);
        assert!(hanging.done().is_empty() || hanging.done().last() == Some(&Event::Dropped));
        assert!(reported.is_empty());
    });
}
