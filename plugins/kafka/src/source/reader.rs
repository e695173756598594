//! Reading: from joining the group to leaving it, for one run or for many.
//!
//! The consumer's thread never waits for one run or one broker. Partitions arrive in steps
//! ([`arrivals`]) and leave when what was read of them is committed ([`departures`]); between two
//! fetches [`Reader::pass`] takes each of them a step further. What goes wrong with single
//! partitions is in [`gaps`], what is known of topics in [`topics`], and what is done about once a
//! second in [`ticks`].

mod arrivals;
mod departures;
mod gaps;
mod ticks;
mod topics;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never};
use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};
use rdkafka::Offset;

use self::arrivals::Arrivals;
use self::departures::Departures;
use self::topics::TopicWatch;
use super::KafkaSource;
use super::assignment::{Assigned, Assignment, TakenIn};
use super::failure::Leave;
use super::lookup::{Answer, Lookups, Question};
use super::outlet::{Outlet, Outlets};
use super::shared::Command;
use super::start::{Start, list_of};
use crate::logs::ClientLogs;
use crate::native::{Consumer, Event, Fetched, TopicPartition};

/// At most that many messages come with one fetch.
const FETCH_MESSAGES: usize = 8192;
/// How long an idle source sleeps before it looks whether the run ends.
const IDLE: Duration = Duration::from_millis(250);
/// The same while partitions arrive or leave,
const BUSY: Duration = Duration::from_millis(10);
/// and in the beginning of that, when most answers come: each of several steps would wait for the
/// fetch before it.
const QUICK: Duration = Duration::from_millis(1);
const QUICK_FOR: Duration = Duration::from_millis(200);
/// How long the source just waits for room. After that it pauses its partitions, which throws away
/// what librdkafka has fetched ahead, and takes part in its group's life while it goes on waiting.
/// It does not wait where librdkafka would fetch ahead without a limit.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads for one run until the end, or until the run ends.
pub(super) fn run(
    source: &KafkaSource,
    setup: &SourceSetup,
    handle: SourceHandle,
) -> Result<(), SourceError> {
    let consumer = Consumer::new(&source.config(setup), ClientLogs::new(&setup.stage))
        .map_err(SourceError::Fatal)?;
    let outlets = Outlets::One(Arc::new(Outlet::new(setup, handle, None)));
    let outcome = Reader::new(source, setup, &consumer, outlets).and_then(|mut reader| {
        reader.subscribe(source.topics.subscription())?;
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

/// A consumer with all that is known of its partitions.
pub(super) struct Reader<'a> {
    source: &'a KafkaSource,
    consumer: &'a Consumer,
    group: String,
    lookups: Lookups,
    outlets: Outlets,
    commands: Receiver<Command>,
    logs: ClientLogs,
    /// Partitions that are read.
    assignment: Assignment,
    /// Partitions on their way into it,
    arrivals: Arrivals,
    /// and out of it.
    departures: Departures,
    /// Partitions that the group has given us while no run is there to take their records.
    unattended: BTreeSet<TopicPartition>,
    topics: TopicWatch,
    /// Partitions of which librdkafka has found that records below our position are not there any
    /// more.
    truncated: BTreeSet<TopicPartition>,
    /// Topics that are subscribed to when it is known which partitions they have.
    to_subscribe: Option<Vec<String>>,
    /// How many topics are subscribed to, and since when.
    subscribed: (usize, Instant),
    /// Whether the group has given us partitions, if only none.
    joined: bool,
    /// What the group says against us.
    group_trouble: Option<String>,
    /// Whether reading has ended, and what was read is being committed.
    ending: bool,
    /// Why, if something went wrong.
    failure: Option<SourceError>,
    /// Whether partitions are paused for lack of room.
    paused: bool,
    /// Whether most of what came last was keys: librdkafka does not count them in what it fetches
    /// ahead.
    fetches_uncounted: bool,
    /// Since when partitions arrive or leave.
    busy_since: Option<Instant>,
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
        outlets: Outlets,
    ) -> Result<Reader<'a>, Leave> {
        Ok(Reader {
            source,
            consumer,
            group: source.group(setup).to_owned(),
            lookups: Lookups::start(source, consumer.client())?,
            outlets,
            commands: never(),
            logs: ClientLogs::new(&setup.stage),
            assignment: Assignment::default(),
            arrivals: Arrivals::default(),
            departures: Departures::new(source),
            unattended: BTreeSet::new(),
            topics: TopicWatch::default(),
            truncated: BTreeSet::new(),
            to_subscribe: None,
            subscribed: (0, Instant::now()),
            joined: false,
            group_trouble: None,
            ending: false,
            failure: None,
            paused: false,
            fetches_uncounted: false,
            busy_since: None,
            unreachable: false,
            durable: HashMap::new(),
            next_tick: Instant::now(),
        })
    }

    /// The outlets, when reading has ended.
    pub(super) fn into_outlets(self) -> Outlets {
        self.outlets
    }

    /// Joins the group for these topics, or leaves it when there are none.
    pub(super) fn subscribe(&mut self, topics: &[String]) -> Result<(), Leave> {
        if self.source.start == Start::Latest && !topics.is_empty() {
            self.to_subscribe = Some(topics.to_vec());
            self.lookups.ask(Question::Present(topics.to_vec()));
            return Ok(());
        }
        self.to_subscribe = None;
        self.subscribe_now(topics)
    }

    fn subscribe_now(&mut self, topics: &[String]) -> Result<(), Leave> {
        self.subscribed = (topics.len(), Instant::now());
        let subscribed = if topics.is_empty() {
            self.consumer.unsubscribe()
        } else {
            self.consumer.subscribe(topics)
        };
        subscribed.map_err(|error| {
            Leave::fatal(format!(
                "cannot subscribe to {}: {error}",
                topics.join(", ")
            ))
        })
    }

    fn read(&mut self) -> Result<(), Leave> {
        let mut fetched = Fetched::with_capacity(FETCH_MESSAGES);
        while !self.outlets.is_stopped() {
            self.wait_for_room(&mut fetched)?;
            let patience = self.patience();
            self.pass(&mut fetched, patience)?;
            if self.departures.is_empty()
                && let Some(error) = self.failure.take()
            {
                return Err(Leave::Failed(error));
            }
            if self.source.until_latest && self.is_complete() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a finite run has read everything.
    fn is_complete(&self) -> bool {
        self.joined
            && self.arrivals.is_empty()
            && self.departures.is_empty()
            && self.assignment.is_done()
            && self.topics.are_settled()
    }

    /// How long a fetch may wait for messages.
    fn patience(&mut self) -> Duration {
        if self.arrivals.is_empty() && self.departures.is_empty() {
            self.busy_since = None;
            return IDLE;
        }
        let since = *self.busy_since.get_or_insert_with(Instant::now);
        if since.elapsed() < QUICK_FOR {
            QUICK
        } else {
            BUSY
        }
    }

    /// Reads for runs that come and go, until reading ends.
    pub(super) fn read_for_many(&mut self, commands: Receiver<Command>) -> Result<(), Leave> {
        self.commands = commands;
        self.read()
    }

    /// Does what it was told since the last time. Of several subscriptions the last one counts, and
    /// all runs that came are served together.
    fn obey(&mut self) -> Result<(), Leave> {
        let mut subscription = None;
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Subscribe(topics) => subscription = Some(topics),
                Command::Attach(topic, outlet) => self.attach(topic, outlet)?,
            }
        }
        if let Some(topics) = subscription {
            self.subscribe(&topics)?;
        }
        // While the group waits for an answer, partitions that are still to be given up may be
        // among them.
        if self.departures.owe_an_answer() {
            return Ok(());
        }
        let is_attended =
            |at: &TopicPartition| self.outlets.of(&at.topic).is_some() && !self.departures.hold(at);
        let attended: Vec<_> = self
            .unattended
            .extract_if(.., |at| is_attended(at))
            .collect();
        if attended.is_empty() {
            Ok(())
        } else {
            self.arrive(attended)
        }
    }

    /// A run is there for a topic. One that was there before has ended, although that was not seen
    /// yet.
    fn attach(&mut self, topic: String, outlet: Arc<Outlet>) -> Result<(), Leave> {
        self.detach(&topic)?;
        if let Outlets::ByTopic { topics, .. } = &mut self.outlets {
            topics.insert(topic, outlet);
            self.topics.ask_soon();
        }
        Ok(())
    }

    /// Reads nothing more for runs that end.
    fn let_go(&mut self) -> Result<(), Leave> {
        let Outlets::ByTopic { topics, .. } = &self.outlets else {
            return Ok(());
        };
        let stopped = topics
            .iter()
            .filter(|(_, outlet)| outlet.outbox.handle().is_stopped());
        let stopped: Vec<String> = stopped.map(|(topic, _)| topic.clone()).collect();
        stopped.iter().try_for_each(|topic| self.detach(topic))
    }

    /// A run did not take what it was given: it has ended. Reading goes on for the others, if there
    /// are any.
    fn ended(&self, _: Stopped) -> Result<(), Leave> {
        match self.outlets {
            Outlets::One(_) => Err(Leave::Stopped),
            Outlets::ByTopic { .. } => Ok(()),
        }
    }

    fn emit(&self, outlet: &Outlet, batch: Batch) -> Result<(), Leave> {
        outlet
            .outbox
            .emit(batch)
            .or_else(|stopped| self.ended(stopped))
    }

    /// Fetches once, hands on what came, and takes everything else a step further.
    fn pass(&mut self, fetched: &mut Fetched, patience: Duration) -> Result<(), Leave> {
        self.consumer.fetch(fetched, patience);
        reach("kafka-fetched");
        if !fetched.is_empty() {
            self.fetches_uncounted = fetched.is_mostly_keys();
        }
        self.take_in(fetched)?;
        if !fetched.is_full() {
            self.flush()?;
        }
        fetched.clear();
        for event in self.consumer.events() {
            self.handle_event(event)?;
        }
        self.outlets.send_waiting()?;
        self.hear_answers()?;
        self.advance_arrivals()?;
        self.advance_departures()?;
        self.let_go()?;
        self.obey()?;
        if Instant::now() >= self.next_tick {
            self.tick()?;
        }
        Ok(())
    }

    fn take_in(&mut self, fetched: &Fetched) -> Result<(), Leave> {
        let mut from = 0;
        loop {
            match self.assignment.take_in(fetched, from) {
                TakenIn::All => return Ok(()),
                TakenIn::Full {
                    batch,
                    outlet,
                    next,
                } => {
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

    fn hear_answers(&mut self) -> Result<(), Leave> {
        while let Some(answer) = self.lookups.answer()? {
            match answer {
                Answer::Places(places) => self.hear_places(places)?,
                Answer::Topics(asked, found) => self.hear_topics(asked, found)?,
                Answer::Present(names, noted) => self.hear_present(&names, noted)?,
                Answer::Gap(at, offsets) => self.hear_gap(&at, offsets)?,
            }
        }
        Ok(())
    }

    /// Hands on every batch that is open.
    fn flush(&mut self) -> Result<(), Leave> {
        let open: Vec<_> = self
            .assignment
            .iter_mut()
            .filter_map(|assigned| Some((assigned.finish()?, assigned.outlet.clone())))
            .collect();
        open.into_iter()
            .try_for_each(|(batch, outlet)| self.emit(&outlet, batch))
    }

    /// Returns when there is room. Until then nothing is read, but the group sees us alive.
    fn wait_for_room(&mut self, fetched: &mut Fetched) -> Result<(), Leave> {
        if self.outlets.wait_for_room(Duration::ZERO)? {
            return Ok(());
        }
        self.flush()?;
        let began = Instant::now();
        while !self.ending
            && !self
                .outlets
                .wait_for_room(if self.fetches_uncounted { BUSY } else { IDLE })?
        {
            if !self.paused
                && (self.fetches_uncounted
                    || began.elapsed() >= PATIENCE
                    || !self.departures.is_empty())
            {
                self.paused = true;
                self.pause(&self.assignment.names())?;
            }
            if self.paused {
                self.pass(fetched, Duration::ZERO)?;
            }
        }
        if self.paused {
            self.paused = false;
            // A run that takes nothing more by itself stays paused.
            let awake = self
                .assignment
                .iter()
                .filter(|assigned| !assigned.outlet.is_paused());
            let awake: Vec<_> = awake.map(|assigned| assigned.at.clone()).collect();
            self.resume(&awake)?;
        }
        Ok(())
    }

    fn resume(&self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        if partitions.is_empty() {
            return Ok(());
        }
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer
            .resume(&list)
            .map_err(|error| Leave::transient(format!("cannot resume reading: {error}")))
    }

    fn pause(&self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        if partitions.is_empty() {
            return Ok(());
        }
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer
            .pause(&list)
            .map_err(|error| Leave::transient(format!("cannot pause reading: {error}")))
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Leave> {
        match event {
            Event::Assigned(partitions) => self.take(partitions),
            Event::Revoked(partitions) if self.consumer.assignment_is_lost() => {
                self.lose(&partitions)
            }
            Event::Revoked(partitions) => self.give_back(partitions),
            Event::RebalanceFailed(error) => {
                self.logs.warn(
                    "REBALANCE",
                    &format!("the group did not come to an agreement: {error}"),
                );
                self.lose_all()
            }
            Event::Error(error) => self.handle_client_error(&error),
        }
    }

    /// Everything that was read is committed before the group hears that we leave: otherwise others
    /// would take the partitions over, and our last commit would come too late.
    fn finish(&mut self) -> Result<(), Leave> {
        self.leave_all()?;
        let mut fetched = Fetched::with_capacity(FETCH_MESSAGES);
        while !self.departures.is_empty() {
            let patience = self.patience();
            self.pass(&mut fetched, patience)?;
        }
        self.failure
            .take()
            .map_or(Ok(()), |error| Err(Leave::Failed(error)))
    }
}

fn names(assigned: &[Assigned]) -> Vec<TopicPartition> {
    assigned.iter().map(|one| one.at.clone()).collect()
}

fn raw(position: Position) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
