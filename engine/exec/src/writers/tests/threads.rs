//! Writers on real threads.

use std::time::Instant;

use crossbeam_channel::bounded;
use pseidon_plugin::waiting::about_to_wait;

use super::*;
use crate::writers::Writers;

/// The timeout for things that do not depend on time.
const TIMEOUT: Duration = Duration::from_secs(60);

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write(writers: &Writers, attempt: AttemptId, sink: SinkIndex, position: Position) {
    writers.write(attempt, sink, 0, chunk(position), unwritten(attempt));
}

/// One thread for two runs, one of which has a hanging target. The hang may be announced or not.
#[test]
fn a_waiting_or_hanging_writer_stops_no_other() {
    for says_so in [true, false] {
        let (open_gate, gate) = bounded::<()>(1);
        let waiting = Script::new(move |event| {
            if *event == Event::Wrote(0) {
                if says_so {
                    about_to_wait();
                }
                let _ = gate.recv();
            }
            Ok(())
        });
        let other = Script::new(|_| Ok(()));
        let writers = Writers::start(1).expect("a thread");
        let (failures, reported) = failures();
        let (blocked, free) = (AttemptId::new(), AttemptId::new());
        writers.open(
            blocked,
            &PerSink::from_iter([waiting.sink("waiting")]),
            &failures,
        );
        writers.open(free, &PerSink::from_iter([other.sink("other")]), &failures);
        for position in 0..10 {
            write(&writers, blocked, sink(0), position);
            write(&writers, free, sink(0), position);
        }
        // More than any queue would hold.
        for position in 10..2000 {
            write(&writers, blocked, sink(0), position);
        }
        wait_until("the other run continues", || {
            other.wrote() == (0..10).collect::<Vec<_>>()
        });
        let flushed = writers.flush(blocked, &[sink(0)], None);
        assert_eq!(
            writers.flush(free, &[sink(0)], None).wait_for(TIMEOUT),
            Some(true),
            "the other run is flushed"
        );
        assert!(waiting.wrote().is_empty() && flushed.wait_for(Duration::ZERO).is_none());
        drop(open_gate);
        assert_eq!(
            flushed.wait_for(TIMEOUT),
            Some(true),
            "the blocked run is flushed when it can write again"
        );
        let without_ticks: Vec<Event> = waiting
            .done()
            .into_iter()
            .filter(|event| *event != Event::Ticked)
            .collect();
        let expected: Vec<Event> = (0..2000)
            .map(Event::Wrote)
            .chain([Event::Flushed])
            .collect();
        assert!(
            without_ticks == expected,
            "postponed tasks are done in order: {without_ticks:?}"
        );
        writers.close(blocked);
        writers.close(free);
        assert!(reported.is_empty());
    }
}

#[test]
fn more_writers_than_threads_may_hang() {
    let (open_gate, gate) = bounded::<()>(1);
    let hanging = Script::new(move |event| {
        if matches!(event, Event::Wrote(_)) {
            let _ = gate.recv();
        }
        Ok(())
    });
    let other = Script::new(|_| Ok(()));
    let writers = Writers::start(2).expect("threads");
    let (failures, _reported) = failures();
    let attempts: Vec<AttemptId> = (0..8).map(|_| AttemptId::new()).collect();
    for attempt in &attempts {
        writers.open(
            *attempt,
            &PerSink::from_iter([hanging.sink("hanging")]),
            &failures,
        );
        write(&writers, *attempt, sink(0), 0);
    }
    let free = AttemptId::new();
    writers.open(free, &PerSink::from_iter([other.sink("other")]), &failures);
    write(&writers, free, sink(0), 7);
    wait_until("the other run continues", || other.wrote() == [7]);
    drop(open_gate);
    attempts.iter().for_each(|attempt| writers.close(*attempt));
    wait_until("surplus threads exit", || {
        writers
            .pool
            .state
            .lock()
            .threads
            .iter()
            .filter(|thread| !thread.is_finished())
            .count()
            == 3
    });
    writers.close(free);
}

/// Whatever fails and however: the failure is reported before the waiter of the flush learns that
/// it was not done, and before anything is dropped.
#[test]
fn a_failure_is_reported_before_its_consequences_are_visible() {
    let (write_fails, flush_fails, tick_fails) = (Event::Wrote(1), Event::Flushed, Event::Ticked);
    for failing in [write_fails, flush_fails, tick_fails] {
        for panics in [false, true] {
            let (failures, reported) = failures();
            let (seen, fails) = (reported.clone(), failing.clone());
            let early = Arc::new(Mutex::new(false));
            let dropped_early = early.clone();
            let script = Script::new(move |event| {
                // A lane whose own commit fails is dropped with it.
                if *event == Event::Dropped && fails != Event::Flushed && seen.is_empty() {
                    *dropped_early.lock() = true;
                }
                if *event != fails {
                    return Ok(());
                }
                assert!(!panics, "injected panic");
                Err(SinkError::Transient("injected".into()))
            });
            let well = Script::new(|_| Ok(()));
            let writers = Writers::start(2).expect("threads");
            let (attempt, other) = (AttemptId::new(), AttemptId::new());
            writers.open(
                attempt,
                &PerSink::from_iter([script.sink("fails"), well.sink("well")]),
                &failures,
            );
            writers.open(other, &PerSink::from_iter([well.sink("other")]), &failures);
            write(&writers, attempt, sink(0), 0);
            write(&writers, attempt, sink(0), 1);
            if failing == Event::Ticked {
                wait_until("the writer has failed", || !reported.is_empty());
            }
            let flushed = writers.flush(attempt, &[sink(0), sink(1)], None);
            assert_eq!(
                flushed.wait_for(TIMEOUT),
                Some(false),
                "a flush that failed is not answered"
            );
            assert!(!reported.is_empty(), "the failure is reported by now");
            writers.close(attempt);
            let failure = reported.try_recv().expect("a failure");
            assert_eq!(matches!(failure, Failure::Fatal(_)), panics, "{failure:?}");
            assert!(
                !*early.lock(),
                "{failing:?}: the writer was dropped before the failure was reported"
            );
            assert_eq!(script.done().last(), Some(&Event::Dropped));
            // The threads continue.
            write(&writers, other, sink(0), 5);
            assert_eq!(
                writers.flush(other, &[sink(0)], None).wait_for(TIMEOUT),
                Some(true),
                "the other run is flushed"
            );
            writers.close(other);
        }
    }
}

#[test]
fn a_lane_that_cannot_be_dropped_fails_its_attempt_only() {
    let (failures, reported) = failures();
    let script = Script::new(|event| {
        assert!(*event != Event::Dropped, "injected panic");
        Ok(())
    });
    let writers = Writers::start(1).expect("a thread");
    for number in 0..3 {
        let attempt = AttemptId::new();
        writers.open(
            attempt,
            &PerSink::from_iter([script.sink("panics")]),
            &failures,
        );
        write(&writers, attempt, sink(0), 0);
        wait_until("the writer works", || script.wrote().len() > number);
        writers.close(attempt);
        assert!(matches!(reported.try_recv(), Ok(Failure::Fatal(_))));
    }
}

#[test]
fn a_flush_is_answered_when_every_writer_is_done() {
    let (open_gate, gate) = bounded::<()>(1);
    let slow = Script::new(move |event| {
        if *event == Event::Wrote(0) {
            let _ = gate.recv();
        }
        Ok(())
    });
    let quick = Script::new(|_| Ok(()));
    let writers = Writers::start(2).expect("threads");
    let (failures, _reported) = failures();
    let attempt = AttemptId::new();
    writers.open(
        attempt,
        &PerSink::from_iter([slow.sink("slow"), quick.sink("quick")]),
        &failures,
    );
    write(&writers, attempt, sink(0), 0);
    write(&writers, attempt, sink(1), 0);
    let flushed = writers.flush(attempt, &[sink(0), sink(1)], None);
    wait_until("the quick sink is flushed", || {
        quick.done().contains(&Event::Flushed)
    });
    assert!(flushed.wait_for(Duration::ZERO).is_none());
    drop(open_gate);
    assert_eq!(flushed.wait_for(TIMEOUT), Some(true), "both are flushed");
    assert!(slow.done().contains(&Event::Flushed));
    assert_eq!(
        writers.flush(attempt, &[], None).wait_for(TIMEOUT),
        Some(true),
        "there is nothing to flush"
    );
    writers.close(attempt);
    assert_eq!(
        writers.flush(attempt, &[sink(0)], None).wait_for(TIMEOUT),
        Some(false),
        "the attempt is over"
    );
}

/// Rows that find no room wait in front of their lane, in order, and no thread waits for it.
#[test]
fn a_full_lane_is_filled_when_it_has_room() {
    let (full, other) = (Script::new(|_| Ok(())), Script::new(|_| Ok(())));
    let writers = Writers::start(1).expect("a thread");
    let (failures, reported) = failures();
    let attempt = AttemptId::new();
    writers.open(
        attempt,
        &PerSink::from_iter([full.sink("full"), other.sink("other")]),
        &failures,
    );
    full.fill();
    for position in 0..5 {
        write(&writers, attempt, sink(0), position);
        write(&writers, attempt, sink(1), position);
    }
    let flushed = writers.flush(attempt, &[sink(0)], None);
    assert_eq!(
        writers.flush(attempt, &[sink(1)], None).wait_for(TIMEOUT),
        Some(true),
        "the other sink is flushed"
    );
    assert!(full.wrote().is_empty() && flushed.wait_for(Duration::ZERO).is_none());
    full.make_room();
    assert_eq!(
        flushed.wait_for(TIMEOUT),
        Some(true),
        "the full sink is flushed when it has room"
    );
    assert_eq!(full.wrote(), [0, 1, 2, 3, 4]);
    writers.close(attempt);
    assert!(reported.is_empty());
}
