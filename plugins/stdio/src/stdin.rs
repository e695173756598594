//! The source `stdin`: lines as they come.
//!
//! What was read cannot be read again, so positions only have to be new: bytes are counted on from
//! beyond whatever an earlier run can have come to ([`first_position`]).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parking_lot::Mutex;
use pseidon_delivery::Position;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::SchemaOption;
use pseidon_plugin::source::{
    Source, SourceError, SourceFacts, SourceHandle, SourcePlugin, SourceSetup, Stopped,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_plugin::{Options, Split};

mod lines;

use lines::{Filled, LineReader};

/// How often a source that waits looks whether the run ends.
const PATIENCE: Duration = Duration::from_millis(250);
/// More bytes than are read in a microsecond: 2 GB/s. `@offset` is an int64, which holds this until
/// after 2090.
const MOST_PER_MICRO: Position = 1 << 11;
/// More than a lane is likely to be ahead: 1 TiB.
const GAP: Position = 1 << 40;

static SPEC: PluginSpec = PluginSpec {
    name: "stdin",
    role: Role::Source,
    summary: "Reads lines from standard input.",
    details: "Every line is a record; it ends with a line feed, or with the input. Empty lines are skipped where the format is `json`. \
              The pipeline ends when the input does.\n\n\
              Standard input cannot be read again: records that were read and not yet delivered when the process is killed are lost, so \
              every path from here is at-most-once, and `check` says so. A graceful stop (Ctrl-C, SIGTERM) delivers every whole line \
              that was read.\n\n\
              `@topic` is the stage's name, `@partition` is 0, and `@offset` counts bytes; it goes on from run to run, with gaps, and \
              never back.",
    positional: None,
    options: &[
        OptionSpec {
            name: "format",
            kind: OptionKind::Text,
            default: OptionDefault::Value("json"),
            doc: "How a line is laid out: the name of a format, with its settings after a colon, such as `\"txt:sep=pipe;ts=0\"`.",
        },
        OptionSpec {
            name: "schema",
            kind: OptionKind::Schema,
            default: OptionDefault::None,
            doc: "The types of the records' fields. Without it the types come from how the fields are used. `:infer` is not possible \
                  here: what was looked at would be gone.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a line that is not of the format or does not fit the schema. Without it the line is put into \
                  quarantine beside the output.",
        },
    ],
    free_options: &[],
    example: "(stdin {:format \"json\" :schema {:id :int64 :url :utf8}})",
};

/// The plugin `stdin`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdinPlugin;

impl SourcePlugin for StdinPlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn prepare(&self, options: &Options) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        let schema = match options.schema("schema") {
            None => None,
            Some(SchemaOption::Fields(schema)) => Some(schema.clone()),
            Some(SchemaOption::Infer) => {
                let mistake = Diagnostic::new(
                    options.span_of("schema"),
                    "standard input cannot be looked at and then read",
                    "expected the fields",
                )
                .with_help("give them as a map, such as {:id :int64}");
                return Err(vec![mistake]);
            }
        };
        let format = options.text("format").unwrap_or("json").to_owned();
        Ok(Arc::new(Stdin::new(format, schema)))
    }
}

struct Stdin {
    format: String,
    schema: Option<SchemaRef>,
    /// Kept from run to run, for the line that one of them was stopped in.
    reader: Mutex<LineReader>,
}

impl Source for Stdin {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.format.clone(),
            schema: self.schema.clone(),
            not_rereadable: Some("standard input cannot be read again"),
            finite: true,
            topic_may_change: false,
        }
    }

    fn sample(&self, _setup: &SourceSetup, _count: usize) -> Result<Vec<Bytes>, SourceError> {
        Err(SourceError::Fatal(
            "standard input cannot be looked at and then read; give :schema".into(),
        ))
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceError> {
        // A descriptor of our own, since the standard library's handle keeps a buffer that `poll`
        // knows nothing of.
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        self.read(&File::from(input), setup, &handle)
    }
}

impl Stdin {
    fn new(format: String, schema: Option<SchemaRef>) -> Stdin {
        let skip_empty = format.split(':').next() == Some("json");
        Stdin {
            format,
            schema,
            reader: Mutex::new(LineReader::new(skip_empty)),
        }
    }

    fn read(
        &self,
        input: &File,
        setup: &SourceSetup,
        handle: &SourceHandle,
    ) -> Result<(), SourceError> {
        match read_lines(&mut self.reader.lock(), input, setup, handle) {
            Ok(()) | Err(End::Stopped) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }
}

/// Why reading ended before the input did.
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

fn failed(error: io::Error) -> SourceError {
    SourceError::Fatal(format!("cannot read standard input: {error}"))
}

fn read_lines(
    reader: &mut LineReader,
    mut input: &File,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), End> {
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
    reader.begin_run();
    loop {
        match await_input(input, handle) {
            Err(End::Stopped) if reader.unfinished() > 0 => {
                tracing::warn!(
                    stage = setup.stage,
                    bytes = reader.unfinished(),
                    "stopped in the middle of a line"
                );
                return Err(End::Stopped);
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
        if filled == Filled::End {
            return Ok(());
        }
    }
}

/// Waits until there is room and something to read.
fn await_input(input: &File, handle: &SourceHandle) -> Result<(), End> {
    loop {
        let room = handle.wait_for_room(PATIENCE)?;
        if room && crate::poll::readable(input, PATIENCE).map_err(failed)? {
            return Ok(());
        }
    }
}

/// Where a run starts to count, at the time `now`, when everything below `resumed` is durable in
/// every sink.
///
/// A sink, or a lane of it, may be ahead of that, and it skips what lies below its own position:
/// that must not hit other bytes under an old number. How far ahead nobody tells, but no run counts
/// faster than the clock, so whatever an earlier run counted is below.
fn first_position(resumed: Option<Position>, now: SystemTime) -> Position {
    let Some(low) = resumed else { return 0 };
    let micros = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    let by_clock = u64::try_from(micros)
        .unwrap_or(u64::MAX)
        .saturating_mul(MOST_PER_MICRO);
    // A clock that was set back still leaves a gap that a lane would have to be far ahead to reach
    // over.
    by_clock
        .min(i64::MAX as u64 / 8 * 7)
        .max(low.saturating_add(GAP))
}

#[cfg(test)]
mod tests;
