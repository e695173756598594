//! The sink's lane: a transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{Committer, LaneId, SplitCommit, SplitId};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Lane, Room, SealOutcome, Transaction};
use pseidon_plugin::sink::SinkError;
use pseidon_plugin::waiting::about_to_wait;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Header;
use rdkafka::producer::BaseRecord;

use super::KafkaSink;
use super::health::SinkHealth;
use super::messages::Messages;
use super::positions::PositionKeys;
use super::producer::TransactionalProducer;
use super::reports::NOT_A_RECORD;
use super::transaction::TransactionContent;

/// A split that was not taken over within this time after opening is owned by another instance.
const SETTLED: Duration = Duration::from_secs(60);

/// The state that the transactions of a run share. One is open at a time.
pub(super) struct ProducerRun {
    pub(super) sink: KafkaSink,
    pub(super) producer: TransactionalProducer,
    pub(super) committer: Arc<Committer>,
    pub(super) keys: PositionKeys,
    pub(super) lane: LaneId,
    pub(super) bytes_out: IntCounter,
    pub(super) health: SinkHealth,
    pub(super) opened: Instant,
}

impl ProducerRun {
    /// Removes the refusals of durable records, which were judged. Once no suspects are left, the
    /// run restarts with records that share batches again.
    fn settle_refusals(&self) -> Result<(), SinkError> {
        let low = |split: &SplitId| self.committer.ledger().low(split);
        self.sink
            .refusals
            .forget_below(low, self.opened.elapsed() >= SETTLED);
        if self.producer.sends_alone() && !self.sink.refusals.has_suspects() {
            return Err(SinkError::Refused(
                "the records of a refused batch were checked one by one; restarting with full \
                 batches"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// A transaction. It is opened with the first record, or with the commit if there is none.
pub(super) struct TransactionLane {
    run: Arc<ProducerRun>,
    open: Option<TransactionContent>,
    has_records: bool,
}

impl TransactionLane {
    /// A transaction without records.
    pub(super) fn new(run: Arc<ProducerRun>) -> TransactionLane {
        TransactionLane {
            run,
            open: None,
            has_records: false,
        }
    }

    fn send_all(&mut self, rows: &Rows) -> KafkaResult<()> {
        if self.open.is_none() {
            self.run.producer.begin()?;
        }
        let open = self.open.get_or_insert_with(TransactionContent::new);
        self.has_records = true;
        let first = open.records();
        open.add(rows);
        let messages = Messages::new(rows.columns());
        let mut bytes = 0;
        for row in 0..rows.len() {
            let mut record =
                BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.run.sink.topic, first + row);
            record.payload = messages.value(row).or_else(|| {
                rows.payload(row)
                    .filter(|_| self.run.sink.plan.copies_value())
            });
            record.key = messages.key(row);
            record.partition = messages.partition(row);
            record.timestamp = messages.timestamp(row);
            for (name, value) in messages.headers(row) {
                // Names that are not UTF-8 were refused before.
                let header = Header {
                    key: std::str::from_utf8(name).unwrap_or_default(),
                    value,
                };
                record.headers = Some(record.headers.take().unwrap_or_default().insert(header));
            }
            bytes += record.payload.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            self.run.producer.send(record)?;
        }
        self.run.producer.poll()?;
        self.run.bytes_out.inc_by(bytes as u64);
        Ok(())
    }

    fn finish(&self, splits: &[SplitCommit]) -> KafkaResult<()> {
        let run = &self.run;
        if self.open.is_none() {
            run.producer.begin()?;
        }
        for commit in splits {
            let value = run.keys.value(commit.upto(&run.lane));
            let key = run.keys.key(&commit.split);
            let record = BaseRecord::with_opaque_to(&run.sink.positions_topic, NOT_A_RECORD)
                .partition(run.keys.partition());
            run.producer.send(record.key(&key).payload(&value))?;
        }
        reach("kafka-positions-sent");
        run.producer.commit()?;
        reach("kafka-committed");
        Ok(())
    }

    /// The error of a failed transaction. Refused records are recorded for the next attempt, which
    /// leaves them out.
    pub(super) fn failure(
        &mut self,
        error: KafkaError,
        splits: impl IntoIterator<Item = SplitId>,
    ) -> SinkError {
        about_to_wait();
        let run = &self.run;
        let error = run.producer.cause(error);
        let undelivered = run.producer.abort();
        let open = self.open.take();
        if let Some(open) = &open {
            for (split, positions) in open.sent() {
                run.sink.refusals.note_sent(split, positions);
            }
            let refusals = open.refusals(&undelivered, run.producer.sends_alone());
            if run.sink.refusals.note(&refusals)
                && let Some(first) = refusals.first()
            {
                let named = if first.is_certain {
                    "record"
                } else {
                    "batch with the record"
                };
                let (count, position, split, reason) =
                    (refusals.len(), first.position, &first.split, &first.reason);
                let what = format!(
                    "the broker refuses the {named} at position {position} of {split} ({count} in \
                     total): {reason}"
                );
                return SinkError::Refused(what.into());
            }
        }
        let sink_error = run.producer.sink_error(
            error,
            open.map_or(Duration::ZERO, |open| open.age()),
            splits,
        );
        if !matches!(sink_error, SinkError::Committer(_)) {
            run.health.set_blocked();
        }
        sink_error
    }
}

impl Lane for TransactionLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        self.send_all(rows)
            .map_err(|error| self.failure(error, [rows.batch().split.id.clone()]))?;
        reach("kafka-produced");
        Ok(Room::Ready)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.run
            .producer
            .poll()
            .map_err(|error| self.failure(error, []))
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Transaction(self))
    }
}

impl Transaction for TransactionLane {
    fn commit(&mut self, splits: &[SplitCommit]) -> Result<(), SinkError> {
        let outcome = self.finish(splits);
        outcome.map_err(|error| {
            self.failure(error, splits.iter().map(|commit| commit.split.clone()))
        })?;
        self.open = None;
        Ok(())
    }

    fn committed(self: Box<Self>) -> Result<(), SinkError> {
        if self.has_records {
            return self.run.settle_refusals();
        }
        self.run.health.set_writing();
        Ok(())
    }
}

impl Drop for TransactionLane {
    fn drop(&mut self) {
        if self.open.is_some() {
            self.run.producer.abort();
        }
    }
}
