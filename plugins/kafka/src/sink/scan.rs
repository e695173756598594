//! Reading the positions topic from its beginning to its end.

use std::time::{Duration, Instant};

use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSink;
use crate::logs::ClientLogs;
use crate::native::{Consumer, Fetched, NativeError, TopicPartition};

/// How long one question may take, and how long a transaction of another sink may stand in the way.
/// Brokers abort transactions after a quarter of an hour at the latest, unless they are set
/// otherwise; those of this sink much sooner.
const QUESTION: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(900);
const AT_ONCE: usize = 4096;

/// Reads the positions topic.
pub(super) struct Scanner {
    topic: String,
    /// Reads committed messages.
    consumer: Consumer,
    partitions: Vec<TopicPartition>,
    stop: Stop,
}

/// How far to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// To the end as it is now. Transactions that are open before it are waited for: committed
    /// messages of ours may be behind them.
    WithOpenTransactions,
    /// To the first transaction that is open.
    Readable,
}

/// A partition that is being read.
struct Reading {
    at: TopicPartition,
    /// The end as it was when the partition was first looked at.
    end: Option<i64>,
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
            .partitions_of(&topic, QUESTION)
            .map_err(|error| failed(&topic, &error))?;
        Ok(Scanner {
            topic,
            consumer,
            partitions,
            stop,
        })
    }

    /// Calls `each` with the key and the value of every committed message of these partitions, in
    /// the order of each partition.
    pub(super) fn read(
        &self,
        extent: Extent,
        partitions: impl Fn(i32) -> bool,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let wanted = self.partitions.iter().filter(|at| partitions(at.partition));
        let mut reading: Vec<Reading> = wanted
            .map(|at| Reading {
                at: at.clone(),
                end: None,
            })
            .collect();
        let mut list = TopicPartitionList::new();
        for Reading { at, .. } in &reading {
            // It fails only for offsets that have no number.
            let _ = list.add_partition_offset(&at.topic, at.partition, Offset::Beginning);
        }
        self.consumer
            .assign(&list)
            .map_err(|error| failed(&self.topic, &error))?;
        let mut fetched = Fetched::with_capacity(AT_ONCE);
        let deadline = Instant::now() + PATIENCE;
        while !reading.is_empty() {
            if self.stop.leaving_now() || Instant::now() >= deadline {
                return Err(SinkError::Transient(format!(
                    "the end of {} cannot be read; is a transaction open there?",
                    self.topic
                )));
            }
            self.consumer.fetch(&mut fetched, Duration::from_millis(50));
            for message in fetched.iter_from(0) {
                match message.error() {
                    None => {
                        if let Some(key) = message.key() {
                            each(key, message.payload())?;
                        }
                    }
                    // The end, as readers of committed messages see it.
                    Some(error) if error.code == RDKafkaErrorCode::PartitionEOF => {
                        reading.retain(|reading| {
                            let is_at = reading.at.partition == message.partition();
                            !is_at
                                || extent == Extent::WithOpenTransactions
                                    && self
                                        .end_of(reading)
                                        .is_none_or(|end| message.offset() < end)
                        })
                    }
                    Some(error) => {
                        tracing::debug!(topic = self.topic, %error, "the positions are still being read")
                    }
                }
            }
            self.forget_reached(&mut reading);
        }
        Ok(())
    }

    /// The end of a partition with what is not committed yet, as it was at the first look; unknown
    /// before the broker has answered.
    fn end_of(&self, reading: &Reading) -> Option<i64> {
        reading
            .end
            .or_else(|| self.consumer.last_high_watermark(&reading.at))
    }

    /// Takes out the partitions that were read up to their ends; markers of transactions count,
    /// though they are not handed out.
    fn forget_reached(&self, reading: &mut Vec<Reading>) {
        for one in reading.iter_mut() {
            one.end = self.end_of(one);
        }
        let names: Vec<TopicPartition> = reading.iter().map(|one| one.at.clone()).collect();
        let Ok(positions) = self.consumer.positions(&names) else {
            return;
        };
        let mut positions = positions.into_iter();
        reading.retain(|one| {
            let reached = positions.next().flatten();
            !matches!((reached, one.end), (Some(reached), Some(end)) if reached.offset >= end)
        });
    }
}

fn failed(topic: &str, error: &NativeError) -> SinkError {
    SinkError::Transient(format!("cannot read positions from {topic}: {error}"))
}
