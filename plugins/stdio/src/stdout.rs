//! The sink `stdout`: records as lines on standard output.
//!
//! Every chunk is written out as soon as it comes, and positions are committed afterwards, every second and at the end: after a crash a
//! line may be printed again, and none is left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::committer::Abandon;
use pseidon_delivery::{Committer, LaneCommit, LaneId, Position, SplitId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_formats::{RecordEncoder, RecordFormat};
use pseidon_plugin::sink::{
    Chunk, PreparedSink, Protocol, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin, SinkSetup, TakenOver, TakenSplit, Writer,
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
        SinkFacts { typed: false, copies_meta: false, protocol, folder: None }
    }

    fn prepare(&self, options: &Options, input: &SinkInput) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let wrong = |reason| vec![Diagnostic::new(options.span_of("format"), "these records cannot be printed so", reason)];
        let format: RecordFormat = options.text("format").unwrap_or("json").parse().map_err(wrong)?;
        let encoder = RecordEncoder::new(format, input).map_err(wrong)?;
        Ok(Arc::new(Prepared { encoder: Arc::new(encoder) }))
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
        // A descriptor of our own, since the standard library's handle keeps a buffer that is written line by line.
        let output = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        Ok(Arc::new(Stdout { output: File::from(output), encoder: self.encoder.clone(), setup }))
    }
}

struct Stdout {
    output: File,
    encoder: Arc<RecordEncoder>,
    setup: SinkSetup,
}

impl Sink for Stdout {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, _splits: &[TakenSplit], _staged: &[Staged]) -> Result<TakenOver, SinkError> {
        Ok(TakenOver::default())
    }

    fn route(&self, rows: Rows) -> Routed {
        let bad = self.encoder.check(&rows);
        match rows.without(&bad) {
            Ok(rows) if rows.is_empty() => Routed { chunks: Vec::new(), bad },
            Ok(rows) => Routed { chunks: vec![Chunk::new(LANE.into(), rows)], bad },
            Err(error) => {
                let all = (0..rows.len() as u32).map(|row| BadRow { row, reason: error.to_string() });
                Routed { chunks: Vec::new(), bad: all.collect() }
            }
        }
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        let output = self.output.try_clone().map_err(failed)?;
        let setup = &self.setup;
        let outlet = Outlet::new(output, setup.committer.sink().as_str(), setup.stop.clone(), &setup.metrics);
        Ok(Box::new(StdoutWriter {
            out: BufWriter::with_capacity(BUFFER, outlet),
            encoder: self.encoder.clone(),
            committer: setup.committer.clone(),
            lane: LANE.into(),
            stop: setup.stop.clone(),
            printed: HashMap::new(),
            reader_left: false,
        }))
    }
}

struct StdoutWriter {
    out: BufWriter<Outlet>,
    encoder: Arc<RecordEncoder>,
    committer: Arc<Committer>,
    lane: LaneId,
    stop: Stop,
    /// Up to where each split was printed since the last commit.
    printed: HashMap<SplitId, Position>,
    /// Nobody reads what is printed any more; from then on nothing is, and nothing counts as printed.
    reader_left: bool,
}

impl StdoutWriter {
    fn print(&mut self, rows: &Rows) -> io::Result<()> {
        // A pipeline may print in several places: their lines must not be mixed.
        let _turn = io::stdout().lock();
        self.encoder.write_lines(rows, &mut self.out)?;
        self.out.flush()
    }

    fn commit(&mut self) -> Result<(), SinkError> {
        if self.printed.is_empty() {
            return Ok(());
        }
        let splits = self.printed.drain().collect();
        self.committer.commit(&[LaneCommit { lane: self.lane.clone(), splits }], Vec::new())?;
        Ok(())
    }

    fn stop_reading(&mut self) {
        self.reader_left = true;
        self.stop.stop_reading();
    }
}

impl Writer for StdoutWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        let Some(last) = chunk.rows.len().checked_sub(1) else { return Ok(()) };
        if self.reader_left {
            return Ok(());
        }
        match self.print(&chunk.rows) {
            Ok(()) => {
                let upto = chunk.rows.position(last) + 1;
                self.printed.insert(chunk.rows.batch().split.id.clone(), upto);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.stop_reading();
                Ok(())
            }
            Err(_) if self.stop.leaving_now() => Err(Abandon::Stopped.into()),
            Err(error) => Err(failed(error)),
        }
    }

    fn tick_every(&self) -> Duration {
        COMMIT_EVERY
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        // A reader that left is seen even while there is nothing to print for it.
        if !self.reader_left && self.out.get_ref().reader_left().map_err(failed)? {
            self.stop_reading();
        }
        self.commit()
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let asked = |split: &SplitId| splits.is_none_or(|wanted| wanted.contains(split));
        if self.printed.keys().any(asked) { self.commit() } else { Ok(()) }
    }
}

fn failed(error: io::Error) -> SinkError {
    SinkError::Fatal(format!("cannot write to standard output: {error}"))
}

#[cfg(test)]
mod tests;
