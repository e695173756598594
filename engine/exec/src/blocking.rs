//! Threads for work that may block, shared by all runs.
//!
//! A few threads do all of it as long as none of it takes long. If work has waited for a moment
//! because all of them are busy or blocked, more threads are started, which exit when there is
//! nothing more to do. So a blocked run delays no other run, and the number of threads grows with
//! the number of blocked runs, not with the number of runs.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// This many threads are started as soon as there is work for them, and stay when there is nothing
/// to do.
const WANTED: usize = 4;
/// How long work waits for a thread before more are started, and how many are started at once.
const PATIENCE: Duration = Duration::from_millis(10);
const MORE: usize = 16;
/// The pause after a thread could not be started.
const PAUSE: Duration = Duration::from_secs(1);

type BlockingWork = Box<dyn FnOnce() + Send>;

/// The threads. They exit when this is dropped and their work is done.
pub(crate) struct BlockingPool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Notified when there is work, or when the pool is dropped.
    ready: Condvar,
    /// Notified when there is work and no thread for it, or when the pool is dropped.
    crowded: Condvar,
}

#[derive(Default)]
struct State {
    /// Work that waits for a thread, and since when.
    waiting: VecDeque<(Instant, BlockingWork)>,
    threads: usize,
    sleeping: usize,
    is_over: bool,
}

impl BlockingPool {
    pub(crate) fn start() -> io::Result<BlockingPool> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            ready: Condvar::new(),
            crowded: Condvar::new(),
        });
        let pool = BlockingPool(shared.clone());
        std::thread::Builder::new()
            .name("blocking-watch".to_owned())
            .spawn(move || shared.watch())?;
        Ok(pool)
    }

    /// Runs the work on one of the threads. A panic in it is printed, and affects nothing else.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        state.waiting.push_back((Instant::now(), Box::new(work)));
        // Each sleeping thread is woken for a piece of work of its own.
        if state.waiting.len() <= state.sleeping {
            self.0.ready.notify_one();
        } else if state.threads >= WANTED || self.0.add_thread(&mut state).is_err() {
            self.0.crowded.notify_one();
        }
    }
}

impl Drop for BlockingPool {
    fn drop(&mut self) {
        // The pool may be dropped by one of its threads, so they are not waited for.
        self.0.state.lock().is_over = true;
        self.0.ready.notify_all();
        self.0.crowded.notify_all();
    }
}

impl Shared {
    fn add_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = self.clone();
        std::thread::Builder::new()
            .name("blocking".to_owned())
            .spawn(move || shared.work())?;
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
            let is_late = |(since, _): &&(Instant, BlockingWork)| since.elapsed() >= PATIENCE;
            let late = state.waiting.iter().take_while(is_late).take(MORE).count();
            let mut pause = PATIENCE;
            for _ in 0..late {
                if let Err(error) = self.add_thread(&mut state) {
                    tracing::warn!(%error, "cannot start a thread; runs may wait for blocked ones");
                    pause = PAUSE;
                    break;
                }
            }
            MutexGuard::unlocked(&mut state, || std::thread::sleep(pause));
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;

    /// Returns when only as many threads as are wanted are left, and sleep.
    fn rests(pool: &BlockingPool) {
        let is_at_rest = |state: &State| state.sleeping == state.threads && state.threads <= WANTED;
        while !is_at_rest(&pool.0.state.lock()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn blocked_work_delays_no_other_work() {
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
        assert_eq!(
            is_done.iter().filter(|what| *what == "blocked").count(),
            blocked
        );
        // Surplus threads exit.
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
                assert!(number % 2 == 0, "every other piece of work panics");
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
}
