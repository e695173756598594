//! The source `stdin`: lines from standard input.
//!
//! Standard input cannot be re-read, so positions only have to be new: each run counts bytes from a
//! position that no earlier run can have reached ([`first_position`]).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use pseidon_delivery::{Position, Reason};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::format::SourceFormat;
use pseidon_plugin::options::{OnError, Options, SchemaOption, SpannedValue};
use pseidon_plugin::source::{
    RecordPlace, Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourcePlugin,
    SourceSetup,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::{Payloads, Split};

mod lines;

use lines::{InputState, LineReader};

/// How often a waiting source checks whether the run is stopping.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// More bytes than can be read in a microsecond: 2 GB/s. `@offset` is an int64, which does not
/// overflow until after 2090.
const MAX_BYTES_PER_MICRO: Position = 1 << 11;
/// More bytes than a lane is likely to be ahead: 1 TiB.
const GAP: Position = 1 << 40;

static SPEC: PluginSpec = PluginSpec {
    name: "stdin",
    role: Role::Source,
    summary: "Reads lines from standard input.",
    details: "Each line is a record, as in the source `files`; it ends at a line feed, after a \
        carriage return or not, or at the end of the input. Empty lines are skipped. The pipeline stops at the end of the input.\n\n\
        Standard input cannot be re-read: records that were read but not delivered when the \
        process is killed are lost, so every path from this source is at-most-once, and `check` \
        reports it. A graceful stop (Ctrl-C, SIGTERM) delivers every complete line that was \
        read.\n\n\
        `@topic` is the stage's name, `@partition` is 0, and `@offset` counts bytes. `@offset` \
        increases from run to run, with gaps, and never decreases.",
    positional: StdinOptions::POSITIONAL,
    options: StdinOptions::DECLARED,
    example: "(stdin {:format \"json\" :schema {:id :int64 :url :utf8}})",
};

/// The options of the source `stdin`.
#[derive(Clone, Debug, Options)]
pub struct StdinOptions {
    /// The format of a line: the name of a format, optionally with settings after a colon, such as
    /// `"txt:sep=pipe;ts=0"`.
    #[option(default = "json")]
    format: SpannedValue<SourceFormat>,
    /// The types of the records' fields. Without it, the types are derived from how the fields are
    /// used. `:infer` is not supported, because standard input cannot be re-read.
    schema: Option<SpannedValue<SchemaOption>>,
    /// What to do with a line that is malformed or does not match the schema. By default the line
    /// is quarantined next to the output.
    on_error: Option<OnError>,
}

/// The plugin `stdin`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdinPlugin;

impl SourcePlugin for StdinPlugin {
    type Options = StdinOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &StdinOptions) -> OnError {
        options.on_error.clone().unwrap_or_default()
    }

    fn prepare(&self, options: &StdinOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let schema = match &options.schema {
            None => None,
            Some(schema) => match &schema.value {
                SchemaOption::Fields(fields) => Some(fields.clone()),
                SchemaOption::Infer => {
                    let error = schema.error(
                        "cannot infer a schema from standard input, because it cannot be re-read",
                        "expected a map of fields",
                    );
                    let help = "list the fields, such as :schema {:id :int64}";
                    return Err(vec![error.with_help(help)]);
                }
            },
        };
        let format = options.format.clone();
        Ok(Arc::new(Stdin::new(format, schema, READER.clone())))
    }
}

struct Stdin {
    format: SpannedValue<SourceFormat>,
    schema: Option<SchemaRef>,
    /// Kept between runs, for the header and the rest of a line that a run was stopped in.
    reader: Arc<Mutex<LineReader>>,
}

/// The reader of the process's standard input. A process may run several plans one after another,
/// and each continues where the one before it stopped.
static READER: LazyLock<Arc<Mutex<LineReader>>> =
    LazyLock::new(|| Arc::new(Mutex::new(LineReader::new())));

impl Source for Stdin {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.format.value.clone(),
            format_span: Some(self.format.span),
            schema: self.schema.clone(),
            infer: None,
            splits_bytes: true,
            reads_columns: false,
            reread: Reread::Inexact {
                reason: "standard input cannot be re-read",
            },
            finite: true,
            topic_may_change: false,
        }
    }

    fn sample(&self, _setup: &SourceSetup, _count: usize) -> Result<Vec<Payloads>, SourceError> {
        Err(SourceError::Fatal(
            "cannot infer a schema from standard input, because it cannot be re-read; set :schema"
                .into(),
        ))
    }

    fn place_of(&self, _base: &Path, record: &RecordPlace) -> String {
        format!("standard input, byte {}", record.position)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        // A separate descriptor, because the standard library's handle has a buffer that `poll`
        // does not see.
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        self.read(&File::from(input), setup, &handle)
    }
}

impl Stdin {
    fn new(
        format: SpannedValue<SourceFormat>,
        schema: Option<SchemaRef>,
        reader: Arc<Mutex<LineReader>>,
    ) -> Stdin {
        Stdin {
            format,
            schema,
            reader,
        }
    }

    fn read(
        &self,
        input: &File,
        setup: &SourceSetup,
        handle: &SourceHandle,
    ) -> Result<(), SourceExit> {
        read_lines(&mut self.reader.lock(), input, setup, handle)
    }
}

fn failed(error: io::Error) -> SourceError {
    SourceError::Fatal(Reason::caused_by("cannot read standard input", error))
}

fn read_lines(
    reader: &mut LineReader,
    mut input: &File,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceExit> {
    let split = Arc::new(Split {
        id: format!("{}:0", setup.stage).into(),
        topic: setup.stage.clone(),
        partition: 0,
    });
    let resumed = handle.take(vec![split.clone()])?;
    let first = first_position(
        resumed
            .first()
            .and_then(Option::as_ref)
            .map(|known| known.position),
        SystemTime::now(),
    );
    handle.begin(vec![(split.clone(), first)])?;
    reader.begin_run(setup.framing);
    loop {
        match await_input(input, handle) {
            Err(SourceExit::Stopped) if reader.unfinished() > 0 => {
                tracing::warn!(
                    stage = setup.stage,
                    bytes = reader.unfinished(),
                    "stopped in the middle of a line"
                );
                return Err(SourceExit::Stopped);
            }
            other => other?,
        }
        let ready = |input: &&File| crate::poll::readable(input, Duration::ZERO);
        let filled = reader
            .fill(&mut input, ready, setup.memory / 4)
            .map_err(failed)?;
        if let Some(batch) = reader.batch(&split, first) {
            handle.emit(batch)?;
        }
        if filled == InputState::End {
            return Ok(());
        }
    }
}

/// Waits until the memory budget has room and the input is readable.
fn await_input(input: &File, handle: &SourceHandle) -> Result<(), SourceExit> {
    loop {
        let room = handle.wait_for_room(POLL_INTERVAL)?;
        if room && crate::poll::readable(input, POLL_INTERVAL).map_err(failed)? {
            return Ok(());
        }
    }
}

/// The position at which a run starts counting. `now` is the wall-clock time; every record below
/// `resumed` is durable in every sink.
///
/// A sink, or one of its lanes, may be ahead of `resumed`, and it skips records below its own
/// position. So new bytes must not get a position that an earlier run may have used. No sink
/// reports how far it is ahead, but no run counts faster than [`MAX_BYTES_PER_MICRO`], so every
/// position of an earlier run is below the one computed from the wall-clock time.
fn first_position(resumed: Option<Position>, now: SystemTime) -> Position {
    let Some(low) = resumed else { return 0 };
    let micros = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    let by_wall_clock = u64::try_from(micros)
        .unwrap_or(u64::MAX)
        .saturating_mul(MAX_BYTES_PER_MICRO);
    // If the wall-clock time was set back, there is still a gap that a lane is unlikely to be ahead
    // of.
    by_wall_clock
        .min(i64::MAX as u64 / 8 * 7)
        .max(low.saturating_add(GAP))
}

#[cfg(test)]
mod tests;
