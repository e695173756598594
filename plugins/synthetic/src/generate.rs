//! The source `generate`: records from SQL expressions.
//!
//! A record is a function of its number and of the seed, so it can be generated again after a
//! crash. A record's position is its number, and resuming means continuing to count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::kinds::{IntegerIn, NamedExprs};
use pseidon_plugin::options::{OnError, Options, SpannedValue};
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourcePlugin, SourceSetup,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::{Batch, Payloads, Split};

mod numbers;
mod pace;
mod record;
mod values;

pub use pace::Pace;
use record::{FailedRecord, GenerateError, RecordGenerator};
pub use values::NumberExpr;

/// The upper limit of record numbers, because `n` is an int64.
const LAST_NUMBER: u64 = i64::MAX as u64;
const MAX_SPLITS: u64 = 4096;
/// The target size of a batch in bytes, the number of records in the first batch, whose record size
/// is still unknown, and the most records in a batch.
const BATCH_BYTES: usize = 1 << 20;
const FIRST_BATCH: usize = 256;
const MAX_BATCH: usize = 8192;
/// How often splits are shared among instances.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);
/// How often a source that waits for room checks whether the run is stopping.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

static SPEC: PluginSpec = PluginSpec {
    name: "generate",
    role: Role::Source,
    summary: "Generates records from SQL expressions.",
    details: "For trying out pipelines, for tests, and for measuring. The records are JSON \
        objects. Their expressions can use\n\n\
        - `n`, the record's number, starting at 0 (int64),\n\
        - `r`, a random number in [0, 1) (float64),\n\
        - `h`, a random integer from 0 to 2^63 - 1 (int64): `h % 100` is one of a hundred values, \
        a new one for each record.\n\n\
        `r` and `h` depend only on the record's number and on `:seed`. So a record can be \
        generated again after a crash, and delivery is exactly-once, unless an expression uses \
        `now()`, `random()` or another function that is not deterministic. `r` and `h` are \
        independent of each other.\n\n\
        A run resumes where the last one stopped, as with every source: a pipeline whose `:count` \
        records are all delivered generates no more records when it is run again, until the count \
        is raised or its state is removed.",
    positional: GenerateOptions::POSITIONAL,
    options: GenerateOptions::DECLARED,
    example: "(generate {:record {:id \"n\" :user \"'u' || (h % 100)\" :price \"r * 100\"} \
        :count 1000000})",
};

/// The options of the source `generate`.
#[derive(Clone, Debug, Options)]
pub struct GenerateOptions {
    /// The fields of a record: a map from names to SQL expressions, such as `{:id "n" :user "'u' ||
    /// (h % 100)" :price "r * 100"}`.
    record: SpannedValue<NamedExprs>,
    /// The number of records to generate, over all runs. The pipeline stops after them. Without it,
    /// the source never ends.
    count: Option<u64>,
    /// Records per second, over all splits: `1000`, or `0.5` for one every two seconds. Without it,
    /// records are generated as fast as the pipeline accepts them. Records are generated in groups
    /// about 50 ms apart, and delays are caught up.
    rate: Option<SpannedValue<f64>>,
    /// The seed of `r` and `h`. Different seeds generate different values.
    #[option(default = "0")]
    seed: u64,
    /// The number of splits: record `n` belongs to split `n % splits`, which is also its
    /// `@partition`. Records of one split keep their order. Change it only together with the
    /// pipeline's name, because each split resumes from its own number.
    #[option(default = "1")]
    splits: IntegerIn<1, MAX_SPLITS>,
    /// What to do with a record whose expressions fail, for example because of a division by zero:
    /// `:throw` stops the run, `:noop` skips the record and counts it.
    #[option(default = "throw")]
    on_error: SpannedValue<OnError>,
}

/// The plugin `generate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeneratePlugin;

impl SourcePlugin for GeneratePlugin {
    type Options = GenerateOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &GenerateOptions) -> OnError {
        options.on_error.value.clone()
    }

    fn prepare(&self, options: &GenerateOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let pace = options.rate.and_then(|rate| {
            let pace = Pace::new(rate.value);
            if pace.is_none() {
                errors.push(rate.error("invalid rate", "expected a number greater than 0"));
            }
            pace
        });
        let policy = &options.on_error;
        if matches!(
            policy.value,
            OnError::Retry { .. } | OnError::Quarantine { .. }
        ) {
            errors.push(policy.error(
                "generated records cannot be retried or quarantined",
                "expected :throw or :noop",
            ));
        }
        let record = &options.record;
        match RecordGenerator::new(&record.value.0, record.span, options.seed) {
            Ok(generator) if errors.is_empty() => Ok(Arc::new(Generate {
                generator,
                count: options.count,
                pace,
                splits: options.splits.get() as usize,
                skip_failures: policy.value == OnError::Noop,
            })),
            Ok(_) => Err(errors),
            Err(more) => {
                errors.extend(more);
                Err(errors)
            }
        }
    }
}

struct Generate {
    generator: RecordGenerator,
    count: Option<u64>,
    pace: Option<Pace>,
    splits: usize,
    /// Whether a record that cannot be generated is skipped; otherwise it stops the run.
    skip_failures: bool,
}

impl Source for Generate {
    fn facts(&self) -> SourceFacts {
        let reread = if self.generator.is_deterministic() {
            Reread::Exact
        } else {
            Reread::Inexact {
                reason: "its expressions are not deterministic: they use now(), random() or the \
                         like",
            }
        };
        SourceFacts {
            format: "json".into(),
            format_span: None,
            schema: Some(self.generator.schema().clone()),
            infer: None,
            splits_bytes: false,
            reads_columns: false,
            reread,
            finite: self.count.is_some(),
            topic_may_change: false,
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError> {
        let mut count = self.end().min(count as u64);
        let generated = loop {
            match self.generate_batch(&self.split(setup, 0), (0..count).collect(), count, setup)? {
                Some(generated) => break generated,
                None => count /= 2,
            }
        };
        Ok(vec![generated.payloads])
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        self.generate_all(setup, &handle)
    }
}

/// A split and its progress.
struct SplitProgress {
    split: Arc<Split>,
    /// The next record number; `None` while this instance does not own the split.
    next: Option<Position>,
    /// Whether its last record is durable, whichever instance generated it.
    is_finished: bool,
}

impl SplitProgress {
    fn new(split: Arc<Split>) -> SplitProgress {
        SplitProgress {
            split,
            next: None,
            is_finished: false,
        }
    }

    fn next(&self) -> Option<Position> {
        self.next
    }

    fn leave(&mut self) -> Arc<Split> {
        self.next = None;
        self.split.clone()
    }
}

/// The progress of all splits together.
struct NumberProgress {
    /// The first number and when it was due: the rate counts from there.
    first: u64,
    started: Instant,
    next: u64,
    batch_size: usize,
}

impl NumberProgress {
    fn begin_at(&mut self, next: u64) {
        (self.first, self.next, self.started) = (next, next, Instant::now());
    }
}

impl Generate {
    fn generate_all(&self, setup: &SourceSetup, handle: &SourceHandle) -> Result<(), SourceExit> {
        let mut splits: Vec<SplitProgress> = (0..self.splits)
            .map(|index| SplitProgress::new(self.split(setup, index)))
            .collect();
        let mut progress = NumberProgress {
            first: 0,
            next: 0,
            started: Instant::now(),
            batch_size: FIRST_BATCH,
        };
        let mut next_round = Instant::now();
        while splits.iter().any(|split| !split.is_finished) {
            if Instant::now() >= next_round {
                if self.share_splits(handle, &mut splits)? {
                    progress.begin_at(
                        splits
                            .iter()
                            .filter_map(SplitProgress::next)
                            .min()
                            .unwrap_or(0),
                    );
                }
                next_round = Instant::now() + SHARE_INTERVAL;
            }
            if splits.iter().all(|split| split.next().is_none()) {
                // Other instances own the remaining splits. This instance stays, in case one of
                // them dies.
                handle.sleep(next_round.saturating_duration_since(Instant::now()))?;
                continue;
            }
            self.generate_next(setup, handle, &mut splits, &mut progress)?;
        }
        Ok(())
    }

    /// Shares the splits with other instances. Returns whether this instance was granted one.
    fn share_splits(
        &self,
        handle: &SourceHandle,
        splits: &mut [SplitProgress],
    ) -> Result<bool, SourceExit> {
        let unfinished = splits
            .iter()
            .filter(|split| !split.is_finished)
            .map(|split| split.split.id.clone())
            .collect();
        let share = handle.share_splits(unfinished)?;
        let given_back: Vec<_> = splits
            .iter_mut()
            .filter(|split| split.next.is_some())
            .take(share.excess)
            .collect();
        if !given_back.is_empty() {
            handle.release(given_back.into_iter().map(|split| split.leave()).collect())?;
        }
        let mut granted: Vec<&mut SplitProgress> = splits
            .iter_mut()
            .filter(|split| share.granted.contains(&split.split.id))
            .collect();
        if granted.is_empty() {
            return Ok(false);
        }
        let taken = handle.take(granted.iter().map(|split| split.split.clone()).collect())?;
        let mut begun = Vec::new();
        let mut finished = Vec::new();
        for (split, known) in granted.iter_mut().zip(taken) {
            // A finished split continues if `:count` was raised.
            let position = known.map_or(0, |known| known.position);
            if position >= self.end() {
                split.is_finished = true;
                finished.push(split.split.clone());
            } else {
                split.next = Some(position);
                begun.push((split.split.clone(), position));
            }
        }
        handle.begin(begun)?;
        if !finished.is_empty() {
            handle.release(finished)?;
        }
        Ok(true)
    }

    /// Generates the next records of all splits that this instance owns, as far as there is room
    /// for them and they are due.
    fn generate_next(
        &self,
        setup: &SourceSetup,
        handle: &SourceHandle,
        splits: &mut [SplitProgress],
        progress: &mut NumberProgress,
    ) -> Result<(), SourceExit> {
        if !handle.wait_for_room(POLL_INTERVAL)? {
            return Ok(());
        }
        let mut upto = progress
            .next
            .saturating_add((progress.batch_size * self.splits) as u64)
            .min(self.end());
        if let Some(pace) = self.pace {
            let due = progress
                .first
                .saturating_add(pace.due(progress.started.elapsed()));
            if due <= progress.next {
                handle.sleep(
                    pace.pause(progress.next - progress.first, progress.started.elapsed()),
                )?;
                return Ok(());
            }
            upto = upto.min(due);
        }
        let mut ended = Vec::new();
        let mut is_too_much = false;
        for (index, split) in splits.iter_mut().enumerate() {
            let Some(from) = split.next.map(|next| next.max(progress.next)) else {
                continue;
            };
            let numbers = numbers_of_split(from, upto, index, self.splits);
            if !numbers.is_empty() {
                let Some(batch) = self.generate_batch(&split.split, numbers, upto, setup)? else {
                    is_too_much = true;
                    break;
                };
                progress.batch_size = next_batch_size(&batch);
                handle.emit(batch)?;
            }
            split.next = Some(upto.max(from));
            if upto >= self.end() {
                handle.emit(Batch::end_of(split.split.clone(), self.end()))?;
                ended.push(split.leave());
                split.is_finished = true;
            }
        }
        if !ended.is_empty() {
            handle.release(ended)?;
        }
        if is_too_much {
            // Smaller batches are tried next time. The splits before this one have already
            // advanced.
            progress.batch_size = (progress.batch_size / 2).max(1);
            return Ok(());
        }
        progress.next = upto;
        if let Some(count) = self.count {
            setup
                .metrics
                .lag
                .with_label_values(&[&setup.stage])
                .set((count - progress.next.min(count)) as i64);
        }
        Ok(())
    }

    /// The number after the last record's.
    fn end(&self) -> u64 {
        self.count.unwrap_or(LAST_NUMBER).min(LAST_NUMBER)
    }

    fn split(&self, setup: &SourceSetup, index: usize) -> Arc<Split> {
        Arc::new(Split {
            id: format!("{}:{index}", setup.stage).into(),
            topic: setup.stage.clone(),
            partition: index as i32,
        })
    }

    /// Generates a batch of these records. Returns `None` if it would be too large.
    fn generate_batch(
        &self,
        split: &Arc<Split>,
        numbers: Vec<u64>,
        next: Position,
        setup: &SourceSetup,
    ) -> Result<Option<Batch>, SourceError> {
        let generated = match self.generator.generate_batch(split, numbers, next) {
            Ok(generated) => generated,
            Err(GenerateError::TooMany) => return Ok(None),
            Err(GenerateError::All(reason)) => return Err(SourceError::Fatal(reason)),
        };
        match generated.failed.first() {
            Some(FailedRecord { number, reason }) if !self.skip_failures => {
                let what = format!(
                    "cannot generate record {number}: {reason}; set :on-error :noop to skip such \
                     records"
                );
                Err(SourceError::Fatal(what.into()))
            }
            _ => {
                if !generated.failed.is_empty() {
                    setup
                        .metrics
                        .bad_records
                        .with_label_values(&[setup.stage.as_str(), "dropped"])
                        .inc_by(generated.failed.len() as u64);
                }
                Ok(Some(generated.batch))
            }
        }
    }
}

/// The numbers from `from` to below `upto` that belong to the split with this index.
fn numbers_of_split(from: u64, upto: u64, index: usize, splits: usize) -> Vec<u64> {
    let (index, splits) = (index as u64, splits as u64);
    let first = from + (index + splits - from % splits) % splits;
    (first..upto).step_by(splits as usize).collect()
}

/// The number of records that fill [`BATCH_BYTES`], if they are as large as these.
fn next_batch_size(batch: &Batch) -> usize {
    let bytes_each = batch.size() / batch.len().max(1);
    (BATCH_BYTES / bytes_each.max(1)).clamp(1, MAX_BATCH)
}

#[cfg(test)]
mod tests;
