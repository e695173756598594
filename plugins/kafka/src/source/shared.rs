//! One consumer of a group for many runs, each of which reads one topic.
//!
//! Hundreds of consumers would be hundreds of connections and threads, and every new topic would be
//! one more member of the group. Here the runs attach to a consumer that lives as long as they do:
//! its subscription changes, its partitions are handed to the runs by topic, and a run that ends or
//! fails takes nothing with it but its own topic.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::budget::Budget;
use pseidon_plugin::source::{Reading, SourceError, SourceSetup};
use pseidon_plugin::spec::OptionSpec;
use pseidon_plugin::stop::Stop;

use super::failure::Leave;
use super::outlet::{Outlet, Outlets, consumer_failed};
use super::reader::Reader;
use super::{BROKERS, GROUP, KafkaSource, ON_GAP, ON_MISSING_STATE, PROPERTIES, SASL, START, TLS};
use crate::logs::ClientLogs;
use crate::native::Consumer;
use crate::topics::Topics;

/// What a shared consumer can be told: the options of the source `kafka` that are not about topics
/// and records.
///
/// There is no `:instance-id` (static membership). A member with a lasting name that comes back
/// within the session timeout is given its old partitions without a look at its new subscription,
/// so topics that were added while it was away would be read by nobody.
pub const SHARED_OPTIONS: &[OptionSpec] = &[
    BROKERS,
    GROUP,
    START,
    ON_MISSING_STATE,
    ON_GAP,
    TLS,
    SASL,
    PROPERTIES,
];

/// The pauses before the consumer is made anew after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether runs have ended, while there is no consumer.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The settings of a shared consumer, checked.
#[derive(Clone)]
pub struct SharedSettings(Arc<KafkaSource>);

/// Where somebody else has stopped reading partitions (topic and number) that the state knows
/// nothing of; `None` for those that are new to him too.
pub type StoppedElsewhere =
    dyn Fn(&[(String, i32)]) -> Result<Vec<Option<Position>>, SourceError> + Send + Sync;

impl SharedSettings {
    /// From options that were declared as [`SHARED_OPTIONS`].
    pub fn new(options: &Options) -> Result<SharedSettings, Vec<Diagnostic>> {
        KafkaSource::from_options(options, Ok(Topics::none()))
            .map(|source| SharedSettings(Arc::new(source)))
    }

    /// The same, going on where another program has stopped.
    pub fn after(&self, elsewhere: Arc<StoppedElsewhere>) -> SharedSettings {
        SharedSettings(Arc::new(KafkaSource {
            stopped_elsewhere: Some(elsewhere),
            ..self.0.as_ref().clone()
        }))
    }
}

/// A consumer that runs attach to.
pub struct SharedConsumer {
    commands: Sender<Command>,
    /// What a consumer that is made anew subscribes to.
    subscribed: Arc<Mutex<Vec<String>>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// What the consumer's thread is told between two fetches.
pub(super) enum Command {
    /// Read these topics.
    Subscribe(Vec<String>),
    /// A run is there for a topic, until its handle says that it ends.
    Attach(String, Arc<Outlet>),
}

impl SharedConsumer {
    /// Starts the consumer's thread. Nothing is read before [`SharedConsumer::subscribe`]. `setup`
    /// is that of the stage as a whole; all attached runs share `budget`.
    pub fn start(
        settings: SharedSettings,
        setup: SourceSetup,
        budget: Arc<Budget>,
    ) -> io::Result<SharedConsumer> {
        let (commands, received) = unbounded();
        let stop = Stop::new();
        let subscribed = Arc::new(Mutex::new(Vec::new()));
        let work = Work {
            source: settings.0,
            setup,
            budget,
            stop: stop.clone(),
            subscribed: subscribed.clone(),
            received,
            commands: commands.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-shared".to_owned())
            .spawn(move || work.run())?;
        Ok(SharedConsumer {
            commands,
            subscribed,
            stop,
            thread: Some(thread),
        })
    }

    /// From now on these topics are read, each as soon as a run is attached for it.
    pub fn subscribe(&self, topics: Vec<String>) {
        self.subscribed.lock().clone_from(&topics);
        // The thread only ends when the consumer is dropped.
        let _ = self.commands.send(Command::Subscribe(topics));
    }

    /// Reads a topic for a run, until the run ends. Everything that was read of it is durable when
    /// the end is said to be a good one.
    pub fn attach(&self, topic: &str, setup: &SourceSetup, reading: Reading) {
        let Reading { handle, ended } = reading;
        let outlet = Arc::new(Outlet::new(setup, handle, Some(ended)));
        // If the thread has ended, the outlet is dropped, which is an error for the run.
        let _ = self
            .commands
            .send(Command::Attach(topic.to_owned(), outlet));
    }
}

impl Drop for SharedConsumer {
    fn drop(&mut self) {
        self.stop.leave_now();
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed.
            let _ = thread.join();
        }
    }
}

/// What the consumer's thread has.
struct Work {
    source: Arc<KafkaSource>,
    setup: SourceSetup,
    budget: Arc<Budget>,
    stop: Stop,
    subscribed: Arc<Mutex<Vec<String>>>,
    received: Receiver<Command>,
    /// The other end of it.
    commands: Sender<Command>,
}

impl Work {
    fn run(&self) {
        let mut wait = FIRST_WAIT;
        while !self.stop.reading_stopped() {
            let began = Instant::now();
            // A panic drops the outlets, by which the runs notice that nothing more is read for
            // them.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.read()));
            let Err(error) = outcome.unwrap_or_else(|_| Err(consumer_failed())) else {
                return;
            };
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::warn!(stage = self.setup.stage, %error, "the shared consumer is made anew in {wait:?}");
            self.rest(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Lets runs go that end, and keeps all other commands for the next consumer.
    fn rest(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut kept = Vec::new();
        while !self.stop.reading_stopped() {
            match self
                .received
                .recv_deadline(deadline.min(Instant::now() + LOOK_EVERY))
            {
                Ok(command) => kept.push(command),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
            kept.retain(|command| match command {
                Command::Attach(_, outlet) if outlet.outbox.handle().is_stopped() => {
                    outlet.end();
                    false
                }
                _ => true,
            });
        }
        for command in kept {
            let _ = self.commands.send(command);
        }
    }

    /// Reads until the end or a failure, of which the attached runs hear: they start anew from what
    /// is committed, and attach again.
    fn read(&self) -> Result<(), SourceError> {
        let consumer = Consumer::new(
            &self.source.config(&self.setup),
            ClientLogs::new(&self.setup.stage),
        )
        .map_err(SourceError::Fatal)?;
        let outlets = Outlets::ByTopic {
            topics: HashMap::new(),
            budget: self.budget.clone(),
            stop: self.stop.clone(),
        };
        let mut reader = match Reader::new(&self.source, &self.setup, &consumer, outlets) {
            Ok(reader) => reader,
            Err(Leave::Failed(error)) => return Err(error),
            Err(Leave::Stopped) => return Ok(()),
        };
        let subscribed = self.subscribed.lock().clone();
        let outcome = if subscribed.is_empty() {
            Ok(())
        } else {
            reader.subscribe(&subscribed)
        };
        match outcome.and_then(|()| reader.read_for_many(self.received.clone())) {
            Ok(()) | Err(Leave::Stopped) => Ok(()),
            Err(Leave::Failed(error)) => {
                reader
                    .into_outlets()
                    .iter()
                    .for_each(|outlet| outlet.fail(SourceError::Transient(error.to_string())));
                Err(error)
            }
        }
    }
}
