//! The writer threads, which own the open lanes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pseidon_delivery::SplitId;
use pseidon_plugin::sink::{Chunk, SinkError, Writer};

use crate::attempt::{Attempt, AttemptId};
use crate::failure::{Failure, guarded};

/// How long a thread without any writer sleeps.
const IDLE: Duration = Duration::from_secs(3600);

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

/// A sink's writer on this thread.
struct Owned {
    writer: Box<dyn Writer>,
    attempt: Arc<Attempt>,
    next_tick: Instant,
}

/// The writers of one thread.
struct Writers {
    index: usize,
    /// Ticks fall on multiples of their period from here on, so that those of hundreds of sinks are done in one go.
    began: Instant,
    owned: HashMap<(AttemptId, usize), Owned>,
    /// Attempts whose lanes were thrown away here because something failed; what else comes for them is dropped.
    failed: HashSet<AttemptId>,
    /// When a writer wants to be ticked next.
    next_tick: Instant,
}

/// Works until all senders are gone.
pub(crate) fn work(index: usize, messages: &Receiver<WriterMessage>) {
    let mut writers =
        Writers { index, began: Instant::now(), owned: HashMap::new(), failed: HashSet::new(), next_tick: Instant::now() + IDLE };
    loop {
        match messages.recv_timeout(writers.next_tick.saturating_duration_since(Instant::now())) {
            Ok(message) => writers.handle(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        if writers.next_tick <= now {
            writers.tick(now);
        }
    }
}

impl Writers {
    fn handle(&mut self, message: WriterMessage) {
        match message {
            WriterMessage::Open(attempt) => {
                let opened = guarded(|| self.open(&attempt));
                self.note(&attempt, opened);
            }
            WriterMessage::Chunk(id, number, chunk) => {
                let Some(one) = self.owned.get_mut(&(id, number)) else { return };
                let attempt = one.attempt.clone();
                let written = guarded(|| one.writer.write(chunk).map_err(|error| failed(&attempt, number, error)));
                self.note(&attempt, written);
            }
            WriterMessage::Flush { attempt, sinks, splits, done } => {
                for number in sinks {
                    let Some(one) = self.owned.get_mut(&(attempt, number)) else { continue };
                    let attempt = one.attempt.clone();
                    let flushed = guarded(|| one.writer.flush(splits.as_deref()).map_err(|error| failed(&attempt, number, error)));
                    self.note(&attempt, flushed);
                }
                if !self.failed.contains(&attempt) {
                    // Who asked may have left by now.
                    let _ = done.send(());
                }
            }
            WriterMessage::Close(attempt, done) => {
                self.close(attempt);
                self.failed.remove(&attempt);
                let _ = done.send(());
            }
        }
    }

    fn open(&mut self, attempt: &Arc<Attempt>) -> Result<(), Failure> {
        for (number, sink) in attempt.sinks.iter().enumerate() {
            if sink.only_writer.is_some_and(|only| only != self.index) {
                continue;
            }
            let writer = sink.sink.writer().map_err(|error| failed(attempt, number, error))?;
            let next_tick = self.after_now(writer.tick_every());
            self.next_tick = self.next_tick.min(next_tick);
            self.owned.insert((attempt.id, number), Owned { writer, attempt: attempt.clone(), next_tick });
        }
        Ok(())
    }

    fn tick(&mut self, now: Instant) {
        let due: Vec<_> = self.owned.iter().filter(|(_, one)| one.next_tick <= now).map(|(key, _)| *key).collect();
        for key in due {
            let Some(one) = self.owned.get_mut(&key) else { continue };
            let attempt = one.attempt.clone();
            let ticked = guarded(|| one.writer.tick().map_err(|error| failed(&attempt, key.1, error)));
            let every = one.writer.tick_every();
            let next_tick = self.after_now(every);
            if let Some(one) = self.owned.get_mut(&key) {
                one.next_tick = next_tick;
            }
            self.note(&attempt, ticked);
        }
        self.next_tick = self.owned.values().map(|one| one.next_tick).min().unwrap_or(now + IDLE);
    }

    /// The next multiple of the period.
    fn after_now(&self, every: Duration) -> Instant {
        let every = every.max(Duration::from_millis(1));
        let periods = self.began.elapsed().as_nanos() / every.as_nanos() + 1;
        self.began + every * u32::try_from(periods).unwrap_or(u32::MAX)
    }

    /// A failure is the whole attempt's: what is open of it here is thrown away.
    fn note(&mut self, attempt: &Arc<Attempt>, outcome: Result<(), Failure>) {
        let Err(failure) = outcome else { return };
        self.failed.insert(attempt.id);
        self.close(attempt.id);
        attempt.failures.report(failure);
    }

    fn close(&mut self, attempt: AttemptId) {
        self.owned.retain(|(id, _), _| *id != attempt);
    }
}

fn failed(attempt: &Attempt, number: usize, error: SinkError) -> Failure {
    Failure::of_sink(&attempt.sinks[number].stage, error)
}
