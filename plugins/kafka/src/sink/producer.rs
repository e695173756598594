//! A transactional producer, and what its errors mean.

use std::path::Path;
use std::time::{Duration, Instant};

use pseidon_delivery::committer::Abandon;
use pseidon_delivery::{CommitError, SplitId};
use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::health::{Health, Wait};
use super::reports::{Reports, Undelivered};
use super::size::Compression;
use crate::connection::Connection;

/// How long one attempt may take, and all together.
const ATTEMPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one attempt at a commit may take: between two of them others hear that it takes long.
const COMMIT_ATTEMPT: Duration = Duration::from_millis(500);
/// How often to look whether everything has arrived.
const FLUSH_STEP: Duration = Duration::from_millis(1);
/// How long asking for a topic may take while records wait to be sent.
const QUESTION: Duration = Duration::from_secs(1);
/// After so many looks without the topic it counts as deleted. Brokers that create topics by
/// themselves have done so by then.
const LOOKS_WITHOUT_TOPIC: u32 = 3;
/// The largest and the smallest record that the client can be set to take.
const MESSAGE: std::ops::RangeInclusive<usize> = 1000..=1_000_000_000;
/// What brokers accept unless they are set otherwise.
const USUAL_MESSAGE: usize = 1_048_588;
/// A record that the client compresses may be so many times larger than what the topic takes, and
/// at least that large.
const COMPRESSES_TO: usize = 20;
const LARGE_WHERE_COMPRESSED: usize = 16 << 20;
/// A batch that is not larger serves the broker well.
const BATCH: usize = 1_000_000;

/// A producer that writes in transactions.
pub(super) struct TransactionalProducer {
    producer: BaseProducer<Reports>,
    topic: String,
    stop: Stop,
    health: Health,
    /// After that the broker gives up a transaction.
    timeout: Duration,
    limit: ClientLimit,
    compression: Compression,
    sends_alone: bool,
}

/// What producers of a run have in common.
#[derive(Clone)]
pub(super) struct ProducerSettings {
    pub(super) stage: String,
    pub(super) connection: Connection,
    pub(super) base: std::path::PathBuf,
    /// The sink's topic.
    pub(super) topic: String,
    /// The bytes that may wait to be sent.
    pub(super) memory: usize,
    /// After that the broker gives up a transaction whose producer says nothing.
    pub(super) timeout: Duration,
    pub(super) stop: Stop,
    pub(super) health: Health,
}

/// How a producer puts records into batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batching {
    /// The largest batch that the topic takes, where that is known.
    pub(super) largest: Option<usize>,
    /// Whether each record is a batch of its own, so that the broker judges it alone.
    pub(super) alone: bool,
}

/// The largest record that the client takes, before compression.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimit {
    pub(super) bytes: usize,
    /// The user's property that says so, if one does.
    pub(super) property: Option<&'static str>,
}

impl ProducerSettings {
    /// A producer under this id. Whoever had it before is fenced off and its transaction given up,
    /// when this returns.
    pub(super) fn open(
        &self,
        id: &str,
        batching: Batching,
    ) -> Result<TransactionalProducer, SinkError> {
        let config = self.config(id, batching);
        let timeout = number(&config, "transaction.timeout.ms")
            .map_or(self.timeout, |millis| Duration::from_millis(millis as u64));
        let producer: BaseProducer<Reports> = config
            .create_with_context(Reports::new(&self.stage))
            .map_err(|error| SinkError::Fatal(error.to_string()))?;
        let producer = TransactionalProducer {
            producer,
            topic: self.topic.clone(),
            stop: self.stop.clone(),
            health: self.health.clone(),
            timeout,
            limit: self.limit(&config),
            compression: compression(&config),
            sends_alone: batching.alone,
        };
        producer.repeat("to open transactions", ATTEMPT, |patience| producer.producer.init_transactions(patience)).map_err(|error| {
            let told = format!("cannot open transactions at {}: {error}", self.connection.brokers);
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::InvalidTransactionTimeout) => SinkError::Fatal(format!(
                    "the broker does not allow a transaction.timeout.ms of {} (its transaction.max.timeout.ms is lower): lower the property in \
                     :properties, or :transaction {{:age …}}",
                    timeout.as_millis()
                )),
                Some(code) if is_denied(code) => SinkError::Fatal(told),
                _ => SinkError::Transient(told),
            }
        })?;
        Ok(producer)
    }

    fn limit(&self, config: &ClientConfig) -> ClientLimit {
        let limit = |property: &'static str, unit: usize| ClientLimit {
            bytes: number(config, property)
                .map_or(USUAL_MESSAGE, |number| number.saturating_mul(unit)),
            property: self.connection.property(property).map(|_| property),
        };
        let (message, queue) = (
            limit("message.max.bytes", 1),
            limit("queue.buffering.max.kbytes", 1024),
        );
        if queue.bytes < message.bytes {
            queue
        } else {
            message
        }
    }

    fn config(&self, id: &str, batching: Batching) -> ClientConfig {
        // The client measures records before it compresses them, the broker afterwards.
        let largest = match (
            batching.largest,
            compression(&self.connection.config(Path::new(&self.base), &[])),
        ) {
            (None, _) => USUAL_MESSAGE,
            (Some(largest), Compression::None) => largest,
            (Some(largest), _) => largest
                .saturating_mul(COMPRESSES_TO)
                .max(LARGE_WHERE_COMPRESSED),
        };
        let largest = largest.clamp(*MESSAGE.start(), *MESSAGE.end());
        // What waits has to have room for the largest record.
        let memory = self.memory.clamp(1 << 20, 256 << 20).max(largest);
        let settings = [
            ("transactional.id", id.to_owned()),
            (
                "transaction.timeout.ms",
                self.timeout.as_millis().to_string(),
            ),
            ("delivery.report.only.error", "true".to_owned()),
            (
                "queue.buffering.max.kbytes",
                memory.div_ceil(1024).to_string(),
            ),
            ("queue.buffering.max.messages", "1000000".to_owned()),
            ("message.max.bytes", largest.to_string()),
            (
                "batch.size",
                batching
                    .largest
                    .map_or(BATCH, |largest| largest.clamp(1, BATCH))
                    .to_string(),
            ),
        ];
        let mut config = self.connection.config(Path::new(&self.base), &settings);
        if batching.alone {
            config.set("batch.num.messages", "1");
        }
        config
    }
}

fn compression(config: &ClientConfig) -> Compression {
    Compression::from_property(
        config
            .get("compression.type")
            .or_else(|| config.get("compression.codec")),
    )
}

fn number(config: &ClientConfig, property: &str) -> Option<usize> {
    config.get(property)?.parse().ok()
}

impl TransactionalProducer {
    /// The largest record that the client takes.
    pub(super) fn limit(&self) -> ClientLimit {
        self.limit
    }

    /// How the client compresses batches.
    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether each record is a batch of its own.
    pub(super) fn sends_alone(&self) -> bool {
        self.sends_alone
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> KafkaResult<()> {
        self.producer.begin_transaction()
    }

    /// Writes a record. Waits while too many are on their way.
    pub(super) fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, V, usize>,
    ) -> KafkaResult<()> {
        let mut wait = None;
        let mut looks = Looks::default();
        loop {
            match self.producer.send(record) {
                Ok(()) => return self.check(),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !self.stop.leaving_now() =>
                {
                    self.producer.poll(Duration::from_millis(10));
                    self.look(
                        wait.get_or_insert_with(|| self.health.wait("to accept records")),
                        &mut looks,
                    )?;
                    record = back;
                }
                // Why the transaction has failed says more than that it has.
                Err((error, _)) => return Err(self.reports().error().unwrap_or(error)),
            }
            self.check()?;
        }
    }

    /// Lets the client report errors.
    pub(super) fn poll(&self) -> KafkaResult<()> {
        self.producer.poll(Duration::ZERO);
        self.check()
    }

    /// Commits; when it returns, everything sent is visible to readers of committed records.
    pub(super) fn commit(&self) -> KafkaResult<()> {
        // rdkafka's own flush looks only every tenth of a second, since records that arrive are not
        // reported.
        let mut wait = self.health.wait("to accept records");
        let mut looks = Looks::default();
        while self.producer.in_flight_count() > 0
            && wait.elapsed() < PATIENCE
            && !self.stop.leaving_now()
        {
            self.producer.poll(FLUSH_STEP);
            self.check()?;
            self.look(&mut wait, &mut looks)?;
        }
        self.repeat("to commit a transaction", COMMIT_ATTEMPT, |patience| {
            self.producer.commit_transaction(patience)
        })?;
        self.health.well();
        Ok(())
    }

    /// Gives the transaction up, as far as that can be done quickly, and returns what was not
    /// delivered.
    pub(super) fn abort(&self) -> Undelivered {
        if let Err(error) = self.producer.abort_transaction(ATTEMPT) {
            tracing::debug!(%error, "the transaction was not aborted; the broker or the next run does it");
        }
        self.producer.poll(Duration::ZERO);
        self.reports().take()
    }

    /// Why the transaction has failed, where `error` is only a consequence. Beginning another one
    /// is refused with the reason.
    pub(super) fn cause(&self, error: KafkaError) -> KafkaError {
        match self.producer.begin_transaction() {
            Err(KafkaError::Transaction(cause)) if cause.txn_requires_abort() => {
                KafkaError::Transaction(cause)
            }
            _ => error,
        }
    }

    fn reports(&self) -> &Reports {
        self.producer.client().context()
    }

    fn check(&self) -> KafkaResult<()> {
        self.reports().error().map_or(Ok(()), Err)
    }

    /// Looks for the reason of a wait, once it is long: without the topic it leads nowhere.
    fn look(&self, wait: &mut Wait<'_>, looks: &mut Looks) -> KafkaResult<()> {
        if !wait.is_due_for_a_look() {
            return Ok(());
        }
        let Ok(metadata) = self
            .producer
            .client()
            .fetch_metadata(Some(&self.topic), QUESTION)
        else {
            return Ok(());
        };
        let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
        let is_missing = metadata
            .topics()
            .first()
            .and_then(|topic| topic.error())
            .is_some_and(|code| RDKafkaErrorCode::from(code) == unknown);
        looks.without_topic = if is_missing {
            looks.without_topic + 1
        } else {
            0
        };
        if looks.without_topic >= LOOKS_WITHOUT_TOPIC {
            Err(KafkaError::MessageProduction(unknown))
        } else {
            Ok(())
        }
    }

    /// Tries again while that can help.
    fn repeat(
        &self,
        what: &'static str,
        patience: Duration,
        mut attempt: impl FnMut(Duration) -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut wait = self.health.wait(what);
        loop {
            match attempt(patience) {
                Err(error)
                    if may_be_repeated(&error)
                        && Instant::now() < deadline
                        && !self.stop.leaving_now() =>
                {
                    self.producer.poll(Duration::from_millis(50));
                    wait.is_due_for_a_look();
                }
                outcome => return outcome,
            }
        }
    }

    /// What a failed transaction that was open for so long means for the run: it starts again from
    /// what is committed, unless another instance has our splits.
    pub(super) fn meaning(
        &self,
        error: &KafkaError,
        open: Duration,
        splits: impl IntoIterator<Item = SplitId>,
    ) -> SinkError {
        use RDKafkaErrorCode::{
            Fenced, InvalidProducerEpoch, ProducerFenced, UnknownTopic, UnknownTopicOrPartition,
        };
        // Where the client is at its end, what each call says is only a consequence.
        let code = self
            .producer
            .client()
            .fatal_error()
            .map(|(code, _)| code)
            .or(error.rdkafka_error_code());
        match code {
            Some(Fenced | ProducerFenced | InvalidProducerEpoch) if open < self.timeout => {
                SinkError::Abandon(Abandon::Fenced(CommitError::Fenced(
                    splits.into_iter().collect(),
                )))
            }
            Some(Fenced | ProducerFenced | InvalidProducerEpoch) => SinkError::Transient(format!(
                "the broker has aborted a transaction that was open for {} ms: its transaction.timeout.ms is {}",
                open.as_millis(),
                self.timeout.as_millis()
            )),
            Some(UnknownTopic | UnknownTopicOrPartition) => SinkError::Transient(format!(
                "the topic {} or its positions topic does not exist any more: {error}",
                self.topic
            )),
            Some(code) if is_denied(code) => {
                SinkError::Fatal(format!("writing to kafka is not allowed: {error}"))
            }
            _ => SinkError::Transient(format!("the transaction failed: {error}")),
        }
    }
}

/// What the looks during one wait have shown.
#[derive(Default)]
struct Looks {
    /// How many in a row did not find the topic.
    without_topic: u32,
}

fn may_be_repeated(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => {
            error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal()
        }
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, SaslAuthenticationFailed,
        TopicAuthorizationFailed, TransactionalIdAuthorizationFailed, UnsupportedSASLMechanism,
    };
    matches!(
        code,
        Authentication
            | ClusterAuthorizationFailed
            | SaslAuthenticationFailed
            | TopicAuthorizationFailed
            | TransactionalIdAuthorizationFailed
            | UnsupportedSASLMechanism
    )
}
