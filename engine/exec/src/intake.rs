//! The engine's side of a source: handles the source's events in order, on a thread of the
//! [`BlockingPool`](crate::blocking::BlockingPool) whenever there are some.

mod releasing;
mod state;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use parking_lot::Mutex;
use pseidon_delivery::committer::SplitToBegin;
use pseidon_delivery::{CommitRecord, Position, SplitId, failpoint};
use pseidon_plan::{PlannedSource, SourceIndex};
use pseidon_plugin::batch::{Batch, Split};
use pseidon_plugin::source::{Resumption, SourceEvent, SplitPredicate, SplitStart};

use crate::actor::{NextStep, WakeFn};
use crate::attempt::{Attempt, AttemptSink};
use crate::failure::{Failure, guarded};
use crate::order::OrderedSplit;
use crate::queue::{BatchQueue, QueuedBatch};
use crate::sharing::Sharing;
use crate::takeover::{TakeoverError, TakeoverSink, resumption, take_over};
use crate::writers::Writers;

/// How often, at most, durable positions are passed to the source, and how often a wait checks
/// whether the run is left.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The maximum number of events in one step, so that other sources get their turn.
const MAX_EVENTS: usize = 16;

/// What is needed to handle a source's events.
pub(crate) struct Intake {
    pub(crate) attempt: Arc<Attempt>,
    pub(crate) source: SourceIndex,
    pub(crate) queue: Arc<BatchQueue>,
    pub(crate) writers: Arc<Writers>,
    pub(crate) durable: Arc<Mutex<HashMap<SplitId, Position>>>,
    pub(crate) events: Receiver<SourceEvent>,
    /// Receives a message when the source has ended well.
    pub(crate) ended_well: Receiver<()>,
    /// Gets a message when everything that the source emitted is durable; disconnected when the
    /// work on all sources has ended.
    pub(crate) done: Sender<()>,
    /// Schedules the next step.
    pub(crate) wake: WakeFn,
}

/// The intake of one source, between its steps.
pub(crate) struct IntakeTask {
    /// Dropped first: they hold the state store, which may be opened again when [`Intake::done`] is
    /// disconnected.
    splits: SourceSplits,
    intake: Intake,
    /// A batch that waits for room in the queue.
    refused: Option<QueuedBatch>,
    next_look: Instant,
    next_commit: Instant,
}

/// The splits of a source in this attempt.
struct SourceSplits {
    /// Which of them this instance may read, if the source is shared.
    sharing: Sharing,
    /// Splits that are taken and not yet begun, with their records in every sink.
    taken: HashMap<SplitId, Vec<CommitRecord>>,
    /// Splits that are being read.
    open: HashMap<SplitId, Arc<OrderedSplit>>,
    /// Splits that were only taken: what the source reads of them is for another version of the
    /// pipeline.
    aside: HashSet<SplitId>,
}

impl IntakeTask {
    /// Creates an intake that has taken no splits.
    pub(crate) fn new(intake: Intake, sharing: Sharing) -> IntakeTask {
        let (next_look, next_commit) = (
            Instant::now() + CHECK_INTERVAL,
            Instant::now() + intake.attempt.plan.settings.commit_interval,
        );
        IntakeTask {
            intake,
            splits: SourceSplits {
                sharing,
                taken: HashMap::new(),
                open: HashMap::new(),
                aside: HashSet::new(),
            },
            refused: None,
            next_look,
            next_commit,
        }
    }

    /// Handles the available events, until the source has ended and everything it emitted is
    /// durable. Must be called about once a second if nothing else wakes it.
    pub(crate) fn step(&mut self) -> NextStep {
        guarded(|| self.try_step()).unwrap_or_else(|failure| {
            self.intake.attempt.failures.report(failure);
            NextStep::Ended
        })
    }

    fn try_step(&mut self) -> Result<NextStep, Failure> {
        let IntakeTask {
            intake,
            splits,
            refused,
            next_look,
            next_commit,
        } = self;
        if intake.attempt.stop.reading_stopped() {
            // What waits for a throttle is read by the next run.
            intake.queue.lift(intake.attempt.id);
        }
        for _ in 0..MAX_EVENTS {
            if intake.attempt.stop.leaving_now() {
                return Err(Failure::Stopped);
            }
            let now = Instant::now();
            if now >= *next_commit {
                intake.commit_idle()?;
                *next_commit = now + intake.attempt.plan.settings.commit_interval;
            }
            if now >= *next_look {
                splits.sharing.renew()?;
                intake.report_durable();
                intake.check_caught_up();
                *next_look = now + CHECK_INTERVAL;
            }
            if let Some(unit) = refused.take()
                && let Err(unit) = intake.queue.push(intake.attempt.id, unit, &intake.wake)
            {
                *refused = Some(unit);
                return Ok(NextStep::Sleep);
            }
            match intake.events.try_recv() {
                Ok(event) => *refused = intake.handle(event, splits)?,
                Err(TryRecvError::Empty) => return Ok(NextStep::Sleep),
                Err(TryRecvError::Disconnected) => {
                    return intake.finish(splits).map(|()| NextStep::Ended);
                }
            }
        }
        Ok(NextStep::Again)
    }
}

impl Intake {
    fn planned(&self) -> &PlannedSource {
        self.attempt.plan.source(self.source)
    }

    /// The sinks that the source's records reach.
    fn sinks(&self) -> impl Iterator<Item = &AttemptSink> {
        let sinks = self.planned().sinks.iter();
        sinks.map(|sink| &self.attempt.sinks[*sink])
    }

    /// Called when the source has ended.
    fn finish(&self, splits: &mut SourceSplits) -> Result<(), Failure> {
        let all = splits.open.keys().chain(splits.taken.keys());
        let all: Vec<SplitId> = all.cloned().collect();
        self.release(&all, splits)?;
        // What was only published is removed from the state too.
        self.commit_idle()?;
        // A source that failed has reported why by now, and that decides.
        self.ended_well
            .recv()
            .map_err(|_| Failure::Gone("a source has ended without reporting why"))?;
        let _ = self.done.send(());
        Ok(())
    }

    /// Handles an event. A batch that it emits is returned, to be queued.
    fn handle(
        &self,
        event: SourceEvent,
        splits: &mut SourceSplits,
    ) -> Result<Option<QueuedBatch>, Failure> {
        // A source that requested something and no longer waits for the answer has ended; the next
        // event shows that.
        match event {
            SourceEvent::Take(wanted, reply) => {
                match self.take(&wanted, splits) {
                    Ok(resume) => _ = reply.send(resume),
                    // The run ends, but not before what it has read of other splits is committed:
                    // nothing of its own plan is left ahead, so the other version can take
                    // everything over. Without an answer the source stops.
                    Err(failure @ Failure::OtherPlan(_)) => self.attempt.failures.report(failure),
                    Err(failure) => return Err(failure),
                }
            }
            SourceEvent::ShareSplits(found, reply) => {
                let _ = reply.send(splits.sharing.share(&found)?);
            }
            SourceEvent::ForgetFinished(is_gone) => self.forget_finished(&is_gone)?,
            SourceEvent::State(request) => self.answer(request)?,
            SourceEvent::Begin(begun, reply) => {
                self.begin(begun, splits)?;
                let _ = reply.send(());
            }
            SourceEvent::Emit(batch) => {
                if splits.aside.contains(&batch.split.id) {
                    return Ok(None);
                }
                let Some(split) = splits.open.get(&batch.split.id) else {
                    let what = format!(
                        "internal error: records of {} arrived before it was taken",
                        batch.split.id
                    );
                    return Err(Failure::Fatal(what.into()));
                };
                self.count(&batch);
                self.check_caught_up();
                self.attempt
                    .read
                    .lock()
                    .insert((self.source, batch.split.id.clone()), batch.next);
                let (attempt, source) = (self.attempt.clone(), self.source);
                return Ok(Some(QueuedBatch {
                    attempt,
                    source,
                    number: split.number(),
                    split: split.clone(),
                    upto: batch.len(),
                    batch: Arc::new(*batch),
                    done: 0,
                    prepared: None,
                }));
            }
            SourceEvent::Release(released, reply) => {
                let ids: Vec<SplitId> = released.iter().map(|split| split.id.clone()).collect();
                self.release(&ids, splits)?;
                let _ = reply.send(());
            }
        }
        Ok(None)
    }

    /// Stops reading if this run only finishes the work of an earlier version, and nothing of it
    /// is left.
    fn check_caught_up(&self) {
        let Some(catch_up) = &self.attempt.catch_up else {
            return;
        };
        let own = self.split_prefix();
        let left = catch_up.left();
        for split in left.iter().filter(|split| split.as_str().starts_with(&own)) {
            let frontiers = self
                .sinks()
                .map(|open| open.committer.ledger().frontier(split));
            if let Some(frontier) = frontiers.min().flatten() {
                catch_up.reach(split, frontier);
            }
        }
        if catch_up.is_complete() {
            self.attempt.stop.stop_reading();
        }
    }

    /// Counts what enters the pipeline.
    fn count(&self, batch: &Batch) {
        let (planned, metrics) = (self.planned(), &self.attempt.metrics);
        if planned.group.is_some() {
            return;
        }
        let stage = [planned.stage.as_str()];
        let (records, bytes) = (batch.len(), batch.payloads.bytes());
        metrics
            .records_in
            .with_label_values(&stage)
            .inc_by(records as u64);
        metrics
            .bytes_in
            .with_label_values(&stage)
            .inc_by(bytes as u64);
    }

    /// Takes splits over in every sink. Before anything new is read, each sink publishes what was
    /// committed and not yet published.
    fn take(
        &self,
        wanted: &[Arc<Split>],
        splits: &mut SourceSplits,
    ) -> Result<Vec<Option<Resumption>>, Failure> {
        let ids: Vec<SplitId> = wanted.iter().map(|split| split.id.clone()).collect();
        let sinks = self.sinks().map(|open| TakeoverSink {
            committer: &open.committer,
            sink: &*open.sink,
        });
        let catch_up = self.attempt.catch_up.as_ref();
        let reads = |split: &SplitId| catch_up.is_none_or(|left| left.reads(split));
        let records = take_over(&sinks.collect::<Vec<_>>(), &ids, reads)
            .map_err(|TakeoverError { sink, error }| Failure::of_sink(sink.as_str(), error))?;
        self.keep_plan()?;
        let resumptions: Vec<Option<Resumption>> =
            records.iter().map(|records| resumption(records)).collect();
        let durable = ids
            .iter()
            .zip(&resumptions)
            .filter(|(id, _)| reads(id))
            .filter_map(|(id, known)| Some(((self.source, id.clone()), known.as_ref()?.position)));
        self.attempt.read.lock().extend(durable);
        if let Some(left) = catch_up {
            left.take(&self.planned().stage, &ids);
            let aside = ids.iter().filter(|id| !reads(id));
            splits.aside.extend(aside.cloned());
        }
        splits.taken.extend(ids.into_iter().zip(records));
        Ok(resumptions)
    }

    /// Keeps the plan's text in the store from the moment when records name it. An instance of
    /// another version may have removed it while none did.
    fn keep_plan(&self) -> Result<(), Failure> {
        let Some(open) = self.sinks().next() else {
            return Ok(());
        };
        Ok(open.committer.keep_plan(&*self.attempt.plan.stored)?)
    }

    /// How the name of each split of the source begins.
    fn split_prefix(&self) -> String {
        format!("{}:", self.planned().stage)
    }

    /// Removes finished splits of the source that no longer exist.
    fn forget_finished(&self, is_gone: &SplitPredicate) -> Result<(), Failure> {
        let prefix = self.split_prefix();
        let retention = self.attempt.plan.settings.forget_after;
        for open in self.sinks() {
            let is_gone = |split: &SplitId| split.as_str().starts_with(&prefix) && is_gone(split);
            let count = open.committer.forget_finished(retention, is_gone)?;
            if count > 0 {
                tracing::info!(
                    sink = open.stage,
                    source = self.planned().stage,
                    count,
                    "removed finished splits that no longer exist"
                );
            }
        }
        Ok(())
    }

    fn begin(&self, mut starts: Vec<SplitStart>, splits: &mut SourceSplits) -> Result<(), Failure> {
        starts.retain(|start| !splits.aside.contains(&start.split.id));
        let mut by_sink: Vec<Vec<SplitToBegin>> = self
            .sinks()
            .map(|_| Vec::with_capacity(starts.len()))
            .collect();
        for SplitStart {
            split,
            position,
            resume,
        } in &starts
        {
            let Some(records) = splits.taken.remove(&split.id) else {
                let what = format!("internal error: {} was begun before it was taken", split.id);
                return Err(Failure::Fatal(what.into()));
            };
            for (begun, record) in by_sink.iter_mut().zip(records) {
                begun.push(SplitToBegin {
                    split: split.id.clone(),
                    record,
                    start: *position,
                    resume: resume.clone(),
                });
            }
        }
        for (open, begun) in self.sinks().zip(by_sink) {
            open.committer.begin(begun)?;
            failpoint::reach("begun");
        }
        self.check_caught_up();
        splits.open.extend(starts.into_iter().map(|start| {
            (
                start.split.id.clone(),
                Arc::new(OrderedSplit::new(start.split)),
            )
        }));
        Ok(())
    }

    fn commit_idle(&self) -> Result<(), Failure> {
        for open in self.sinks() {
            open.committer.commit_idle()?;
        }
        Ok(())
    }

    /// Passes positions to the source below which every sink is durable, if they have changed.
    fn report_durable(&self) {
        let moved: HashSet<SplitId> = self
            .sinks()
            .flat_map(|open| open.committer.ledger().take_moved())
            .collect();
        let low = |split: &SplitId| {
            self.sinks()
                .map(|open| open.committer.ledger().low(split))
                .min()
                .flatten()
        };
        let news: Vec<(SplitId, Position)> = moved
            .into_iter()
            .filter_map(|split| low(&split).map(|low| (split, low)))
            .collect();
        self.durable.lock().extend(news);
    }
}
