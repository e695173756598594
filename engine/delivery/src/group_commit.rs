//! Group commit: steps of many sinks and runs that wait at the same time go to the store in one
//! call.
//!
//! The first thread that wants to commit leads: it sends its step. While the store works, the steps
//! of other threads queue up; the next leader sends all of them at once. So a step waits for at
//! most one call before its own, and a store with a disk syncs once for all of them, however many
//! sinks and logs there are. No step waits for others to come.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::{Commit, CommitError, SinkId, StateStore, StoreError};

/// At most that many steps go into one call, so that none of them waits long.
const MOST_STEPS: usize = 64;

/// A store whose steps are sent in groups. Everything else goes straight through.
pub struct GroupCommit {
    store: Arc<dyn StateStore>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whether a thread is asking the store.
    is_led: bool,
    waiting: Vec<Arc<Step>>,
}

struct Step {
    sink: SinkId,
    commit: Commit,
    answer: Mutex<Option<Result<(), CommitError>>>,
}

impl GroupCommit {
    /// Sends the steps of `store` in groups.
    pub fn new(store: Arc<dyn StateStore>) -> GroupCommit {
        GroupCommit {
            store,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// How many steps wait for the call that is under way.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Sends the next group. The queue is not locked meanwhile.
    fn lead(&self, queue: &mut parking_lot::MutexGuard<'_, Queue>) {
        queue.is_led = true;
        let count = queue.waiting.len().min(MOST_STEPS);
        let group = Group {
            of: self,
            steps: queue.waiting.drain(..count).collect(),
        };
        parking_lot::MutexGuard::unlocked(queue, || {
            let steps: Vec<_> = group
                .steps
                .iter()
                .map(|step| (&step.sink, &step.commit))
                .collect();
            let answers = self.store.commit_many(&steps);
            group
                .steps
                .iter()
                .zip(answers)
                .for_each(|(step, answer)| *step.answer.lock() = Some(answer));
            drop(group);
        });
    }
}

/// Steps on their way. Dropping it ends the lead, also when the store panicked: then nothing is
/// known of the steps.
struct Group<'a> {
    of: &'a GroupCommit,
    steps: Vec<Arc<Step>>,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        for step in &self.steps {
            let unknown = || {
                Err(StoreError::Unavailable("the state store did not answer a step".into()).into())
            };
            step.answer.lock().get_or_insert_with(unknown);
        }
        self.of.queue.lock().is_led = false;
        self.of.changed.notify_all();
    }
}

impl StateStore for GroupCommit {
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let step = Arc::new(Step {
            sink: sink.clone(),
            commit: commit.clone(),
            answer: Mutex::new(None),
        });
        let mut queue = self.queue.lock();
        queue.waiting.push(step.clone());
        loop {
            if let Some(answer) = step.answer.lock().take() {
                return answer;
            }
            if queue.is_led {
                self.changed.wait(&mut queue);
            } else {
                self.lead(&mut queue);
            }
        }
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        self.store.commit_many(steps)
    }

    crate::forward_to_store!(store);
}
