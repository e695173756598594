//! An answer that one thread waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, now};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Given,
    /// The one who was to give it is gone.
    Withheld,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Gives the answer. Dropped without having given it, it says that there will be none.
pub(crate) struct Answerer(Arc<Shared>);

/// Waits for the answer.
pub(crate) struct Answer(Arc<Shared>);

/// An answer that is not given yet.
pub(crate) fn answer() -> (Answerer, Answer) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open),
        changed: Condvar::new(),
    });
    (Answerer(shared.clone()), Answer(shared))
}

impl Answerer {
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

impl Drop for Answerer {
    fn drop(&mut self) {
        self.set(State::Withheld);
    }
}

impl Answer {
    /// Waits. Returns whether it was given.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.0.state.lock();
        while *state == State::Open {
            self.0.changed.wait(&mut state);
        }
        *state == State::Given
    }

    /// Waits at most `patience`. Returns whether it was given, or `None` if that is open.
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
