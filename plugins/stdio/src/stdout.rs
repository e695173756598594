//! The sink `stdout`: records as lines on standard output.
//!
//! Every chunk is written out as soon as it comes, and positions are committed afterwards, every
//! second and at the end: after a crash a line may be printed again, and none is left out.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::committer::Abandon;
use pseidon_delivery::{LaneId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_formats::{RecordEncoder, RecordFormat};
use pseidon_plugin::lane::{Lane, LaneRules, Room, Sealed};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, PreparedSink, Protocol, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin,
    SinkSetup, TakenOver, TakenSplit,
};
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};
use pseidon_plugin::{BadRow, Options, Rows, Stop};

mod outlet;

use outlet::Outlet;

const LANE: &str = "printed";
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const BUFFER: usize = 64 << 10;

static SPEC: PluginSpec = PluginSpec {
    name: "stdout",
    role: Role::Sink,
    summary: "Writes records to standard output, one a line.",
    details: "Records are printed as soon as they arrive. When whoever reads them has had enough (`pseidon run … | head`), the pipeline \
              stops reading, finishes what its other sinks have begun, and ends without an error; records that could not be printed any \
              more come again in the next run.\n\n\
              What was printed cannot be taken back: after a crash up to a second's records are printed again, so every path to here is \
              at-least-once, and `check` says so.",
    positional: Some("format"),
    options: &[
        OptionSpec {
            name: "format",
            kind: OptionKind::Choice(&["json", "txt", "raw"]),
            default: OptionDefault::Value("json"),
            doc: "How a record is written: `:json` as one object, `:txt` as its text (the record as it came, or its only column), `:raw` \
                  as the bytes that came. Each is followed by a line feed.",
        },
        OptionSpec {
            name: "on-error",
            kind: OptionKind::OnError,
            default: OptionDefault::None,
            doc: "What happens to a record that cannot be written in the format. Without it the record is put into quarantine.",
        },
    ],
    free_options: &[],
    example: "(stdout {:format :json})",
};

/// The plugin `stdout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdoutPlugin;

impl SinkPlugin for StdoutPlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn facts(&self, _options: &Options) -> SinkFacts {
        let protocol = Protocol::AtLeastOnce("what was printed before a crash is printed again");
        SinkFacts {
            typed: false,
            copies_meta: false,
            protocol,
            folder: None,
        }
    }

    fn prepare(
        &self,
        options: &Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let wrong = |reason| {
            vec![Diagnostic::new(
                options.span_of("format"),
                "these records cannot be printed so",
                reason,
            )]
        };
        let format: RecordFormat = options
            .text("format")
            .unwrap_or("json")
            .parse()
            .map_err(wrong)?;
        let encoder = RecordEncoder::new(format, input).map_err(wrong)?;
        Ok(Arc::new(Prepared {
            encoder: Arc::new(encoder),
        }))
    }
}

struct Prepared {
    encoder: Arc<RecordEncoder>,
}

impl PreparedSink for Prepared {
    fn nondeterminism(&self) -> Option<String> {
        None
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        // A descriptor of our own, since the standard library's handle keeps a buffer that is
        // written line by line.
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
        let outlet = Outlet::new(
            output,
            setup.committer.sink().as_str(),
            setup.stop.clone(),
            &setup.metrics,
        );
        let out = Mutex::new(BufWriter::with_capacity(BUFFER, outlet));
        Stdout {
            printer: Arc::new(Printer {
                encoder,
                out,
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
        _staged: &[Staged],
    ) -> Result<TakenOver, SinkError> {
        Ok(TakenOver::default())
    }

    fn route(&self, rows: Rows) -> Routed {
        let bad = self.printer.encoder.check(&rows);
        match rows.without(&bad) {
            Ok(rows) if rows.is_empty() => Routed {
                chunks: Vec::new(),
                bad,
            },
            Ok(rows) => Routed {
                chunks: vec![Chunk::new(LANE.into(), rows)],
                bad,
            },
            Err(error) => {
                let all = (0..rows.len() as u32).map(|row| BadRow {
                    row,
                    reason: error.to_string(),
                });
                Routed {
                    chunks: Vec::new(),
                    bad: all.collect(),
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
        self.printer.look_for_reader()
    }
}

/// Standard output, as the lanes of a run share it.
struct Printer {
    encoder: Arc<RecordEncoder>,
    out: Mutex<BufWriter<Outlet>>,
    stop: Stop,
    /// Whether anything may still be read of what is printed. Afterwards nothing is printed any
    /// more.
    has_reader: AtomicBool,
}

impl Printer {
    fn print(&self, rows: &Rows) -> io::Result<()> {
        let mut out = self.out.lock();
        // A pipeline may print in several places: their lines must not be mixed.
        let _turn = io::stdout().lock();
        self.encoder.write_lines(rows, &mut *out)?;
        out.flush()
    }

    fn has_reader(&self) -> bool {
        self.has_reader.load(Ordering::Relaxed)
    }

    /// A reader that left is seen even while there is nothing to print for it.
    fn look_for_reader(&self) -> Result<(), SinkError> {
        if self.has_reader() && self.out.lock().get_ref().reader_left().map_err(failed)? {
            self.stop_reading();
        }
        Ok(())
    }

    fn stop_reading(&self) {
        self.has_reader.store(false, Ordering::Relaxed);
        self.stop.stop_reading();
    }
}

/// What is printed between two commits.
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
            Err(_) if self.printer.stop.leaving_now() => Err(Abandon::Stopped.into()),
            Err(error) => Err(failed(error)),
        }
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.printer.look_for_reader()
    }

    fn seal(self: Box<Self>) -> Result<Sealed, SinkError> {
        Ok(Sealed::Durable)
    }
}

fn failed(error: io::Error) -> SinkError {
    SinkError::Fatal(format!("cannot write to standard output: {error}"))
}

#[cfg(test)]
mod tests;
