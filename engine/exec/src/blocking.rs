//! Threads for work that may block, which all runs share.
//!
//! A few threads do all of it as long as none of it takes long. Work that has waited for a moment
//! because all of them are busy or blocked gets another thread, which leaves when there is nothing
//! more to do. So a run that is blocked holds up no other, and threads do not grow with the number
//! of runs but with the number of those that block.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// As many threads are started as soon as there is work for them, and stay when there is nothing to
/// do.
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

#[cfg(all(test, not(feature = "model")))]
mod tests {
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
        assert_eq!(
            is_done.iter().filter(|what| *what == "blocked").count(),
            blocked
        );
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
}
