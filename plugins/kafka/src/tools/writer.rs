//! A writer of records to a topic, as fast as the brokers accept them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::Reason;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;

use super::{REQUEST_TIMEOUT, config, unreachable};
use crate::logs::ClientLogs;
use crate::topics::check_name;

/// How long to wait for room in the queue before checking again whether records are delivered.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(10);
/// How long to wait before asking again for a topic that is being created.
const TOPIC_RETRY: Duration = Duration::from_millis(100);

/// Counts the outcomes of the records of several writers.
#[derive(Debug, Default)]
pub struct Deliveries {
    records: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    reason: Mutex<Option<String>>,
}

impl Deliveries {
    /// The number of records that the brokers have acknowledged.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The size of the keys and values of acknowledged records, in bytes before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The number of records that could not be delivered.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of the failed records failed.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }
}

/// librdkafka's callbacks: log lines, and the outcome of each record.
struct WriterCallbacks {
    logs: ClientLogs,
    deliveries: Arc<Deliveries>,
}

impl ClientContext for WriterCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.logs.line(level as i32, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let kind = error
            .rdkafka_error_code()
            .map(|code| format!("{code:?}"))
            .unwrap_or_default();
        self.logs.warn(&kind, reason);
    }
}

impl ProducerContext for WriterCallbacks {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(message) => {
                let bytes = message.payload_len() + message.key_len();
                self.deliveries.records.fetch_add(1, Ordering::Relaxed);
                self.deliveries
                    .bytes
                    .fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.deliveries.failed.fetch_add(1, Ordering::Relaxed);
                self.deliveries
                    .reason
                    .lock()
                    .get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A producer for one topic, used by one thread. Every record is acknowledged by all replicas, and
/// written once even if it is retried.
pub struct TopicWriter {
    producer: BaseProducer<WriterCallbacks>,
    topic: String,
}

impl TopicWriter {
    /// Connects to `brokers` (`host:port,host:port`) with librdkafka's `properties`. The error says
    /// why that is not possible, or that the topic does not exist and the brokers do not create it.
    pub fn open(
        brokers: &str,
        topic: &str,
        properties: &[(String, String)],
        deliveries: Arc<Deliveries>,
    ) -> Result<TopicWriter, Reason> {
        check_name(topic)?;
        let settings = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.kbytes", "32768"),
        ];
        let reports = WriterCallbacks {
            logs: ClientLogs::new("produce"),
            deliveries,
        };
        let producer: BaseProducer<WriterCallbacks> = config(brokers, &settings, properties)
            .create_with_context(reports)
            .map_err(Reason::of)?;
        let writer = TopicWriter {
            producer,
            topic: topic.to_owned(),
        };
        writer.wait_for_topic(brokers)?;
        Ok(writer)
    }

    /// Asking for a topic creates it if the brokers allow that, which takes them a moment.
    fn wait_for_topic(&self, brokers: &str) -> Result<(), Reason> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let metadata = self
                .producer
                .client()
                .fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)
                .map_err(|error| unreachable(brokers, error))?;
            let topic = metadata
                .topics()
                .iter()
                .find(|topic| topic.name() == self.topic);
            if topic.is_some_and(|topic| topic.error().is_none() && !topic.partitions().is_empty())
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "unknown topic `{}` at {brokers}, and the brokers did not create it",
                    self.topic
                );
                return Err(what.into());
            }
            std::thread::sleep(TOPIC_RETRY);
        }
    }

    /// Queues a record; one without a value is a tombstone. Waits while the queue is full. Returns
    /// `false` if a record of any writer failed before this one could be queued.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, KafkaError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(QUEUE_FULL_WAIT);
                    if self.deliveries().failed() > 0 {
                        return Ok(false);
                    }
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Counts the outcomes of records since the last call.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until every record is delivered, at most for `timeout` and only until one fails.
    /// Records that are not delivered by then are discarded and count as failed.
    pub fn finish(self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // A flush, however short, makes librdkafka send what is queued at once.
        while self.producer.in_flight_count() > 0
            && Instant::now() < deadline
            && self.deliveries().failed() == 0
        {
            let _ = self.producer.flush(QUEUE_FULL_WAIT);
        }
        if self.producer.in_flight_count() > 0 {
            self.producer
                .purge(PurgeConfig::default().queue().inflight());
            let _ = self.producer.flush(Duration::from_secs(1));
        }
    }

    fn deliveries(&self) -> &Deliveries {
        &self.producer.client().context().deliveries
    }
}
