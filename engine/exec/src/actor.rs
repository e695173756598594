//! Actors: work in steps, on one thread at a time, whenever it is woken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::blocking::BlockingPool;

/// Work that is repeated whenever it is woken, on one thread at a time.
pub(crate) struct Actor {
    pool: Arc<BlockingPool>,
    phase: Mutex<ActorPhase>,
    step: Mutex<Option<Box<dyn FnMut() -> NextStep + Send>>>,
}

/// What follows a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Nothing until the actor is woken.
    Sleep,
    /// Another step, after other waiting work.
    Again,
    /// Nothing: the step is dropped, and waking the actor has no effect.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActorPhase {
    Asleep,
    /// Waits for a thread.
    Called,
    /// A thread runs a step.
    Working,
    /// A thread runs a step, and the actor was woken since.
    WokenAtWork,
    Ended,
}

/// Wakes the actor that it belongs to.
pub(crate) type WakeFn = Arc<dyn Fn() + Send + Sync>;

fn waker(actor: Weak<Actor>) -> WakeFn {
    Arc::new(move || actor.upgrade().iter().for_each(Actor::wake))
}

impl Actor {
    /// Creates a sleeping actor. `step` gets a function that wakes the actor.
    pub(crate) fn new<S: FnMut() -> NextStep + Send + 'static>(
        pool: Arc<BlockingPool>,
        step: impl FnOnce(WakeFn) -> S,
    ) -> Arc<Actor> {
        Arc::new_cyclic(|this: &Weak<Actor>| {
            let step = step(waker(this.clone()));
            Actor {
                pool,
                phase: Mutex::new(ActorPhase::Asleep),
                step: Mutex::new(Some(Box::new(step))),
            }
        })
    }

    /// Returns a function that wakes the actor and does not keep it alive.
    pub(crate) fn waker(self: &Arc<Self>) -> WakeFn {
        waker(Arc::downgrade(self))
    }

    /// Makes the actor run a step soon.
    pub(crate) fn wake(self: &Arc<Self>) {
        let mut phase = self.phase.lock();
        match *phase {
            ActorPhase::Asleep => *phase = ActorPhase::Called,
            ActorPhase::Working => {
                *phase = ActorPhase::WokenAtWork;
                return;
            }
            ActorPhase::Called | ActorPhase::WokenAtWork | ActorPhase::Ended => return,
        }
        drop(phase);
        self.call();
    }

    fn call(self: &Arc<Self>) {
        let this = self.clone();
        self.pool.run(move || this.perform());
    }

    fn perform(self: Arc<Self>) {
        *self.phase.lock() = ActorPhase::Working;
        let mut place = self.step.lock();
        // A panic ends the actor, as if the step had returned that it is done.
        let next = place.as_mut().map_or(NextStep::Ended, |step| {
            catch_unwind(AssertUnwindSafe(step)).unwrap_or(NextStep::Ended)
        });
        if next == NextStep::Ended {
            *self.phase.lock() = ActorPhase::Ended;
            let step = place.take();
            drop(place);
            drop(step);
            return;
        }
        drop(place);
        let mut phase = self.phase.lock();
        let is_called = next == NextStep::Again || *phase == ActorPhase::WokenAtWork;
        *phase = if is_called {
            ActorPhase::Called
        } else {
            ActorPhase::Asleep
        };
        drop(phase);
        if is_called {
            self.call();
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::{bounded, unbounded};

    use super::*;

    #[test]
    fn an_actor_is_on_one_thread_at_a_time_and_misses_no_wake_up() {
        let pool = Arc::new(BlockingPool::start().unwrap());
        let (send, events) = unbounded::<usize>();
        let (done, is_done) = bounded(1);
        let at_work = AtomicUsize::new(0);
        let mut sum = 0;
        let step = move || {
            assert_eq!(
                at_work.fetch_add(1, Ordering::SeqCst),
                0,
                "two threads run the actor"
            );
            let next = match events.try_recv() {
                Ok(number) => {
                    sum += number;
                    NextStep::Again
                }
                Err(crossbeam_channel::TryRecvError::Empty) => NextStep::Sleep,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    done.send(sum).unwrap();
                    NextStep::Ended
                }
            };
            at_work.fetch_sub(1, Ordering::SeqCst);
            next
        };
        let actor = Actor::new(pool, |_| step);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (send, actor) = (send.clone(), actor.clone());
                scope.spawn(move || {
                    for number in 0..1000 {
                        send.send(number).unwrap();
                        actor.wake();
                    }
                });
            }
        });
        drop(send);
        actor.wake();
        assert_eq!(is_done.recv(), Ok(4 * 999 * 500));
    }

    #[test]
    fn an_actor_drops_its_state_after_its_last_step() {
        let pool = Arc::new(BlockingPool::start().unwrap());
        for panics in [false, true] {
            let (held, is_gone) = bounded::<()>(1);
            let actor = Actor::new(pool.clone(), |_| {
                move || {
                    assert!(!panics, "injected panic");
                    let _ = &held;
                    NextStep::Ended
                }
            });
            actor.wake();
            assert!(is_gone.recv().is_err());
            actor.wake();
        }
    }
}
