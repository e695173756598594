//! Reading: from joining the group to leaving it, for one run or for many. How partitions come and go is in [`handover`].

mod handover;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::{Batch, Split};
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::KafkaSource;
use super::assignment::{Assigned, Assignment, TakenIn};
use super::failure::{Leave, Meaning, denied, gave_up};
use super::outlet::{Outlet, Outlets};
use super::shared::Command;
use super::start::{Starts, list_of};
use crate::logs::ClientLogs;
use crate::native::{Consumer, Event, Fetched, Message, NativeError, TopicPartition};
use crate::topics::Topics;

/// At most that many messages come with one fetch.
const FETCH_MESSAGES: usize = 8192;
/// How long an idle source sleeps before it looks whether the run ends.
const IDLE: Duration = Duration::from_millis(250);
/// How long the source just waits for room. After that it pauses its partitions, which throws away what librdkafka has fetched ahead, and
/// takes part in its group's life while it goes on waiting.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often offsets are copied to the group and the lag is measured.
const TICK: Duration = Duration::from_secs(1);
/// How long a broker may take to show that it is there.
const GREETING: Duration = Duration::from_millis(300);
/// How long a question about a gap may take.
const QUESTION: Duration = Duration::from_secs(5);

/// Reads for one run until the end, or until the run ends.
pub(super) fn run(source: &KafkaSource, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
    let consumer = Consumer::new(&source.config(setup), ClientLogs::new(&setup.stage)).map_err(SourceError::Fatal)?;
    let starts = Starts::new(source, &consumer, source.group(setup));
    let outlets = Outlets::One(Arc::new(Outlet::new(setup, handle, None)));
    let mut reader = Reader::new(source, setup, &consumer, starts, outlets);
    let outcome = reader.subscribe(source.topics.subscription()).and_then(|()| match reader.read() {
        Ok(()) | Err(Leave::Stopped) => reader.finish(),
        failed => failed,
    });
    match outcome {
        Ok(()) | Err(Leave::Stopped) => Ok(()),
        Err(Leave::Failed(error)) => Err(error),
    }
}

/// A consumer with all that is known of its partitions.
pub(super) struct Reader<'a> {
    source: &'a KafkaSource,
    consumer: &'a Consumer,
    starts: Starts<'a>,
    outlets: Outlets,
    commands: Receiver<Command>,
    logs: ClientLogs,
    assignment: Assignment,
    /// Partitions that the group has given us while nobody is there to take their records.
    unattended: BTreeSet<TopicPartition>,
    /// Whether the group has given us partitions, if only none.
    joined: bool,
    /// Whether partitions are paused for lack of room.
    paused: bool,
    /// Whether no broker could be reached when one was last needed.
    unreachable: bool,
    /// What is durable and not yet told to the group.
    durable: HashMap<SplitId, Position>,
    next_tick: Instant,
}

impl<'a> Reader<'a> {
    /// Nothing is subscribed to yet.
    pub(super) fn new(
        source: &'a KafkaSource,
        setup: &SourceSetup,
        consumer: &'a Consumer,
        starts: Starts<'a>,
        outlets: Outlets,
    ) -> Reader<'a> {
        Reader {
            source,
            consumer,
            starts,
            outlets,
            commands: never(),
            logs: ClientLogs::new(&setup.stage),
            assignment: Assignment::default(),
            unattended: BTreeSet::new(),
            joined: false,
            paused: false,
            unreachable: false,
            durable: HashMap::new(),
            next_tick: Instant::now() + TICK,
        }
    }

    /// The outlets, when reading has ended.
    pub(super) fn into_outlets(self) -> Outlets {
        self.outlets
    }

    /// Joins the group for these topics, or leaves it when there are none.
    pub(super) fn subscribe(&mut self, topics: &[String]) -> Result<(), Leave> {
        let subscribed = match Topics::names(topics) {
            Ok(names) => {
                self.starts.note_present(&names, &self.outlets)?;
                self.consumer.subscribe(topics)
            }
            Err(_) => self.consumer.unsubscribe(),
        };
        subscribed.map_err(|error| Leave::fatal(format!("cannot subscribe to {}: {error}", topics.join(", "))))
    }

    fn read(&mut self) -> Result<(), Leave> {
        let mut fetched = Fetched::with_capacity(FETCH_MESSAGES);
        while !self.outlets.is_stopped() {
            self.wait_for_room(&mut fetched)?;
            self.pass(&mut fetched, IDLE)?;
            if self.source.until_latest && self.joined && self.assignment.is_done() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads for runs that come and go, until reading ends.
    pub(super) fn read_for_many(&mut self, commands: Receiver<Command>) -> Result<(), Leave> {
        self.commands = commands;
        self.read()
    }

    /// Does what it was told since the last time. Of several subscriptions the last one counts, and all runs that came are served together.
    fn obey(&mut self) -> Result<(), Leave> {
        let mut subscription = None;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Subscribe(topics) => subscription = Some(topics),
                Command::Attach(topic, outlet) => self.attach(topic, outlet),
                Command::Detach(topic, reply) => {
                    let splits = self.detach(&topic)?;
                    // A run that was left at once does not wait for the answer.
                    let _ = reply.send(splits);
                }
                Command::Durable(mut durable) => {
                    // The group may have given them to somebody else meanwhile.
                    durable.retain(|at, _| self.unattended.contains(at));
                    self.commit_offsets(&durable, false);
                }
            }
        }
        if let Some(topics) = subscription {
            self.subscribe(&topics)?;
        }
        let attended: Vec<_> = self.unattended.extract_if(.., |at| self.outlets.of(&at.topic).is_some()).collect();
        if attended.is_empty() { Ok(()) } else { self.take(attended) }
    }

    /// A run is there for a topic.
    fn attach(&mut self, topic: String, outlet: Arc<Outlet>) {
        if let Outlets::ByTopic { topics, .. } = &mut self.outlets {
            topics.insert(topic, outlet);
        }
    }

    /// Reads nothing more for the topic's run. What was read is handed over first.
    fn detach(&mut self, topic: &str) -> Result<Vec<Arc<Split>>, Leave> {
        let mut gone = self.assignment.remove(|at| at.topic == topic);
        for assigned in &mut gone {
            if let Some(batch) = assigned.finish() {
                // A run that has ended reads it again when it comes back.
                let _ = assigned.outlet.handle.emit(batch);
            }
        }
        let names: Vec<_> = gone.iter().map(|assigned| assigned.at.clone()).collect();
        if !names.is_empty() {
            self.unassign(&names)?;
        }
        self.unattended.extend(names);
        if let Outlets::ByTopic { topics, .. } = &mut self.outlets {
            topics.remove(topic);
        }
        Ok(gone.into_iter().map(|assigned| assigned.split).collect())
    }

    /// A topic cannot be read on. Where it is one of many, only its run hears of it.
    fn fail_topic(&mut self, topic: &str, leave: Leave) -> Result<(), Leave> {
        match (leave, &self.outlets) {
            (Leave::Failed(error), Outlets::ByTopic { topics, .. }) => {
                let outlet = topics.get(topic).cloned();
                self.detach(topic)?;
                outlet.inspect(|outlet| outlet.fail(error));
                Ok(())
            }
            (leave, _) => Err(leave),
        }
    }

    /// A run did not take what it was given: it has ended. Reading goes on for the others, if there are any.
    fn ended(&self, _: Stopped) -> Result<(), Leave> {
        match self.outlets {
            Outlets::One(_) => Err(Leave::Stopped),
            Outlets::ByTopic { .. } => Ok(()),
        }
    }

    fn emit(&self, outlet: &Outlet, batch: Batch) -> Result<(), Leave> {
        outlet.handle.emit(batch).or_else(|stopped| self.ended(stopped))
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
        self.obey()?;
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
                TakenIn::Full { batch, outlet, next } => {
                    self.emit(&outlet, *batch)?;
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
        let open: Vec<_> = self.assignment.iter_mut().filter_map(|assigned| Some((assigned.finish()?, assigned.outlet.clone()))).collect();
        open.into_iter().try_for_each(|(batch, outlet)| self.emit(&outlet, batch))
    }

    /// Returns when there is room. Until then nothing is read, but the group sees us alive.
    fn wait_for_room(&mut self, fetched: &mut Fetched) -> Result<(), Leave> {
        if self.outlets.wait_for_room(Duration::ZERO)? {
            return Ok(());
        }
        self.flush()?;
        let began = Instant::now();
        while !self.outlets.wait_for_room(IDLE)? {
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
                let gone = self.assignment.remove(|_| true);
                self.unattended.clear();
                self.consumer.unassign_all();
                self.report_lost(&gone)
            }
            Event::Error(error) => self.handle_client_error(&error),
        }
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
                self.unreachable |= error.code == RDKafkaErrorCode::AllBrokersDown;
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
            Meaning::Gap => self.handle_gap(&at, error).or_else(|leave| self.fail_topic(&at.topic, leave)),
            Meaning::Denied => self.fail_topic(&at.topic, denied(&self.source.connection.brokers, error)),
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
            let skipped = |(assigned, element): (&mut Assigned, rdkafka::topic_partition_list::TopicPartitionListElem<'_>)| {
                let position = element.offset().to_raw().and_then(|raw| Position::try_from(raw).ok());
                Some((assigned.skip_to(position?)?, assigned.outlet.clone()))
            };
            let skips: Vec<_> = self.assignment.iter_mut().zip(positions.elements()).filter_map(skipped).collect();
            skips.into_iter().try_for_each(|(batch, outlet)| self.emit(&outlet, batch))?;
        }
        self.measure_lag();
        // librdkafka says when the last broker is gone, and not when one is back.
        if self.unreachable && self.consumer.all_partitions(GREETING).is_ok() {
            self.unreachable = false;
        }
        self.outlets.iter().for_each(|outlet| outlet.unreachable.set(i64::from(self.unreachable)));
        self.pause_by_run()?;
        self.hear_durable();
        let moved = moved(&mut self.durable, self.assignment.iter());
        self.commit_offsets(&moved, false);
        // What is left is about partitions that are ours no longer.
        self.durable.clear();
        Ok(())
    }

    fn measure_lag(&self) {
        let mut behind: HashMap<*const Outlet, i64> = HashMap::new();
        for assigned in self.assignment.iter() {
            if let Some(high) = self.consumer.last_high_watermark(&assigned.at) {
                *behind.entry(Arc::as_ptr(&assigned.outlet)).or_default() += (high - raw(assigned.next)).max(0);
            }
        }
        self.outlets.iter().for_each(|outlet| outlet.lag.set(behind.get(&Arc::as_ptr(outlet)).copied().unwrap_or(0)));
    }

    /// Pauses the partitions of runs that were paused by their users, where they are some of many.
    fn pause_by_run(&self) -> Result<(), Leave> {
        let Outlets::ByTopic { topics, .. } = &self.outlets else { return Ok(()) };
        for (topic, outlet) in topics {
            let Some(paused) = outlet.changed_pause() else { continue };
            let of_topic: Vec<_> = self.assignment.names().into_iter().filter(|at| at.topic == *topic).collect();
            if paused {
                self.pause(&of_topic)?;
            } else if !self.paused {
                let list = list_of(&of_topic, |_| Offset::Invalid);
                self.consumer.resume(&list).map_err(|error| Leave::transient(format!("cannot go on reading: {error}")))?;
            }
        }
        Ok(())
    }

    fn hear_durable(&mut self) {
        for outlet in self.outlets.iter() {
            self.durable.extend(outlet.handle.durable());
        }
    }

    fn tell_group(&mut self, partitions: &[Assigned], wait: bool) {
        self.hear_durable();
        let moved = moved(&mut self.durable, partitions);
        self.commit_offsets(&moved, wait);
    }

    /// Copies positions to the group, for tools that show its lag. It may fail: nothing rests on it.
    fn commit_offsets(&self, positions: &HashMap<TopicPartition, Position>, wait: bool) {
        if positions.is_empty() {
            return;
        }
        let list = list_of(positions.keys(), |at| Offset::Offset(positions.get(at).map_or(0, |next| raw(*next))));
        if let Err(error) = self.consumer.commit(&list, wait) {
            tracing::debug!(%error, "the group's offsets were not written");
        }
    }

    /// Everything that was read is committed before the group hears that we leave: otherwise others would take the partitions over, and
    /// our last commit would come too late.
    fn finish(&mut self) -> Result<(), Leave> {
        self.flush()?;
        let all = self.assignment.remove(|_| true);
        if !all.is_empty() {
            self.release(&all)?;
            self.tell_group(&all, true);
        }
        Ok(())
    }
}

/// The positions that have moved of these partitions.
fn moved<'a>(
    durable: &mut HashMap<SplitId, Position>,
    partitions: impl IntoIterator<Item = &'a Assigned>,
) -> HashMap<TopicPartition, Position> {
    partitions.into_iter().filter_map(|assigned| durable.remove(&assigned.split.id).map(|next| (assigned.at.clone(), next))).collect()
}

fn raw(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
