//! Restores the order of batches within each split after the ETL threads have finished them in any
//! order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pseidon_plugin::batch::Split;

use crate::dispatch::BatchOutput;

/// A split in this attempt: its batches by the numbers in which they were emitted.
pub(crate) struct OrderedSplit {
    pub(crate) split: Arc<Split>,
    state: Mutex<State>,
    dispatched: Condvar,
    /// The number of the batch whose turn it is to leave.
    turn: AtomicU64,
    /// Whether a batch was left unread: then no later one leaves. Changed while the state is locked.
    is_cut: AtomicBool,
}

#[derive(Default)]
struct State {
    emitted: u64,
    next: u64,
    /// What has been processed and waits for its turn; `None` for a batch that was left unread.
    early: BTreeMap<u64, Option<BatchOutput>>,
}

impl OrderedSplit {
    pub(crate) fn new(split: Arc<Split>) -> Self {
        OrderedSplit {
            split,
            state: Mutex::default(),
            dispatched: Condvar::new(),
            turn: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        }
    }

    /// Returns the number for the next batch.
    pub(crate) fn number(&self) -> u64 {
        let mut state = self.state.lock();
        state.emitted += 1;
        state.emitted - 1
    }

    /// Whether all batches before this one have left, so that parts of it may leave before it is
    /// completely processed. Locks nothing.
    pub(crate) fn is_turn_of(&self, number: u64) -> bool {
        self.turn.load(Ordering::SeqCst) == number
    }

    /// Leaves a batch unread: neither it nor those after it leave, so that the positions of the split
    /// stay before it.
    pub(crate) fn leave_unread(&self, number: u64) {
        let left = self.finish(number, None, |_| Ok::<(), Infallible>(()));
        left.unwrap_or_else(|never| match never {});
    }

    /// Whether a batch was left unread. Locks nothing.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Completes a batch. Dispatches it, and those after it that waited for it, while the split is
    /// locked so that they stay in order.
    pub(crate) fn complete<E>(
        &self,
        number: u64,
        outcome: BatchOutput,
        dispatch: impl FnMut(BatchOutput) -> Result<(), E>,
    ) -> Result<(), E> {
        self.finish(number, Some(outcome), dispatch)
    }

    fn finish<E>(
        &self,
        number: u64,
        outcome: Option<BatchOutput>,
        mut dispatch: impl FnMut(BatchOutput) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.state.lock();
        state.early.insert(number, outcome);
        loop {
            let next = state.next;
            let Some(outcome) = state.early.remove(&next) else {
                return Ok(());
            };
            match outcome {
                Some(outcome) if !self.is_cut() => dispatch(outcome)?,
                _ => self.is_cut.store(true, Ordering::SeqCst),
            }
            state.next += 1;
            self.turn.store(state.next, Ordering::SeqCst);
            if state.next == state.emitted {
                self.dispatched.notify_all();
            }
        }
    }

    /// Waits up to `patience` until everything emitted is dispatched. Returns whether it is.
    pub(crate) fn wait_until_dispatched(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        if state.next < state.emitted {
            self.dispatched.wait_for(&mut state, patience);
        }
        state.next == state.emitted
    }
}

#[cfg(test)]
mod tests {
    use pseidon_delivery::{Position, SplitId};

    use super::*;

    fn split() -> OrderedSplit {
        OrderedSplit::new(Arc::new(Split {
            id: SplitId::from("split"),
            topic: "split".to_owned(),
            partition: 0,
        }))
    }

    fn outcome(next: Position) -> BatchOutput {
        BatchOutput {
            next,
            resume: None,
            end: None,
            chunks: Vec::new(),
        }
    }

    #[test]
    fn batches_leave_in_the_order_in_which_they_were_emitted() {
        for order in [
            [0, 1, 2, 3],
            [3, 2, 1, 0],
            [1, 0, 3, 2],
            [2, 0, 3, 1],
            [3, 0, 1, 2],
        ] {
            let split = split();
            assert!((0..4).all(|number| split.number() == number));
            let mut left = Vec::new();
            for (done, number) in order.iter().enumerate() {
                assert!(!split.wait_until_dispatched(Duration::ZERO));
                let dispatch = |outcome: BatchOutput| {
                    left.push(outcome.next);
                    Ok::<(), Infallible>(())
                };
                split.complete(*number, outcome(*number), dispatch).unwrap();
                let expected = (0..4)
                    .take_while(|number| order[..=done].contains(number))
                    .count();
                assert_eq!(left.len(), expected, "{order:?} after {number}");
            }
            assert_eq!(left, [0, 1, 2, 3]);
            assert!(split.wait_until_dispatched(Duration::ZERO));
        }
    }

    #[test]
    fn no_batch_leaves_after_one_that_was_left_unread() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
            for unread in 0..4 {
                let split = split();
                assert!((0..4).all(|number| split.number() == number));
                let mut left = Vec::new();
                for number in order {
                    let dispatch = |outcome: BatchOutput| {
                        left.push(outcome.next);
                        Ok::<(), Infallible>(())
                    };
                    match number == unread {
                        true => split.leave_unread(number),
                        false => split.complete(number, outcome(number), dispatch).unwrap(),
                    }
                }
                // What waited for the batch that was left unread is not dispatched by it.
                let before: Vec<u64> = (0..unread).collect();
                assert_eq!(left, before, "{order:?} without {unread}");
                assert!(split.is_cut());
                assert!(split.wait_until_dispatched(Duration::ZERO));
            }
        }
    }

    #[test]
    fn a_failed_dispatch_does_not_count_as_dispatched() {
        let split = split();
        split.number();
        split.number();
        assert_eq!(
            split.complete(0, outcome(1), |_| Err("failed")),
            Err("failed")
        );
        assert_eq!(
            split.complete(1, outcome(2), |_| Err("not reached")),
            Ok(())
        );
        assert!(!split.wait_until_dispatched(Duration::ZERO));
    }
}
