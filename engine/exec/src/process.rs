//! Records through the whole chain, in one go.
//!
//! The records of a batch usually go together. Where what is made of them would take too much
//! memory, or a kernel of Arrow panics because it does, nothing comes of the attempt, and the
//! caller tries [fewer](Processor::at_once). Rows of one record are never divided. A single record
//! that is too large is bad.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_expr::Compiled;
use pseidon_expr::panics::caught;
use pseidon_plan::chain::{Chain, Operator, PlannedSource, Policy, Step};
use pseidon_plugin::batch::{Batch, Payloads};
use pseidon_plugin::format::Decoder;
use pseidon_plugin::memory::ArrayMemory;
use pseidon_plugin::rows::{BadRow, Rows};
use thiserror::Error;

/// A record whose stage says `:on-error :throw` is bad.
#[derive(Debug, Error)]
#[error("stage `{stage}` cannot handle the record at position {position} of {split}: {reason}")]
pub struct Thrown {
    /// The stage.
    pub stage: String,
    /// The record's split.
    pub split: String,
    /// Its position.
    pub position: Position,
    /// Why.
    pub reason: String,
}

/// A record that could not go on.
#[derive(Clone, Debug)]
pub struct BadRecord {
    /// Where.
    pub stage: String,
    /// What is to happen to it.
    pub policy: Policy,
    /// Its number in the batch.
    pub number: u32,
    /// Why.
    pub reason: String,
}

/// What takes rows at the chain's ends. What it was given counts only once [`Processor::process`]
/// says so.
pub trait Exits {
    /// Rows have been decoded.
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows);

    /// Rows arrive at a sink. Gives those that do not fit it.
    fn arrive(&mut self, sink: usize, rows: Rows) -> Vec<BadRow>;

    /// Rows have come through a step.
    fn passed(&mut self, step: &Step, rows: &Rows);
}

/// What became of records.
#[derive(Debug)]
pub enum ProcessOutcome {
    /// All went their way, except these, ordered by their numbers.
    All(Vec<BadRecord>),
    /// They are too many: what was made of them does not count, and fewer are to be tried.
    TooMany,
}

/// Takes batches of one source through its chain. Each ETL thread has its own.
pub struct Processor {
    decoder: Option<Box<dyn Decoder>>,
    /// What may be made of records at once, in bytes, if they are more than one.
    largest: usize,
    /// How many records are taken at once, from what came of the last ones.
    at_once: usize,
}

impl Processor {
    /// A processor for the batches of this source, which makes no more than about `largest` bytes
    /// at once. An error says why its records cannot be decoded.
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

    /// How many records may be taken through the chain at once; at least one.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Takes some records of a batch of the source, which have been [prepared](Processor::prepare),
    /// through its chain.
    pub fn process(
        &mut self,
        source: &PlannedSource,
        batch: &Arc<Batch>,
        records: Range<usize>,
        exits: &mut dyn Exits,
    ) -> Result<ProcessOutcome, Thrown> {
        let count = records.len();
        let mut pass = Pass {
            batch: batch.clone(),
            exits,
            bad: Vec::new(),
            largest: self.largest,
            made: 0,
            is_divisible: count > 1,
        };
        match self.pass(source, records, &mut pass) {
            Ok(()) => {
                let Pass { mut bad, made, .. } = pass;
                bad.sort_by_key(|bad| bad.number);
                self.learn(count, made);
                Ok(ProcessOutcome::All(bad))
            }
            Err(Halt::TooMany) => {
                self.at_once = (count / 2).max(1);
                Ok(ProcessOutcome::TooMany)
            }
            Err(Halt::Thrown(thrown)) => Err(thrown),
        }
    }

    /// Records that became more than they should are fewer next time; few that became little may be
    /// more.
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
        pass: &mut Pass<'_>,
    ) -> Result<(), Halt> {
        if records.is_empty() {
            return Ok(());
        }
        let (rows, bad) = match caught(|| self.decode(source, &pass.batch, records.clone())) {
            Ok(decoded) => decoded.map_err(|error| pass.broken(&source.stage, &error))?,
            Err(panic) => {
                // What the panic left in the decoder is not to be used.
                self.decoder = decoder_of(source).map_err(|reason| {
                    pass.broken(&source.stage, &ArrowError::ComputeError(reason))
                })?;
                if pass.is_divisible {
                    return Err(Halt::TooMany);
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

    /// The records, and those that are bad by their numbers in the batch.
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
        // A record is bad once, whatever is wrong with it.
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

/// Where an expression uses keys, they are text.
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

/// Why records did not go all their way.
enum Halt {
    Thrown(Thrown),
    /// They are too many at once.
    TooMany,
}

impl From<Thrown> for Halt {
    fn from(thrown: Thrown) -> Self {
        Halt::Thrown(thrown)
    }
}

struct Pass<'e> {
    batch: Arc<Batch>,
    exits: &'e mut dyn Exits,
    bad: Vec<BadRecord>,
    /// What may be made at once, in bytes.
    largest: usize,
    /// What has been made so far, in bytes.
    made: usize,
    /// Whether there is more than one record.
    is_divisible: bool,
}

impl Pass<'_> {
    /// Takes rows through a chain; gives what comes out at its end.
    fn run(&mut self, chain: &Chain, mut rows: Rows) -> Result<Rows, Halt> {
        for step in &chain.steps {
            if rows.is_empty() {
                break;
            }
            rows = self.step(step, rows)?;
            self.exits.passed(step, &rows);
        }
        Ok(rows)
    }

    fn step(&mut self, step: &Step, rows: Rows) -> Result<Rows, Halt> {
        match &step.operator {
            Operator::Where(condition) => {
                let (rows, mask) = self.evaluate(step, rows, |rows| rows.evaluate(condition))?;
                Ok(rows
                    .filter(mask.as_boolean())
                    .map_err(|error| self.broken(&step.stage, &error))?)
            }
            Operator::Select(exprs, schema) => {
                // One record alone may be as large as it is.
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
                self.made += made_of(&rows, record.columns());
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
                // A batch is of one split, and so of one topic: it takes one way as a whole.
                let topic = &self.batch.split.topic;
                let branch = branches
                    .iter()
                    .find(|(matcher, _)| matcher.fits(topic))
                    .map(|(_, chain)| chain)
                    .or(otherwise.as_ref());
                match branch {
                    Some(chain) => {
                        let rows = self.run(chain, rows)?;
                        Ok(if ends_in_sink(chain) {
                            rows.slice(0, 0)
                        } else {
                            rows
                        })
                    }
                    None => Ok(rows),
                }
            }
            Operator::Sink(sink) => {
                // A sink evaluates expressions too, and encodes records.
                let bad = match caught(|| self.exits.arrive(*sink, rows.clone())) {
                    Ok(bad) => bad,
                    Err(_) if self.is_divisible => return Err(Halt::TooMany),
                    Err(panic) => {
                        let reason = format!("the sink cannot take the record: {panic}");
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

    /// Evaluates something for all rows. Where it fails the rows that are to blame are found by
    /// halving, and the others go on.
    fn evaluate<T>(
        &mut self,
        step: &Step,
        rows: Rows,
        evaluate: impl Fn(&Rows) -> Result<T, ArrowError>,
    ) -> Result<(Rows, T), Halt> {
        let error = match evaluate(&rows) {
            Ok(value) => return Ok((rows, value)),
            Err(error) => error,
        };
        if self.is_divisible && is_too_large(&error) {
            return Err(Halt::TooMany);
        }
        let mut bad = Vec::new();
        find_bad(&rows, 0, &|rows| evaluate(rows).map(drop), &mut bad);
        if bad.is_empty() && self.is_divisible {
            return Err(Halt::TooMany);
        }
        let rest = rows
            .without(&bad)
            .map_err(|error| self.broken(&step.stage, &error))?;
        let named = bad
            .into_iter()
            .map(|row| (rows.number(row.row as usize) as u32, row.reason))
            .collect::<Vec<_>>();
        self.note_bad(&step.stage, step.policy, named)?;
        match evaluate(&rest) {
            Ok(value) => Ok((rest, value)),
            Err(_) if self.is_divisible => Err(Halt::TooMany),
            Err(error) => Err(self.broken(&step.stage, &error).into()),
        }
    }

    fn note_bad(
        &mut self,
        stage: &str,
        policy: Policy,
        rows: impl IntoIterator<Item = (u32, String)>,
    ) -> Result<(), Halt> {
        for (number, reason) in rows {
            if policy == Policy::Throw {
                let position = self.batch.positions[number as usize];
                let (stage, split) = (stage.to_owned(), self.batch.split.id.to_string());
                return Err(Thrown {
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

    /// Something failed that no single record is to blame for.
    fn broken(&self, stage: &str, error: &ArrowError) -> Thrown {
        let position = self
            .batch
            .positions
            .first()
            .copied()
            .unwrap_or(self.batch.next);
        Thrown {
            stage: stage.to_owned(),
            split: self.batch.split.id.to_string(),
            position,
            reason: error.to_string(),
        }
    }
}

/// The values of all expressions, unless they become too large together.
fn evaluate_all(
    exprs: &[Compiled],
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
        // What one expression makes is bounded already.
        if columns.len() > 1 && memory.bytes() - before > largest {
            return Err(ArrowError::MemoryError(
                "the record would become too large".to_owned(),
            ));
        }
    }
    Ok(columns)
}

/// What columns hold beside those that the rows have.
fn made_of(rows: &Rows, columns: &[ArrayRef]) -> usize {
    let mut memory = ArrayMemory::default();
    rows.add_memory(&mut memory);
    let before = memory.bytes();
    columns.iter().for_each(|column| memory.add(column));
    memory.bytes() - before
}

fn is_too_large(error: &ArrowError) -> bool {
    matches!(error, ArrowError::MemoryError(_))
}

fn ends_in_sink(chain: &Chain) -> bool {
    matches!(
        chain.steps.last().map(|step| &step.operator),
        Some(Operator::Sink(_))
    )
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

/// Arrow's errors begin with their kind, which says nothing to the user.
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
