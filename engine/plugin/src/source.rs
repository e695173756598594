//! Sources: where records enter a pipeline.
//!
//! A source runs on a thread of its own and may start more threads, or it
//! [attaches](Source::attach) to a thread that reads for many runs. It uses the engine only through
//! its [`SourceHandle`]: it takes splits, emits their batches in order, releases splits, and checks
//! regularly whether there is room and whether to stop.

mod exit;
mod pending;
mod positions;
mod state;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use pseidon_delivery::{InstanceId, Position, ResumeToken, SplitId};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::bounds::Bounds;

use crate::batch::{Batch, Payloads, Split, WantedMetadata};
use crate::budget::{Budget, Share};
use crate::format::SourceFormat;
use crate::framing::Framing;
use crate::metrics::Metrics;
use crate::options::{OnError, Options};
use crate::sink::Target;
use crate::spec::PluginSpec;
use crate::stop::{Pause, Stop};

pub use self::exit::{SourceError, SourceExit, Stopped};
pub use self::pending::Pending;
pub use self::positions::{KnownSplit, MoveTo, NewPlace, RecordPlace, SplitStatus, SplitTarget};
pub use self::state::StateRequest;

/// A source plugin: declares its options and prepares sources.
pub trait SourcePlugin: Send + Sync + 'static {
    /// The options of a source.
    type Options: Options + Send + Sync + 'static;

    /// The declaration: name, documentation and options.
    fn spec(&self) -> &'static PluginSpec;

    /// What happens to a record that cannot be decoded.
    fn on_error(&self, options: &Self::Options) -> OnError;

    /// Creates a source with these options. Does no I/O.
    fn prepare(&self, options: &Self::Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>>;
}

/// A prepared source. It can be run any number of times.
pub trait Source: Send + Sync {
    /// The facts that the planner needs about the source.
    fn facts(&self) -> SourceFacts;

    /// Whether the source reads what a sink writes to this target.
    fn reads(&self, _target: &Target) -> bool {
        false
    }

    /// The first file that the source would read among those that the sinks of its records write.
    /// `written` returns paths like theirs for records of a topic; `base` is the folder of the
    /// pipeline file.
    fn reads_written(
        &self,
        _base: &Path,
        _written: &dyn Fn(&str) -> Vec<PathBuf>,
    ) -> Option<PathBuf> {
        None
    }

    /// Returns up to `count` of the records that exist now, for `:schema :infer`. An error says why
    /// there are none.
    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError>;

    /// Reads until the source is exhausted or the handle returns [`Stopped`], which is passed on.
    /// Blocks.
    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit>;

    /// Like [`Source::run`], but without a thread of its own: returns at once, and a thread that
    /// reads for many runs uses the handle from then on. A source that has no such thread returns
    /// its argument, and the engine calls [`Source::run`].
    fn attach(&self, _setup: &SourceSetup, reading: SourceRun) -> Result<(), SourceRun> {
        Err(reading)
    }

    /// Describes, for an operator, the splits that the state knows and those that a run would read
    /// now. Reads nothing of their records, and does not disturb a run. Blocks.
    fn describe_splits(
        &self,
        setup: &SourceSetup,
        known: &[KnownSplit],
    ) -> Result<Vec<SplitStatus>, SourceError> {
        let of_id = |known: &KnownSplit| SplitStatus::of_id(&setup.stage, &known.split);
        Ok(known.iter().map(of_id).collect())
    }

    /// Where a record is, for people. `base` is the folder of the pipeline file. May read the file
    /// in which the record is. Blocks.
    fn place_of(&self, _base: &Path, record: &RecordPlace) -> String {
        format!(
            "{}/{}, offset {}",
            record.topic, record.partition, record.position
        )
    }

    /// Finds the place to which an operator moves each split that exists. Splits that the state
    /// does not know and that begin there anyway are left out. Blocks.
    fn find_places(
        &self,
        _setup: &SourceSetup,
        _known: &[KnownSplit],
        _to: MoveTo,
    ) -> Result<Vec<SplitTarget>, SourceError> {
        Err(SourceError::Fatal(
            "its positions cannot be set; `kafka` and `files` can be moved".into(),
        ))
    }

    /// Withdraws what the source has published of its positions elsewhere, such as the offsets of a
    /// group, before an operator changes them. An error says why they must not be changed: an
    /// instance may be reading. Blocks.
    fn withdraw(&self, _setup: &SourceSetup, _splits: &[SplitId]) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The handle of a source run, and the callback for its end.
pub struct SourceRun {
    /// The source's connection to the engine.
    pub handle: SourceHandle,
    /// Called once, before or after the last clone of the handle is dropped.
    pub ended: SourceEndCallback,
}

/// Callback with the result of a source run.
pub type SourceEndCallback = Box<dyn FnOnce(Result<(), SourceError>) + Send>;

/// The facts that the planner needs about a source.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    /// The format of its records.
    pub format: SourceFormat,
    /// The position of the option that sets the format.
    pub format_span: Option<Span>,
    /// The fields of its records, if its options or the source itself determine them.
    pub schema: Option<SchemaRef>,
    /// The position of `:schema :infer`, if the fields are to be inferred from records.
    pub infer: Option<Span>,
    /// Whether it splits bytes into records, by the [`Framing`] of the format. A source of messages
    /// has records already.
    pub splits_bytes: bool,
    /// Whether it reads formats whose records [have no bytes](crate::format::Format::has_bytes).
    pub reads_columns: bool,
    /// What a re-read of a split returns.
    pub reread: Reread,
    /// Whether it ends by itself, as a file does.
    pub finite: bool,
    /// Whether a split's `@topic` may differ when the split is re-read, as it does for a file that
    /// was renamed meanwhile.
    pub topic_may_change: bool,
}

/// What a source returns when a split is re-read from a position after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// The same records at the same positions.
    Exact,
    /// Other records, or none: uncommitted records are lost.
    Inexact {
        /// Why, as `check` prints it after the name of the stage.
        reason: &'static str,
    },
}

/// The context of one run of a source.
#[derive(Clone, Debug)]
pub struct SourceSetup {
    /// The pipeline's name: up to 100 letters, digits, `-`, `_` and `.`.
    pub pipeline: String,
    /// The stage's name, which also labels its metrics.
    pub stage: String,
    /// The folder of the pipeline file; relative paths are resolved against it.
    pub base: PathBuf,
    /// Which metadata to read for each record.
    pub wanted: WantedMetadata,
    /// The names of the fields that are used. A source of columns need not read the others.
    pub fields: Vec<String>,
    /// Whether fields that are not among these are reported, so that a source of columns reads
    /// them.
    pub takes_new_fields: bool,
    /// What a record must satisfy to be used. A source of columns need not read rows that do not.
    pub bounds: Arc<Bounds>,
    /// How records follow each other, for a source that [splits bytes](SourceFacts::splits_bytes).
    pub framing: Framing,
    /// How many threads may read in parallel.
    pub io_threads: usize,
    /// The memory budget in bytes. What the source buffers by itself must be a small part of it.
    pub memory: usize,
    /// This attempt of this process to run the plan.
    pub instance: InstanceId,
    /// The name of the state that holds the source's positions. It differs for another store,
    /// pipeline or stage, and for the same source with other sinks behind it. Empty if there is no
    /// state.
    pub state: String,
    /// Whether a later run continues where this one ends. If not, a source reads all that there is.
    pub keeps_state: bool,
    /// The metrics to update.
    pub metrics: Metrics,
}

/// A source's connection to the engine. Clones are for further threads of the same source.
#[derive(Clone)]
pub struct SourceHandle {
    events: Sender<SourceEvent>,
    share: Arc<Share>,
    stop: Stop,
    pause: Pause,
    durable: Arc<Mutex<HashMap<SplitId, Position>>>,
    /// Dropped after `events`, so that the receiver then sees that it is disconnected.
    wake: Option<Arc<WakeUp>>,
}

/// Wakes the receiver of the events: for each event, and when the last sender is dropped.
struct WakeUp(Box<dyn Fn() + Send + Sync>);

impl Drop for WakeUp {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Where to continue a split that was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// The position: everything below it is durable in every sink.
    pub position: Position,
    /// What the source stored beside a position up to this one; see [`Batch::resume`].
    pub resume: Option<ResumeToken>,
    /// Whether the split was read to its end and all of it is durable.
    pub is_finished: bool,
}

/// An instance's share of a source whose splits are distributed among instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitShare {
    /// Splits that this instance may take now and could not take before.
    pub granted: Vec<SplitId>,
    /// How many of its splits this instance should release, so that other instances get their
    /// share.
    pub excess: usize,
}

/// Where a split is read from.
#[derive(Clone, Debug)]
pub struct SplitStart {
    /// The split; this instance must have taken it.
    pub split: Arc<Split>,
    /// The first position that is read.
    pub position: Position,
    /// What the source needs beside the position; stored only for a split that was never begun.
    pub resume: Option<ResumeToken>,
}

impl From<(Arc<Split>, Position)> for SplitStart {
    fn from((split, position): (Arc<Split>, Position)) -> Self {
        SplitStart {
            split,
            position,
            resume: None,
        }
    }
}

/// Selects splits.
pub type SplitPredicate = Box<dyn Fn(&SplitId) -> bool + Send>;

/// A request of a source to the engine.
pub enum SourceEvent {
    /// [`SourceHandle::take`]
    Take(Vec<Arc<Split>>, Sender<Vec<Option<Resumption>>>),
    /// [`SourceHandle::share_splits`]
    ShareSplits(Vec<SplitId>, Sender<SplitShare>),
    /// [`SourceHandle::forget_finished`]
    ForgetFinished(SplitPredicate),
    /// A request about the state as a whole.
    State(StateRequest),
    /// [`SourceHandle::begin`]
    Begin(Vec<SplitStart>, Sender<()>),
    /// [`SourceHandle::emit`]
    Emit(Box<Batch>),
    /// [`SourceHandle::release`]
    Release(Vec<Arc<Split>>, Sender<()>),
}

impl SourceHandle {
    /// Creates a handle and the receiver of its events. The engine fills `durable`; see
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

    /// The same handle, which calls `wake` after each event, and when its last clone has been
    /// dropped.
    pub fn with_wake(self, wake: impl Fn() + Send + Sync + 'static) -> SourceHandle {
        SourceHandle {
            wake: Some(Arc::new(WakeUp(Box::new(wake)))),
            ..self
        }
    }

    /// Takes splits over: from now on no other instance can commit them. Returns for each split
    /// where to continue, or `None` if the state has no record of it and the source decides. Call
    /// [`SourceHandle::begin`] before the first batch.
    pub fn take(&self, splits: Vec<Arc<Split>>) -> Result<Vec<Option<Resumption>>, Stopped> {
        self.ask(|reply| SourceEvent::Take(splits, reply))?.wait()
    }

    /// Runs one round of distributing splits among instances, for a source without a group protocol
    /// of its own. `found` lists all splits that have something to read, including those that this
    /// instance holds. Only granted splits may be taken, and those that only the holder of a
    /// granted split takes; releasing a split makes it available to the other instances. Call it
    /// about once a second.
    pub fn share_splits(&self, found: Vec<SplitId>) -> Result<SplitShare, Stopped> {
        self.ask(|reply| SourceEvent::ShareSplits(found, reply))?
            .wait()
    }

    /// Removes finished splits that no longer exist from the state, some time after they were
    /// finished (`:forget-after`). The engine reads the records of all splits for this, so once an
    /// hour is enough.
    pub fn forget_finished(
        &self,
        is_gone: impl Fn(&SplitId) -> bool + Send + 'static,
    ) -> Result<(), Stopped> {
        self.send(SourceEvent::ForgetFinished(Box::new(is_gone)))
    }

    /// Declares where the taken splits are read from. A start that the source decided is stored
    /// before this returns.
    pub fn begin(&self, splits: Vec<impl Into<SplitStart>>) -> Result<(), Stopped> {
        let starts = splits.into_iter().map(Into::into).collect();
        self.ask(|reply| SourceEvent::Begin(starts, reply))?.wait()
    }

    /// Sends a batch to the engine. Batches of one split must come in order of their positions.
    /// Blocks only while the engine's queue is full.
    pub fn emit(&self, mut batch: Batch) -> Result<(), Stopped> {
        self.charge(&mut batch);
        self.send(SourceEvent::Emit(Box::new(batch)))
    }

    /// Releases splits. Returns when everything emitted of them is durable and committed, so that
    /// another instance can continue.
    pub fn release(&self, splits: Vec<Arc<Split>>) -> Result<(), Stopped> {
        self.ask(|reply| SourceEvent::Release(splits, reply))?
            .wait()
    }

    /// Waits up to `patience` until the memory budget has room and the run is not paused. Returns
    /// whether both hold. A source must not read while they do not.
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

    /// Whether the source must not read for now: either the run is paused, or its records wait for
    /// a sink that does not write them and exceed the source's share of the memory.
    pub fn is_paused(&self) -> bool {
        self.pause.is_set() || self.share.is_held_back()
    }

    /// Sleeps for `time`. Returns early with an error when the run ends.
    pub fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        if self.stop.sleep(time) {
            Err(Stopped)
        } else {
            Ok(())
        }
    }

    /// Whether the run is being left at once: the source must not wait for answers.
    pub fn is_left(&self) -> bool {
        self.stop.leaving_now()
    }

    /// Whether the source must stop reading.
    pub fn is_stopped(&self) -> bool {
        self.stop.reading_stopped()
    }

    /// The positions up to which splits have become durable in every sink since the last call, for
    /// publishing them elsewhere, such as the offsets of a consumer group.
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

    /// Creates the sender of an answer and the future that receives it.
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

#[cfg(test)]
mod tests;
