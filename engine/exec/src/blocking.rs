//! Threads for work that may block, which all runs share.
//!
//! A few threads do all of it as long as none of it takes long. Work that has waited for a moment because all of them are busy or blocked gets
//! another thread, which leaves when there is nothing more to do. So a run that is blocked holds up no other, and threads do not grow with
//! the number of runs but with the number of those that block.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// As many threads are started as soon as there is work for them, and stay when there is nothing to do.
const WANTED: usize = 4;
/// How long work waits for a thread before there is one more, and how many more there are at once.
const PATIENCE: Duration = Duration::from_millis(20);
const MORE: usize = 4;
/// The pause after a thread could not be started.
const PAUSE: Duration = Duration::from_secs(1);

type Work = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped and their work is done.
pub(crate) struct BlockingPool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is work, or all is over.
    ready: Condvar,
    /// There is work and no thread for it, or all is over.
    crowded: Condvar,
}

#[derive(Default)]
struct State {
    /// What waits for a thread, and since when.
    waiting: VecDeque<(Instant, Work)>,
    threads: usize,
    sleeping: usize,
    is_over: bool,
}

impl BlockingPool {
    pub(crate) fn start() -> io::Result<BlockingPool> {
        let shared = Arc::new(Shared { state: Mutex::default(), ready: Condvar::new(), crowded: Condvar::new() });
        let pool = BlockingPool(shared.clone());
        std::thread::Builder::new().name("blocking-watch".to_owned()).spawn(move || shared.watch())?;
        Ok(pool)
    }

    /// Does the work on one of the threads. A panic in it is printed, and ends nothing else.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        state.waiting.push_back((Instant::now(), Box::new(work)));
        // Each that sleeps is woken for a piece of its own.
        if state.waiting.len() <= state.sleeping {
            self.0.ready.notify_one();
        } else if state.threads >= WANTED || self.0.add_thread(&mut state).is_err() {
            self.0.crowded.notify_one();
        }
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        // It may be dropped by one of its threads, so they are not waited for.
        self.0.state.lock().is_over = true;
        self.0.ready.notify_all();
        self.0.crowded.notify_all();
    }
}

impl Shared {
    fn add_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = self.clone();
        std::thread::Builder::new().name("blocking".to_owned()).spawn(move || shared.work())?;
        state.threads += 1;
        Ok(())
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((_, work)) = state.waiting.pop_front() {
                MutexGuard::unlocked(&mut state, || drop(catch_unwind(AssertUnwindSafe(work))));
            } else if state.is_over || state.threads > WANTED {
                state.threads -= 1;
                return;
            } else {
                state.sleeping += 1;
                self.ready.wait(&mut state);
                state.sleeping -= 1;
            }
        }
    }

    /// Adds threads for work that waits.
    fn watch(self: Arc<Self>) {
        let mut state = self.state.lock();
        while !state.is_over {
            if state.waiting.is_empty() {
                self.crowded.wait(&mut state);
                continue;
            }
            let is_late = |(since, _): &&(Instant, Work)| since.elapsed() >= PATIENCE;
            let late = state.waiting.iter().take_while(is_late).take(MORE).count();
            let mut pause = PATIENCE;
            for _ in 0..late {
                if let Err(error) = self.add_thread(&mut state) {
                    tracing::warn!(%error, "cannot start a thread; runs may wait for others that are blocked");
                    pause = PAUSE;
                    break;
                }
            }
            MutexGuard::unlocked(&mut state, || std::thread::sleep(pause));
        }
    }
}

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
    pub(crate) fn new<S: FnMut() -> Next + Send + 'static>(pool: Arc<BlockingPool>, step: impl FnOnce(Wake) -> S) -> Arc<Actor> {
        Arc::new_cyclic(|this: &Weak<Actor>| {
            let step = step(waker(this.clone()));
            Actor { pool, phase: Mutex::new(Phase::Asleep), step: Mutex::new(Some(Box::new(step))) }
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
        let next = place.as_mut().map_or(Next::Over, |step| catch_unwind(AssertUnwindSafe(step)).unwrap_or(Next::Over));
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
        *phase = if is_called { Phase::Called } else { Phase::Asleep };
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

    /// Returns when as many threads as are wanted are left, and sleep.
    fn rests(pool: &BlockingPool) {
        let is_at_rest = |state: &State| state.sleeping == state.threads && state.threads <= WANTED;
        while !is_at_rest(&pool.0.state.lock()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn work_that_blocks_holds_up_no_other() {
        let pool = BlockingPool::start().unwrap();
        let (release, released) = bounded::<()>(0);
        let (done, is_done) = unbounded();
        let blocked = WANTED * 3;
        for _ in 0..blocked {
            let (released, done) = (released.clone(), done.clone());
            pool.run(move || {
                let _ = released.recv();
                let _ = done.send("blocked");
            });
        }
        pool.run(move || done.send("free").unwrap());
        assert_eq!(is_done.recv(), Ok("free"));
        drop(release);
        assert_eq!(is_done.iter().filter(|what| *what == "blocked").count(), blocked);
        // Those that are too many leave.
        rests(&pool);
    }

    #[test]
    fn a_panic_ends_no_thread() {
        let pool = BlockingPool::start().unwrap();
        let (done, is_done) = unbounded();
        for number in 0..WANTED * 4 {
            let done = done.clone();
            pool.run(move || {
                done.send(()).unwrap();
                assert!(number % 2 == 0, "every other one panics, as it should");
            });
        }
        drop(done);
        assert_eq!(is_done.iter().count(), WANTED * 4);
        rests(&pool);
    }

    #[test]
    fn little_work_takes_few_threads() {
        let pool = BlockingPool::start().unwrap();
        let (done, is_done) = unbounded();
        for _ in 0..WANTED * 4 {
            let done = done.clone();
            pool.run(move || done.send(()).unwrap());
            is_done.recv().unwrap();
            while pool.0.state.lock().sleeping == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(pool.0.state.lock().threads, 1);
    }

    #[test]
    fn an_actor_is_on_one_thread_at_a_time_and_misses_no_call() {
        let pool = Arc::new(BlockingPool::start().unwrap());
        let (send, events) = unbounded::<usize>();
        let (done, is_done) = bounded(1);
        let at_work = AtomicUsize::new(0);
        let mut sum = 0;
        let step = move || {
            assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two threads are at work on it");
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
