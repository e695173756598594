//! A run of the source, from joining the group to leaving it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup};
use rdkafka::Offset;

use super::KafkaSource;
use super::assignment::{Assigned, Assignment, TakenIn};
use super::failure::{Leave, Meaning, denied, gave_up};
use super::start::{Starts, list_of};
use crate::logs::ClientLogs;
use crate::native::{Consumer, Event, Fetched, Message, NativeError, TopicPartition};

/// At most that many messages come with one fetch.
const FETCH_MESSAGES: usize = 8192;
/// How long an idle source sleeps before it looks whether the run ends.
const IDLE: Duration = Duration::from_millis(250);
/// How long the source just waits for room. After that it pauses its partitions, which throws away what librdkafka has fetched ahead, and
/// takes part in its group's life while it goes on waiting.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often offsets are copied to the group and the lag is measured.
const TICK: Duration = Duration::from_secs(1);
/// How long a question about a gap may take.
const QUESTION: Duration = Duration::from_secs(5);

/// Reads until the end, or until the run ends.
pub(super) fn run(source: &KafkaSource, setup: &SourceSetup, handle: &SourceHandle) -> Result<(), SourceError> {
    let consumer = Consumer::new(&source.config(setup), ClientLogs::new(&setup.stage)).map_err(SourceError::Fatal)?;
    let group = source.group(setup);
    let outcome = Starts::new(source, &consumer, handle, group).and_then(|starts| {
        let mut reader = Reader {
            source,
            handle,
            consumer: &consumer,
            starts,
            logs: ClientLogs::new(&setup.stage),
            assignment: Assignment::new(&setup.stage, setup.wanted),
            joined: false,
            paused: false,
            durable: HashMap::new(),
            next_tick: Instant::now() + TICK,
            lag: setup.metrics.lag.with_label_values(&[&setup.stage]),
        };
        reader.subscribe()?;
        match reader.read() {
            Ok(()) | Err(Leave::Stopped) => reader.finish(),
            failed => failed,
        }
    });
    match outcome {
        Ok(()) | Err(Leave::Stopped) => Ok(()),
        Err(Leave::Failed(error)) => Err(error),
    }
}

struct Reader<'a> {
    source: &'a KafkaSource,
    handle: &'a SourceHandle,
    consumer: &'a Consumer,
    starts: Starts<'a>,
    logs: ClientLogs,
    assignment: Assignment,
    /// Whether the group has given us partitions, if only none.
    joined: bool,
    /// Whether partitions are paused for lack of room.
    paused: bool,
    /// What is durable and not yet told to the group.
    durable: HashMap<SplitId, Position>,
    next_tick: Instant,
    lag: IntGauge,
}

impl Reader<'_> {
    fn subscribe(&self) -> Result<(), Leave> {
        let topics = self.source.topics.subscription();
        self.consumer.subscribe(topics).map_err(|error| Leave::fatal(format!("cannot subscribe to {}: {error}", topics.join(", "))))
    }

    fn read(&mut self) -> Result<(), Leave> {
        let mut fetched = Fetched::with_capacity(FETCH_MESSAGES);
        while !self.handle.is_stopped() {
            self.wait_for_room(&mut fetched)?;
            self.pass(&mut fetched, IDLE)?;
            if self.source.until_latest && self.joined && self.assignment.is_done() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fetches once, hands on what came, and does what became due.
    fn pass(&mut self, fetched: &mut Fetched, patience: Duration) -> Result<(), Leave> {
        self.consumer.fetch(fetched, patience);
        self.take_in(fetched)?;
        if !fetched.is_full() {
            self.flush()?;
        }
        fetched.clear();
        for event in self.consumer.events() {
            self.handle_event(event)?;
        }
        if Instant::now() >= self.next_tick {
            self.tick()?;
            self.next_tick = Instant::now() + TICK;
        }
        Ok(())
    }

    fn take_in(&mut self, fetched: &Fetched) -> Result<(), Leave> {
        let mut from = 0;
        loop {
            match self.assignment.take_in(fetched, from) {
                TakenIn::All => return Ok(()),
                TakenIn::Full { batch, next } => {
                    self.handle.emit(*batch)?;
                    from = next;
                }
                TakenIn::Stopped { at } => {
                    if let Some(message) = fetched.get(at)
                        && let Some(error) = message.error()
                    {
                        self.handle_message_error(message, &error)?;
                    }
                    from = at + 1;
                }
            }
        }
    }

    /// Hands on every batch that is open.
    fn flush(&mut self) -> Result<(), Leave> {
        for assigned in self.assignment.iter_mut() {
            if let Some(batch) = assigned.finish() {
                self.handle.emit(batch)?;
            }
        }
        Ok(())
    }

    /// Returns when there is room. Until then nothing is read, but the group sees us alive.
    fn wait_for_room(&mut self, fetched: &mut Fetched) -> Result<(), Leave> {
        if self.handle.wait_for_room(Duration::ZERO)? {
            return Ok(());
        }
        self.flush()?;
        let began = Instant::now();
        while !self.handle.wait_for_room(IDLE)? {
            if !self.paused && began.elapsed() >= PATIENCE {
                self.paused = true;
                self.pause(&self.assignment.names())?;
            }
            if self.paused {
                self.pass(fetched, Duration::ZERO)?;
            }
        }
        if self.paused {
            self.paused = false;
            let all = list_of(&self.assignment.names(), |_| Offset::Invalid);
            self.consumer.resume(&all).map_err(|error| Leave::transient(format!("cannot go on reading: {error}")))?;
        }
        Ok(())
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer.pause(&list).map_err(|error| Leave::transient(format!("cannot pause reading: {error}")))
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Leave> {
        match event {
            Event::Assigned(partitions) => self.take(partitions),
            Event::Revoked(partitions) if self.consumer.assignment_is_lost() => self.lose(&partitions),
            Event::Revoked(partitions) => self.give_back(&partitions),
            Event::RebalanceFailed(error) => {
                self.logs.warn("REBALANCE", &format!("the group did not come to an agreement: {error}"));
                let gone = self.assignment.remove(&self.assignment.names());
                self.consumer.unassign_all();
                self.report_lost(&gone)
            }
            Event::Error(error) => self.handle_client_error(&error),
        }
    }

    /// The group gives us partitions: nobody else commits them from now on.
    fn take(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Leave> {
        self.joined = true;
        let splits: Vec<_> = partitions.iter().map(|at| self.assignment.split(at)).collect();
        if !splits.is_empty() {
            tracing::info!(count = splits.len(), partitions = summary(&partitions), "partitions assigned");
        }
        let known = if splits.is_empty() { Vec::new() } else { self.handle.take(splits.clone())? };
        let unknown: Vec<_> = partitions.iter().zip(&known).filter(|(_, next)| next.is_none()).map(|(at, _)| at.clone()).collect();
        let mut first_offsets = self.starts.first_offsets(&unknown)?.into_iter();
        let starts: Vec<Position> = known.into_iter().map(|next| next.or_else(|| first_offsets.next()).unwrap_or(0)).collect();
        let ends = if self.source.until_latest && !partitions.is_empty() { Some(self.starts.ends(&partitions)?) } else { None };
        if !splits.is_empty() {
            self.handle.begin(splits.iter().cloned().zip(starts.iter().copied()).collect())?;
        }
        let offsets: HashMap<_, _> = partitions.iter().cloned().zip(starts.iter().copied()).collect();
        let list = list_of(&partitions, |at| Offset::Offset(offsets.get(at).map_or(0, |next| raw(*next))));
        self.consumer.assign_more(&list).map_err(|error| Leave::transient(format!("cannot take partitions over: {error}")))?;
        if self.paused {
            self.pause(&partitions)?;
        }
        for (index, (at, split)) in partitions.into_iter().zip(splits).enumerate() {
            let until = ends.as_ref().map(|ends| ends[index]);
            self.assignment.add(at, split, starts[index], until);
        }
        Ok(())
    }

    /// The group wants partitions back. They stay ours until everything that was read of them is committed.
    fn give_back(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        self.flush()?;
        tracing::info!(count = partitions.len(), partitions = summary(partitions), "partitions revoked");
        let gone = self.assignment.remove(partitions);
        if !gone.is_empty() {
            self.handle.release(gone.iter().map(|assigned| assigned.split.clone()).collect())?;
            self.tell_group(&gone, false);
        }
        self.unassign(partitions)
    }

    /// Somebody else has partitions already.
    fn lose(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        self.logs.warn("LOST", "the group has given our partitions to others; what was not committed is read again by them");
        let gone = self.assignment.remove(partitions);
        self.unassign(partitions)?;
        self.report_lost(&gone)
    }

    fn report_lost(&self, gone: &[Assigned]) -> Result<(), Leave> {
        if !gone.is_empty() {
            self.handle.lost(gone.iter().map(|assigned| assigned.split.clone()).collect())?;
        }
        Ok(())
    }

    fn unassign(&self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer.unassign(&list).map_err(|error| Leave::transient(format!("cannot give partitions back: {error}")))
    }

    fn handle_client_error(&mut self, error: &NativeError) -> Result<(), Leave> {
        let brokers = &self.source.connection.brokers;
        match Meaning::of(error.code) {
            // A login that worked before may work again.
            Meaning::Denied if !self.joined => Err(denied(brokers, error)),
            Meaning::GaveUp => Err(gave_up(&self.consumer.fatal_error().unwrap_or_else(|| error.clone()))),
            _ => {
                self.logs.warn(&format!("{:?}", error.code), &format!("{error} (brokers: {brokers})"));
                Ok(())
            }
        }
    }

    fn handle_message_error(&mut self, message: Message<'_>, error: &NativeError) -> Result<(), Leave> {
        let at = TopicPartition { topic: message.topic(), partition: message.partition() };
        match Meaning::of(error.code) {
            Meaning::End => {
                let reached = Position::try_from(message.offset()).unwrap_or(0);
                if let Some(assigned) = self.assignment.iter_mut().find(|assigned| assigned.at == at)
                    && assigned.until.is_some_and(|until| reached >= until)
                {
                    assigned.done = true;
                }
                Ok(())
            }
            Meaning::Gap => self.handle_gap(&at, error),
            Meaning::Denied => Err(denied(&self.source.connection.brokers, error)),
            Meaning::GaveUp => Err(gave_up(&self.consumer.fatal_error().unwrap_or_else(|| error.clone()))),
            Meaning::Passing => {
                self.logs.warn(&format!("{:?} {}", error.code, at.topic), &error.text);
                Ok(())
            }
        }
    }

    /// The offset that we want next is not there.
    fn handle_gap(&mut self, at: &TopicPartition, error: &NativeError) -> Result<(), Leave> {
        let Some(assigned) = self.assignment.iter_mut().find(|assigned| assigned.at == *at) else { return Ok(()) };
        let wanted = assigned.next;
        let name = format!("{}/{}", at.topic, at.partition);
        let (low, high) = self.consumer.watermarks(at, QUESTION).map_err(|_| Leave::transient(format!("cannot read {name}: {error}")))?;
        if wanted >= u64::try_from(high).unwrap_or(0) {
            return Err(Leave::fatal(format!(
                "{name} ends at offset {high}, but was read up to offset {wanted}: it has lost records or was made anew. To read what is \
                 there now, use another name for the pipeline or for this stage"
            )));
        }
        if !self.source.continue_after_gap {
            return Err(Leave::fatal(format!(
                "offset {wanted} of {name} is gone: the broker has offsets {low} to {}. To go on without what lies between, say :on-gap :continue",
                high - 1
            )));
        }
        let missing = u64::try_from(low).unwrap_or(0).saturating_sub(wanted);
        tracing::warn!(
            partition = name,
            wanted,
            first = low,
            missing,
            "records were deleted before they were read; going on with the first that is left"
        );
        self.flush()?;
        let names = [at.clone()];
        self.unassign(&names)?;
        let list = list_of(&names, |_| Offset::Offset(low));
        self.consumer.assign_more(&list).map_err(|error| Leave::transient(format!("cannot read {name} from offset {low}: {error}")))
    }

    /// What is done now and then.
    fn tick(&mut self) -> Result<(), Leave> {
        let names = self.assignment.names();
        let mut positions = list_of(&names, |_| Offset::Invalid);
        if !names.is_empty() && self.consumer.positions(&mut positions).is_ok() {
            // Both are in the same order.
            for (assigned, element) in self.assignment.iter_mut().zip(positions.elements()) {
                let position = element.offset().to_raw().and_then(|raw| Position::try_from(raw).ok());
                if let Some(batch) = position.and_then(|next| assigned.skip_to(next)) {
                    self.handle.emit(batch)?;
                }
            }
        }
        self.measure_lag();
        let all: Vec<&Assigned> = self.assignment.iter().collect();
        self.durable.extend(self.handle.durable());
        commit_durable(self.consumer, &mut self.durable, all, false);
        // What is left is about partitions that are ours no longer.
        self.durable.clear();
        Ok(())
    }

    fn measure_lag(&self) {
        let behind = |assigned: &Assigned| self.consumer.last_high_watermark(&assigned.at).map(|high| (high - raw(assigned.next)).max(0));
        self.lag.set(self.assignment.iter().filter_map(behind).sum());
    }

    fn tell_group(&mut self, partitions: &[Assigned], wait: bool) {
        self.durable.extend(self.handle.durable());
        commit_durable(self.consumer, &mut self.durable, partitions, wait);
    }

    /// Everything that was read is committed before the group hears that we leave: otherwise others would take the partitions over, and
    /// our last commit would come too late.
    fn finish(&mut self) -> Result<(), Leave> {
        self.flush()?;
        let all = self.assignment.remove(&self.assignment.names());
        if !all.is_empty() {
            self.handle.release(all.iter().map(|assigned| assigned.split.clone()).collect())?;
            self.tell_group(&all, true);
        }
        Ok(())
    }
}

/// Copies what is durable of these partitions to the group, for tools that show its lag. It may fail: nothing rests on it.
fn commit_durable<'a>(
    consumer: &Consumer,
    durable: &mut HashMap<SplitId, Position>,
    partitions: impl IntoIterator<Item = &'a Assigned>,
    wait: bool,
) {
    let moved: HashMap<_, _> =
        partitions.into_iter().filter_map(|assigned| durable.remove(&assigned.split.id).map(|next| (assigned.at.clone(), next))).collect();
    if moved.is_empty() {
        return;
    }
    let list = list_of(moved.keys(), |at| Offset::Offset(moved.get(at).map_or(0, |next| raw(*next))));
    if let Err(error) = consumer.commit(&list, wait) {
        tracing::debug!(%error, "the group's offsets were not written");
    }
}

fn raw(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// The partitions as a short text.
fn summary(partitions: &[TopicPartition]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = partitions.iter().take(SHOWN).map(|at| format!("{}/{}", at.topic, at.partition)).collect();
    if partitions.len() > SHOWN {
        names.push("…".to_owned());
    }
    names.join(" ")
}
