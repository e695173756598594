//! Processing records: a pass through the whole chain at once.
//!
//! The records of a batch usually pass together. If their results would take too much memory, or a
//! kernel of Arrow panics because they do, the pass has no results, and the caller tries
//! [fewer](Processor::at_once) records. Rows of one record are never divided. A single record that
//! is too large is invalid.

mod decode;
mod pass;

use std::ops::Range;
use std::sync::Arc;

use arrow::error::ArrowError;
use pseidon_delivery::{Position, Reason};
use pseidon_expr::panics::catch_panic;
use pseidon_plan::SinkIndex;
use pseidon_plan::chain::{ChainStep, PlannedSource, Policy};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::format::Decoder;
use pseidon_plugin::memory::ArrayMemory;
use pseidon_plugin::rows::{BadRow, Rows};
use thiserror::Error;

use self::decode::{all_invalid, decoder_of, of_records};
use self::pass::{ChainPass, Interruption};

/// The error for an invalid record at a stage with `:on-error :throw`.
#[derive(Debug, Error)]
#[error("stage `{stage}` cannot process the record at position {position} of {split}: {reason}")]
pub struct BadRecordError {
    /// The stage that cannot process the record.
    pub stage: String,
    /// The split of the record.
    pub split: String,
    /// The position of the record.
    pub position: Position,
    /// Why the stage cannot process it, without stage and position.
    pub reason: String,
}

/// A record that cannot be processed.
#[derive(Clone, Debug)]
pub struct BadRecord {
    /// The stage that cannot process it.
    pub stage: String,
    /// The error policy that applies to it.
    pub policy: Policy,
    /// Its number in the batch.
    pub number: u32,
    /// Why the stage cannot process it, without stage and position.
    pub reason: String,
}

/// Receives rows at the ends of a chain. What it received counts only once [`Processor::process`]
/// says so.
pub trait RowReceiver {
    /// Rows have been decoded.
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows);

    /// Rows arrive at a sink. Returns those that do not fit it.
    fn arrive(&mut self, sink: SinkIndex, rows: Rows) -> Vec<BadRow>;

    /// Rows have passed a step. Of edits that are made at once, only the last is passed, unless an
    /// earlier one is [watched](RowReceiver::watches).
    fn passed(&mut self, step: &ChainStep, rows: &Rows);

    /// Whether the rows that pass this step are needed.
    fn watches(&self, _step: &ChainStep) -> bool {
        false
    }
}

/// The outcome of a pass.
#[derive(Debug)]
pub enum ProcessOutcome {
    /// All records passed, except these, ordered by their numbers.
    All(Vec<BadRecord>),
    /// There are too many records: their results do not count, and the caller must try fewer.
    TooMany,
}

/// Passes batches of one source through its chain. Used by one thread at a time.
pub struct Processor {
    decoder: Option<Box<dyn Decoder>>,
    /// The limit for the results of more than one record, in bytes.
    largest: usize,
    /// How many records pass at once, learned from the results of earlier ones.
    at_once: usize,
}

impl Processor {
    /// Creates a processor for the batches of this source, which produces at most about `largest`
    /// bytes at once. An error says why its records cannot be decoded.
    pub fn new(source: &PlannedSource, largest: usize) -> Result<Self, String> {
        Ok(Processor {
            decoder: decoder_of(source)?,
            largest,
            at_once: usize::MAX,
        })
    }

    /// Creates another processor for the same source, which lets as many records pass at once.
    pub(crate) fn another(&self, source: &PlannedSource) -> Result<Self, String> {
        Ok(Processor {
            decoder: decoder_of(source)?,
            ..*self
        })
    }

    /// Prepares decoding these records without a request to anything else. If something is missing,
    /// the result is `false`, and [`Processor::prepare`] fetches it.
    pub fn prepare_locally(&mut self, batch: &Batch, records: Range<usize>) -> bool {
        match &mut self.decoder {
            Some(decoder) if all_invalid(batch, &records).is_none() => {
                decoder.prepare_locally(&of_records(batch, records))
            }
            _ => true,
        }
    }

    /// Fetches what decoding these records needs from elsewhere, such as schemas. May block for
    /// some seconds. An error says why that is not available now.
    pub fn prepare(&mut self, batch: &Batch, records: Range<usize>) -> Result<(), Reason> {
        match &mut self.decoder {
            Some(decoder) if all_invalid(batch, &records).is_none() => {
                decoder.prepare(&of_records(batch, records))
            }
            _ => Ok(()),
        }
    }

    /// How many records may pass the chain at once; at least one.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Lets at most this many records pass at once, until it learns more.
    pub(crate) fn limit(&mut self, at_once: usize) {
        self.at_once = self.at_once.min(at_once);
    }

    /// Passes some records of a batch of the source, which have been
    /// [prepared](Processor::prepare_locally), through its chain.
    pub fn process(
        &mut self,
        source: &PlannedSource,
        batch: &Arc<Batch>,
        records: Range<usize>,
        exits: &mut dyn RowReceiver,
    ) -> Result<ProcessOutcome, BadRecordError> {
        let count = records.len();
        let mut pass = ChainPass {
            batch: batch.clone(),
            exits,
            bad: Vec::new(),
            largest: self.largest,
            made: 0,
            is_divisible: count > 1,
        };
        match self.pass(source, records, &mut pass) {
            Ok(()) => {
                let ChainPass { mut bad, made, .. } = pass;
                bad.sort_by_key(|bad| bad.number);
                self.learn(count, made);
                Ok(ProcessOutcome::All(bad))
            }
            Err(Interruption::TooMany) => {
                self.at_once = (count / 2).max(1);
                Ok(ProcessOutcome::TooMany)
            }
            Err(Interruption::BadRecord(error)) => Err(error),
        }
    }

    /// If records produced more than they should, fewer pass next time; if few records produced
    /// little, more may.
    fn learn(&mut self, count: usize, made: usize) {
        let fitting = (count as u128 * self.largest as u128 / made.max(1) as u128)
            .clamp(1, usize::MAX as u128) as usize;
        if made > self.largest {
            self.at_once = fitting;
        } else if count == self.at_once {
            self.at_once = count.saturating_mul(2).min(fitting);
        }
    }

    fn pass(
        &mut self,
        source: &PlannedSource,
        records: Range<usize>,
        pass: &mut ChainPass<'_>,
    ) -> Result<(), Interruption> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(invalid) = all_invalid(&pass.batch, &records) {
            return pass.note_bad(&source.stage, source.policy, invalid);
        }
        let (rows, bad) = match catch_panic(|| self.decode(source, &pass.batch, records.clone())) {
            Ok(decoded) => decoded.map_err(|error| pass.internal_error(&source.stage, &error))?,
            Err(panic) => {
                // The decoder must not be used after a panic.
                self.decoder = decoder_of(source).map_err(|reason| {
                    pass.internal_error(&source.stage, &ArrowError::ComputeError(reason))
                })?;
                if pass.is_divisible {
                    return Err(Interruption::TooMany);
                }
                let reason = format!("the record cannot be decoded: {panic}");
                return pass.note_bad(
                    &source.stage,
                    source.policy,
                    [(records.start as u32, reason)],
                );
            }
        };
        pass.note_bad(
            &source.stage,
            source.policy,
            bad.into_iter().map(|row| (row.row, row.reason)),
        )?;
        let mut memory = ArrayMemory::default();
        rows.add_memory(&mut memory);
        pass.made += memory.bytes();
        pass.exits.decoded(source, &rows);
        pass.run(&source.chain, rows)?;
        Ok(())
    }
}
