//! Writes transactions, one after another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pseidon_delivery::committer::Abandon;
use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{Committer, LaneCommit, LaneId, SplitCommit, SplitId};
use pseidon_plugin::sink::{Chunk, SinkError, Writer};
use pseidon_plugin::waiting::about_to_wait;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Header;
use rdkafka::producer::BaseRecord;

use super::KafkaSink;
use super::health::Health;
use super::positions::{self, Keys, position_after};
use super::producer::TransactionalProducer;
use super::record::Messages;
use super::reports::NO_RECORD;
use super::transaction::Transaction;

/// How often positions are written that moved although no record was (all were filtered out).
const IDLE_COMMIT: Duration = Duration::from_secs(5);
/// How often the age of a transaction is looked at, at most and at least.
const SHORTEST_TICK: Duration = Duration::from_millis(20);
const LONGEST_TICK: Duration = Duration::from_millis(250);
/// A split that has not come to us by then is with another instance.
const STEADY: Duration = Duration::from_secs(60);

/// The writer.
pub(super) struct TransactionWriter {
    pub(super) sink: KafkaSink,
    pub(super) producer: Arc<TransactionalProducer>,
    pub(super) committer: Arc<Committer>,
    pub(super) keys: Keys,
    pub(super) lane: LaneId,
    pub(super) bytes_out: IntCounter,
    pub(super) health: Health,
    pub(super) opened: Instant,
    pub(super) open: Option<Transaction>,
    pub(super) last_commit: Instant,
}

impl TransactionWriter {
    fn send_all(&mut self, chunk: &Chunk) -> KafkaResult<()> {
        let rows = &chunk.rows;
        if self.open.is_none() {
            self.producer.begin()?;
        }
        let open = self.open.get_or_insert_with(Transaction::new);
        let first = open.records();
        open.add(rows);
        let messages = Messages::new(rows.columns());
        let mut bytes = 0;
        for row in 0..rows.len() {
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.sink.topic, first + row);
            record.payload = messages.value(row).or_else(|| rows.payload(row).filter(|_| self.sink.plan.writes_as_came()));
            record.key = messages.key(row);
            record.partition = messages.partition(row);
            record.timestamp = messages.timestamp(row);
            for (name, value) in messages.headers(row) {
                // Names that are not UTF-8 text were refused.
                let header = Header { key: std::str::from_utf8(name).unwrap_or_default(), value };
                record.headers = Some(record.headers.take().unwrap_or_default().insert(header));
            }
            bytes += record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            self.producer.send(record)?;
        }
        self.producer.poll()?;
        self.bytes_out.inc_by(bytes as u64);
        Ok(())
    }

    /// Commits the open transaction, with the positions of what it holds.
    fn commit(&mut self) -> Result<(), SinkError> {
        let Some(open) = &self.open else { return Ok(()) };
        let splits = open.splits();
        self.commit_lanes(&[LaneCommit { lane: self.lane.clone(), splits }])
    }

    /// Writes the positions that moved without a record. There must be no open transaction.
    fn commit_idle(&mut self) -> Result<(), SinkError> {
        self.commit_lanes(&[])?;
        self.health.well();
        Ok(())
    }

    fn commit_lanes(&mut self, lanes: &[LaneCommit]) -> Result<(), SinkError> {
        let mut failure = None;
        let outcome = self.committer.commit_through(lanes, |splits| {
            self.finish_transaction(lanes.is_empty(), splits).map_err(|error| {
                failure = Some((error, splits.iter().map(|commit| commit.split.clone()).collect::<Vec<_>>()));
                Abandon::Stopped
            })
        });
        match (outcome, failure) {
            (Ok(()), _) => {
                self.open = None;
                self.last_commit = Instant::now();
                if lanes.is_empty() { Ok(()) } else { self.settle_refusals() }
            }
            (Err(_), Some((error, splits))) => Err(self.failed(error, splits)),
            (Err(abandon), None) => Err(abandon.into()),
        }
    }

    fn finish_transaction(&self, begin: bool, splits: &[SplitCommit]) -> KafkaResult<()> {
        if begin {
            self.producer.begin()?;
        }
        for commit in splits {
            let value = positions::value(position_after(commit, &self.lane));
            let key = self.keys.key(&commit.split);
            let record = BaseRecord::with_opaque_to(&self.sink.positions_topic, NO_RECORD).partition(self.keys.partition());
            self.producer.send(record.key(&key).payload(&value))?;
        }
        reach("kafka-positions-sent");
        self.producer.commit()?;
        reach("kafka-committed");
        Ok(())
    }

    /// What is durable was judged: what is known of it is forgotten. Without suspects, records can share batches again.
    fn settle_refusals(&self) -> Result<(), SinkError> {
        let lows = self.committer.ledger().lows();
        self.sink.refusals.forget_below(&lows, self.opened.elapsed() >= STEADY);
        if self.producer.sends_alone() && !self.sink.refusals.has_suspects() {
            return Err(SinkError::Refused(
                "the records of a refused batch were judged one by one; from now on they share batches again".to_owned(),
            ));
        }
        Ok(())
    }

    /// What a failure means: records that were refused are noted for the next attempt, which goes on without them.
    fn failed(&mut self, error: KafkaError, splits: impl IntoIterator<Item = SplitId>) -> SinkError {
        about_to_wait();
        let error = self.producer.cause(error);
        let undelivered = self.producer.abort();
        let open = self.open.take();
        if let Some(open) = &open {
            let refusals = open.refusals(&undelivered, self.producer.sends_alone());
            if self.sink.refusals.note(&refusals)
                && let Some(first) = refusals.first()
            {
                let named = if first.is_certain { "record" } else { "batch with the record" };
                let (count, position, split, reason) = (refusals.len(), first.position, &first.split, &first.reason);
                return SinkError::Refused(format!(
                    "the broker refuses the {named} at position {position} of {split} ({count} in all): {reason}"
                ));
            }
        }
        let meaning = self.producer.meaning(&error, open.map_or(Duration::ZERO, |open| open.age()), splits);
        if !matches!(meaning, SinkError::Abandon(_)) {
            self.health.ill();
        }
        meaning
    }
}

impl Writer for TransactionWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        self.send_all(&chunk).map_err(|error| self.failed(error, [chunk.rows.batch().split.id.clone()]))?;
        reach("kafka-produced");
        if self.open.as_ref().is_some_and(|open| open.records() as u64 >= self.sink.records) { self.commit() } else { Ok(()) }
    }

    fn tick_every(&self) -> Duration {
        (self.sink.age / 4).clamp(SHORTEST_TICK, LONGEST_TICK)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.producer.poll().map_err(|error| self.failed(error, []))?;
        match &self.open {
            Some(open) if open.age() >= self.sink.age => self.commit(),
            None if self.last_commit.elapsed() >= IDLE_COMMIT => {
                self.last_commit = Instant::now();
                self.commit_idle()
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let concerned = |open: &Transaction| splits.is_none_or(|splits| splits.iter().any(|split| open.holds(split)));
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
