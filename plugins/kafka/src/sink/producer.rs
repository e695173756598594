//! A transactional producer, and the effect of its errors on the run.

use std::path::Path;
use std::time::{Duration, Instant};

use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{CommitError, Reason, SplitId};
use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::health::{BrokerWait, SinkHealth};
use super::reports::{DeliveryReports, UndeliveredRecords};
use super::size::BatchCompression;
use crate::connection::Connection;

/// The timeout of one attempt of a call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a call with all its attempts.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout of one attempt at a commit. It is short because a long wait is reported between two
/// attempts.
const COMMIT_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
/// The interval at which a flush checks whether everything has arrived.
const FLUSH_STEP: Duration = Duration::from_millis(1);
/// The timeout of looking up the topic while records wait to be sent.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of lookups without the topic after which it counts as deleted. Brokers that create
/// topics automatically have done so by then.
const CHECKS_WITHOUT_TOPIC: u32 = 3;
/// The range of the client's limit for the size of a record, in bytes.
const MESSAGE_BYTES: std::ops::RangeInclusive<usize> = 1000..=1_000_000_000;
/// The default limit of brokers for the size of a batch, in bytes.
const DEFAULT_MESSAGE_BYTES: usize = 1_048_588;
/// If the client compresses, a record may be this many times larger than the limit of the topic.
const COMPRESSION_FACTOR: usize = 20;
/// If the client compresses, a record may be at least this large, in bytes.
const MIN_COMPRESSED_LIMIT: usize = 16 << 20;
/// The maximum size of a batch, in bytes, which is efficient for the broker.
const BATCH_BYTES: usize = 1_000_000;

/// A producer that writes in transactions.
pub(super) struct TransactionalProducer {
    producer: BaseProducer<DeliveryReports>,
    topic: String,
    stop: Stop,
    health: SinkHealth,
    /// How long a transaction may be open before the broker aborts it.
    timeout: Duration,
    limit: ClientLimit,
    compression: BatchCompression,
    sends_alone: bool,
}

/// The settings that the producers of a run share.
#[derive(Clone)]
pub(super) struct ProducerSettings {
    pub(super) stage: String,
    pub(super) connection: Connection,
    pub(super) base: std::path::PathBuf,
    /// The name in `:topic`. The positions go to another topic.
    pub(super) topic: String,
    /// The size of the buffer for records that wait to be sent, in bytes.
    pub(super) memory: usize,
    /// How long a transaction may be open before the broker aborts it.
    pub(super) timeout: Duration,
    pub(super) stop: Stop,
    pub(super) health: SinkHealth,
}

/// How a producer groups records into batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batching {
    /// The largest batch that the topic accepts, in bytes; `None` if that is unknown.
    pub(super) largest: Option<usize>,
    /// Whether each record is a batch of its own, so that the broker judges each separately.
    pub(super) alone: bool,
}

/// The largest record that the client accepts, before compression.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimit {
    pub(super) bytes: usize,
    /// The property with which the user set the limit, if any.
    pub(super) property: Option<&'static str>,
}

impl ProducerSettings {
    /// Opens a producer under this id. When this returns, an earlier producer with the id is fenced
    /// off and its transaction aborted.
    pub(super) fn open(
        &self,
        id: &str,
        batching: Batching,
    ) -> Result<TransactionalProducer, SinkError> {
        let config = self.config(id, batching);
        let timeout = number(&config, "transaction.timeout.ms")
            .map_or(self.timeout, |millis| Duration::from_millis(millis as u64));
        let producer: BaseProducer<DeliveryReports> = config
            .create_with_context(DeliveryReports::new(&self.stage))
            .map_err(|error| SinkError::Fatal(Reason::of(error)))?;
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
        producer
            .retry("to open transactions", ATTEMPT_TIMEOUT, |timeout| {
                producer.producer.init_transactions(timeout)
            })
            .map_err(|error| {
                let what = format!("cannot open transactions at {}", self.connection.brokers);
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::InvalidTransactionTimeout) => SinkError::Fatal(
                        format!(
                            "the broker does not allow a transaction.timeout.ms of {} (its \
                             transaction.max.timeout.ms is lower): lower the property in \
                             :properties, or :transaction {{:age …}}",
                            timeout.as_millis()
                        )
                        .into(),
                    ),
                    Some(code) if is_denied(code) => {
                        SinkError::Fatal(Reason::caused_by(what, error))
                    }
                    _ => SinkError::Transient(Reason::caused_by(what, error)),
                }
            })?;
        Ok(producer)
    }

    fn limit(&self, config: &ClientConfig) -> ClientLimit {
        let limit = |property: &'static str, unit: usize| ClientLimit {
            bytes: number(config, property)
                .map_or(DEFAULT_MESSAGE_BYTES, |number| number.saturating_mul(unit)),
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
        // The client measures records before it compresses them, the broker after that.
        let largest = match (
            batching.largest,
            compression(&self.connection.config(Path::new(&self.base), &[])),
        ) {
            (None, _) => DEFAULT_MESSAGE_BYTES,
            (Some(largest), BatchCompression::None) => largest,
            (Some(largest), _) => largest
                .saturating_mul(COMPRESSION_FACTOR)
                .max(MIN_COMPRESSED_LIMIT),
        };
        let largest = largest.clamp(*MESSAGE_BYTES.start(), *MESSAGE_BYTES.end());
        // The buffer must have room for the largest record.
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
                    .map_or(BATCH_BYTES, |largest| largest.clamp(1, BATCH_BYTES))
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

fn compression(config: &ClientConfig) -> BatchCompression {
    BatchCompression::from_property(
        config
            .get("compression.type")
            .or_else(|| config.get("compression.codec")),
    )
}

fn number(config: &ClientConfig, property: &str) -> Option<usize> {
    config.get(property)?.parse().ok()
}

impl TransactionalProducer {
    /// The largest record that the client accepts.
    pub(super) fn limit(&self) -> ClientLimit {
        self.limit
    }

    /// The codec with which the client compresses batches.
    pub(super) fn compression(&self) -> BatchCompression {
        self.compression
    }

    /// Whether each record is a batch of its own.
    pub(super) fn sends_alone(&self) -> bool {
        self.sends_alone
    }

    /// Begins a transaction. The previous one must have been committed or aborted.
    pub(super) fn begin(&self) -> KafkaResult<()> {
        self.producer.begin_transaction()
    }

    /// Queues a record. Waits while the client's buffer is full.
    pub(super) fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, V, usize>,
    ) -> KafkaResult<()> {
        let mut wait = None;
        let mut checks = TopicChecks::default();
        loop {
            match self.producer.send(record) {
                Ok(()) => return self.check(),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if !self.stop.leaving_now() =>
                {
                    self.producer.poll(Duration::from_millis(10));
                    self.check_topic(
                        wait.get_or_insert_with(|| self.health.start_wait("to accept records")),
                        &mut checks,
                    )?;
                    record = back;
                }
                // The reason for the failure of the transaction is more specific.
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

    /// Commits. When it returns, everything that was sent is visible to readers of committed
    /// records.
    pub(super) fn commit(&self) -> KafkaResult<()> {
        // rdkafka's own flush checks only every 100 ms, because successful deliveries are not
        // reported.
        let mut wait = self.health.start_wait("to accept records");
        let mut checks = TopicChecks::default();
        while self.producer.in_flight_count() > 0
            && wait.elapsed() < CALL_TIMEOUT
            && !self.stop.leaving_now()
        {
            self.producer.poll(FLUSH_STEP);
            self.check()?;
            self.check_topic(&mut wait, &mut checks)?;
        }
        self.retry(
            "to commit a transaction",
            COMMIT_ATTEMPT_TIMEOUT,
            |timeout| self.producer.commit_transaction(timeout),
        )?;
        self.health.set_writing();
        Ok(())
    }

    /// Aborts the transaction, if that is possible quickly, and returns the undelivered records.
    pub(super) fn abort(&self) -> UndeliveredRecords {
        if let Err(error) = self.producer.abort_transaction(ATTEMPT_TIMEOUT) {
            tracing::debug!(
                %error,
                "cannot abort the transaction; the broker or the next run aborts it"
            );
        }
        self.producer.poll(Duration::ZERO);
        self.reports().take()
    }

    /// The error that made the transaction fail, if `error` is only a consequence of it. Opening
    /// another transaction is refused with that error.
    pub(super) fn cause(&self, error: KafkaError) -> KafkaError {
        match self.producer.begin_transaction() {
            Err(KafkaError::Transaction(cause)) if cause.txn_requires_abort() => {
                KafkaError::Transaction(cause)
            }
            _ => error,
        }
    }

    fn reports(&self) -> &DeliveryReports {
        self.producer.client().context()
    }

    fn check(&self) -> KafkaResult<()> {
        self.reports().error().map_or(Ok(()), Err)
    }

    /// Checks the cause of a long wait: without the topic the wait would be in vain.
    fn check_topic(&self, wait: &mut BrokerWait<'_>, checks: &mut TopicChecks) -> KafkaResult<()> {
        if !wait.is_check_due() {
            return Ok(());
        }
        let Ok(metadata) = self
            .producer
            .client()
            .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)
        else {
            return Ok(());
        };
        let unknown = RDKafkaErrorCode::UnknownTopicOrPartition;
        let is_missing = metadata
            .topics()
            .first()
            .and_then(|topic| topic.error())
            .is_some_and(|code| RDKafkaErrorCode::from(code) == unknown);
        checks.without_topic = if is_missing {
            checks.without_topic + 1
        } else {
            0
        };
        if checks.without_topic >= CHECKS_WITHOUT_TOPIC {
            Err(KafkaError::MessageProduction(unknown))
        } else {
            Ok(())
        }
    }

    /// Retries a call while a retry can succeed.
    fn retry(
        &self,
        what: &'static str,
        timeout: Duration,
        mut attempt: impl FnMut(Duration) -> KafkaResult<()>,
    ) -> KafkaResult<()> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut wait = self.health.start_wait(what);
        loop {
            match attempt(timeout) {
                Err(error)
                    if is_retriable(&error)
                        && Instant::now() < deadline
                        && !self.stop.leaving_now() =>
                {
                    self.producer.poll(Duration::from_millis(50));
                    wait.is_check_due();
                }
                outcome => return outcome,
            }
        }
    }

    /// The effect on the run of a transaction that failed after it was open for `open`: the run
    /// restarts from what is committed, unless another instance owns the splits.
    pub(super) fn sink_error(
        &self,
        error: KafkaError,
        open: Duration,
        splits: impl IntoIterator<Item = SplitId>,
    ) -> SinkError {
        use RDKafkaErrorCode::{
            Fenced, InvalidProducerEpoch, ProducerFenced, UnknownTopic, UnknownTopicOrPartition,
        };
        // After a fatal error, the error of each call is only a consequence of it.
        let code = self
            .producer
            .client()
            .fatal_error()
            .map(|(code, _)| code)
            .or(error.rdkafka_error_code());
        match code {
            Some(Fenced | ProducerFenced | InvalidProducerEpoch) if open < self.timeout => {
                SinkError::Committer(CommitterError::Fenced(CommitError::Fenced(
                    splits.into_iter().collect(),
                )))
            }
            Some(Fenced | ProducerFenced | InvalidProducerEpoch) => SinkError::Transient(
                format!(
                    "the broker has aborted a transaction that was open for {} ms: its \
                     transaction.timeout.ms is {}",
                    open.as_millis(),
                    self.timeout.as_millis()
                )
                .into(),
            ),
            Some(UnknownTopic | UnknownTopicOrPartition) => {
                SinkError::Transient(Reason::caused_by(
                    format!(
                        "the topic {} or its positions topic no longer exists",
                        self.topic
                    ),
                    error,
                ))
            }
            Some(code) if is_denied(code) => {
                SinkError::Fatal(Reason::caused_by("writing to kafka is not allowed", error))
            }
            _ => SinkError::Transient(Reason::caused_by("the transaction failed", error)),
        }
    }
}

/// The results of the checks during one wait.
#[derive(Default)]
struct TopicChecks {
    /// The number of consecutive checks that did not find the topic.
    without_topic: u32,
}

fn is_retriable(error: &KafkaError) -> bool {
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
