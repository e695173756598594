//! A pass of rows through a chain.

mod evaluate;

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pseidon_dsl::printable::short_reason;
use pseidon_expr::CompiledExpr;
use pseidon_expr::panics::catch_panic;
use pseidon_plan::chain::{Chain, ChainStep, Operator, Policy, RecordEdit};
use pseidon_plan::{LookupTable, SinkIndex};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::rows::{BadRow, Rows};

use self::evaluate::{added_bytes, apply, apply_at_once, evaluate_all, looked_up, unnested};
use super::{BadRecord, BadRecordError, RowReceiver};

/// Why a pass was interrupted.
pub(super) enum Interruption {
    BadRecord(BadRecordError),
    /// There are too many records at once.
    TooMany,
}

impl From<BadRecordError> for Interruption {
    fn from(error: BadRecordError) -> Self {
        Interruption::BadRecord(error)
    }
}

/// A pass of some records of a batch.
pub(super) struct ChainPass<'e> {
    pub(super) batch: Arc<Batch>,
    pub(super) exits: &'e mut dyn RowReceiver,
    pub(super) bad: Vec<BadRecord>,
    /// The limit for the results of this pass, in bytes.
    pub(super) largest: usize,
    /// The size of the results so far, in bytes.
    pub(super) made: usize,
    /// Whether there is more than one record.
    pub(super) is_divisible: bool,
}

impl ChainPass<'_> {
    /// Passes rows through a chain; returns those that come out at its end.
    pub(super) fn run(&mut self, chain: &Chain, mut rows: Rows) -> Result<Rows, Interruption> {
        let mut rest = chain.steps.as_slice();
        while let Some((step, others)) = rest.split_first()
            && !rows.is_empty()
        {
            (rows, rest) = match self.edit_at_once(rest, &rows) {
                Some((edited, passed)) => {
                    let (these, others) = rest.split_at(passed);
                    these
                        .last()
                        .iter()
                        .for_each(|step| self.exits.passed(step, &edited));
                    (edited, others)
                }
                None => {
                    let passed = self.step(step, rows)?;
                    self.exits.passed(step, &passed);
                    (passed, others)
                }
            };
        }
        Ok(rows)
    }

    fn step(&mut self, step: &ChainStep, rows: Rows) -> Result<Rows, Interruption> {
        match &step.operator {
            Operator::Where(condition) => self.filter(step, rows, |rows| {
                Ok(rows.evaluate(condition)?.as_boolean().clone())
            }),
            Operator::Sample(sample) => self.filter(step, rows, |rows| sample.mask(rows)),
            // The rows that have passed are counted when the pass has succeeded.
            Operator::Limit(..) | Operator::Throttle(..) => Ok(rows),
            Operator::Select(exprs, schema) => self.select(step, exprs, schema, rows),
            Operator::Edit(edit) => self.edit(step, edit, rows),
            Operator::Unnest(list, schema) => self.unnest(step, list, schema, rows),
            Operator::Lookup(key, table, schema) => self.look_up(step, key, table, schema, rows),
            Operator::Keep(columns, _) => Ok(rows
                .keep(columns)
                .map_err(|error| self.internal_error(&step.stage, &error))?),
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
                    Some(chain) => self.run_branch(chain, rows),
                    None => Ok(rows),
                }
            }
            Operator::Route {
                branches,
                otherwise,
            } => self.route(step, branches, otherwise.as_ref(), rows),
            Operator::Sink(sink) => self.arrive(step, *sink, rows),
        }
    }

    /// Passes on the rows for which the mask is true.
    fn filter(
        &mut self,
        step: &ChainStep,
        rows: Rows,
        mask: impl Fn(&Rows) -> Result<BooleanArray, ArrowError>,
    ) -> Result<Rows, Interruption> {
        let (rows, mask) = self.evaluate(step, rows, mask)?;
        Ok(rows
            .filter(&mask)
            .map_err(|error| self.internal_error(&step.stage, &error))?)
    }

    /// Passes each row to the first chain whose condition is true. Returns the others.
    fn route(
        &mut self,
        step: &ChainStep,
        branches: &[(CompiledExpr, Chain)],
        otherwise: Option<&Chain>,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        let mut rest = rows;
        for (condition, chain) in branches {
            if rest.is_empty() {
                break;
            }
            let (rows, mask) = self.evaluate(step, rest, |rows| rows.evaluate(condition))?;
            let failed = |error| self.internal_error(&step.stage, &error);
            let mask = true_only(mask.as_boolean());
            let others = not(&mask).map_err(failed)?;
            let taken = rows.filter(&mask).map_err(failed)?;
            rest = rows.filter(&others).map_err(failed)?;
            self.run(chain, taken)?;
        }
        let Some(otherwise) = otherwise else {
            return Ok(rest);
        };
        let none = rest.slice(0, 0);
        self.run(otherwise, rest)?;
        Ok(none)
    }

    fn select(
        &mut self,
        step: &ChainStep,
        exprs: &[CompiledExpr],
        schema: &SchemaRef,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        let largest = self.largest_result();
        let select = |rows: &Rows| {
            let columns = evaluate_all(exprs, rows, largest)?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
            RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        };
        let (rows, record) = self.evaluate(step, rows, select)?;
        let selected = rows.with_record(record);
        self.made += added_bytes(&rows, &selected);
        Ok(selected)
    }

    fn unnest(
        &mut self,
        step: &ChainStep,
        list: &CompiledExpr,
        schema: &SchemaRef,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        let largest = self.largest_result();
        let unnest = |rows: &Rows| unnested(list, schema, rows, largest);
        let (rows, repeated) = self.evaluate(step, rows, unnest)?;
        self.made += added_bytes(&rows, &repeated);
        Ok(repeated)
    }

    fn look_up(
        &mut self,
        step: &ChainStep,
        key: &CompiledExpr,
        table: &LookupTable,
        schema: &SchemaRef,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        let largest = self.largest_result();
        let look_up = |rows: &Rows| looked_up(key, table, schema, rows, largest);
        let (rows, found) = self.evaluate(step, rows, look_up)?;
        self.made += added_bytes(&rows, &found);
        Ok(found)
    }

    /// The limit for the results of a step, in bytes. A single record may have any size.
    fn largest_result(&self) -> usize {
        if self.is_divisible {
            self.largest
        } else {
            usize::MAX
        }
    }

    fn edit(
        &mut self,
        step: &ChainStep,
        edit: &RecordEdit,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        if edit.changes.is_empty() {
            return Ok(rows);
        }
        let largest = self.largest_result();
        let (rows, (edited, bad)) = self.evaluate(step, rows, |rows| apply(edit, rows, largest))?;
        self.made += added_bytes(&rows, &edited);
        let numbers: Vec<_> = bad
            .iter()
            .map(|bad| (rows.number(bad.row as usize) as u32, bad.reason.clone()))
            .collect();
        self.note_bad(&step.stage, step.policy, numbers)?;
        Ok(edited
            .without(&bad)
            .map_err(|error| self.internal_error(&step.stage, &error))?)
    }

    /// Makes the edits at the beginning of these steps at once. Returns the edited rows, and how
    /// many steps they have passed. `None` if the rows must pass one step after the other: they
    /// may be invalid in one of them, or too large together.
    fn edit_at_once(&mut self, steps: &[ChainStep], rows: &Rows) -> Option<(Rows, usize)> {
        let Operator::Edit(RecordEdit { joint, .. }) = &steps.first()?.operator else {
            return None;
        };
        let joint = joint.as_ref()?;
        let these = steps.get(..joint.steps)?;
        let (_, before) = these.split_last()?;
        if before.iter().any(|step| self.exits.watches(step)) {
            return None;
        }
        let edits = these.iter().filter_map(|step| match &step.operator {
            Operator::Edit(edit) => Some(edit),
            _ => None,
        });
        let edited = apply_at_once(joint, edits, rows, self.largest_result())?;
        self.made += added_bytes(rows, &edited);
        Some((edited, joint.steps))
    }

    /// Passes rows through a branch of `match`.
    fn run_branch(&mut self, chain: &Chain, rows: Rows) -> Result<Rows, Interruption> {
        let rows = self.run(chain, rows)?;
        Ok(if chain.passes_on {
            rows
        } else {
            rows.slice(0, 0)
        })
    }

    fn arrive(
        &mut self,
        step: &ChainStep,
        sink: SinkIndex,
        rows: Rows,
    ) -> Result<Rows, Interruption> {
        // A sink evaluates expressions too, and encodes records.
        let bad = match catch_panic(|| self.exits.arrive(sink, rows.clone())) {
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

    /// Notes invalid records by their numbers in the batch, or fails if the policy says so. A
    /// reason has the beginning of a long value only.
    pub(super) fn note_bad(
        &mut self,
        stage: &str,
        policy: Policy,
        rows: impl IntoIterator<Item = (u32, String)>,
    ) -> Result<(), Interruption> {
        for (number, reason) in rows {
            let reason = short_reason(&reason).into_owned();
            if policy == Policy::Throw {
                let position = self.batch.first_position(number as usize);
                let (stage, split) = (stage.to_owned(), self.batch.first_split().to_string());
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
    pub(super) fn internal_error(&self, stage: &str, error: &ArrowError) -> BadRecordError {
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

/// The mask with false in place of NULL.
fn true_only(mask: &BooleanArray) -> BooleanArray {
    match mask.null_count() {
        0 => mask.clone(),
        _ => prep_null_mask_filter(mask),
    }
}
