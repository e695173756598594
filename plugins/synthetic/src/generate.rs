//! The source `generate`: records from expressions.
//!
//! A record is a function of its number (and of the seed), so it can be made again after a crash: the position of a record is its number,
//! and resuming means counting on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::OnError;
use pseidon_plugin::source::{Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup, Stopped};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_plugin::{Batch, Options, Split};

mod numbers;
mod pace;
mod recipe;
mod values;

pub use pace::Pace;
use recipe::{Failure, Recipe};
pub use values::NumberExpr;

/// The largest number there can be, since `n` is an int64.
const LAST_NUMBER: u64 = i64::MAX as u64;
const MOST_SPLITS: u64 = 4096;
/// The bytes that a batch is to have, roughly; and the records it has until it is known how large they are, and at most.
const BATCH_BYTES: usize = 1 << 20;
const FIRST_BATCH: usize = 256;
const LARGEST_BATCH: usize = 8192;
/// How often a source that waits for room looks whether the run ends.
const PATIENCE: Duration = Duration::from_millis(250);

static SPEC: PluginSpec = PluginSpec {
    name: "generate",
    role: Role::Source,
    summary: "Makes records from SQL expressions.",
    details: "For trying a pipeline out, for tests, and for measuring. The records are JSON objects. Their expressions can use\n\n\
              - `n`, the record's number, from 0 on (int64),\n\
              - `r`, a random number from 0 to just below 1 (float64),\n\
              - `h`, a random whole number from 0 to 2^63 - 1 (int64): `h % 100` is one of a hundred, drawn anew for each record.\n\n\
              `r` and `h` are always the same for the same number and `:seed`. So a record can be made again after a crash, and what \
              leaves the pipeline is exactly once, unless an expression uses `now()`, `random()` or the like. `r` and `h` do not depend \
              on each other.\n\n\
              A run goes on where the last one stopped, as with every source: a pipeline whose `:count` records are all delivered makes \
              no more when it is run again, until the count is raised or its state is removed.",
    positional: None,
    options: &[
        OptionSpec {
            name: "record",
            kind: OptionKind::Exprs,
            default: OptionDefault::Required,
            doc: "The fields of a record: a map from names to SQL expressions, such as `{:id \"n\" :user \"'u' || (h % 100)\" :price \"r * 100\"}`.",
        },
        OptionSpec {
            name: "count",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "How many records to make, over all runs. The pipeline ends after them. Without it there is no end.",
        },
        OptionSpec {
            name: "rate",
            kind: OptionKind::Number,
            default: OptionDefault::None,
            doc: "Records per second, over all splits: `1000`, or `0.5` for one every two seconds. Without it they come as fast as they \
                  are taken. They come in groups about 50 ms apart, and what was held up is made up for.",
        },
        OptionSpec {
            name: "seed",
            kind: OptionKind::Count,
            default: OptionDefault::Value("0"),
            doc: "Another seed gives other values of `r` and `h`.",
        },
        OptionSpec {
            name: "splits",
            kind: OptionKind::Count,
            default: OptionDefault::Value("1"),
            doc: "Over how many splits the records are spread: record `n` is in the split, and has as its `@partition`, `n % splits`. \
                  Records of one split keep their order. Change it only together with the pipeline's name, since each split goes on from \
                  its own number.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::Value("throw"),
            doc: "What happens when an expression has no value for a record, for example because it divides by zero: `:throw` ends the \
                  run, `:noop` counts the record and leaves it out.",
        },
    ],
    free_options: &[],
    example: "(generate {:record {:id \"n\" :user \"'u' || (h % 100)\" :price \"r * 100\"} :count 1000000})",
};

/// The plugin `generate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeneratePlugin;

impl SourcePlugin for GeneratePlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let mut wrong = |option: &str, message: &str, expected: &str| {
            mistakes.push(Diagnostic::new(options.span_of(option), message, expected));
        };
        let pace = options.number("rate").and_then(|rate| {
            let pace = Pace::new(rate);
            if pace.is_none() {
                wrong("rate", "records cannot come at this rate", "expected a number above 0");
            }
            pace
        });
        let splits = options.count("splits").unwrap_or(1);
        if !(1..=MOST_SPLITS).contains(&splits) {
            wrong("splits", "records cannot be spread over so many splits", &format!("expected 1 to {MOST_SPLITS}"));
        }
        let skip_failures = match options.on_error("on-error") {
            None | Some(OnError::Throw) => false,
            Some(OnError::Noop) => true,
            Some(OnError::Retry { .. } | OnError::Quarantine { .. }) => {
                wrong("on-error", "a record that could not be made cannot be tried again or put aside", "expected :throw or :noop");
                false
            }
        };
        let record = options.named_exprs("record").unwrap_or_default();
        match Recipe::new(record, options.span_of("record"), options.count("seed").unwrap_or(0)) {
            Ok(recipe) if mistakes.is_empty() => {
                Ok(Arc::new(Generate { recipe, count: options.count("count"), pace, splits: splits as usize, skip_failures }))
            }
            Ok(_) => Err(mistakes),
            Err(more) => {
                mistakes.extend(more);
                Err(mistakes)
            }
        }
    }
}

struct Generate {
    recipe: Recipe,
    count: Option<u64>,
    pace: Option<Pace>,
    splits: usize,
    /// Whether a record that cannot be made is left out; otherwise it ends the run.
    skip_failures: bool,
}

impl Source for Generate {
    fn facts(&self) -> SourceFacts {
        let not_rereadable = (!self.recipe.is_deterministic()).then_some("its expressions use now(), random() or the like");
        SourceFacts {
            format: "json".into(),
            schema: Some(self.recipe.schema().clone()),
            not_rereadable,
            finite: self.count.is_some(),
            topic_may_change: false,
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError> {
        let count = self.end().min(count as u64);
        let made = self.make(&self.split(setup, 0), (0..count).collect(), count, setup)?;
        Ok((0..made.len()).filter_map(|row| made.payloads.get_bytes(row)).collect())
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
        match self.generate(setup, &handle) {
            Ok(()) | Err(End::Stopped) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }
}

/// Why a run ended before its last record.
enum End {
    Stopped,
    Failed(SourceError),
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        End::Stopped
    }
}

impl From<SourceError> for End {
    fn from(error: SourceError) -> Self {
        End::Failed(error)
    }
}

impl Generate {
    fn generate(&self, setup: &SourceSetup, handle: &SourceHandle) -> Result<(), End> {
        let splits: Vec<_> = (0..self.splits).map(|split| self.split(setup, split)).collect();
        let resumed = handle.take(splits.clone())?;
        let resumed: Vec<Position> = resumed.into_iter().map(|known| known.map_or(0, |known| known.position)).collect();
        handle.begin(splits.iter().cloned().zip(resumed.iter().copied()).collect())?;

        let first = resumed.iter().copied().min().unwrap_or(0);
        let started = Instant::now();
        let mut next = first;
        let mut batch_size = FIRST_BATCH;
        while next < self.end() {
            if !handle.wait_for_room(PATIENCE)? {
                continue;
            }
            let mut upto = next.saturating_add((batch_size * self.splits) as u64).min(self.end());
            if let Some(pace) = self.pace {
                let due = first.saturating_add(pace.due(started.elapsed()));
                if due <= next {
                    handle.sleep(pace.pause(next - first, started.elapsed()))?;
                    continue;
                }
                upto = upto.min(due);
            }
            for (index, split) in splits.iter().enumerate() {
                let from = next.max(resumed[index]);
                let numbers = numbers_of_split(from, upto, index, self.splits);
                if numbers.is_empty() {
                    continue;
                }
                let batch = self.make(split, numbers, upto, setup)?;
                batch_size = next_batch_size(&batch);
                handle.emit(batch)?;
            }
            next = upto;
            if let Some(count) = self.count {
                setup.metrics.lag.with_label_values(&[&setup.stage]).set((count - next.min(count)) as i64);
            }
        }
        Ok(())
    }

    /// The number after the last.
    fn end(&self) -> u64 {
        self.count.unwrap_or(LAST_NUMBER).min(LAST_NUMBER)
    }

    fn split(&self, setup: &SourceSetup, index: usize) -> Arc<Split> {
        Arc::new(Split { id: format!("{}:{index}", setup.stage).into(), topic: setup.stage.clone(), partition: index as i32 })
    }

    fn make(&self, split: &Arc<Split>, numbers: Vec<u64>, next: Position, setup: &SourceSetup) -> Result<Batch, SourceError> {
        let made = self.recipe.make(split, numbers, next).map_err(SourceError::Fatal)?;
        match made.failed.first() {
            Some(Failure { number, reason }) if !self.skip_failures => {
                Err(SourceError::Fatal(format!("record {number} cannot be made: {reason}; with :on-error :noop it is left out")))
            }
            _ => {
                if !made.failed.is_empty() {
                    setup.metrics.bad_records.with_label_values(&[setup.stage.as_str(), "dropped"]).inc_by(made.failed.len() as u64);
                }
                Ok(made.batch)
            }
        }
    }
}

/// The numbers from `from` to below `upto` that belong to the split.
fn numbers_of_split(from: u64, upto: u64, index: usize, splits: usize) -> Vec<u64> {
    let (index, splits) = (index as u64, splits as u64);
    let first = from + (index + splits - from % splits) % splits;
    (first..upto).step_by(splits as usize).collect()
}

/// As many records as make a batch of [`BATCH_BYTES`], if they are like these.
fn next_batch_size(batch: &Batch) -> usize {
    let bytes_each = batch.size() / batch.len().max(1);
    (BATCH_BYTES / bytes_each.max(1)).clamp(1, LARGEST_BATCH)
}

#[cfg(test)]
mod tests;
