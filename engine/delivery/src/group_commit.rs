//! Group commit: steps of many sinks and runs that wait at the same time are sent to the store in
//! one call.
//!
//! The first thread that commits leads: it sends its step. While the store works, the steps of
//! other threads queue up; the next leader sends all of them at once. So a step waits for at most
//! one call before its own, and a store with a disk syncs once for all of them, however many sinks
//! and pipelines there are. No step waits for others to arrive.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::{Commit, CommitError, SinkId, StateStore, StoreError};

/// The maximum number of steps in one call, so that none of them waits long.
const MAX_STEPS: usize = 64;

/// A store whose steps are sent in groups. All other calls are passed through.
pub struct GroupCommit {
    store: Arc<dyn StateStore>,
    queue: Mutex<StepQueue>,
    changed: Condvar,
}

#[derive(Default)]
struct StepQueue {
    /// Whether a thread is calling the store.
    is_led: bool,
    waiting: Vec<Arc<QueuedStep>>,
}

struct QueuedStep {
    sink: SinkId,
    commit: Commit,
    answer: Mutex<Option<Result<(), CommitError>>>,
}

impl GroupCommit {
    /// Creates a store that sends the steps of `store` in groups.
    pub fn new(store: Arc<dyn StateStore>) -> GroupCommit {
        GroupCommit {
            store,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// How many steps wait for the call in progress.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Sends the next group. The queue is not locked meanwhile.
    fn lead(&self, queue: &mut parking_lot::MutexGuard<'_, StepQueue>) {
        queue.is_led = true;
        let count = queue.waiting.len().min(MAX_STEPS);
        let group = StepGroup {
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

/// Steps in flight. Dropping it ends the lead, even if the store panicked: then the outcome of the
/// steps is unknown.
struct StepGroup<'a> {
    of: &'a GroupCommit,
    steps: Vec<Arc<QueuedStep>>,
}

impl Drop for StepGroup<'_> {
    fn drop(&mut self) {
        for step in &self.steps {
            let unknown = || {
                Err(
                    StoreError::Unavailable("the state store did not answer a commit".into())
                        .into(),
                )
            };
            step.answer.lock().get_or_insert_with(unknown);
        }
        self.of.queue.lock().is_led = false;
        self.of.changed.notify_all();
    }
}

impl StateStore for GroupCommit {
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        let step = Arc::new(QueuedStep {
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
