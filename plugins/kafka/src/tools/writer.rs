//! Records into a topic, as fast as the brokers take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;

use super::{PATIENCE, config, unreachable};
use crate::logs::ClientLogs;
use crate::topics::check_name;

/// How long to wait for room before it is looked again whether records arrive at all.
const FULL: Duration = Duration::from_millis(10);
/// How long to wait before a topic that is being made is asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// What became of the records of some writers.
#[derive(Debug, Default)]
pub struct Deliveries {
    records: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    reason: Mutex<Option<String>>,
}

impl Deliveries {
    /// How many records the brokers have acknowledged.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The bytes of their keys and values, before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many records were given up.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of these was given up.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }
}

/// What the client tells: log lines, and what became of each record.
struct Reports {
    logs: ClientLogs,
    deliveries: Arc<Deliveries>,
}

impl ClientContext for Reports {
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

impl ProducerContext for Reports {
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
/// written once even where it is sent again.
pub struct TopicWriter {
    producer: BaseProducer<Reports>,
    topic: String,
}

impl TopicWriter {
    /// Connects to `brokers` (`host:port,host:port`) with librdkafka's `properties`. The error says
    /// why that cannot be, or that the topic is not there and the brokers do not make it.
    pub fn open(
        brokers: &str,
        topic: &str,
        properties: &[(String, String)],
        deliveries: Arc<Deliveries>,
    ) -> Result<TopicWriter, String> {
        check_name(topic)?;
        let settings = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.kbytes", "32768"),
        ];
        let reports = Reports {
            logs: ClientLogs::new("produce"),
            deliveries,
        };
        let producer: BaseProducer<Reports> = config(brokers, &settings, properties)
            .create_with_context(reports)
            .map_err(|error| error.to_string())?;
        let writer = TopicWriter {
            producer,
            topic: topic.to_owned(),
        };
        writer.wait_for_topic(brokers)?;
        Ok(writer)
    }

    /// Asking for a topic makes it, where the brokers allow that; it takes them a moment.
    fn wait_for_topic(&self, brokers: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metadata = self
                .producer
                .client()
                .fetch_metadata(Some(&self.topic), PATIENCE)
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
                return Err(format!(
                    "there is no topic {} at {brokers}, and asking for it has not made it",
                    self.topic
                ));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Takes a record; one without a value is a tombstone. Waits while too many are on their way;
    /// gives whether it could be taken before one of any writer was given up.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, String> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(FULL);
                    if self.deliveries().failed() > 0 {
                        return Ok(false);
                    }
                    record = back;
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
    }

    /// Counts what has become of records since the last call.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until every record has arrived, at most for `patience` and not after one was given up.
    /// Those that have not are given up then.
    pub fn finish(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // librdkafka sends what waits at once when somebody asks for a flush, however short.
        while self.producer.in_flight_count() > 0
            && Instant::now() < deadline
            && self.deliveries().failed() == 0
        {
            let _ = self.producer.flush(FULL);
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
