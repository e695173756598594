//! The source `generate`: records from expressions.
//!
//! A record is a function of its number (and of the seed), so it can be made again after a crash:
//! the position of a record is its number, and resuming means counting on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::OnError;
use pseidon_plugin::source::{
    Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup, Stopped,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_plugin::{Batch, Options, Split};

mod numbers;
mod pace;
mod recipe;
mod values;

pub use pace::Pace;
use recipe::{Failure, NotMade, Recipe};
pub use values::NumberExpr;

/// The largest number there can be, since `n` is an int64.
const LAST_NUMBER: u64 = i64::MAX as u64;
const MOST_SPLITS: u64 = 4096;
/// The bytes that a batch is to have, roughly; and the records it has until it is known how large
/// they are, and at most.
const BATCH_BYTES: usize = 1 << 20;
const FIRST_BATCH: usize = 256;
const LARGEST_BATCH: usize = 8192;
/// How often splits are shared out among instances.
const ROUND: Duration = Duration::from_secs(1);
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
                wrong(
                    "rate",
                    "records cannot come at this rate",
                    "expected a number above 0",
                );
            }
            pace
        });
        let splits = options.count("splits").unwrap_or(1);
        if !(1..=MOST_SPLITS).contains(&splits) {
            wrong(
                "splits",
                "records cannot be spread over so many splits",
                &format!("expected 1 to {MOST_SPLITS}"),
            );
        }
        let skip_failures = match options.on_error("on-error") {
            None | Some(OnError::Throw) => false,
            Some(OnError::Noop) => true,
            Some(OnError::Retry { .. } | OnError::Quarantine { .. }) => {
                wrong(
                    "on-error",
                    "a record that could not be made cannot be tried again or put aside",
                    "expected :throw or :noop",
                );
                false
            }
        };
        let record = options.named_exprs("record").unwrap_or_default();
        match Recipe::new(
            record,
            options.span_of("record"),
            options.count("seed").unwrap_or(0),
        ) {
            Ok(recipe) if mistakes.is_empty() => Ok(Arc::new(Generate {
                recipe,
                count: options.count("count"),
                pace,
                splits: splits as usize,
                skip_failures,
            })),
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
        let not_rereadable = (!self.recipe.is_deterministic())
            .then_some("its expressions use now(), random() or the like");
        SourceFacts {
            format: "json".into(),
            schema: Some(self.recipe.schema().clone()),
            not_rereadable,
            finite: self.count.is_some(),
            topic_may_change: false,
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Bytes>, SourceError> {
        let mut count = self.end().min(count as u64);
        let made = loop {
            match self.make(&self.split(setup, 0), (0..count).collect(), count, setup)? {
                Some(made) => break made,
                None => count /= 2,
            }
        };
        Ok((0..made.len())
            .filter_map(|row| made.payloads.get_bytes(row))
            .collect())
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

/// A split, and how far it is.
struct Generated {
    split: Arc<Split>,
    /// The next number, while this instance has the split.
    next: Option<Position>,
    /// Whether its last record is durable, whichever instance made it.
    is_over: bool,
}

impl Generated {
    fn new(split: Arc<Split>) -> Generated {
        Generated {
            split,
            next: None,
            is_over: false,
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

/// How far the numbers of all splits together are.
struct Pass {
    /// Where it began, and when: the rate counts from there.
    first: u64,
    started: Instant,
    next: u64,
    batch_size: usize,
}

impl Pass {
    fn begin_at(&mut self, next: u64) {
        (self.first, self.next, self.started) = (next, next, Instant::now());
    }
}

impl Generate {
    fn generate(&self, setup: &SourceSetup, handle: &SourceHandle) -> Result<(), End> {
        let mut splits: Vec<Generated> = (0..self.splits)
            .map(|index| Generated::new(self.split(setup, index)))
            .collect();
        let mut pass = Pass {
            first: 0,
            next: 0,
            started: Instant::now(),
            batch_size: FIRST_BATCH,
        };
        let mut next_round = Instant::now();
        while splits.iter().any(|split| !split.is_over) {
            if Instant::now() >= next_round {
                if self.share(handle, &mut splits)? {
                    pass.begin_at(splits.iter().filter_map(Generated::next).min().unwrap_or(0));
                }
                next_round = Instant::now() + ROUND;
            }
            if splits.iter().all(|split| split.next().is_none()) {
                // The others are another instance's. This one stays, in case that one dies.
                handle.sleep(next_round.saturating_duration_since(Instant::now()))?;
                continue;
            }
            self.make_some(setup, handle, &mut splits, &mut pass)?;
        }
        Ok(())
    }

    /// A round of sharing the splits with other instances. Returns whether one was granted.
    fn share(&self, handle: &SourceHandle, splits: &mut [Generated]) -> Result<bool, End> {
        let unfinished = splits
            .iter()
            .filter(|split| !split.is_over)
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
        let mut granted: Vec<&mut Generated> = splits
            .iter_mut()
            .filter(|split| share.granted.contains(&split.split.id))
            .collect();
        if granted.is_empty() {
            return Ok(false);
        }
        let taken = handle.take(granted.iter().map(|split| split.split.clone()).collect())?;
        let mut begun = Vec::new();
        let mut over = Vec::new();
        for (split, known) in granted.iter_mut().zip(taken) {
            // One that was finished goes on when there are to be more records than before.
            let position = known.map_or(0, |known| known.position);
            if position >= self.end() {
                split.is_over = true;
                over.push(split.split.clone());
            } else {
                split.next = Some(position);
                begun.push((split.split.clone(), position));
            }
        }
        handle.begin(begun)?;
        if !over.is_empty() {
            handle.release(over)?;
        }
        Ok(true)
    }

    /// Makes the next records of all splits that this instance has, as far as there is room for
    /// them and they are due.
    fn make_some(
        &self,
        setup: &SourceSetup,
        handle: &SourceHandle,
        splits: &mut [Generated],
        pass: &mut Pass,
    ) -> Result<(), End> {
        if !handle.wait_for_room(PATIENCE)? {
            return Ok(());
        }
        let mut upto = pass
            .next
            .saturating_add((pass.batch_size * self.splits) as u64)
            .min(self.end());
        if let Some(pace) = self.pace {
            let due = pass.first.saturating_add(pace.due(pass.started.elapsed()));
            if due <= pass.next {
                handle.sleep(pace.pause(pass.next - pass.first, pass.started.elapsed()))?;
                return Ok(());
            }
            upto = upto.min(due);
        }
        let mut ended = Vec::new();
        let mut is_too_much = false;
        for (index, split) in splits.iter_mut().enumerate() {
            let Some(from) = split.next.map(|next| next.max(pass.next)) else {
                continue;
            };
            let numbers = numbers_of_split(from, upto, index, self.splits);
            if !numbers.is_empty() {
                let Some(batch) = self.make(&split.split, numbers, upto, setup)? else {
                    is_too_much = true;
                    break;
                };
                pass.batch_size = next_batch_size(&batch);
                handle.emit(batch)?;
            }
            split.next = Some(upto.max(from));
            if upto >= self.end() {
                handle.emit(Batch::end_of(split.split.clone(), self.end()))?;
                ended.push(split.leave());
                split.is_over = true;
            }
        }
        if !ended.is_empty() {
            handle.release(ended)?;
        }
        if is_too_much {
            // Fewer are tried next time. The splits before that one are further already.
            pass.batch_size = (pass.batch_size / 2).max(1);
            return Ok(());
        }
        pass.next = upto;
        if let Some(count) = self.count {
            setup
                .metrics
                .lag
                .with_label_values(&[&setup.stage])
                .set((count - pass.next.min(count)) as i64);
        }
        Ok(())
    }

    /// The number after the last.
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

    /// A batch of these numbers; `None` if it would become too large.
    fn make(
        &self,
        split: &Arc<Split>,
        numbers: Vec<u64>,
        next: Position,
        setup: &SourceSetup,
    ) -> Result<Option<Batch>, SourceError> {
        let made = match self.recipe.make(split, numbers, next) {
            Ok(made) => made,
            Err(NotMade::TooMany) => return Ok(None),
            Err(NotMade::All(reason)) => return Err(SourceError::Fatal(reason)),
        };
        match made.failed.first() {
            Some(Failure { number, reason }) if !self.skip_failures => {
                Err(SourceError::Fatal(format!(
                    "record {number} cannot be made: {reason}; with :on-error :noop it is left out"
                )))
            }
            _ => {
                if !made.failed.is_empty() {
                    setup
                        .metrics
                        .bad_records
                        .with_label_values(&[setup.stage.as_str(), "dropped"])
                        .inc_by(made.failed.len() as u64);
                }
                Ok(Some(made.batch))
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
