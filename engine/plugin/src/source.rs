//! Sources: where records come from.
//!
//! A source runs on a thread of its own and may start more, or it [attaches](Source::attach) to a
//! thread that reads for many. It does not know who is behind its [`SourceHandle`]: it takes
//! splits, emits their batches in order, gives splits back, and looks now and then whether there is
//! room and whether to stop.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use crossbeam_channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, bounded,
};
use parking_lot::Mutex;
use pseidon_delivery::{Position, Resume, SplitId};
use pseidon_dsl::Diagnostic;
use thiserror::Error;

use crate::batch::{Batch, MetaWanted, Split};
use crate::budget::{Budget, Share};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::sink::Target;
use crate::spec::PluginSpec;
use crate::stop::{Pause, Stop};

/// A kind of source.
pub trait SourcePlugin: Send + Sync {
    /// Its declaration.
    fn spec(&self) -> &'static PluginSpec;

    /// A source with these options, which have been checked against the declaration. No I/O happens
    /// here.
    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>>;
}

/// A source that can be run, again and again.
pub trait Source: Send + Sync {
    /// What the planner has to know of it.
    fn facts(&self) -> SourceFacts;

    /// Whether it reads what a sink writes there.
    fn reads(&self, _target: &Target) -> bool {
        false
    }

    /// Some records as they are now, at most `count`, for `:schema :infer`. An error says why there
    /// are none.
    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError>;

    /// Reads until the source has come to its end or the handle says [`Stopped`]; both are `Ok`.
    /// Blocks.
    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError>;

    /// Like [`Source::run`] without a thread of its own: returns at once, and from then on a thread
    /// that reads for many runs uses the handle. A source that has no such thread returns what it
    /// was given, and is run.
    fn attach(&self, _setup: &SourceSetup, reading: Reading) -> Result<(), Reading> {
        Err(reading)
    }
}

/// What a source reads with.
pub struct Reading {
    /// Its end of the engine.
    pub handle: SourceHandle,
    /// Called once, before or after the last clone of the handle is dropped.
    pub ended: Ended,
}

/// Is called with how a source has ended.
pub type Ended = Box<dyn FnOnce(Result<(), SourceError>) + Send>;

/// What the planner has to know of a source.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    /// The format of its records: `json`, or `name:settings`.
    pub format: String,
    /// The fields of its records, if its options or its nature say so.
    pub schema: Option<SchemaRef>,
    /// Why records cannot be read again after a crash; `None` if they can.
    pub not_rereadable: Option<&'static str>,
    /// Whether it comes to an end by itself.
    pub finite: bool,
    /// Whether a split's `@topic` may be another one when the split is read again: a file that was
    /// renamed meanwhile.
    pub topic_may_change: bool,
}

/// What a source is given for a run.
#[derive(Clone, Debug)]
pub struct SourceSetup {
    /// The pipeline's name.
    pub pipeline: String,
    /// The stage's name.
    pub stage: String,
    /// The folder of the pipeline file: relative paths start there.
    pub base: PathBuf,
    /// Which metadata to read.
    pub wanted: MetaWanted,
    /// How many threads may read at once.
    pub io_threads: usize,
    /// The memory budget in bytes: what the source may buffer by itself has to be a small part of
    /// it.
    pub memory: usize,
    /// Names this run of this process.
    pub instance: String,
    /// Names the state that the source's positions are kept in: another store, pipeline or stage
    /// has another name, and so has the same source with other sinks behind it. Empty where there
    /// is none.
    pub state: String,
    /// What to count.
    pub metrics: Metrics,
}

/// A source's end of the engine. Clones are for further threads of the same source.
#[derive(Clone)]
pub struct SourceHandle {
    events: Sender<SourceEvent>,
    share: Arc<Share>,
    stop: Stop,
    pause: Pause,
    durable: Arc<Mutex<HashMap<SplitId, Position>>>,
    /// Dropped after `events`, so that the receiver sees that it is disconnected.
    wake: Option<Arc<WakeUp>>,
}

/// Wakes the receiver of the events: for each event, and when the last sender is gone.
struct WakeUp(Box<dyn Fn() + Send + Sync>);

impl Drop for WakeUp {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The answer to something that was asked of the engine.
pub struct Pending<T> {
    answer: Receiver<T>,
    stop: Stop,
}

/// How often a source that waits for an answer looks whether there will be none.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl<T> Pending<T> {
    /// Waits for it.
    pub fn wait(self) -> Result<T, Stopped> {
        loop {
            match self.answer.recv_timeout(LOOK_EVERY) {
                Ok(answer) => return Ok(answer),
                // An event that nobody took keeps the way for its answer open.
                Err(RecvTimeoutError::Timeout) if !self.stop.leaving_now() => {}
                Err(_) => return Err(Stopped),
            }
        }
    }

    /// The answer, if it is there.
    pub fn poll(&self) -> Result<Option<T>, Stopped> {
        match self.answer.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) if !self.stop.leaving_now() => Ok(None),
            Err(_) => Err(Stopped),
        }
    }
}

/// Where a split that was read before is continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// The position: everything below it is durable in every sink.
    pub position: Position,
    /// What the source said beside a position up to this one; see [`Batch::resume`].
    pub resume: Option<Resume>,
    /// Whether the split was read to its end and all of it is durable.
    pub is_finished: bool,
}

/// What an instance may read of a source whose splits are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitShare {
    /// Splits that this instance may take now and could not before.
    pub granted: Vec<SplitId>,
    /// How many of its splits it should release, so that other instances have their part.
    pub excess: usize,
}

/// Where a split is read from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The split.
    pub split: Arc<Split>,
    /// The first position that is read.
    pub position: Position,
    /// What the source needs beside it; kept only for a split that was never begun.
    pub resume: Option<Resume>,
}

impl From<(Arc<Split>, Position)> for Start {
    fn from((split, position): (Arc<Split>, Position)) -> Self {
        Start {
            split,
            position,
            resume: None,
        }
    }
}

/// Whether a split of the source does not exist any more.
pub type IsGone = Box<dyn Fn(&SplitId) -> bool + Send>;

/// What a source asks of the engine.
pub enum SourceEvent {
    /// [`SourceHandle::take`]
    Take(Vec<Arc<Split>>, Sender<Vec<Option<Resumption>>>),
    /// [`SourceHandle::share_splits`]
    ShareSplits(Vec<SplitId>, Sender<SplitShare>),
    /// [`SourceHandle::forget_finished`]
    ForgetFinished(IsGone),
    /// [`SourceHandle::begin`]
    Begin(Vec<Start>, Sender<()>),
    /// [`SourceHandle::emit`]
    Emit(Box<Batch>),
    /// [`SourceHandle::release`]
    Release(Vec<Arc<Split>>, Sender<()>),
}

/// The run ends: leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the run ends")]
pub struct Stopped;

impl SourceHandle {
    /// A handle and the end at which its events arrive. `durable` is filled by the engine; see
    /// [`SourceHandle::durable`].
    pub fn new(
        budget: Arc<Budget>,
        stop: Stop,
        pause: Pause,
        durable: Arc<Mutex<HashMap<SplitId, Position>>>,
    ) -> (SourceHandle, Receiver<SourceEvent>) {
        let (events, received) = bounded(64);
        (
            SourceHandle {
                events,
                share: budget.share(),
                stop,
                pause,
                durable,
                wake: None,
            },
            received,
        )
    }

    /// The same, calling `wake` whenever there is an event to be taken, and when the last clone of
    /// the handle has been dropped.
    pub fn waking(self, wake: impl Fn() + Send + Sync + 'static) -> SourceHandle {
        SourceHandle {
            wake: Some(Arc::new(WakeUp(Box::new(wake)))),
            ..self
        }
    }

    /// Takes splits over: no other instance can commit them from now on. Returns for each where to
    /// continue, or `None` if nothing is known of it and the source decides. Follow with
    /// [`SourceHandle::begin`] before the first batch.
    pub fn take(&self, splits: Vec<Arc<Split>>) -> Result<Vec<Option<Resumption>>, Stopped> {
        self.ask(|reply| SourceEvent::Take(splits, reply))?.wait()
    }

    /// A round of sharing splits with other instances, for a source without a group protocol of its
    /// own. `found` are all splits that have something to read, those that this instance holds
    /// among them. Only splits that were granted may be taken; releasing a split gives it back to
    /// the others. Call it about once a second.
    pub fn share_splits(&self, found: Vec<SplitId>) -> Result<SplitShare, Stopped> {
        self.ask(|reply| SourceEvent::ShareSplits(found, reply))?
            .wait()
    }

    /// Has the state forget finished splits that do not exist any more, some time after they were
    /// finished (`:forget-after`). The engine reads the records of all splits for it, so once in an
    /// hour is enough.
    pub fn forget_finished(
        &self,
        is_gone: impl Fn(&SplitId) -> bool + Send + 'static,
    ) -> Result<(), Stopped> {
        self.send(SourceEvent::ForgetFinished(Box::new(is_gone)))
    }

    /// Says where splits that were taken are read from. A start that the source decided is written
    /// down before this returns.
    pub fn begin(&self, splits: Vec<impl Into<Start>>) -> Result<(), Stopped> {
        let starts = splits.into_iter().map(Into::into).collect();
        self.ask(|reply| SourceEvent::Begin(starts, reply))?.wait()
    }

    /// Hands a batch on. Batches of one split come in order of their positions. Blocks only while
    /// the engine's queue is full.
    pub fn emit(&self, mut batch: Batch) -> Result<(), Stopped> {
        self.charge(&mut batch);
        self.send(SourceEvent::Emit(Box::new(batch)))
    }

    /// Gives splits back. Returns when everything emitted of them is durable and committed, so that
    /// another instance can go on.
    pub fn release(&self, splits: Vec<Arc<Split>>) -> Result<(), Stopped> {
        self.ask(|reply| SourceEvent::Release(splits, reply))?
            .wait()
    }

    /// Waits until the memory budget has room and the run is not paused, at most `patience`. Gives
    /// whether that is so. A source reads nothing as long as it is not.
    pub fn wait_for_room(&self, patience: Duration) -> Result<bool, Stopped> {
        if self.is_stopped() {
            return Err(Stopped);
        }
        if self.is_paused() {
            self.sleep(patience)?;
            return Ok(false);
        }
        Ok(self.share.budget().wait_for_room(patience))
    }

    /// Whether the source is to read nothing for now: the run is paused, or what was read waits for
    /// a sink that does not write it, and takes more than its share of the memory.
    pub fn is_paused(&self) -> bool {
        self.pause.is_set() || self.share.is_held_back()
    }

    /// Sleeps, unless the run ends.
    pub fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        if self.stop.sleep(time) {
            Err(Stopped)
        } else {
            Ok(())
        }
    }

    /// Whether the run is left at once: no answer is to be waited for.
    pub fn is_left(&self) -> bool {
        self.stop.leaving_now()
    }

    /// Whether to stop reading.
    pub fn is_stopped(&self) -> bool {
        self.stop.reading_stopped()
    }

    /// The positions up to which splits have become durable in every sink since the last call, for
    /// telling them to others (Kafka's group offsets).
    pub fn durable(&self) -> Vec<(SplitId, Position)> {
        self.durable.lock().drain().collect()
    }

    fn send(&self, event: SourceEvent) -> Result<(), Stopped> {
        self.events.send(event).map_err(|_| Stopped)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            (wake.0)();
        }
    }

    fn ask<T>(&self, event: impl FnOnce(Sender<T>) -> SourceEvent) -> Result<Pending<T>, Stopped> {
        let (reply, pending) = self.pending();
        self.send(event(reply))?;
        Ok(pending)
    }

    /// The way for an answer, and its end.
    pub(crate) fn pending<T>(&self) -> (Sender<T>, Pending<T>) {
        let (reply, answer) = bounded(1);
        (
            reply,
            Pending {
                answer,
                stop: self.stop.clone(),
            },
        )
    }

    pub(crate) fn charge(&self, batch: &mut Batch) {
        batch.charge_to(&self.share);
    }

    /// Sends an event if there is room for it within `patience`; returns it otherwise.
    pub(crate) fn send_within(
        &self,
        event: SourceEvent,
        patience: Duration,
    ) -> Result<Option<SourceEvent>, Stopped> {
        match self.events.send_timeout(event, patience) {
            Ok(()) => {
                self.wake();
                Ok(None)
            }
            Err(SendTimeoutError::Timeout(event)) => Ok(Some(event)),
            Err(SendTimeoutError::Disconnected(_)) => Err(Stopped),
        }
    }
}

/// A source cannot go on.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It may work when tried again; the run is started anew after a while.
    #[error("{0}")]
    Transient(String),
    /// It will not work without the user.
    #[error("{0}")]
    Fatal(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receiver_is_woken_for_each_event_and_at_the_end() {
        let (handle, events) = SourceHandle::new(
            Budget::new(1),
            Stop::new(),
            Pause::default(),
            Arc::default(),
        );
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls = seen.clone();
        let handle = handle.waking(move || {
            calls.lock().push(match events.try_recv() {
                Ok(_) => "event",
                Err(TryRecvError::Empty) => "nothing",
                Err(TryRecvError::Disconnected) => "end",
            });
        });
        let other = handle.clone();
        handle.forget_finished(|_| true).unwrap();
        drop(handle);
        other.forget_finished(|_| true).unwrap();
        drop(other);
        assert_eq!(*seen.lock(), ["event", "event", "end"]);
    }
}
