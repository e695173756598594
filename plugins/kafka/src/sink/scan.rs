//! Reading the positions topic from its beginning to its end.

use std::time::{Duration, Instant};

use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaSink;
use crate::logs::ClientLogs;
use crate::native::{Consumer, Fetched, NativeError, TopicPartition};

/// How long one question may take, and how long a transaction of somebody else may stand in the way. Brokers give up transactions after a
/// quarter of an hour at the latest, unless told otherwise; those of this sink much sooner.
const QUESTION: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(900);
const AT_ONCE: usize = 4096;

/// Reads once.
pub(super) struct Scanner {
    topic: String,
    /// Reads committed messages.
    committed: Consumer,
    /// Sees the end as it is, with what is not committed yet.
    uncommitted: Consumer,
    partitions: Vec<TopicPartition>,
    stop: Stop,
}

impl Scanner {
    /// Starts at the beginning.
    pub(super) fn new(sink: &KafkaSink, stage: &str, base: &std::path::Path, stop: Stop) -> Result<Scanner, SinkError> {
        let topic = sink.positions_topic.clone();
        let consumer = |isolation: &str| {
            let settings = [
                ("group.id", "pseidon-positions".to_owned()),
                ("enable.auto.commit", "false".to_owned()),
                ("auto.offset.reset", "earliest".to_owned()),
                ("enable.partition.eof", "true".to_owned()),
                ("isolation.level", isolation.to_owned()),
            ];
            Consumer::new(&sink.connection.config(base, &settings), ClientLogs::new(stage)).map_err(SinkError::Fatal)
        };
        let (committed, uncommitted) = (consumer("read_committed")?, consumer("read_uncommitted")?);
        let partitions = committed.partitions_of(&topic, QUESTION).map_err(|error| failed(&topic, &error))?;
        let mut list = TopicPartitionList::new();
        for at in &partitions {
            // It fails only for offsets that have no number.
            let _ = list.add_partition_offset(&at.topic, at.partition, Offset::Beginning);
        }
        committed.assign(&list).map_err(|error| failed(&topic, &error))?;
        Ok(Scanner { topic, committed, uncommitted, partitions, stop })
    }

    /// Calls `each` with the key and the value of every committed message up to the end as it is now, in order. Transactions that are open
    /// before that end are waited for: what they hide may be ours.
    pub(super) fn read_to_end(self, mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), SinkError>) -> Result<(), SinkError> {
        let mut ends = Vec::new();
        for at in &self.partitions {
            let (low, high) = self.uncommitted.watermarks(at, QUESTION).map_err(|error| failed(&self.topic, &error))?;
            if high > low {
                ends.push((at.clone(), high));
            }
        }
        let mut fetched = Fetched::with_capacity(AT_ONCE);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.forget_reached(&mut ends);
            if ends.is_empty() {
                return Ok(());
            }
            if self.stop.leaving_now() || Instant::now() >= deadline {
                return Err(SinkError::Transient(format!("the end of {} cannot be read; is a transaction open there?", self.topic)));
            }
            self.committed.fetch(&mut fetched, Duration::from_millis(50));
            for message in fetched.iter_from(0) {
                if let Some(error) = message.error() {
                    // At the end as readers of committed messages see it.
                    ends.retain(|(at, end)| at.partition != message.partition() || message.offset() < *end);
                    if error.code != rdkafka::types::RDKafkaErrorCode::PartitionEOF {
                        tracing::debug!(topic = self.topic, %error, "positions are read on");
                    }
                } else if let Some(key) = message.key() {
                    each(key, message.payload())?;
                }
            }
        }
    }

    /// Takes out the partitions that were read up to their end; markers of transactions count, though they are not handed out.
    fn forget_reached(&self, ends: &mut Vec<(TopicPartition, i64)>) {
        let mut list = TopicPartitionList::new();
        for (at, _) in ends.iter() {
            list.add_partition(&at.topic, at.partition);
        }
        if self.committed.positions(&mut list).is_err() {
            return;
        }
        ends.retain(|(at, end)| {
            let reached = list.find_partition(&at.topic, at.partition).and_then(|element| element.offset().to_raw());
            reached.is_none_or(|reached| reached < *end)
        });
    }
}

fn failed(topic: &str, error: &NativeError) -> SinkError {
    SinkError::Transient(format!("cannot read positions from {topic}: {error}"))
}
