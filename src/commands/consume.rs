//! `pseidon consume`: prints the records of a topic as a pipeline decodes them.
//!
//! The arguments are converted to a flow, `(-> (kafka {…}) (select "…") (stdout …))`, which is
//! planned like any other: with the same formats, columns and errors. It is not run like any other,
//! since a run commits its positions and its source joins a consumer group. Here the planned steps
//! get their records from a reader that is invisible to other consumers, and that can start
//! anywhere and stop after any record.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pseidon_delivery::{Reason, WithCauses};
use pseidon_dsl::printable::short_reason;
use pseidon_dsl::{Name, Node, NodeKind, Span, node, print, printable};
use pseidon_exec::process::{ProcessOutcome, Processor, RowReceiver};
use pseidon_expr::Scope;
use pseidon_formats::{OutputFormat, RecordEncoder};
use pseidon_kafka::tools::{ReaderSettings, TopicReader};
use pseidon_plan::chain::{ChainStep, Operator, PlannedSource};
use pseidon_plan::{Plan, SinkIndex};
use pseidon_plugin::batch::{Batch, WantedMetadata};
use pseidon_plugin::options::kinds::Properties;
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::{RecordShape, SinkInput};

use crate::cli::{ConsumeArgs, Exit};
use crate::interrupts;
use crate::load::{Parameters, PipelineText, TextKind};
use crate::stderr_line;
use crate::throughput::Meter;

/// How long to wait for records before checking whether the command is stopped.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the rate is printed.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// How often offsets are committed to the consumer group.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

impl ConsumeArgs {
    /// The flow for these arguments, as EDN.
    fn flow(&self) -> String {
        let node = |kind| Node {
            kind,
            span: Span::default(),
        };
        let text = |value: &str| node(NodeKind::Str(node::Text::plain(value, 0)));
        let symbol = |name: &str| node(NodeKind::Symbol(Name::plain(name)));
        let keyword = |name: &str| node(NodeKind::Keyword(Name::plain(name)));
        let raw = self.format == "raw";
        let source = node(NodeKind::Map(vec![
            (keyword("brokers"), text(&self.brokers)),
            (
                keyword("topics"),
                node(NodeKind::Vector(vec![text(&self.topic)])),
            ),
            (keyword("format"), text(&self.format)),
        ]));
        let mut steps = vec![
            symbol("->"),
            node(NodeKind::List(vec![symbol("kafka"), source])),
        ];
        // A json record is printed unchanged. Other formats declare their fields; raw has none.
        let all = if self.format == "json" || raw {
            None
        } else {
            Some("*")
        };
        if let Some(columns) = self.columns.as_deref().or(all) {
            steps.push(node(NodeKind::List(vec![symbol("select"), text(columns)])));
        }
        let printed = if raw && self.columns.is_none() {
            "raw"
        } else {
            "json"
        };
        steps.push(node(NodeKind::List(vec![
            symbol("stdout"),
            keyword(printed),
        ])));
        print::print(&node(NodeKind::List(steps)))
    }

    /// Plans the flow. Errors are printed.
    fn plan(&self) -> Result<Plan, Exit> {
        let text = PipelineText {
            name: "consume".to_owned(),
            text: self.flow(),
            kind: TextKind::Flow,
            base: PathBuf::from("."),
            default_name: "consume".to_owned(),
            parameters: Parameters::default(),
            tables: Default::default(),
        };
        text.plan(&text.document()?)
    }

    fn reader(&self, wanted: WantedMetadata) -> Result<TopicReader, Reason> {
        TopicReader::open(ReaderSettings {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            begin: self.from,
            group: self.group.clone(),
            properties: Properties(self.properties.clone()),
            wanted,
        })
    }
}

/// Consumes until the arguments or a signal end it, or until standard output is closed.
pub(crate) fn consume(args: &ConsumeArgs) -> Exit {
    let outcome = if args.rate {
        measure(args)
    } else {
        match args.plan() {
            Ok(plan) => show(args, &plan),
            Err(exit) => return exit,
        }
    };
    match outcome {
        Ok(()) => Exit::Done,
        // The reader of standard output, such as `head`, has exited.
        Err(ConsumeError::OutputClosed) => Exit::Done,
        Err(ConsumeError::Failed(reason)) => {
            stderr_line!("error: {reason}");
            Exit::Failed
        }
    }
}

/// Why consuming ended early.
#[derive(Debug)]
enum ConsumeError {
    /// Standard output is a pipe whose reader has exited.
    OutputClosed,
    Failed(String),
}

impl From<String> for ConsumeError {
    fn from(reason: String) -> Self {
        ConsumeError::Failed(reason)
    }
}

impl From<Reason> for ConsumeError {
    fn from(reason: Reason) -> Self {
        ConsumeError::Failed(WithCauses(&reason).to_string())
    }
}

impl From<io::Error> for ConsumeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => ConsumeError::OutputClosed,
            _ => ConsumeError::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Prints the throughput every second, and the total at the end.
fn measure(args: &ConsumeArgs) -> Result<(), ConsumeError> {
    let (mut records, mut bytes) = (0, 0);
    let mut meter = Meter::start();
    let mut out = io::stdout();
    let outcome = each_batch(args, WantedMetadata::default(), |batches| {
        for batch in batches {
            records += batch.len() as u64;
            bytes += (0..batch.len())
                .filter_map(|row| batch.payloads.get(row))
                .map(|payload| payload.len() as u64)
                .sum::<u64>();
        }
        if meter.since() >= RATE_INTERVAL {
            writeln!(out, "{}", meter.sample(records, bytes))?;
        }
        Ok(())
    });
    if !matches!(outcome, Err(ConsumeError::OutputClosed)) {
        writeln!(
            io::stdout(),
            "consumed {}",
            meter.total(records, bytes).summary()
        )?;
    }
    outcome
}

/// Prints the records as the source of the plan decodes them.
fn show(args: &ConsumeArgs, plan: &Plan) -> Result<(), ConsumeError> {
    let [source] = plan.sources.as_slice() else {
        return Err("the flow has no source".to_owned().into());
    };
    let mut printer = Printer::new(source)?;
    let mut out = io::stdout().lock();
    let outcome = each_batch(args, source.columns.meta, |batches| {
        for batch in batches {
            printer.print(batch, &mut out)?;
        }
        Ok(out.flush()?)
    });
    if printer.bad > 0 {
        stderr_line!("{} invalid records were not printed", printer.bad);
    }
    outcome
}

/// Reads until the arguments or a signal end it, and calls `take` with the records, at least every
/// [`READ_TIMEOUT`]; the list may be empty. With a group, records are committed after `take`
/// returned.
fn each_batch(
    args: &ConsumeArgs,
    wanted: WantedMetadata,
    mut take: impl FnMut(Vec<Batch>) -> Result<(), ConsumeError>,
) -> Result<(), ConsumeError> {
    let stop = interrupts::flag()?;
    let mut reader = args.reader(wanted)?;
    let mut left = args.number.unwrap_or(u64::MAX);
    let mut committed = Instant::now();
    while left > 0 && !stop.load(Ordering::Relaxed) && !(args.exit && reader.is_at_end()) {
        let batches = reader.read(usize::try_from(left).unwrap_or(usize::MAX), READ_TIMEOUT)?;
        left -= batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        take(batches)?;
        if committed.elapsed() >= COMMIT_INTERVAL {
            reader.commit()?;
            committed = Instant::now();
        }
    }
    Ok(reader.commit()?)
}

/// The most bytes that the steps may produce from the records of one call.
const MAX_OUTPUT: usize = 16 << 20;

/// Processes batches by the planned steps, and prints the resulting records.
struct Printer<'p> {
    source: &'p PlannedSource,
    processor: Processor,
    encoder: RecordEncoder,
    /// The number of invalid records, which were not printed.
    bad: u64,
}

impl<'p> Printer<'p> {
    fn new(source: &'p PlannedSource) -> Result<Printer<'p>, String> {
        let columns = source
            .chain
            .steps
            .iter()
            .find_map(|step| match &step.operator {
                Operator::Select(_, schema) => Some(schema.clone()),
                _ => None,
            });
        let format = if columns.is_none() && source.format.name() == "raw" {
            OutputFormat::Raw
        } else {
            OutputFormat::Json
        };
        let record = match columns {
            Some(schema) => RecordShape::Columns(schema),
            None => RecordShape::AsCame {
                format: source.format.name().to_owned(),
            },
        };
        let encoder = RecordEncoder::new(
            format,
            &SinkInput {
                scope: Scope::default(),
                record,
            },
        )?;
        Ok(Printer {
            source,
            processor: Processor::new(source, MAX_OUTPUT)?,
            encoder,
            bad: 0,
        })
    }

    fn print(&mut self, batch: Batch, out: &mut impl Write) -> Result<(), ConsumeError> {
        let batch = Arc::new(batch);
        let mut done = 0;
        while done < batch.len() {
            let records = done..done
                .saturating_add(self.processor.at_once())
                .min(batch.len());
            let mut collector = LineCollector {
                encoder: &self.encoder,
                lines: Vec::new(),
                failure: None,
            };
            self.processor.prepare(&batch, records.clone())?;
            let outcome = self
                .processor
                .process(self.source, &batch, records.clone(), &mut collector)
                .map_err(|thrown| thrown.to_string())?;
            // The output was too large: the processor will take fewer records at once.
            let ProcessOutcome::All(bad) = outcome else {
                continue;
            };
            let LineCollector { lines, failure, .. } = collector;
            if let Some(failure) = failure {
                return Err(ConsumeError::Failed(failure));
            }
            out.write_all(&lines)?;
            self.bad += bad.len() as u64;
            for record in bad {
                let offset = batch
                    .positions
                    .get(record.number as usize)
                    .copied()
                    .unwrap_or(batch.next);
                let reason = short_reason(&record.reason);
                stderr_line!("{} offset {offset}: {}", batch.split.id, printable(&reason));
            }
            done = records.end;
        }
        Ok(())
    }
}

/// Encodes the records that arrive at the sink as lines.
struct LineCollector<'e> {
    encoder: &'e RecordEncoder,
    lines: Vec<u8>,
    failure: Option<String>,
}

impl RowReceiver for LineCollector<'_> {
    fn decoded(&mut self, _source: &PlannedSource, _rows: &Rows) {}

    fn arrive(&mut self, _sink: SinkIndex, rows: Rows) -> Vec<BadRow> {
        let bad = self.encoder.check(&rows);
        let written = rows
            .without(&bad)
            .map_err(io::Error::other)
            .and_then(|rows| self.encoder.write_lines(&rows, &mut self.lines));
        if let Err(error) = written {
            self.failure = Some(error.to_string());
        }
        bad
    }

    fn passed(&mut self, _step: &ChainStep, _rows: &Rows) {}
}

#[cfg(test)]
mod tests;
