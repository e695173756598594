//! One consumer of a group for many runs, each of which reads one topic.
//!
//! Hundreds of consumers would need hundreds of connections and threads, and every new topic would
//! add a member to the group. Here the runs attach to a consumer that lives as long as they do: its
//! subscription changes, its partitions are assigned to the runs by topic, and a run that ends or
//! fails affects only its own topic.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::{Position, WithCauses};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::budget::Budget;
use pseidon_plugin::options::Options;
use pseidon_plugin::source::{SourceError, SourceExit, SourceRun, SourceSetup};
use pseidon_plugin::stop::Stop;

use super::outlet::{Outlet, Outlets, consumer_failed};
use super::reader::{Command, Reader};
use super::{ConsumerOptions, KafkaSource, RESERVED};
use crate::connection::{AccessOptions, BrokerOptions, Connection};
use crate::logs::ClientLogs;
use crate::native::Consumer;
use crate::topics::Topics;

/// The options of a shared consumer: those of the source `kafka` that do not concern topics or
/// records.
///
/// There is no `:instance-id` (static membership). A member with a permanent name that comes back
/// within the session timeout is assigned its old partitions regardless of its new subscription, so
/// topics that were added while it was away would not be read by any instance.
#[derive(Clone, Debug, Options)]
pub struct SharedOptions {
    #[option(flatten)]
    brokers: BrokerOptions,
    #[option(flatten)]
    consumer: ConsumerOptions,
    #[option(flatten)]
    access: AccessOptions,
}

/// The backoff before the consumer is restarted after a failure: its first and its longest value.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How often to check whether runs have stopped while there is no consumer.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The checked settings of a shared consumer.
#[derive(Clone)]
pub struct SharedSettings(Arc<KafkaSource>);

/// Looks up where another program stopped reading partitions (topic and number) that the state does
/// not have; `None` for a partition that the other program has not read either.
pub type ExternalOffsets =
    dyn Fn(&[(String, i32)]) -> Result<Vec<Option<Position>>, SourceError> + Send + Sync;

impl SharedSettings {
    /// Checks the options of a shared consumer.
    pub fn new(options: &SharedOptions) -> Result<SharedSettings, Vec<Diagnostic>> {
        let connection = Connection::new(&options.brokers, &options.access, &RESERVED)?;
        Ok(SharedSettings(Arc::new(KafkaSource {
            is_shared: true,
            ..KafkaSource::new(connection, Topics::none(), &options.consumer)
        })))
    }

    /// The same settings, resuming where another program stopped.
    pub fn with_external_offsets(&self, elsewhere: Arc<ExternalOffsets>) -> SharedSettings {
        SharedSettings(Arc::new(KafkaSource {
            external_offsets: Some(elsewhere),
            ..self.0.as_ref().clone()
        }))
    }
}

/// A consumer that runs attach to.
pub struct SharedConsumer {
    commands: Sender<Command>,
    /// The topics that a restarted consumer subscribes to.
    subscribed: Arc<Mutex<Vec<String>>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl SharedConsumer {
    /// Starts the consumer's thread. Nothing is read before [`SharedConsumer::subscribe`]. `setup`
    /// is the setup of the stage as a whole; all attached runs share `budget`.
    pub fn start(
        settings: SharedSettings,
        setup: SourceSetup,
        budget: Arc<Budget>,
    ) -> io::Result<SharedConsumer> {
        let (commands, received) = unbounded();
        let stop = Stop::new();
        let subscribed = Arc::new(Mutex::new(Vec::new()));
        let worker = SharedWorker {
            source: settings.0,
            setup,
            budget,
            stop: stop.clone(),
            subscribed: subscribed.clone(),
            received,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-shared".to_owned())
            .spawn(move || worker.run())?;
        Ok(SharedConsumer {
            commands,
            subscribed,
            stop,
            thread: Some(thread),
        })
    }

    /// Replaces the subscription. Each topic is read as soon as a run is attached for it.
    pub fn subscribe(&self, topics: Vec<String>) {
        self.subscribed.lock().clone_from(&topics);
        // The thread only ends when the consumer is dropped.
        let _ = self.commands.send(Command::Subscribe(topics));
    }

    /// Reads a topic for a run, until the run ends. If the end is reported without an error,
    /// everything that was read is durable.
    pub fn attach(&self, topic: &str, setup: &SourceSetup, reading: SourceRun) {
        let SourceRun { handle, ended } = reading;
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
            // The panic was already printed.
            let _ = thread.join();
        }
    }
}

/// The state of the consumer's thread.
struct SharedWorker {
    source: Arc<KafkaSource>,
    setup: SourceSetup,
    budget: Arc<Budget>,
    stop: Stop,
    subscribed: Arc<Mutex<Vec<String>>>,
    received: Receiver<Command>,
}

/// A run that waits for a consumer, with its topic.
type WaitingRun = (String, Arc<Outlet>);

impl SharedWorker {
    fn run(&self) {
        let (mut wait, mut waiting) = (MIN_BACKOFF, VecDeque::new());
        while !self.stop.reading_stopped() {
            let began = Instant::now();
            // A panic drops the outlets, which tells the runs that nothing more is read for them.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.read(&mut waiting)));
            let Err(error) = outcome.unwrap_or_else(|_| Err(consumer_failed())) else {
                return;
            };
            if began.elapsed() > MAX_BACKOFF {
                wait = MIN_BACKOFF;
            }
            tracing::warn!(
                stage = self.setup.stage, error = %WithCauses(&error),
                "the shared consumer failed; restarting it in {wait:?}"
            );
            self.back_off(wait, &mut waiting);
            wait = (wait * 2).min(MAX_BACKOFF);
        }
    }

    /// Collects the runs that attach meanwhile, and ends those that have stopped. Subscriptions are
    /// dropped, since the next consumer begins with the last one.
    fn back_off(&self, wait: Duration, waiting: &mut VecDeque<WaitingRun>) {
        let deadline = Instant::now() + wait;
        while !self.stop.reading_stopped() {
            match self
                .received
                .recv_deadline(deadline.min(Instant::now() + STOP_CHECK_INTERVAL))
            {
                Ok(Command::Subscribe(_)) => {}
                Ok(Command::Attach(topic, outlet)) => waiting.push_back((topic, outlet)),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
            waiting.retain(|(_, outlet)| {
                let is_stopped = outlet.outbox.handle().is_stopped();
                if is_stopped {
                    outlet.end();
                }
                !is_stopped
            });
        }
    }

    /// Reads until the end or a failure, which is reported to the attached runs: they restart from
    /// their last commit and attach again. The waiting runs are the first ones.
    fn read(&self, waiting: &mut VecDeque<WaitingRun>) -> Result<(), SourceError> {
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
            Err(SourceExit::Failed(error)) => return Err(error),
            Err(SourceExit::Stopped) => return Ok(()),
        };
        let subscribed = self.subscribed.lock().clone();
        let outcome = if subscribed.is_empty() {
            Ok(())
        } else {
            reader.subscribe(&subscribed)
        };
        let outcome = outcome.and_then(|()| {
            while let Some((topic, outlet)) = waiting.pop_front() {
                reader.attach(topic, outlet)?;
            }
            reader.read_for_many(self.received.clone())
        });
        match outcome {
            Ok(()) | Err(SourceExit::Stopped) => Ok(()),
            Err(SourceExit::Failed(error)) => {
                let (SourceError::Transient(reason) | SourceError::Fatal(reason)) = &error;
                reader
                    .into_outlets()
                    .iter()
                    .for_each(|outlet| outlet.fail(SourceError::Transient(reason.clone())));
                Err(error)
            }
        }
    }
}
