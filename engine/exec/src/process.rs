//! Processing records: a pass through the whole chain at once.
//!
//! The records of a batch usually pass together. If their results would take too much memory, or a
//! kernel of Arrow panics because they do, the pass has no results, and the caller tries
//! [fewer](Processor::at_once) records. Rows of one record are never divided. A single record that
//! is too large is invalid.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_expr::CompiledExpr;
use pseidon_expr::panics::catch_panic;
use pseidon_plan::chain::{Chain, ChainStep, Operator, PlannedSource, Policy};
use pseidon_plugin::batch::{Batch, Payloads};
use pseidon_plugin::format::Decoder;
use pseidon_plugin::memory::ArrayMemory;
use pseidon_plugin::rows::{BadRow, Rows};
use thiserror::Error;

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
    /// The reason.
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
    /// The reason.
    pub reason: String,
}

/// Receives rows at the ends of a chain. What it received counts only once [`Processor::process`]
/// says so.
pub trait RowReceiver {
    /// Rows have been decoded.
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows);

    /// Rows arrive at a sink. Returns those that do not fit it.
    fn arrive(&mut self, sink: usize, rows: Rows) -> Vec<BadRow>;

    /// Rows have passed a step.
    fn passed(&mut self, step: &ChainStep, rows: &Rows);
}

/// The outcome of a pass.
#[derive(Debug)]
pub enum ProcessOutcome {
    /// All records passed, except these, ordered by their numbers.
    All(Vec<BadRecord>),
    /// There are too many records: their results do not count, and the caller must try fewer.
    TooMany,
}

/// Passes batches of one source through its chain. Each ETL thread has its own.
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

    /// Fetches what decoding these records needs from elsewhere, such as schemas. An error says why
    /// that is not available now.
    pub fn prepare(&mut self, batch: &Batch, records: Range<usize>) -> Result<(), String> {
        match &mut self.decoder {
            Some(decoder) if !records.is_empty() => decoder.prepare(&of_records(batch, records)),
            _ => Ok(()),
        }
    }

    /// How many records may pass the chain at once; at least one.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Passes some records of a batch of the source, which have been
    /// [prepared](Processor::prepare), through its chain.
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

    /// The decoded records, and the invalid ones by their numbers in the batch.
    fn decode(
        &mut self,
        source: &PlannedSource,
        batch: &Arc<Batch>,
        records: Range<usize>,
    ) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let (first, count) = (records.start, records.len());
        let (columns, mut bad) = match &mut self.decoder {
            Some(decoder) => {
                let decoded = decoder.decode(&of_records(batch, records.clone()));
                (decoded.columns, decoded.bad)
            }
            None => (Vec::new(), Vec::new()),
        };
        if source.columns.meta.key {
            bad.extend(keys_that_are_not_text(batch, records.clone()));
        }
        let of_these = |(record, _): &&(u32, String)| records.contains(&(*record as usize));
        bad.extend(
            batch
                .bad_headers
                .iter()
                .filter(of_these)
                .map(|(record, reason)| BadRow {
                    row: record - first as u32,
                    reason: reason.clone(),
                }),
        );
        // A record is listed once, even if several things are wrong with it.
        bad.sort_by_key(|row| row.row);
        bad.dedup_by_key(|row| row.row);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let columns = RecordBatch::try_new_with_options(source.schema.clone(), columns, &options)?;
        let rows = Rows::part(batch.clone(), first, columns).without(&bad)?;
        bad.iter_mut().for_each(|bad| bad.row += first as u32);
        Ok((rows, bad))
    }
}

fn decoder_of(source: &PlannedSource) -> Result<Option<Box<dyn Decoder>>, String> {
    let wanted = &source.columns.wanted;
    if wanted.is_empty() {
        Ok(None)
    } else {
        source
            .format
            .decoder(&source.format_settings, wanted)
            .map(Some)
    }
}

fn of_records(batch: &Batch, records: Range<usize>) -> Cow<'_, Payloads> {
    if records.len() == batch.len() {
        Cow::Borrowed(&batch.payloads)
    } else {
        Cow::Owned(batch.payloads.part(records))
    }
}

/// If an expression uses keys, they must be UTF-8.
fn keys_that_are_not_text(batch: &Batch, records: Range<usize>) -> Vec<BadRow> {
    let Some(keys) = &batch.keys else {
        return Vec::new();
    };
    let is_bad = |record: &usize| {
        !keys.is_null(*record) && std::str::from_utf8(keys.value(*record)).is_err()
    };
    let first = records.start;
    records
        .filter(is_bad)
        .map(|record| BadRow {
            row: (record - first) as u32,
            reason: "the key is not UTF-8 text".into(),
        })
        .collect()
}

/// Why a pass was interrupted.
enum Interruption {
    BadRecord(BadRecordError),
    /// There are too many records at once.
    TooMany,
}

impl From<BadRecordError> for Interruption {
    fn from(error: BadRecordError) -> Self {
        Interruption::BadRecord(error)
    }
}

struct ChainPass<'e> {
    batch: Arc<Batch>,
    exits: &'e mut dyn RowReceiver,
    bad: Vec<BadRecord>,
    /// The limit for the results of this pass, in bytes.
    largest: usize,
    /// The size of the results so far, in bytes.
    made: usize,
    /// Whether there is more than one record.
    is_divisible: bool,
}

impl ChainPass<'_> {
    /// Passes rows through a chain; returns those that come out at its end.
    fn run(&mut self, chain: &Chain, mut rows: Rows) -> Result<Rows, Interruption> {
        for step in &chain.steps {
            if rows.is_empty() {
                break;
            }
            rows = self.step(step, rows)?;
            self.exits.passed(step, &rows);
        }
        Ok(rows)
    }

    fn step(&mut self, step: &ChainStep, rows: Rows) -> Result<Rows, Interruption> {
        match &step.operator {
            Operator::Where(condition) => {
                let (rows, mask) = self.evaluate(step, rows, |rows| rows.evaluate(condition))?;
                Ok(rows
                    .filter(mask.as_boolean())
                    .map_err(|error| self.internal_error(&step.stage, &error))?)
            }
            Operator::Select(exprs, schema) => {
                // A single record may have any size.
                let largest = if self.is_divisible {
                    self.largest
                } else {
                    usize::MAX
                };
                let select = |rows: &Rows| {
                    let columns = evaluate_all(exprs, rows, largest)?;
                    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
                    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
                };
                let (rows, record) = self.evaluate(step, rows, select)?;
                self.made += added_bytes(&rows, record.columns());
                Ok(rows.with_record(record))
            }
            Operator::All(chains) => {
                for chain in chains {
                    self.run(chain, rows.clone())?;
                }
                Ok(rows)
            }
            Operator::Match {
                branches,
                otherwise,
            } => {
                // A batch is of one split, and so of one topic: it takes one branch as a whole.
                let topic = &self.batch.split.topic;
                let branch = branches
                    .iter()
                    .find(|(matcher, _)| matcher.matches(topic))
                    .map(|(_, chain)| chain)
                    .or(otherwise.as_ref());
                match branch {
                    Some(chain) => {
                        let rows = self.run(chain, rows)?;
                        Ok(if chain.passes_on {
                            rows
                        } else {
                            rows.slice(0, 0)
                        })
                    }
                    None => Ok(rows),
                }
            }
            Operator::Sink(sink) => {
                // A sink evaluates expressions too, and encodes records.
                let bad = match catch_panic(|| self.exits.arrive(*sink, rows.clone())) {
                    Ok(bad) => bad,
                    Err(_) if self.is_divisible => return Err(Interruption::TooMany),
                    Err(panic) => {
                        let reason = format!("the sink cannot process the record: {panic}");
                        (0..rows.len())
                            .map(|row| BadRow {
                                row: row as u32,
                                reason: reason.clone(),
                            })
                            .collect()
                    }
                };
                self.note_bad(
                    &step.stage,
                    step.policy,
                    bad.into_iter()
                        .map(|row| (rows.number(row.row as usize) as u32, row.reason)),
                )?;
                Ok(rows)
            }
        }
    }

    /// Evaluates expressions for all rows. If that fails, the rows that cause it are found by
    /// halving, and the others continue.
    fn evaluate<T>(
        &mut self,
        step: &ChainStep,
        rows: Rows,
        evaluate: impl Fn(&Rows) -> Result<T, ArrowError>,
    ) -> Result<(Rows, T), Interruption> {
        let error = match evaluate(&rows) {
            Ok(value) => return Ok((rows, value)),
            Err(error) => error,
        };
        if self.is_divisible && is_too_large(&error) {
            return Err(Interruption::TooMany);
        }
        let mut bad = Vec::new();
        find_bad(&rows, 0, &|rows| evaluate(rows).map(drop), &mut bad);
        if bad.is_empty() && self.is_divisible {
            return Err(Interruption::TooMany);
        }
        let rest = rows
            .without(&bad)
            .map_err(|error| self.internal_error(&step.stage, &error))?;
        let named = bad
            .into_iter()
            .map(|row| (rows.number(row.row as usize) as u32, row.reason))
            .collect::<Vec<_>>();
        self.note_bad(&step.stage, step.policy, named)?;
        match evaluate(&rest) {
            Ok(value) => Ok((rest, value)),
            Err(_) if self.is_divisible => Err(Interruption::TooMany),
            Err(error) => Err(self.internal_error(&step.stage, &error).into()),
        }
    }

    fn note_bad(
        &mut self,
        stage: &str,
        policy: Policy,
        rows: impl IntoIterator<Item = (u32, String)>,
    ) -> Result<(), Interruption> {
        for (number, reason) in rows {
            if policy == Policy::Throw {
                let position = self.batch.positions[number as usize];
                let (stage, split) = (stage.to_owned(), self.batch.split.id.to_string());
                return Err(BadRecordError {
                    stage,
                    split,
                    position,
                    reason,
                }
                .into());
            }
            self.bad.push(BadRecord {
                stage: stage.to_owned(),
                policy,
                number,
                reason,
            });
        }
        Ok(())
    }

    /// The error for a failure that no single record causes.
    fn internal_error(&self, stage: &str, error: &ArrowError) -> BadRecordError {
        let position = self
            .batch
            .positions
            .first()
            .copied()
            .unwrap_or(self.batch.next);
        BadRecordError {
            stage: stage.to_owned(),
            split: self.batch.split.id.to_string(),
            position,
            reason: error.to_string(),
        }
    }
}

/// The values of all expressions, unless they become too large together.
fn evaluate_all(
    exprs: &[CompiledExpr],
    rows: &Rows,
    largest: usize,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = Vec::with_capacity(exprs.len());
    let mut memory = ArrayMemory::default();
    rows.add_memory(&mut memory);
    let before = memory.bytes();
    for expr in exprs {
        let column = rows.evaluate(expr)?;
        memory.add(&column);
        columns.push(column);
        // The results of one expression are already bounded.
        if columns.len() > 1 && memory.bytes() - before > largest {
            return Err(ArrowError::MemoryError(
                "the record would become too large".to_owned(),
            ));
        }
    }
    Ok(columns)
}

/// The bytes of columns in addition to those that the rows have.
fn added_bytes(rows: &Rows, columns: &[ArrayRef]) -> usize {
    let mut memory = ArrayMemory::default();
    rows.add_memory(&mut memory);
    let before = memory.bytes();
    columns.iter().for_each(|column| memory.add(column));
    memory.bytes() - before
}

fn is_too_large(error: &ArrowError) -> bool {
    matches!(error, ArrowError::MemoryError(_))
}

fn find_bad(
    rows: &Rows,
    offset: usize,
    evaluate: &dyn Fn(&Rows) -> Result<(), ArrowError>,
    bad: &mut Vec<BadRow>,
) {
    let Err(error) = evaluate(rows) else { return };
    if rows.len() == 1 {
        bad.push(BadRow {
            row: offset as u32,
            reason: plain_reason(&error),
        });
        return;
    }
    let half = rows.len() / 2;
    find_bad(&rows.slice(0, half), offset, evaluate, bad);
    find_bad(
        &rows.slice(half, rows.len() - half),
        offset + half,
        evaluate,
        bad,
    );
}

/// Arrow's errors begin with their kind, which does not help the user.
fn plain_reason(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::MemoryError(text)
        | ArrowError::ParseError(text) => text.clone(),
        other => other.to_string(),
    }
}
