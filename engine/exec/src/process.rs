//! One batch through the whole chain, in one go.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;
use pseidon_delivery::Position;
use pseidon_expr::Compiled;
use pseidon_plan::chain::{Chain, Operator, PlannedSource, Policy, Step};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::format::Decoder;
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

/// What takes rows at the chain's ends.
pub trait Exits {
    /// Rows have been decoded.
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows);

    /// Rows arrive at a sink. Gives those that do not fit it.
    fn arrive(&mut self, sink: usize, rows: Rows) -> Vec<BadRow>;

    /// Rows have come through a step.
    fn passed(&mut self, step: &Step, rows: &Rows);
}

/// Takes batches of one source through its chain. Each ETL thread has its own.
pub struct Processor {
    decoder: Option<Box<dyn Decoder>>,
}

impl Processor {
    /// A processor for the batches of this source. An error says why its records cannot be decoded.
    pub fn new(source: &PlannedSource) -> Result<Self, String> {
        let wanted = &source.columns.wanted;
        let decoder = if wanted.is_empty() { None } else { Some(source.format.decoder(&source.format_settings, wanted)?) };
        Ok(Processor { decoder })
    }

    /// Gets what decoding the batch takes from elsewhere. An error says why that cannot be had just now.
    pub fn prepare(&mut self, batch: &Batch) -> Result<(), String> {
        match &mut self.decoder {
            Some(decoder) if !batch.is_empty() => decoder.prepare(&batch.payloads),
            _ => Ok(()),
        }
    }

    /// Takes a batch of the source, which has been [prepared](Processor::prepare), through its chain. Gives the records that were bad on the way, ordered by their numbers.
    pub fn process(&mut self, source: &PlannedSource, batch: Arc<Batch>, exits: &mut dyn Exits) -> Result<Vec<BadRecord>, Thrown> {
        let mut pass = Pass { batch: batch.clone(), exits, bad: Vec::new() };
        if batch.is_empty() {
            return Ok(pass.bad);
        }
        let decoded = self.decode(source, batch).map_err(|error| pass.broken(&source.stage, &error))?;
        let (rows, bad) = decoded;
        pass.note_bad(&source.stage, source.policy, bad.into_iter().map(|row| (row.row, row.reason)))?;
        pass.exits.decoded(source, &rows);
        pass.run(&source.chain, rows)?;
        pass.bad.sort_by_key(|bad| bad.number);
        Ok(pass.bad)
    }

    fn decode(&mut self, source: &PlannedSource, batch: Arc<Batch>) -> Result<(Rows, Vec<BadRow>), ArrowError> {
        let rows = batch.len();
        let (columns, mut bad) = match &mut self.decoder {
            Some(decoder) => {
                let decoded = decoder.decode(&batch.payloads);
                (decoded.columns, decoded.bad)
            }
            None => (Vec::new(), Vec::new()),
        };
        if source.columns.meta.key {
            bad.extend(keys_that_are_not_text(&batch));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = RecordBatch::try_new_with_options(source.schema.clone(), columns, &options)?;
        let rows = Rows::new(batch, columns).without(&bad)?;
        Ok((rows, bad))
    }
}

/// Where an expression uses keys, they are text.
fn keys_that_are_not_text(batch: &Batch) -> Vec<BadRow> {
    let Some(keys) = &batch.keys else { return Vec::new() };
    let is_bad = |row: &usize| !keys.is_null(*row) && std::str::from_utf8(keys.value(*row)).is_err();
    (0..keys.len()).filter(is_bad).map(|row| BadRow { row: row as u32, reason: "the key is not UTF-8 text".into() }).collect()
}

struct Pass<'e> {
    batch: Arc<Batch>,
    exits: &'e mut dyn Exits,
    bad: Vec<BadRecord>,
}

impl Pass<'_> {
    /// Takes rows through a chain; gives what comes out at its end.
    fn run(&mut self, chain: &Chain, mut rows: Rows) -> Result<Rows, Thrown> {
        for step in &chain.steps {
            if rows.is_empty() {
                break;
            }
            rows = self.step(step, rows)?;
            self.exits.passed(step, &rows);
        }
        Ok(rows)
    }

    fn step(&mut self, step: &Step, rows: Rows) -> Result<Rows, Thrown> {
        match &step.operator {
            Operator::Where(condition) => {
                let (rows, mask) = self.evaluate(step, rows, |rows| rows.evaluate(condition))?;
                rows.filter(mask.as_boolean()).map_err(|error| self.broken(&step.stage, &error))
            }
            Operator::Select(exprs, schema) => {
                let select = |rows: &Rows| {
                    let columns = exprs.iter().map(|expr: &Compiled| rows.evaluate(expr)).collect::<Result<Vec<_>, _>>()?;
                    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
                    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
                };
                let (rows, record) = self.evaluate(step, rows, select)?;
                Ok(rows.with_record(record))
            }
            Operator::All(chains) => {
                for chain in chains {
                    self.run(chain, rows.clone())?;
                }
                Ok(rows)
            }
            Operator::Match { branches, otherwise } => {
                // A batch is of one split, and so of one topic: it takes one way as a whole.
                let topic = &self.batch.split.topic;
                let branch = branches.iter().find(|(matcher, _)| matcher.fits(topic)).map(|(_, chain)| chain).or(otherwise.as_ref());
                match branch {
                    Some(chain) => {
                        let rows = self.run(chain, rows)?;
                        Ok(if ends_in_sink(chain) { rows.slice(0, 0) } else { rows })
                    }
                    None => Ok(rows),
                }
            }
            Operator::Sink(sink) => {
                let bad = self.exits.arrive(*sink, rows.clone());
                self.note_bad(&step.stage, step.policy, bad.into_iter().map(|row| (rows.number(row.row as usize) as u32, row.reason)))?;
                Ok(rows)
            }
        }
    }

    /// Evaluates something for all rows. Where it fails the rows that are to blame are found by halving, and the others go on.
    fn evaluate<T>(&mut self, step: &Step, rows: Rows, evaluate: impl Fn(&Rows) -> Result<T, ArrowError>) -> Result<(Rows, T), Thrown> {
        if let Ok(value) = evaluate(&rows) {
            return Ok((rows, value));
        }
        let mut bad = Vec::new();
        find_bad(&rows, 0, &|rows| evaluate(rows).map(drop), &mut bad);
        let rest = rows.without(&bad).map_err(|error| self.broken(&step.stage, &error))?;
        let named = bad.into_iter().map(|row| (rows.number(row.row as usize) as u32, row.reason)).collect::<Vec<_>>();
        self.note_bad(&step.stage, step.policy, named)?;
        let value = evaluate(&rest).map_err(|error| self.broken(&step.stage, &error))?;
        Ok((rest, value))
    }

    fn note_bad(&mut self, stage: &str, policy: Policy, rows: impl IntoIterator<Item = (u32, String)>) -> Result<(), Thrown> {
        for (number, reason) in rows {
            if policy == Policy::Throw {
                let position = self.batch.positions[number as usize];
                return Err(Thrown { stage: stage.to_owned(), split: self.batch.split.id.to_string(), position, reason });
            }
            self.bad.push(BadRecord { stage: stage.to_owned(), policy, number, reason });
        }
        Ok(())
    }

    /// Something failed that no single record is to blame for.
    fn broken(&self, stage: &str, error: &ArrowError) -> Thrown {
        let position = self.batch.positions.first().copied().unwrap_or(self.batch.next);
        Thrown { stage: stage.to_owned(), split: self.batch.split.id.to_string(), position, reason: error.to_string() }
    }
}

fn ends_in_sink(chain: &Chain) -> bool {
    matches!(chain.steps.last().map(|step| &step.operator), Some(Operator::Sink(_)))
}

fn find_bad(rows: &Rows, offset: usize, evaluate: &dyn Fn(&Rows) -> Result<(), ArrowError>, bad: &mut Vec<BadRow>) {
    let Err(error) = evaluate(rows) else { return };
    if rows.len() == 1 {
        bad.push(BadRow { row: offset as u32, reason: plain_reason(&error) });
        return;
    }
    let half = rows.len() / 2;
    find_bad(&rows.slice(0, half), offset, evaluate, bad);
    find_bad(&rows.slice(half, rows.len() - half), offset + half, evaluate, bad);
}

/// Arrow's errors begin with their kind, which says nothing to the user.
fn plain_reason(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::ParseError(text) => text.clone(),
        other => other.to_string(),
    }
}
