//! The queue of the ETL threads: a line of batches for each attempt.
//!
//! A line is passed over while much of what became of its batches waits for writers, so a run whose
//! sink is slow or blocked keeps neither an ETL thread nor memory from the others.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::actor::Wake;
use crate::attempt::AttemptId;
use crate::etl::Unit;
use crate::sync::{Condvar, Mutex};

/// The queue.
pub(crate) struct UnitQueue<T = Unit> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// How many batches may wait in a line that moves.
    depth: usize,
    /// How many bytes of rows may wait for writers.
    limit: usize,
}

struct State<T> {
    /// Those whose turn comes first are in front.
    lines: VecDeque<Line<T>>,
    /// The bytes of all rows that wait for writers.
    unwritten: usize,
    is_over: bool,
}

struct Line<T> {
    attempt: AttemptId,
    units: VecDeque<T>,
    /// Those that wait for others to be done.
    kept: Vec<T>,
    /// The bytes of its rows that wait for writers.
    unwritten: usize,
    /// Wakes the one whose batch did not find room.
    refused: Option<Wake>,
}

impl<T> State<T> {
    fn line(&mut self, attempt: AttemptId) -> &mut Line<T> {
        let known = self.lines.iter().position(|line| line.attempt == attempt);
        let number = known.unwrap_or_else(|| {
            self.lines.push_back(Line {
                attempt,
                units: VecDeque::new(),
                kept: Vec::new(),
                unwritten: 0,
                refused: None,
            });
            self.lines.len() - 1
        });
        &mut self.lines[number]
    }
}

impl<T> UnitQueue<T> {
    /// An empty queue.
    pub(crate) fn new(depth: usize, limit: usize) -> Arc<UnitQueue<T>> {
        let state = State {
            lines: VecDeque::new(),
            unwritten: 0,
            is_over: false,
        };
        Arc::new(UnitQueue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            depth,
            limit,
        })
    }

    /// Whether more of a line may be made ready for the writers. However many lines are held up,
    /// something is left for the others, since a line gets no more than is left after it.
    fn moves(&self, line: &Line<T>, unwritten: usize) -> bool {
        line.unwritten == 0 || line.unwritten <= self.limit.saturating_sub(unwritten)
    }

    /// Adds a batch to its attempt's line. It comes back if the line is long, and `wake` is called
    /// when there is room. A line that is passed over takes it: then it is for the source to wait,
    /// which does so when the memory budget says it.
    pub(crate) fn push(&self, attempt: AttemptId, unit: T, wake: &Wake) -> Result<(), T> {
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

    /// Returns a batch that is not done to the front of its line, so that it continues when its
    /// turn has come again.
    pub(crate) fn put_back(&self, attempt: AttemptId, unit: T) {
        self.state.lock().line(attempt).units.push_front(unit);
        self.changed.notify_all();
    }

    /// Keeps a batch until others are done; see [`UnitQueue::release`]. Returns it if that is so
    /// already.
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

    /// Returns the batches that are kept and may continue to the front of their line. Called when
    /// others are done.
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

    /// The next batch; `None` when the queue has come to its end. Waits.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            let unwritten = state.unwritten;
            let ready = state
                .lines
                .iter()
                .position(|line| !line.units.is_empty() && self.moves(line, unwritten));
            let Some(number) = ready else {
                self.changed.wait(&mut state);
                continue;
            };
            let Some(mut line) = state.lines.remove(number) else {
                continue;
            };
            let unit = line.units.pop_front();
            let refused = line.refused.take();
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_all();
            refused.iter().for_each(|wake| wake());
            return unit;
        }
    }

    /// Counts bytes of an attempt that wait for a writer, until what is returned is dropped.
    pub(crate) fn unwritten(self: &Arc<Self>, attempt: AttemptId, bytes: usize) -> Unwritten<T> {
        let mut state = self.state.lock();
        state.unwritten += bytes;
        let line = state.line(attempt);
        line.unwritten += bytes;
        let refused = line.refused.take();
        drop(state);
        refused.iter().for_each(|wake| wake());
        Unwritten {
            queue: self.clone(),
            attempt,
            bytes,
        }
    }

    /// Nothing comes for an attempt any more, and what waits for it is dropped.
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

    /// Everything that waits is left; the ETL threads end.
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

/// Rows that wait for a writer.
pub(crate) struct Unwritten<T = Unit> {
    queue: Arc<UnitQueue<T>>,
    attempt: AttemptId,
    bytes: usize,
}

impl<T> Drop for Unwritten<T> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.unwritten -= self.bytes;
        state.line(self.attempt).unwritten -= self.bytes;
        // Of an attempt that is over nothing else is left.
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

    use super::*;

    fn queue(limit: usize) -> (Arc<UnitQueue<u32>>, AttemptId, AttemptId) {
        (UnitQueue::new(2, limit), AttemptId::new(), AttemptId::new())
    }

    fn push(queue: &UnitQueue<u32>, attempt: AttemptId, unit: u32) {
        let wake: Wake = Arc::new(|| panic!("there was room"));
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
    fn a_line_that_waits_for_its_writers_is_passed_over_and_its_source_is_not_kept() {
        let (queue, blocked, other) = queue(100);
        // Half of the limit is for this one: then as much is left for the others.
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
    fn a_batch_that_is_not_done_comes_before_those_behind_it() {
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
    fn a_batch_that_is_kept_comes_when_it_may_continue() {
        let (queue, one, other) = queue(100);
        assert_eq!(queue.keep(one, 1, |_| true), Some(1), "it may already");
        assert_eq!(queue.keep(one, 2, |_| false), None);
        assert_eq!(queue.keep(one, 3, |_| false), None);
        push(&queue, one, 4);
        assert_eq!((queue.pop(), queue.len()), (Some(4), 2));
        queue.release(other, |_| true);
        queue.release(one, |unit| *unit == 3);
        assert_eq!((queue.pop(), queue.len()), (Some(3), 1));
        // A run that is over takes with it what is kept.
        queue.forget(one);
        queue.release(one, |_| true);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn many_lines_that_wait_leave_something() {
        for blocked in [1, 2, 10, 100] {
            let queue = UnitQueue::<u32>::new(1, 1_000_000);
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
    fn a_batch_that_finds_no_room_is_told_when_there_is_some() {
        let (queue, attempt, _) = queue(100);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let wake: Wake = Arc::new(move || _ = counted.fetch_add(1, Ordering::SeqCst));
        push(&queue, attempt, 0);
        push(&queue, attempt, 1);
        assert_eq!(queue.push(attempt, 2, &wake), Err(2));
        assert_eq!((calls.load(Ordering::SeqCst), queue.pop()), (0, Some(0)));
        assert_eq!(
            (calls.load(Ordering::SeqCst), queue.push(attempt, 2, &wake)),
            (1, Ok(()))
        );
        assert_eq!(queue.push(attempt, 3, &wake), Err(3));
        // Now the line is passed over, and the budget bounds it.
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
            "once for each batch that came back"
        );
    }

    #[test]
    fn nobody_waits_for_a_queue_that_has_ended() {
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
