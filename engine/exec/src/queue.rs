//! The queue of the ETL threads, with one line of batches for each attempt.
//!
//! A line is skipped while many results of its batches wait for writers, so a run whose sink is
//! slow or blocked does not keep ETL threads or memory from other runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pseidon_plan::SourceIndex;
use pseidon_plugin::batch::Batch;

use crate::actor::WakeFn;
use crate::attempt::{Attempt, AttemptId};
use crate::order::OrderedSplit;
use crate::sync::{Condvar, Mutex, now};

/// A batch in the queue.
pub(crate) struct QueuedBatch {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) source: SourceIndex,
    pub(crate) split: Arc<OrderedSplit>,
    pub(crate) number: u64,
    pub(crate) batch: Arc<Batch>,
    /// How many of its records are done.
    pub(crate) done: usize,
    /// How many of its records may be processed; the others are left unread.
    pub(crate) upto: usize,
}

/// The queue of batches.
pub(crate) struct BatchQueue<T = QueuedBatch> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// How many batches may wait in a line that is not skipped.
    depth: usize,
    /// The limit for the bytes of rows that wait for writers.
    limit: usize,
}

struct State<T> {
    /// The attempts with waiting batches; the next one is in front.
    lines: VecDeque<AttemptLine<T>>,
    /// The bytes of all rows that wait for writers.
    unwritten: usize,
    is_over: bool,
}

struct AttemptLine<T> {
    attempt: AttemptId,
    units: VecDeque<T>,
    /// Batches that wait until others are done.
    kept: Vec<T>,
    /// The bytes of its rows that wait for writers.
    unwritten: usize,
    /// Until when its batches wait for a throttle.
    held_until: Option<Instant>,
    /// Wakes the intake whose batch did not find room.
    refused: Option<WakeFn>,
}

impl<T> State<T> {
    fn line(&mut self, attempt: AttemptId) -> &mut AttemptLine<T> {
        let known = self.lines.iter().position(|line| line.attempt == attempt);
        let number = known.unwrap_or_else(|| {
            self.lines.push_back(AttemptLine {
                attempt,
                units: VecDeque::new(),
                kept: Vec::new(),
                unwritten: 0,
                held_until: None,
                refused: None,
            });
            self.lines.len() - 1
        });
        &mut self.lines[number]
    }
}

impl<T> BatchQueue<T> {
    /// Creates an empty queue.
    pub(crate) fn new(depth: usize, limit: usize) -> Arc<BatchQueue<T>> {
        let state = State {
            lines: VecDeque::new(),
            unwritten: 0,
            is_over: false,
        };
        Arc::new(BatchQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            depth,
            limit,
        })
    }

    /// Whether more of a line may be processed. However many lines are held up, something is left
    /// for the others, since a line gets no more than is left after it.
    fn moves(&self, line: &AttemptLine<T>, unwritten: usize) -> bool {
        line.unwritten == 0 || line.unwritten <= self.limit.saturating_sub(unwritten)
    }

    /// Adds a batch to its attempt's line. If the line is long, the batch is returned, and `wake`
    /// is called when there is room. A line that is skipped accepts it: then the source must wait,
    /// which it does when the memory budget is full.
    pub(crate) fn push(&self, attempt: AttemptId, unit: T, wake: &WakeFn) -> Result<(), T> {
        let mut state = self.state.lock();
        let unwritten = state.unwritten;
        let line = state.line(attempt);
        if line.units.len() >= self.depth && self.moves(line, unwritten) {
            line.refused = Some(wake.clone());
            return Err(unit);
        }
        line.units.push_back(unit);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Returns an unfinished batch to the front of its line, so that it continues at the line's
    /// next turn.
    pub(crate) fn put_back(&self, attempt: AttemptId, unit: T) {
        self.state.lock().line(attempt).units.push_front(unit);
        self.changed.notify_all();
    }

    /// Returns a batch to the front of its line, which is skipped until this time.
    pub(crate) fn put_back_until(&self, attempt: AttemptId, unit: T, until: Instant) {
        let mut state = self.state.lock();
        let line = state.line(attempt);
        line.units.push_front(unit);
        line.held_until = Some(until);
        drop(state);
        self.changed.notify_all();
    }

    /// Skips the line of an attempt no longer for a throttle.
    pub(crate) fn lift(&self, attempt: AttemptId) {
        let mut state = self.state.lock();
        let mut lines = state.lines.iter_mut();
        let held = lines.find(|line| line.attempt == attempt && line.held_until.is_some());
        let Some(line) = held else {
            return;
        };
        line.held_until = None;
        drop(state);
        self.changed.notify_all();
    }

    /// Keeps a batch until others are done; see [`BatchQueue::release`]. Returns it if they are
    /// done already.
    pub(crate) fn keep(
        &self,
        attempt: AttemptId,
        unit: T,
        may_continue: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let mut state = self.state.lock();
        if may_continue(&unit) {
            return Some(unit);
        }
        state.line(attempt).kept.push(unit);
        None
    }

    /// Returns the kept batches that may continue to the front of their line. Called when others
    /// are done.
    pub(crate) fn release(&self, attempt: AttemptId, may_continue: impl Fn(&T) -> bool) {
        let mut state = self.state.lock();
        let Some(line) = state
            .lines
            .iter_mut()
            .find(|line| line.attempt == attempt && !line.kept.is_empty())
        else {
            return;
        };
        let (released, kept) = std::mem::take(&mut line.kept)
            .into_iter()
            .partition::<Vec<T>, _>(|unit| may_continue(unit));
        line.kept = kept;
        released
            .into_iter()
            .for_each(|unit| line.units.push_front(unit));
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next batch; `None` when the queue is closed.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            let (unwritten, now) = (state.unwritten, now());
            let waits = |line: &AttemptLine<T>| line.held_until.filter(|until| *until > now);
            let moves =
                |line: &&AttemptLine<T>| !line.units.is_empty() && self.moves(line, unwritten);
            let mut lines = state.lines.iter();
            let ready = lines.position(|line| moves(&line) && waits(line).is_none());
            let Some(number) = ready else {
                let due = state.lines.iter().filter(moves).filter_map(waits).min();
                match due {
                    Some(due) => {
                        self.changed.wait_for(&mut state, due - now);
                    }
                    None => self.changed.wait(&mut state),
                }
                continue;
            };
            let Some(mut line) = state.lines.remove(number) else {
                continue;
            };
            let unit = line.units.pop_front();
            line.held_until = None;
            let refused = line.refused.take();
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_all();
            refused.iter().for_each(|wake| wake());
            return unit;
        }
    }

    /// Charges bytes of an attempt that wait for a writer, until the returned charge is dropped.
    pub(crate) fn unwritten(
        self: &Arc<Self>,
        attempt: AttemptId,
        bytes: usize,
    ) -> UnwrittenCharge<T> {
        let mut state = self.state.lock();
        state.unwritten += bytes;
        let line = state.line(attempt);
        line.unwritten += bytes;
        let refused = line.refused.take();
        drop(state);
        refused.iter().for_each(|wake| wake());
        UnwrittenCharge {
            queue: self.clone(),
            attempt,
            bytes,
        }
    }

    /// Removes the line of an attempt, which receives nothing any more. Waiting batches are
    /// dropped.
    pub(crate) fn forget(&self, attempt: AttemptId) {
        let mut state = self.state.lock();
        let line = state.line(attempt);
        let units = (
            std::mem::take(&mut line.units),
            std::mem::take(&mut line.kept),
        );
        state
            .lines
            .retain(|line| line.attempt != attempt || line.unwritten > 0);
        drop(state);
        drop(units);
        self.changed.notify_all();
    }

    /// Closes the queue: waiting batches are abandoned and the ETL threads exit.
    pub(crate) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    /// How many batches wait.
    pub(crate) fn len(&self) -> usize {
        self.state
            .lock()
            .lines
            .iter()
            .map(|line| line.units.len() + line.kept.len())
            .sum()
    }
}

/// The charge for rows that wait for a writer.
pub(crate) struct UnwrittenCharge<T = QueuedBatch> {
    queue: Arc<BatchQueue<T>>,
    attempt: AttemptId,
    bytes: usize,
}

impl<T> Drop for UnwrittenCharge<T> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.unwritten -= self.bytes;
        state.line(self.attempt).unwritten -= self.bytes;
        // If the attempt is over, nothing else is left of it.
        state
            .lines
            .retain(|line| line.unwritten > 0 || !line.units.is_empty() || !line.kept.is_empty());
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
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
}
