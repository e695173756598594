//! The writer threads, which own the open lanes.
//!
//! A writer thread works for many runs. When a writer has to wait for its target ([`pseidon_plugin::waiting`]), it stays with its thread, and a
//! new thread takes over everything else: the queue and the other writers. What comes for the one that waits is put by until it is back;
//! then its thread does that in order, and ends. So a writer is at work on one thread at most, in the order of what it was told.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use pseidon_delivery::SplitId;
use pseidon_plugin::sink::{Chunk, Writer};
use pseidon_plugin::waiting::when_about_to_wait;

use crate::attempt::{Attempt, AttemptId};
use crate::failure::{Failure, guarded};

/// How long a thread without any writer sleeps.
const IDLE: Duration = Duration::from_secs(3600);
/// With more chunks than that put by for one writer, its run's sources read nothing more.
const CLOGGED: usize = 16;

/// What a writer thread is told.
pub(crate) enum WriterMessage {
    /// Make the writers of this attempt's sinks.
    Open(Arc<Attempt>),
    /// Rows for a lane of the sink with this number.
    Chunk(AttemptId, usize, Chunk),
    /// Commit and publish the lanes of these sinks that hold records of these splits, then answer. `None` means all splits. There is no
    /// answer when it failed.
    Flush { attempt: AttemptId, sinks: Vec<usize>, splits: Option<Vec<SplitId>>, done: Sender<()> },
    /// Throw away what is open of the attempt, then answer.
    Close(AttemptId, Sender<()>),
}

/// Starts a writer thread. It ends when all senders are gone.
pub(crate) fn start(index: usize, messages: Receiver<WriterMessage>) -> io::Result<JoinHandle<()>> {
    let writers = Writers { owned: HashMap::new(), busy: HashMap::new(), failed: HashSet::new(), next_tick: Instant::now() + IDLE };
    spawn(Arc::new(Post { index, began: Instant::now(), messages, writers: Mutex::new(writers) }))
}

fn spawn(post: Arc<Post>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("writer-{}", post.index)).spawn(move || post.work())
}

/// Names a sink of an attempt.
type Key = (AttemptId, usize);

/// What a writer thread does, which another thread can take over.
struct Post {
    index: usize,
    /// Ticks fall on multiples of their period from here on, so that those of hundreds of sinks are done in one go.
    began: Instant,
    messages: Receiver<WriterMessage>,
    writers: Mutex<Writers>,
}

/// The writers of a post.
struct Writers {
    owned: HashMap<Key, Owned>,
    /// Those that are at work, each with what was put by for it meanwhile.
    busy: HashMap<Key, VecDeque<Task>>,
    /// Attempts whose lanes were thrown away here because something failed; what else comes for them is dropped.
    failed: HashSet<AttemptId>,
    /// When a writer wants to be ticked next.
    next_tick: Instant,
}

/// A sink's writer.
struct Owned {
    writer: Box<dyn Writer>,
    attempt: Arc<Attempt>,
    next_tick: Instant,
}

/// What a writer is to do.
enum Task {
    Write(Chunk),
    Flush(Option<Vec<SplitId>>, Arc<Flushed>),
    Tick,
    /// Nothing more: it is thrown away.
    Close(Arc<Closed>),
}

/// Answers when all of a flush is done, unless some of it failed.
struct Flushed {
    done: Sender<()>,
    failed: AtomicBool,
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if !self.failed.load(Ordering::Relaxed) {
            // Who asked may have left by now.
            let _ = self.done.send(());
        }
    }
}

/// Answers when all writers of an attempt are gone.
struct Closed(Sender<()>);

impl Drop for Closed {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Task {
    /// It will not be done, since its attempt has failed or is over.
    fn refuse(self) {
        match self {
            Task::Flush(_, flushed) => flushed.failed.store(true, Ordering::Relaxed),
            // This is the answer.
            Task::Close(closed) => drop(closed),
            Task::Write(_) | Task::Tick => {}
        }
    }
}

impl Post {
    /// Works until all senders are gone, or until another thread has taken over because a writer waits on this one.
    fn work(self: Arc<Self>) {
        let is_replaced = Rc::new(Cell::new(false));
        let (post, replaced) = (self.clone(), is_replaced.clone());
        when_about_to_wait(move || {
            // Without a thread to take over, all the others have to wait too.
            if !replaced.get() {
                replaced.set(spawn(post.clone()).is_ok());
            }
        });
        while !is_replaced.get() {
            let next_tick = self.writers.lock().next_tick;
            match self.messages.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !is_replaced.get() && self.writers.lock().next_tick <= Instant::now() {
                self.tick(&is_replaced);
            }
        }
    }

    fn handle(&self, message: WriterMessage) {
        match message {
            WriterMessage::Open(attempt) => {
                if let Err(failure) = guarded(|| self.open(&attempt)) {
                    self.fail(&attempt, failure);
                }
            }
            WriterMessage::Chunk(attempt, number, chunk) => self.give((attempt, number), Task::Write(chunk)),
            WriterMessage::Flush { attempt, sinks, splits, done } => {
                let flushed = Arc::new(Flushed { done, failed: AtomicBool::new(false) });
                for number in sinks {
                    self.give((attempt, number), Task::Flush(splits.clone(), flushed.clone()));
                }
                if self.writers.lock().failed.contains(&attempt) {
                    flushed.failed.store(true, Ordering::Relaxed);
                }
            }
            WriterMessage::Close(attempt, done) => self.close(attempt, &Arc::new(Closed(done))),
        }
    }

    fn open(&self, attempt: &Arc<Attempt>) -> Result<(), Failure> {
        for (number, sink) in attempt.sinks.iter().enumerate() {
            if sink.only_writer.is_some_and(|only| only != self.index) {
                continue;
            }
            let writer = sink.sink.writer().map_err(|error| Failure::of_sink(&sink.stage, error))?;
            let next_tick = self.after_now(writer.tick_every());
            let mut writers = self.writers.lock();
            writers.next_tick = writers.next_tick.min(next_tick);
            writers.owned.insert((attempt.id, number), Owned { writer, attempt: attempt.clone(), next_tick });
        }
        Ok(())
    }

    /// Ticks the writers that are due. Those that are at work do it another time.
    fn tick(&self, is_replaced: &Cell<bool>) {
        let now = Instant::now();
        let due: Vec<Key> = {
            let writers = self.writers.lock();
            writers.owned.iter().filter(|(_, one)| one.next_tick <= now).map(|(key, _)| *key).collect()
        };
        for key in due {
            self.give(key, Task::Tick);
            if is_replaced.get() {
                return;
            }
        }
        let mut writers = self.writers.lock();
        writers.next_tick = writers.owned.values().map(|one| one.next_tick).min().unwrap_or(now + IDLE);
    }

    /// Has a writer do something, and whatever is put by for it meanwhile.
    fn give(&self, key: Key, task: Task) {
        let mut writers = self.writers.lock();
        if let Some(put_by) = writers.busy.get_mut(&key) {
            put_by.push_back(task);
            return;
        }
        let Some(mut one) = writers.owned.remove(&key) else {
            if writers.failed.contains(&key.0) {
                task.refuse();
            }
            return;
        };
        writers.busy.insert(key, VecDeque::new());
        drop(writers);
        let mut task = task;
        loop {
            self.do_one(key, &mut one, task);
            let mut writers = self.writers.lock();
            match writers.next(key, &one.attempt) {
                Next::Task(next) => task = next,
                Next::Nothing => {
                    writers.next_tick = writers.next_tick.min(one.next_tick);
                    writers.owned.insert(key, one);
                    return;
                }
                Next::End(put_by) => {
                    drop(writers);
                    drop(one);
                    // Whoever waits for the writer's end hears of it only now.
                    put_by.into_iter().for_each(Task::refuse);
                    return;
                }
            }
        }
    }

    /// Has a writer do one thing.
    fn do_one(&self, key: Key, one: &mut Owned, task: Task) {
        let flushed = if let Task::Flush(_, flushed) = &task { Some(flushed.clone()) } else { None };
        let is_tick = matches!(task, Task::Tick);
        let done = guarded(|| {
            let done = match task {
                Task::Write(chunk) => one.writer.write(chunk),
                Task::Flush(splits, _) => one.writer.flush(splits.as_deref()),
                Task::Tick => one.writer.tick(),
                Task::Close(_) => Ok(()),
            };
            done.map_err(|error| Failure::of_sink(&one.attempt.sinks[key.1].stage, error))
        });
        // A write moves no tick: a writer that is always at work would never be ticked.
        if is_tick {
            one.next_tick = self.after_now(one.writer.tick_every());
        }
        if let Err(failure) = done {
            flushed.inspect(|flushed| flushed.failed.store(true, Ordering::Relaxed));
            self.fail(&one.attempt, failure);
        }
    }

    /// A failure is the whole attempt's: what is open of it here is thrown away.
    fn fail(&self, attempt: &Arc<Attempt>, failure: Failure) {
        let mut writers = self.writers.lock();
        writers.failed.insert(attempt.id);
        let thrown_away = writers.remove(attempt.id);
        drop(writers);
        drop(thrown_away);
        attempt.failures.report(failure);
    }

    fn close(&self, attempt: AttemptId, closed: &Arc<Closed>) {
        let mut writers = self.writers.lock();
        let thrown_away = writers.remove(attempt);
        for (_, put_by) in writers.busy.iter_mut().filter(|(key, _)| key.0 == attempt) {
            put_by.push_back(Task::Close(closed.clone()));
        }
        writers.forget_if_gone(attempt);
        drop(writers);
        drop(thrown_away);
    }

    /// The next multiple of the period.
    fn after_now(&self, every: Duration) -> Instant {
        let every = every.max(Duration::from_millis(1));
        let elapsed = self.began.elapsed().as_nanos();
        let into_the_period = elapsed % every.as_nanos();
        Instant::now() + Duration::from_nanos(u64::try_from(every.as_nanos() - into_the_period).unwrap_or(u64::MAX))
    }
}

/// What a writer does next.
enum Next {
    /// This.
    Task(Task),
    /// Nothing just now.
    Nothing,
    /// Nothing more: it is to be thrown away, and this is not done.
    End(VecDeque<Task>),
}

impl Writers {
    /// What a writer that is at work does next. Unless that is a task, it is not at work any more.
    fn next(&mut self, key: Key, attempt: &Attempt) -> Next {
        let has_failed = self.failed.contains(&key.0);
        let Some(put_by) = self.busy.get_mut(&key) else { return Next::End(VecDeque::new()) };
        attempt.pause.set_clogged(!has_failed && put_by.len() > CLOGGED);
        let is_over = has_failed || matches!(put_by.front(), Some(Task::Close(_)));
        match put_by.pop_front_if(|_| !is_over) {
            Some(task) => Next::Task(task),
            None => {
                let put_by = self.busy.remove(&key).unwrap_or_default();
                if put_by.iter().any(|task| matches!(task, Task::Close(_))) {
                    self.forget_if_gone(key.0);
                }
                if is_over { Next::End(put_by) } else { Next::Nothing }
            }
        }
    }

    /// The attempt is closed: nothing comes for it any more, so that it has failed need not be known once none of its writers is at work.
    fn forget_if_gone(&mut self, attempt: AttemptId) {
        if !self.busy.keys().any(|(id, _)| *id == attempt) {
            self.failed.remove(&attempt);
        }
    }

    /// Takes an attempt's writers out. They are to be dropped when nobody holds the lock: that may take a while.
    fn remove(&mut self, attempt: AttemptId) -> Vec<Owned> {
        let keys: Vec<Key> = self.owned.keys().filter(|(id, _)| *id == attempt).copied().collect();
        keys.iter().filter_map(|key| self.owned.remove(key)).collect()
    }
}
