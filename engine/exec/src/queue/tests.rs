//! Tests of the queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

fn queue(limit: usize) -> (Arc<BatchQueue<u32>>, AttemptId, AttemptId) {
    (
        BatchQueue::new(2, limit),
        AttemptId::new(),
        AttemptId::new(),
    )
}

fn push(queue: &BatchQueue<u32>, attempt: AttemptId, unit: u32) {
    let wake: WakeFn = Arc::new(|| panic!("the line had room"));
    assert_eq!(queue.push(attempt, unit, &wake), Ok(()));
}

#[test]
fn lines_take_turns() {
    let (queue, one, other) = queue(100);
    for (attempt, unit) in [(one, 1), (one, 2), (other, 11), (other, 12)] {
        push(&queue, attempt, unit);
    }
    assert_eq!(queue.len(), 4);
    assert_eq!(
        [queue.pop(), queue.pop(), queue.pop(), queue.pop()],
        [Some(1), Some(11), Some(2), Some(12)]
    );
}

#[test]
fn a_line_that_waits_for_writers_is_skipped_and_still_accepts_batches() {
    let (queue, blocked, other) = queue(100);
    // This line may use half of the limit: then as much is left for the others.
    let first = queue.unwritten(blocked, 50);
    push(&queue, blocked, 1);
    assert_eq!(queue.pop(), Some(1));
    let second = queue.unwritten(blocked, 1);
    for unit in 2..20 {
        push(&queue, blocked, unit);
    }
    push(&queue, other, 100);
    assert_eq!(queue.pop(), Some(100));
    push(&queue, other, 101);
    assert_eq!((queue.pop(), queue.len()), (Some(101), 18));
    drop(second);
    assert_eq!(queue.pop(), Some(2));
    drop(first);
    queue.forget(blocked);
    push(&queue, other, 102);
    assert_eq!((queue.pop(), queue.len()), (Some(102), 0));
}

#[test]
fn an_unfinished_batch_comes_before_later_ones() {
    let (queue, one, other) = queue(100);
    for (attempt, unit) in [(one, 1), (one, 2), (other, 11)] {
        push(&queue, attempt, unit);
    }
    assert_eq!(queue.pop(), Some(1));
    queue.put_back(one, 1);
    assert_eq!(
        [queue.pop(), queue.pop(), queue.pop()],
        [Some(11), Some(1), Some(2)]
    );
}

#[test]
fn a_kept_batch_is_returned_when_it_may_continue() {
    let (queue, one, other) = queue(100);
    assert_eq!(
        queue.keep(one, 1, |_| true),
        Some(1),
        "it may continue already"
    );
    assert_eq!(queue.keep(one, 2, |_| false), None);
    assert_eq!(queue.keep(one, 3, |_| false), None);
    push(&queue, one, 4);
    assert_eq!((queue.pop(), queue.len()), (Some(4), 2));
    queue.release(other, |_| true);
    queue.release(one, |unit| *unit == 3);
    assert_eq!((queue.pop(), queue.len()), (Some(3), 1));
    // When a run ends, its kept batches are dropped.
    queue.forget(one);
    queue.release(one, |_| true);
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_held_line_is_skipped_until_its_time_or_until_it_is_lifted() {
    let (queue, held, other) = queue(100);
    let (past, far) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
    queue.put_back_until(held, 1, far);
    push(&queue, held, 2);
    push(&queue, other, 11);
    push(&queue, other, 12);
    assert_eq!([queue.pop(), queue.pop()], [Some(11), Some(12)]);
    // It is as long as any line.
    let wake: WakeFn = Arc::new(|| {});
    assert_eq!(queue.push(held, 3, &wake), Err(3));
    queue.lift(other);
    queue.lift(held);
    assert_eq!(queue.pop(), Some(1));
    queue.put_back_until(held, 1, past);
    assert_eq!([queue.pop(), queue.pop()], [Some(1), Some(2)]);
    // A waiting thread continues when the line is lifted.
    queue.put_back_until(held, 4, far);
    std::thread::scope(|scope| {
        let popping = scope.spawn(|| queue.pop());
        queue.lift(held);
        assert_eq!(popping.join().unwrap(), Some(4));
    });
}

#[test]
fn many_waiting_lines_do_not_use_up_the_limit() {
    for blocked in [1, 2, 10, 100] {
        let queue = BatchQueue::<u32>::new(1, 1_000_000);
        let (attempts, other) = (
            (0..blocked).map(|_| AttemptId::new()).collect::<Vec<_>>(),
            AttemptId::new(),
        );
        let mut unwritten = Vec::new();
        for _ in 0..1_000_000 / 10 / blocked {
            for attempt in &attempts {
                let mut state = queue.state.lock();
                let total = state.unwritten;
                let moves = queue.moves(state.line(*attempt), total);
                drop(state);
                if moves {
                    unwritten.push(queue.unwritten(*attempt, 10));
                }
            }
        }
        let left = 1_000_000 - queue.state.lock().unwritten;
        assert!(
            left >= 1_000_000 / (blocked + 1) - 10 * blocked,
            "{blocked} lines leave {left}"
        );
        push(&queue, other, 1);
        assert_eq!(queue.pop(), Some(1));
    }
}

#[test]
fn the_intake_of_a_refused_batch_is_woken_when_there_is_room() {
    let (queue, attempt, _) = queue(100);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let wake: WakeFn = Arc::new(move || _ = counted.fetch_add(1, Ordering::SeqCst));
    push(&queue, attempt, 0);
    push(&queue, attempt, 1);
    assert_eq!(queue.push(attempt, 2, &wake), Err(2));
    assert_eq!((calls.load(Ordering::SeqCst), queue.pop()), (0, Some(0)));
    assert_eq!(
        (calls.load(Ordering::SeqCst), queue.push(attempt, 2, &wake)),
        (1, Ok(()))
    );
    assert_eq!(queue.push(attempt, 3, &wake), Err(3));
    // Now the line is skipped, and the memory budget bounds it.
    let unwritten = queue.unwritten(attempt, 60);
    assert_eq!(
        (calls.load(Ordering::SeqCst), queue.push(attempt, 3, &wake)),
        (2, Ok(()))
    );
    drop(unwritten);
    assert_eq!(
        [queue.pop(), queue.pop(), queue.pop()],
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(
        calls.load(Ordering::SeqCst),
        2,
        "once for each batch that was returned"
    );
}

#[test]
fn pop_and_push_return_once_the_queue_is_closed() {
    let (queue, attempt, _) = queue(100);
    for unit in 0..2 {
        push(&queue, attempt, unit);
    }
    std::thread::scope(|scope| {
        let popping = scope.spawn(|| while queue.pop().is_some() {});
        queue.end();
        popping.join().unwrap();
    });
}

#[test]
fn a_blocked_line_is_skipped_until_nothing_blocks_it() {
    let (queue, blocked, other) = queue(100);
    let (first, second) = (queue.block(blocked), queue.block(blocked));
    push(&queue, blocked, 1);
    push(&queue, other, 11);
    // The line stays blocked when nothing of the attempt waits for a writer any more.
    drop(queue.unwritten(blocked, 10));
    assert_eq!((queue.pop(), queue.len()), (Some(11), 1));
    // It is as long as any line.
    push(&queue, blocked, 2);
    let wake: WakeFn = Arc::new(|| {});
    assert_eq!(queue.push(blocked, 3, &wake), Err(3));
    drop(first);
    std::thread::scope(|scope| {
        let popping = scope.spawn(|| queue.pop());
        queue.put_back(blocked, 0);
        drop(second);
        assert_eq!(popping.join().unwrap(), Some(0));
    });
    // What is put back after the end of the attempt is not skipped.
    let late = queue.block(blocked);
    queue.forget(blocked);
    queue.put_back(blocked, 4);
    assert_eq!(queue.pop(), Some(4));
    drop(late);
    assert_eq!(queue.len(), 0);
}
