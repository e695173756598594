//! A one-shot answer that one thread waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, now};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Given,
    /// The sender was dropped without giving the answer.
    Withheld,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Sends the answer. Dropping it without that withholds the answer.
pub(crate) struct AnswerSender(Arc<Shared>);

/// Waits for the answer.
pub(crate) struct AnswerReceiver(Arc<Shared>);

/// Creates the two ends of an answer that is not given yet.
pub(crate) fn answer() -> (AnswerSender, AnswerReceiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open),
        changed: Condvar::new(),
    });
    (AnswerSender(shared.clone()), AnswerReceiver(shared))
}

impl AnswerSender {
    pub(crate) fn give(&self) {
        self.set(State::Given);
    }

    fn set(&self, to: State) {
        let mut state = self.0.state.lock();
        if *state == State::Open {
            *state = to;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Drop for AnswerSender {
    fn drop(&mut self) {
        self.set(State::Withheld);
    }
}

impl AnswerReceiver {
    /// Waits for the answer. Returns whether it was given, and not withheld.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.0.state.lock();
        while *state == State::Open {
            self.0.changed.wait(&mut state);
        }
        *state == State::Given
    }

    /// Waits up to `patience`. Returns whether the answer was given, or `None` if it is still open.
    pub(crate) fn wait_for(&self, patience: Duration) -> Option<bool> {
        let deadline = now() + patience;
        let mut state = self.0.state.lock();
        while *state == State::Open {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return None;
            }
            self.0.changed.wait_for(&mut state, left);
        }
        Some(*state == State::Given)
    }
}
