//! Reading the positions topic from its beginning to its end.

use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSink;
use crate::logs::ClientLogs;
use crate::native::{Consumer, Isolation, MessageBatch, NativeError, TopicPartition};

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the leader of a partition, and how often to ask again.
const LEADER_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long to wait for an open transaction of another sink. Brokers abort transactions after at
/// most a quarter of an hour by default, and those of this sink much sooner.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(900);
/// The maximum number of messages of one fetch.
const FETCH_MESSAGES: usize = 4096;

/// A reader of the positions topic.
pub(super) struct Scanner {
    topic: String,
    /// Returns committed messages only.
    consumer: Consumer,
    partitions: Vec<TopicPartition>,
    stop: Stop,
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanExtent {
    /// To the current end. Waits for transactions that are open before it, since committed messages
    /// of this sink may follow them.
    WithOpenTransactions,
    /// To the first open transaction.
    Readable,
}

/// A partition that is being read.
struct ScannedPartition {
    at: TopicPartition,
    /// The end of the partition when reading began. What fetches say about it may be older, after
    /// another broker has become the leader.
    end: i64,
}

impl Scanner {
    /// A scanner of the positions topic.
    pub(super) fn new(
        sink: &KafkaSink,
        stage: &str,
        base: &std::path::Path,
        stop: Stop,
    ) -> Result<Scanner, SinkError> {
        let topic = sink.positions_topic.clone();
        let settings = [
            ("group.id", "pseidon-positions".to_owned()),
            ("enable.auto.commit", "false".to_owned()),
            ("auto.offset.reset", "earliest".to_owned()),
            ("enable.partition.eof", "true".to_owned()),
            ("isolation.level", "read_committed".to_owned()),
        ];
        let config = sink.connection.consumer_config(base, &settings);
        let consumer = Consumer::new(&config, ClientLogs::new(stage)).map_err(SinkError::Fatal)?;
        let partitions = consumer
            .partitions_of(&topic, REQUEST_TIMEOUT)
            .map_err(|error| failed(&topic, error))?;
        Ok(Scanner {
            topic,
            consumer,
            partitions,
            stop,
        })
    }

    /// The number of partitions of the topic.
    pub(super) fn partition_count(&self) -> u64 {
        self.partitions.len() as u64
    }

    /// Calls `each` with the partition, the key and the value of every committed message of these
    /// partitions, in the order of each partition.
    pub(super) fn read(
        &self,
        extent: ScanExtent,
        partitions: impl Fn(i32) -> bool,
        mut each: impl FnMut(i32, &[u8], Option<&[u8]>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let wanted = self.partitions.iter().filter(|at| partitions(at.partition));
        let wanted: Vec<TopicPartition> = wanted.cloned().collect();
        let ends = self.ends(&wanted, extent)?;
        let mut reading: Vec<ScannedPartition> = wanted
            .into_iter()
            .zip(ends)
            .map(|(at, end)| ScannedPartition { at, end })
            .collect();
        let mut list = TopicPartitionList::new();
        for ScannedPartition { at, .. } in &reading {
            // This fails only for offsets without a number.
            let _ = list.add_partition_offset(&at.topic, at.partition, Offset::Beginning);
        }
        self.consumer
            .assign(&list)
            .map_err(|error| failed(&self.topic, error))?;
        let mut fetched = MessageBatch::with_capacity(FETCH_MESSAGES);
        let deadline = Instant::now() + TRANSACTION_TIMEOUT;
        while !reading.is_empty() {
            if self.stop.leaving_now() || Instant::now() >= deadline {
                return Err(SinkError::Transient(
                    format!(
                        "cannot read {} to its end, probably because a transaction is open there",
                        self.topic
                    )
                    .into(),
                ));
            }
            self.consumer.fetch(&mut fetched, Duration::from_millis(50));
            for message in fetched.iter_from(0) {
                match message.error() {
                    None => {
                        if let Some(key) = message.key() {
                            each(message.partition(), key, message.payload())?;
                        }
                    }
                    // The end of the committed messages.
                    Some(error) if error.code == RDKafkaErrorCode::PartitionEOF => {
                        reading.retain(|reading| {
                            let is_at = reading.at.partition == message.partition();
                            !is_at || message.offset() < reading.end
                        })
                    }
                    Some(error) => {
                        tracing::debug!(
                            topic = self.topic, %error,
                            "the positions are still being read"
                        )
                    }
                }
            }
            self.forget_reached(&mut reading);
        }
        Ok(())
    }

    /// Where to stop reading each partition. Waits for one without a leader.
    fn ends(
        &self,
        partitions: &[TopicPartition],
        extent: ScanExtent,
    ) -> Result<Vec<i64>, SinkError> {
        let isolation = match extent {
            ScanExtent::WithOpenTransactions => Isolation::ReadUncommitted,
            ScanExtent::Readable => Isolation::ReadCommitted,
        };
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            match self.consumer.ends(partitions, isolation, REQUEST_TIMEOUT) {
                Ok(ends) => return Ok(ends),
                Err(error) if self.stop.leaving_now() || Instant::now() >= deadline => {
                    return Err(failed(&self.topic, error));
                }
                Err(error) => {
                    tracing::debug!(topic = self.topic, %error, "cannot look up the end; retrying");
                    std::thread::sleep(RETRY_INTERVAL);
                }
            }
        }
    }

    /// Removes the partitions that were read to their ends. Transaction markers count, although
    /// they are not returned.
    fn forget_reached(&self, reading: &mut Vec<ScannedPartition>) {
        let names: Vec<TopicPartition> = reading.iter().map(|one| one.at.clone()).collect();
        let Ok(positions) = self.consumer.positions(&names) else {
            return;
        };
        let mut positions = positions.into_iter();
        reading.retain(|one| {
            let reached = positions.next().flatten();
            reached.is_none_or(|reached| reached.offset < one.end)
        });
    }
}

fn failed(topic: &str, error: NativeError) -> SinkError {
    SinkError::Transient(Reason::caused_by(
        format!("cannot read positions from {topic}"),
        error,
    ))
}
