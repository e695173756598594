//! The engine's side of a source: one thread that takes its events in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;
use pseidon_delivery::{CommitRecord, Position, SplitId, failpoint};
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::SourceEvent;

use crate::attempt::{Attempt, OpenSink};
use crate::etl::Unit;
use crate::failure::Failure;
use crate::order::OrderedSplit;
use crate::queue::UnitQueue;
use crate::writers::Writers;

/// How often durable positions are handed to the source, and the thread looks whether the run is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is needed to take a source's events.
pub(crate) struct Intake<'a> {
    pub(crate) attempt: &'a Arc<Attempt>,
    pub(crate) source: usize,
    pub(crate) instance: String,
    pub(crate) queue: &'a UnitQueue,
    pub(crate) writers: &'a Writers,
    pub(crate) durable: Arc<Mutex<HashMap<SplitId, Position>>>,
}

/// The splits of a source.
#[derive(Default)]
struct Splits {
    /// Taken, with their records in every sink, and not yet begun.
    taken: HashMap<SplitId, Vec<CommitRecord>>,
    /// Being read.
    open: HashMap<SplitId, Arc<OrderedSplit>>,
    /// Up to where the source knows them to be durable.
    told: HashMap<SplitId, Position>,
}

impl Intake<'_> {
    fn stage(&self) -> &str {
        &self.attempt.plan.sources[self.source].stage
    }

    /// The sinks that the source's records reach.
    fn sinks(&self) -> impl Iterator<Item = &OpenSink> {
        self.attempt.plan.sources[self.source].sinks.iter().map(|number| &self.attempt.sinks[*number])
    }

    /// Works until the source has ended and everything it emitted is durable.
    pub(crate) fn work(&self, events: Receiver<SourceEvent>) -> Result<(), Failure> {
        let commit_interval = self.attempt.plan.settings.commit_interval;
        let mut splits = Splits::default();
        let mut next_look = Instant::now() + LOOK_EVERY;
        let mut next_commit = Instant::now() + commit_interval;
        loop {
            match events.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                Ok(event) => self.handle(event, &mut splits)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.attempt.stop.leaving_now() {
                return Err(Failure::Stopped);
            }
            let now = Instant::now();
            if now >= next_commit {
                self.commit_idle()?;
                next_commit = now + commit_interval;
            }
            if now >= next_look {
                self.tell_durable(&mut splits);
                next_look = now + LOOK_EVERY;
            }
        }
        let all: Vec<SplitId> = splits.open.keys().cloned().collect();
        self.release(&all, &mut splits)
    }

    fn handle(&self, event: SourceEvent, splits: &mut Splits) -> Result<(), Failure> {
        // A source that asked and does not wait for the answer any more has ended; that is seen at the next event.
        match event {
            SourceEvent::Take(wanted, reply) => {
                let resume = self.take(&wanted, splits)?;
                let _ = reply.send(resume);
            }
            SourceEvent::Begin(begun, reply) => {
                for (split, start) in begun {
                    self.begin(split, start, splits)?;
                }
                let _ = reply.send(());
            }
            SourceEvent::Emit(batch) => {
                let Some(split) = splits.open.get(&batch.split.id) else {
                    return Err(Failure::Fatal(format!("internal error: records of {} came before it was taken", batch.split.id)));
                };
                self.attempt.metrics.records_in.with_label_values(&[self.stage()]).inc_by(batch.len() as u64);
                self.attempt.metrics.bytes_in.with_label_values(&[self.stage()]).inc_by(batch.payloads.bytes() as u64);
                let (attempt, source) = (self.attempt.clone(), self.source);
                let unit = Unit { attempt, source, number: split.number(), split: split.clone(), batch: *batch };
                self.queue.push(self.attempt.id, &self.attempt.stop, unit);
            }
            SourceEvent::Release(released, reply) => {
                let ids: Vec<SplitId> = released.iter().map(|split| split.id.clone()).collect();
                self.release(&ids, splits)?;
                self.tell_durable(splits);
                let _ = reply.send(());
            }
            SourceEvent::Lost(lost) => {
                let names = lost.iter().map(|split| split.id.as_str()).collect::<Vec<_>>().join(", ");
                return Err(Failure::Fenced(format!("another instance has taken over {names}")));
            }
        }
        Ok(())
    }

    /// Takes splits over in every sink. Each sink publishes what was committed and not yet published before anything new is read.
    fn take(&self, wanted: &[Arc<Split>], splits: &mut Splits) -> Result<Vec<Option<Position>>, Failure> {
        let ids: Vec<SplitId> = wanted.iter().map(|split| split.id.clone()).collect();
        let mut records: Vec<Vec<CommitRecord>> = vec![Vec::new(); ids.len()];
        for open in self.sinks() {
            let mut taken = open.committer.take(&ids, &self.instance)?;
            failpoint::reach("taken");
            let previous: Vec<_> = ids.iter().cloned().zip(taken.iter().map(|record| record.owners.clone())).collect();
            let staged = open.committer.staged()?;
            let over = open.sink.take_over(&previous, &staged).map_err(|error| Failure::of_sink(&open.stage, error))?;
            open.committer.published(over.published);
            failpoint::reach("recovered");
            let held: Vec<_> = ids.iter().cloned().zip(taken.iter().map(|record| record.epoch)).collect();
            open.committer.cut_off_others(&held, &self.instance)?;
            for (record, position) in taken.iter_mut().zip(over.positions) {
                record.low = record.low.max(position);
            }
            records.iter_mut().zip(taken).for_each(|(records, record)| records.push(record));
        }
        let resume = records.iter().map(|records| records.iter().filter_map(|record| record.low).min()).collect();
        splits.taken.extend(ids.into_iter().zip(records));
        Ok(resume)
    }

    fn begin(&self, split: Arc<Split>, start: Position, splits: &mut Splits) -> Result<(), Failure> {
        let Some(records) = splits.taken.remove(&split.id) else {
            return Err(Failure::Fatal(format!("internal error: {} was begun before it was taken", split.id)));
        };
        for (open, record) in self.sinks().zip(records) {
            open.committer.begin(split.id.clone(), record, start)?;
            failpoint::reach("begun");
        }
        splits.open.insert(split.id.clone(), Arc::new(OrderedSplit::new(split)));
        Ok(())
    }

    /// Makes everything of these splits durable and gives them back.
    fn release(&self, ids: &[SplitId], splits: &mut Splits) -> Result<(), Failure> {
        for id in ids {
            splits.taken.remove(id);
            let Some(split) = splits.open.remove(id) else { continue };
            while !split.wait_until_dispatched(LOOK_EVERY) {
                if self.attempt.stop.leaving_now() {
                    return Err(Failure::Stopped);
                }
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let numbers = &self.attempt.plan.sources[self.source].sinks;
        let flushed = self.writers.flush(self.attempt.id, numbers, Some(ids));
        while let Err(error) = flushed.recv_timeout(LOOK_EVERY) {
            if self.attempt.stop.leaving_now() {
                return Err(Failure::Stopped);
            }
            if error == RecvTimeoutError::Disconnected {
                // The failure that kept it from being done is reported already, and decides.
                return Err(Failure::Gone("what was read was not flushed"));
            }
        }
        failpoint::reach("flushed");
        for open in self.sinks() {
            open.committer.release(ids)?;
        }
        failpoint::reach("released");
        Ok(())
    }

    fn commit_idle(&self) -> Result<(), Failure> {
        for open in self.sinks() {
            open.committer.commit_idle()?;
        }
        Ok(())
    }

    /// Hands the source the positions below which every sink is durable, where that is news.
    fn tell_durable(&self, splits: &mut Splits) {
        let mut lows: HashMap<SplitId, Position> = HashMap::new();
        for open in self.sinks() {
            for (split, low) in open.committer.ledger().lows() {
                lows.entry(split).and_modify(|least| *least = low.min(*least)).or_insert(low);
            }
        }
        let news = lows.into_iter().filter(|(split, low)| splits.told.insert(split.clone(), *low) != Some(*low));
        self.durable.lock().extend(news);
    }
}
