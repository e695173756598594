//! Writes transactions, one after another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pseidon_delivery::committer::Abandon;
use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{Committer, LaneCommit, LaneId, Position, SplitCommit, SplitId};
use pseidon_plugin::sink::{Chunk, SinkError, Writer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::KafkaSink;
use super::positions::{self, Keys, position_after};
use super::producer::{TransactionalProducer, meaning};
use super::record::Messages;

/// How often positions are written that moved although no record was (all were filtered out).
const IDLE_COMMIT: Duration = Duration::from_secs(5);
/// How often the age of a transaction is looked at, at most and at least.
const SHORTEST_TICK: Duration = Duration::from_millis(20);
const LONGEST_TICK: Duration = Duration::from_millis(250);

/// The writer.
pub(super) struct TransactionWriter {
    sink: KafkaSink,
    producer: Arc<TransactionalProducer>,
    committer: Arc<Committer>,
    keys: Keys,
    lane: LaneId,
    bytes_out: IntCounter,
    open: Option<Open>,
    last_commit: Instant,
}

/// The open transaction.
struct Open {
    since: Instant,
    records: u64,
    /// Up to where it holds each split.
    splits: HashMap<SplitId, Position>,
}

impl TransactionWriter {
    pub(super) fn new(
        sink: KafkaSink,
        producer: Arc<TransactionalProducer>,
        committer: Arc<Committer>,
        keys: Keys,
        lane: LaneId,
        bytes_out: IntCounter,
    ) -> TransactionWriter {
        TransactionWriter { sink, producer, committer, keys, lane, bytes_out, open: None, last_commit: Instant::now() }
    }

    fn send_all(&mut self, chunk: &Chunk) -> KafkaResult<()> {
        let rows = &chunk.rows;
        if self.open.is_none() {
            self.producer.begin()?;
            self.open = Some(Open { since: Instant::now(), records: 0, splits: HashMap::new() });
        }
        let messages = Messages::new(rows.columns());
        let mut bytes = 0;
        for row in 0..rows.len() {
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.sink.topic);
            record.payload = messages.value(row).or_else(|| rows.payload(row).filter(|_| self.sink.plan.writes_as_came()));
            record.key = messages.key(row);
            record.partition = messages.partition(row);
            record.timestamp = messages.timestamp(row);
            if messages.has_headers() {
                let none = OwnedHeaders::new();
                record.headers = Some(messages.headers(row).fold(none, |all, (key, value)| all.insert(Header { key, value: Some(value) })));
            }
            bytes += record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            self.producer.send(record)?;
        }
        self.producer.poll()?;
        self.bytes_out.inc_by(bytes as u64);
        if let Some(open) = &mut self.open
            && let Some(last) = rows.len().checked_sub(1)
        {
            open.records += rows.len() as u64;
            open.splits.insert(rows.batch().split.id.clone(), rows.position(last) + 1);
        }
        Ok(())
    }

    /// Commits the open transaction, with the positions of what it holds.
    fn commit(&mut self) -> Result<(), SinkError> {
        let Some(open) = &self.open else { return Ok(()) };
        let splits = open.splits.iter().map(|(split, upto)| (split.clone(), *upto)).collect();
        self.commit_lanes(&[LaneCommit { lane: self.lane.clone(), splits }])
    }

    /// Writes the positions that moved without a record. There must be no open transaction.
    fn commit_idle(&mut self) -> Result<(), SinkError> {
        self.commit_lanes(&[])
    }

    fn commit_lanes(&mut self, lanes: &[LaneCommit]) -> Result<(), SinkError> {
        let mut failure = None;
        let outcome = self.committer.commit_through(lanes, |splits| {
            self.finish_transaction(lanes.is_empty(), splits).map_err(|error| {
                failure = Some(meaning(&error, splits.iter().map(|commit| commit.split.clone())));
                Abandon::Stopped
            })
        });
        match (outcome, failure) {
            (Ok(()), _) => {
                self.open = None;
                self.last_commit = Instant::now();
                Ok(())
            }
            (Err(_), Some(failure)) => Err(failure),
            (Err(abandon), None) => Err(abandon.into()),
        }
    }

    fn finish_transaction(&self, begin: bool, splits: &[SplitCommit]) -> KafkaResult<()> {
        if begin {
            self.producer.begin()?;
        }
        for commit in splits {
            let value = positions::value(position_after(commit, &self.lane));
            self.producer.send(BaseRecord::to(&self.sink.positions_topic).key(&self.keys.key(&commit.split)).payload(&value))?;
        }
        reach("kafka-positions-sent");
        self.producer.commit()?;
        reach("kafka-committed");
        Ok(())
    }
}

impl Writer for TransactionWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        self.send_all(&chunk).map_err(|error| meaning(&error, [chunk.rows.batch().split.id.clone()]))?;
        reach("kafka-produced");
        if self.open.as_ref().is_some_and(|open| open.records >= self.sink.records) { self.commit() } else { Ok(()) }
    }

    fn tick_every(&self) -> Duration {
        (self.sink.age / 4).clamp(SHORTEST_TICK, LONGEST_TICK)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.producer.poll().map_err(|error| meaning(&error, []))?;
        match &self.open {
            Some(open) if open.since.elapsed() >= self.sink.age => self.commit(),
            None if self.last_commit.elapsed() >= IDLE_COMMIT => {
                self.last_commit = Instant::now();
                self.commit_idle()
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let concerned = |open: &Open| splits.is_none_or(|splits| splits.iter().any(|split| open.splits.contains_key(split)));
        if self.open.as_ref().is_some_and(concerned) {
            self.commit()?;
        }
        if self.open.is_none() { self.commit_idle() } else { Ok(()) }
    }
}

impl Drop for TransactionWriter {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.producer.abort();
        }
    }
}
