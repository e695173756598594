//! The ETL threads: from a batch to chunks in lanes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{Receiver, Sender};
use pseidon_delivery::Committer;
use pseidon_plan::chain::{Policy, Step};
use pseidon_plan::{Plan, quarantine};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::{Chunk, Sink};

use crate::failure::Failure;
use crate::order::{OrderedSplit, Outcome};
use crate::process::{BadRecord, Exits, Processor};
use crate::writers::WriterMessage;

/// A batch in the queue.
pub(crate) struct Unit {
    pub(crate) source: usize,
    pub(crate) split: Arc<OrderedSplit>,
    pub(crate) number: u64,
    pub(crate) batch: Batch,
}

/// A sink in this attempt.
pub(crate) struct OpenSink {
    pub(crate) stage: String,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) committer: Arc<Committer>,
    /// The writer that has all lanes, for a sink that wants one.
    pub(crate) only_writer: Option<usize>,
}

/// What the ETL threads share.
pub(crate) struct Etl<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) sinks: &'a [OpenSink],
    pub(crate) writers: Vec<Sender<WriterMessage>>,
    pub(crate) metrics: Metrics,
}

impl Etl<'_> {
    /// Works until the queue is closed.
    pub(crate) fn work(&self, queue: Receiver<Unit>) -> Result<(), Failure> {
        let mut processors = Vec::new();
        for source in &self.plan.sources {
            processors.push(Processor::new(source).map_err(Failure::Fatal)?);
        }
        for unit in queue {
            let batch = Arc::new(unit.batch);
            let mut exits = Lanes { etl: self, chunks: Vec::new() };
            let processed = processors[unit.source].process(batch.clone(), &mut exits);
            let bad = processed.map_err(|thrown| Failure::Fatal(thrown.to_string()))?;
            let mut chunks = exits.chunks;
            chunks.extend(self.quarantine(&batch, bad)?);
            let outcome = Outcome { next: batch.next, chunks };
            let sinks = &self.plan.sources[unit.source].sinks;
            let split = unit.split.split.clone();
            unit.split.complete(unit.number, outcome, |outcome| self.dispatch(&split.id, sinks, outcome))?;
        }
        Ok(())
    }

    /// Enters a batch's chunks into the ledgers and hands them to the writers.
    fn dispatch(&self, split: &pseidon_delivery::SplitId, sinks: &[usize], outcome: Outcome) -> Result<(), Failure> {
        let mut to_send = Vec::with_capacity(outcome.chunks.len());
        for (number, chunk) in outcome.chunks {
            let mut ledger = self.sinks[number].committer.ledger();
            let held = ledger.already_held(split, &chunk.lane);
            let Some(chunk) = trim(chunk, held) else { continue };
            let (first, last) = (chunk.rows.position(0), chunk.rows.position(chunk.rows.len() - 1));
            ledger.dispatch(split, &chunk.lane, first, last);
            drop(ledger);
            to_send.push((number, chunk));
        }
        for number in sinks {
            self.sinks[*number].committer.ledger().advance(split, outcome.next);
        }
        for (number, chunk) in to_send {
            let sink = &self.sinks[number];
            self.metrics.records_out.with_label_values(&[&sink.stage]).inc_by(chunk.rows.len() as u64);
            let writer = sink.only_writer.unwrap_or_else(|| writer_of(&chunk.lane, self.writers.len()));
            self.writers[writer].send(WriterMessage::Chunk(number, chunk)).map_err(|_| Failure::Stopped)?;
        }
        Ok(())
    }

    fn quarantine(&self, batch: &Arc<Batch>, bad: Vec<BadRecord>) -> Result<Vec<(usize, Chunk)>, Failure> {
        let mut by_sink: Vec<(usize, Vec<BadRecord>)> = Vec::new();
        for record in bad {
            let Policy::Quarantine(sink) = record.policy else {
                self.metrics.bad_records.with_label_values(&[&record.stage, "dropped"]).inc();
                continue;
            };
            self.metrics.bad_records.with_label_values(&[&record.stage, "quarantined"]).inc();
            match by_sink.iter_mut().find(|(number, _)| *number == sink) {
                Some((_, records)) => records.push(record),
                None => by_sink.push((sink, vec![record])),
            }
        }
        let mut chunks = Vec::new();
        for (number, records) in by_sink {
            let broken = |error: arrow::error::ArrowError| Failure::Fatal(format!("bad records cannot be put aside: {error}"));
            let routed = self.sinks[number].sink.route(quarantined(batch, &records).map_err(broken)?);
            if let Some(row) = routed.bad.first() {
                return Err(Failure::Fatal(format!("a bad record cannot be put aside: {}", row.reason)));
            }
            chunks.extend(routed.chunks.into_iter().map(|chunk| (number, chunk)));
        }
        Ok(chunks)
    }
}

/// Collects the chunks of one batch.
struct Lanes<'e, 'a> {
    etl: &'e Etl<'a>,
    chunks: Vec<(usize, Chunk)>,
}

impl Exits for Lanes<'_, '_> {
    fn arrive(&mut self, sink: usize, rows: Rows) -> Vec<BadRow> {
        let routed = self.etl.sinks[sink].sink.route(rows);
        self.chunks.extend(routed.chunks.into_iter().map(|chunk| (sink, chunk)));
        routed.bad
    }

    fn passed(&mut self, _step: &Step, _rows: &Rows) {}
}

/// The rows from `held` on; those before are in the lane already.
fn trim(chunk: Chunk, held: pseidon_delivery::Position) -> Option<Chunk> {
    let rows = chunk.rows.len();
    let mut first = 0;
    while first < rows && chunk.rows.position(first) < held {
        first += 1;
    }
    match first {
        0 => Some(chunk),
        _ if first == rows => None,
        _ => Some(Chunk { rows: chunk.rows.slice(first, rows - first), lane: chunk.lane }),
    }
}

fn writer_of(lane: &pseidon_delivery::LaneId, writers: usize) -> usize {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    lane.hash(&mut hasher);
    hasher.finish() as usize % writers
}

/// Bad records as rows of [`quarantine::schema`].
fn quarantined(batch: &Arc<Batch>, records: &[BadRecord]) -> Result<Rows, arrow::error::ArrowError> {
    let numbers = UInt32Array::from_iter_values(records.iter().map(|record| record.number));
    let payload = |record: &BadRecord| batch.payloads.get(record.number as usize);
    let as_text = |record: &BadRecord| payload(record).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let as_base64 = |record: &BadRecord| match (payload(record), as_text(record)) {
        (Some(bytes), None) => Some(STANDARD.encode(bytes)),
        _ => None,
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.stage))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.reason))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|_| batch.split.id.as_str()))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|_| &batch.split.topic))),
        Arc::new(Int32Array::from_value(batch.split.partition, records.len())),
        Arc::new(UInt64Array::from_iter_values(records.iter().map(|record| batch.positions[record.number as usize]))),
        Arc::new(StringArray::from_iter(records.iter().map(as_text))),
        Arc::new(StringArray::from_iter(records.iter().map(as_base64))),
    ];
    Ok(Rows::derived(batch.clone(), numbers, RecordBatch::try_new(quarantine::schema(), columns)?))
}
