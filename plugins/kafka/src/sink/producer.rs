//! A transactional producer, and what its errors mean.

use std::path::Path;
use std::time::{Duration, Instant};

use pseidon_delivery::committer::Abandon;
use pseidon_delivery::{CommitError, SplitId};
use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::connection::Connection;
use crate::logs::{ProducerLogs, context};

/// How long one attempt may take, and all together.
const ATTEMPT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look whether everything has arrived.
const FLUSH_STEP: Duration = Duration::from_millis(1);

/// A producer that writes in transactions.
pub(super) struct TransactionalProducer {
    producer: BaseProducer<ProducerLogs>,
    stop: Stop,
}

/// What producers of a run have in common.
#[derive(Clone)]
pub(super) struct ProducerSettings {
    pub(super) stage: String,
    pub(super) connection: Connection,
    pub(super) base: std::path::PathBuf,
    /// The bytes that may wait to be sent.
    pub(super) memory: usize,
    /// After that the broker gives up a transaction whose producer says nothing.
    pub(super) timeout: Duration,
    pub(super) stop: Stop,
}

impl ProducerSettings {
    /// A producer under this id. Whoever had it before is fenced off and its transaction given up, when this returns.
    pub(super) fn open(&self, id: &str) -> Result<TransactionalProducer, SinkError> {
        let settings = [
            ("transactional.id", id.to_owned()),
            ("transaction.timeout.ms", self.timeout.as_millis().to_string()),
            ("delivery.report.only.error", "true".to_owned()),
            ("queue.buffering.max.kbytes", (self.memory / 1024).clamp(1024, 256 << 10).to_string()),
            ("queue.buffering.max.messages", "1000000".to_owned()),
        ];
        let config = self.connection.config(Path::new(&self.base), &settings);
        let producer: BaseProducer<ProducerLogs> =
            config.create_with_context(ProducerLogs::new(&self.stage)).map_err(|error| SinkError::Fatal(error.to_string()))?;
        let producer = TransactionalProducer { producer, stop: self.stop.clone() };
        producer.repeat(|| producer.producer.init_transactions(ATTEMPT)).map_err(|error| {
            let told = format!("cannot open transactions at {}: {error}", self.connection.brokers);
            match error.rdkafka_error_code() {
                Some(code) if is_denied(code) => SinkError::Fatal(told),
                _ => SinkError::Transient(told),
            }
        })?;
        Ok(producer)
    }
}

impl TransactionalProducer {
    /// Begins a transaction.
    pub(super) fn begin(&self) -> KafkaResult<()> {
        self.producer.begin_transaction()
    }

    /// Writes a record. Waits while too many are on their way.
    pub(super) fn send<K: ToBytes + ?Sized, V: ToBytes + ?Sized>(&self, mut record: BaseRecord<'_, K, V>) -> KafkaResult<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !self.stop.leaving_now() => {
                    self.producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
            if let Some(error) = context(&self.producer).take_undelivered() {
                return Err(error);
            }
        }
    }

    /// Lets the client report errors.
    pub(super) fn poll(&self) -> KafkaResult<()> {
        self.producer.poll(Duration::ZERO);
        context(&self.producer).take_undelivered().map_or(Ok(()), Err)
    }

    /// Commits; when it returns, everything sent is visible to readers of committed records.
    pub(super) fn commit(&self) -> KafkaResult<()> {
        // rdkafka's own flush looks only every tenth of a second, since records that arrive are not reported.
        let deadline = Instant::now() + PATIENCE;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline && !self.stop.leaving_now() {
            self.producer.poll(FLUSH_STEP);
        }
        self.repeat(|| self.producer.commit_transaction(ATTEMPT))
    }

    /// Gives the transaction up, as far as that can be done quickly.
    pub(super) fn abort(&self) {
        if let Err(error) = self.producer.abort_transaction(ATTEMPT) {
            tracing::debug!(%error, "the transaction was not aborted; the broker or the next run does it");
        }
    }

    /// The number of partitions of a topic; 0 while there is no such topic.
    pub(super) fn partitions_of(&self, topic: &str) -> KafkaResult<usize> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), ATTEMPT)?;
        Ok(metadata.topics().first().filter(|topic| topic.error().is_none()).map_or(0, |topic| topic.partitions().len()))
    }

    /// Tries again while that can help.
    fn repeat(&self, mut attempt: impl FnMut() -> KafkaResult<()>) -> KafkaResult<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt() {
                Err(error) if may_be_repeated(&error) && Instant::now() < deadline && !self.stop.leaving_now() => {
                    self.producer.poll(Duration::from_millis(50));
                }
                outcome => return outcome,
            }
        }
    }
}

fn may_be_repeated(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort() && !error.is_fatal(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

/// What a failed transaction means for the run: it starts anew from what is committed, unless somebody else has our splits.
pub(super) fn meaning(error: &KafkaError, splits: impl IntoIterator<Item = SplitId>) -> SinkError {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    match error.rdkafka_error_code() {
        Some(Fenced | ProducerFenced | InvalidProducerEpoch) => {
            SinkError::Abandon(Abandon::Fenced(CommitError::Fenced(splits.into_iter().collect())))
        }
        Some(code) if is_denied(code) => SinkError::Fatal(format!("kafka does not let us write: {error}")),
        _ => SinkError::Transient(format!("the transaction failed: {error}")),
    }
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        Authentication, ClusterAuthorizationFailed, SaslAuthenticationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed,
        UnsupportedSASLMechanism,
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
