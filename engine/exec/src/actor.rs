//! Work that is done in steps, on one thread at a time, whenever it is woken.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::blocking::BlockingPool;

/// Work that is done again and again, whenever it is woken, on one thread at a time.
pub(crate) struct Actor {
    pool: Arc<BlockingPool>,
    phase: Mutex<Phase>,
    step: Mutex<Option<Box<dyn FnMut() -> Next + Send>>>,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until it is woken.
    Sleep,
    /// Another step, after the work of others that wait.
    Again,
    /// Nothing any more.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asleep,
    /// It waits for a thread.
    Called,
    /// A thread is at work on it.
    Working,
    /// The same, and it was woken since.
    WokenAtWork,
    Over,
}

/// Wakes what it belongs to.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

fn waker(actor: Weak<Actor>) -> Wake {
    Arc::new(move || actor.upgrade().iter().for_each(Actor::wake))
}

impl Actor {
    /// It sleeps. `step` gets the means to wake it.
    pub(crate) fn new<S: FnMut() -> Next + Send + 'static>(
        pool: Arc<BlockingPool>,
        step: impl FnOnce(Wake) -> S,
    ) -> Arc<Actor> {
        Arc::new_cyclic(|this: &Weak<Actor>| {
            let step = step(waker(this.clone()));
            Actor {
                pool,
                phase: Mutex::new(Phase::Asleep),
                step: Mutex::new(Some(Box::new(step))),
            }
        })
    }

    /// The means to wake it, which does not keep it alive.
    pub(crate) fn waker(self: &Arc<Self>) -> Wake {
        waker(Arc::downgrade(self))
    }

    /// There is something to do.
    pub(crate) fn wake(self: &Arc<Self>) {
        let mut phase = self.phase.lock();
        match *phase {
            Phase::Asleep => *phase = Phase::Called,
            Phase::Working => {
                *phase = Phase::WokenAtWork;
                return;
            }
            Phase::Called | Phase::WokenAtWork | Phase::Over => return,
        }
        drop(phase);
        self.call();
    }

    fn call(self: &Arc<Self>) {
        let this = self.clone();
        self.pool.run(move || this.perform());
    }

    fn perform(self: Arc<Self>) {
        *self.phase.lock() = Phase::Working;
        let mut place = self.step.lock();
        // A panic ends it, as if the step had said so.
        let next = place.as_mut().map_or(Next::Over, |step| {
            catch_unwind(AssertUnwindSafe(step)).unwrap_or(Next::Over)
        });
        if next == Next::Over {
            *self.phase.lock() = Phase::Over;
            let step = place.take();
            drop(place);
            drop(step);
            return;
        }
        drop(place);
        let mut phase = self.phase.lock();
        let is_called = next == Next::Again || *phase == Phase::WokenAtWork;
        *phase = if is_called {
            Phase::Called
        } else {
            Phase::Asleep
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
    fn an_actor_is_on_one_thread_at_a_time_and_misses_no_call() {
        let pool = Arc::new(BlockingPool::start().unwrap());
        let (send, events) = unbounded::<usize>();
        let (done, is_done) = bounded(1);
        let at_work = AtomicUsize::new(0);
        let mut sum = 0;
        let step = move || {
            assert_eq!(
                at_work.fetch_add(1, Ordering::SeqCst),
                0,
                "two threads are at work on it"
            );
            let next = match events.try_recv() {
                Ok(number) => {
                    sum += number;
                    Next::Again
                }
                Err(crossbeam_channel::TryRecvError::Empty) => Next::Sleep,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    done.send(sum).unwrap();
                    Next::Over
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
    fn what_an_actor_holds_goes_with_its_last_step() {
        let pool = Arc::new(BlockingPool::start().unwrap());
        for panics in [false, true] {
            let (held, is_gone) = bounded::<()>(1);
            let actor = Actor::new(pool.clone(), |_| {
                move || {
                    assert!(!panics, "as it should");
                    let _ = &held;
                    Next::Over
                }
            });
            actor.wake();
            assert!(is_gone.recv().is_err());
            actor.wake();
        }
    }
}
