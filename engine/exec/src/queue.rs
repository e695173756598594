//! The queue of the ETL threads, with one line of batches for each attempt.
//!
//! A line is skipped while many results of its batches wait for writers, so a run whose sink is
//! slow or blocked does not keep ETL threads or memory from other runs. It is also skipped while one
//! of its batches waits for a throttle, or for something outside of the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pseidon_plan::SourceIndex;
use pseidon_plugin::batch::Batch;

use crate::actor::WakeFn;
use crate::attempt::{Attempt, AttemptId};
use crate::order::OrderedSplit;
use crate::process::Processor;
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
    /// If something had to be fetched for its next records: a processor that has it.
    pub(crate) prepared: Option<Box<PreparedProcessor>>,
}

/// A processor that is prepared for the next records of a batch.
pub(crate) struct PreparedProcessor {
    pub(crate) processor: Processor,
    /// The number of the first record for which it is not prepared.
    pub(crate) upto: usize,
}

impl PreparedProcessor {
    /// How many records may pass at once if this many are done.
    pub(crate) fn at_once(&self, done: usize) -> usize {
        self.processor.at_once().min(self.upto - done)
    }
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
    /// How many of its batches wait for something outside of the process.
    blocked: usize,
    /// Wakes the intake whose batch did not find room.
    refused: Option<WakeFn>,
}

impl<T> State<T> {
    /// Removes the lines of which nothing is left.
    fn remove_unused_lines(&mut self) {
        self.lines.retain(|line| {
            line.unwritten > 0
                || line.blocked > 0
                || !line.units.is_empty()
                || !line.kept.is_empty()
        });
    }

    fn line(&mut self, attempt: AttemptId) -> &mut AttemptLine<T> {
        let known = self.lines.iter().position(|line| line.attempt == attempt);
        let number = known.unwrap_or_else(|| {
            self.lines.push_back(AttemptLine {
                attempt,
                units: VecDeque::new(),
                kept: Vec::new(),
                unwritten: 0,
                held_until: None,
                blocked: 0,
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
    /// is called when there is room. A line that is skipped because of its writers accepts it: then
    /// the source must wait, which it does when the memory budget is full.
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

    /// Skips the line of an attempt until the result is dropped.
    pub(crate) fn block(self: &Arc<Self>, attempt: AttemptId) -> BlockedLine<T> {
        self.state.lock().line(attempt).blocked += 1;
        BlockedLine {
            queue: self.clone(),
            attempt,
        }
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
            let moves = |line: &&AttemptLine<T>| {
                !line.units.is_empty() && line.blocked == 0 && self.moves(line, unwritten)
            };
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

/// A line that is skipped because one of its batches waits for something outside of the process.
pub(crate) struct BlockedLine<T = QueuedBatch> {
    queue: Arc<BatchQueue<T>>,
    attempt: AttemptId,
}

impl<T> Drop for BlockedLine<T> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        let mut lines = state.lines.iter_mut();
        // The attempt may be over, and what it has put back since then is in a line of its own.
        if let Some(line) = lines.find(|line| line.attempt == self.attempt) {
            line.blocked = line.blocked.saturating_sub(1);
        }
        state.remove_unused_lines();
        drop(state);
        self.queue.changed.notify_all();
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
        state.remove_unused_lines();
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests;
