//! The sink `stdout`: records as lines on standard output.
//!
//! Every chunk is written immediately. Positions are committed afterwards, every second and at the
//! end. After a crash a line may be printed again, but none is lost.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{LaneId, Reason, StagedEntry};
use pseidon_dsl::Diagnostic;
use pseidon_formats::{CsvOptions, OutputFormat, RecordEncoder};
use pseidon_plugin::lane::{Lane, LaneRules, Room, SealOutcome};
use pseidon_plugin::options::{OnError, Options, SpannedValue};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, PreparedSink, Protocol, RoutedRows, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin,
    SinkSetup, TakenSplit, TakeoverResult,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::{BadRow, Rows, Stop};

mod interruptible_writer;

use interruptible_writer::InterruptibleWriter;

const LANE: &str = "printed";
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const BUFFER: usize = 64 << 10;

static SPEC: PluginSpec = PluginSpec {
    name: "stdout",
    role: Role::Sink,
    summary: "Writes records to standard output, one per line.",
    details: "Records are printed as soon as they arrive. When the reader closes the pipe \
        (`pseidon run … | head`), the pipeline stops reading, finishes the open work of its other \
        sinks, and exits without an error. Records that were not printed are re-read in the next \
        run.\n\n\
        Printed records cannot be taken back: after a crash, up to one second of records is \
        printed again, so every path to this sink is at-least-once, and `check` reports it.",
    positional: StdoutOptions::POSITIONAL,
    options: StdoutOptions::DECLARED,
    example: "(stdout {:format :json})",
};

/// The options of the sink `stdout`.
#[derive(Clone, Debug, Options)]
pub struct StdoutOptions {
    /// The format of a record: `:json` writes one object, `:csv` and `:tsv` the columns after a
    /// header with their names, `:txt` the record as text (the original record, or its only
    /// column), `:raw` the original bytes. Each record is followed by a line feed.
    #[option(positional, default = "json")]
    format: SpannedValue<OutputFormat>,
    /// How `:csv` and `:tsv` are written, such as `{:header false}`.
    #[option(default = "")]
    csv: CsvOptions,
    /// What to do with a record that cannot be written in the format. By default the record is
    /// quarantined.
    on_error: Option<OnError>,
}

/// The plugin `stdout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdoutPlugin;

impl SinkPlugin for StdoutPlugin {
    type Options = StdoutOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &StdoutOptions) -> OnError {
        options.on_error.clone().unwrap_or_default()
    }

    fn facts(&self, options: &StdoutOptions) -> SinkFacts {
        let protocol = Protocol::AtLeastOnce("records printed before a crash are printed again");
        SinkFacts {
            needs_columns: options.format.value.needs_columns(),
            copies_meta: false,
            protocol,
            folder: None,
        }
    }

    fn prepare(
        &self,
        options: &StdoutOptions,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let encoder = RecordEncoder::with_csv(options.format.value, &options.csv, input).map_err(
            |reason| {
                let message = "this format cannot represent these records";
                vec![options.format.error(message, reason)]
            },
        )?;
        Ok(Arc::new(PreparedStdout {
            encoder: Arc::new(encoder),
        }))
    }
}

struct PreparedStdout {
    encoder: Arc<RecordEncoder>,
}

impl PreparedSink for PreparedStdout {
    fn nondeterminism(&self) -> Option<String> {
        None
    }

    fn writes_to_stdout(&self) -> bool {
        true
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        // A separate descriptor, because the standard library's handle has a line buffer.
        let output = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Arc::new(Stdout::new(
            File::from(output),
            self.encoder.clone(),
            &setup,
        )))
    }
}

struct Stdout {
    printer: Arc<Printer>,
}

impl Stdout {
    fn new(output: File, encoder: Arc<RecordEncoder>, setup: &SinkSetup) -> Stdout {
        let output = InterruptibleWriter::new(
            output,
            setup.committer.sink().as_str(),
            setup.stop.clone(),
            &setup.metrics,
        );
        let out = Mutex::new(BufWriter::with_capacity(BUFFER, output));
        Stdout {
            printer: Arc::new(Printer {
                encoder,
                out,
                has_begun: AtomicBool::new(false),
                stop: setup.stop.clone(),
                has_reader: AtomicBool::new(true),
            }),
        }
    }
}

impl Sink for Stdout {
    fn rules(&self) -> LaneRules {
        let rollover = Rollover::every(COMMIT_EVERY);
        LaneRules {
            single_writer: true,
            rollover,
            check_every: COMMIT_EVERY / 4,
            most_open: usize::MAX,
        }
    }

    fn take_over(
        &self,
        _splits: &[TakenSplit],
        _staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        Ok(TakeoverResult::default())
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let bad = self.printer.encoder.check(&rows);
        match rows.without(&bad) {
            Ok(rows) if rows.is_empty() => RoutedRows {
                chunks: Vec::new(),
                bad,
                ..RoutedRows::default()
            },
            Ok(rows) => RoutedRows {
                chunks: vec![Chunk::new(LANE.into(), rows)],
                bad,
                ..RoutedRows::default()
            },
            Err(error) => {
                let all = (0..rows.len() as u32).map(|row| BadRow {
                    row,
                    reason: error.to_string(),
                });
                RoutedRows {
                    chunks: Vec::new(),
                    bad: all.collect(),
                    ..RoutedRows::default()
                }
            }
        }
    }

    fn lane(&self, _lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(PrintedLane {
            printer: self.printer.clone(),
        }))
    }

    fn tick(&self) -> Result<(), SinkError> {
        self.printer.check_reader()
    }
}

/// Standard output, shared by the lanes of a run.
struct Printer {
    encoder: Arc<RecordEncoder>,
    out: Mutex<BufWriter<InterruptibleWriter>>,
    /// Whether the header, if there is one, was printed.
    has_begun: AtomicBool,
    stop: Stop,
    /// Whether the reader may still read. Once it is false, nothing more is printed.
    has_reader: AtomicBool,
}

impl Printer {
    fn print(&self, rows: &Rows) -> io::Result<()> {
        let mut out = self.out.lock();
        // Several stdout sinks of a pipeline may print at once; their lines must not be mixed.
        let _turn = io::stdout().lock();
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            out.write_all(&self.encoder.header().unwrap_or_default())?;
        }
        self.encoder.write_lines(rows, &mut *out)?;
        out.flush()
    }

    fn has_reader(&self) -> bool {
        self.has_reader.load(Ordering::Relaxed)
    }

    /// Notices that the reader has closed the pipe even while there is nothing to print.
    fn check_reader(&self) -> Result<(), SinkError> {
        if self.has_reader() && self.out.lock().get_ref().is_reader_gone().map_err(failed)? {
            self.stop_reading();
        }
        Ok(())
    }

    fn stop_reading(&self) {
        self.has_reader.store(false, Ordering::Relaxed);
        self.stop.stop_reading();
    }
}

/// The records printed between two commits.
struct PrintedLane {
    printer: Arc<Printer>,
}

impl Lane for PrintedLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        if !self.printer.has_reader() {
            return Ok(Room::Closed);
        }
        match self.printer.print(rows) {
            Ok(()) => Ok(Room::Ready),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.printer.stop_reading();
                Ok(Room::Closed)
            }
            Err(_) if self.printer.stop.leaving_now() => Err(CommitterError::Stopped.into()),
            Err(error) => Err(failed(error)),
        }
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.printer.check_reader()
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Durable)
    }
}

fn failed(error: io::Error) -> SinkError {
    SinkError::Fatal(Reason::caused_by("cannot write to standard output", error))
}

#[cfg(test)]
mod tests;
