//! `pseidon consume`: what is in a topic, as a pipeline would see it.
//!
//! The arguments become a flow, `(-> (kafka {…}) (select "…") (stdout …))`, which is planned like
//! any other: the same formats, the same columns, the same mistakes. It is not run like any other,
//! since a run commits how far it has come, and its source joins a consumer group: here the planned
//! steps are fed by a reader that nobody else notices, that can begin anywhere and end after any
//! record.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use pseidon_dsl::{Name, Node, NodeKind, Span, node, print};
use pseidon_exec::process::{Exits, ProcessOutcome, Processor};
use pseidon_expr::Scope;
use pseidon_formats::{RecordEncoder, RecordFormat};
use pseidon_kafka::tools::{Begin, ReaderSettings, TopicReader};
use pseidon_plan::Plan;
use pseidon_plan::chain::{Operator, PlannedSource, Step};
use pseidon_plugin::batch::{Batch, MetaWanted};
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::{RecordShape, SinkInput};

use crate::load::{Kind, Text};
use crate::produce::property;
use crate::throughput::Meter;
use crate::{Exit, interrupts};

/// How long to wait for records before it is looked again whether the command is to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often the rate is shown.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// How often a group is told how far we are.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// What to consume.
#[derive(Args)]
pub(crate) struct ConsumeArgs {
    /// Where the cluster is reached: host:port, several with commas.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// End after so many records.
    #[arg(short, long, value_name = "N")]
    number: Option<u64>,
    /// Where to begin: earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z. With
    /// --group, where the group has no offset.
    #[arg(long, value_name = "PLACE", default_value = "earliest")]
    from: Begin,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<i32>,
    /// Print no records but how many come each second, and in all.
    #[arg(long)]
    rate: bool,
    /// How the records' values are laid out, as in a pipeline's :format; raw prints their bytes.
    #[arg(long, default_value = "json")]
    format: String,
    /// What to print of each record, as in a select: "@offset, user.id as user". Without it a json
    /// record is printed as it is, one of another format with all of its fields.
    #[arg(long, value_name = "SELECT LIST")]
    columns: Option<String>,
    /// Be a member of this consumer group: read on where it left off, and commit what was printed.
    /// Without it nothing is committed.
    #[arg(long, conflicts_with = "partition")]
    group: Option<String>,
    /// End when everything is read that was there at the start.
    #[arg(long)]
    exit: bool,
    /// A property of librdkafka, such as security.protocol=ssl. May be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

impl ConsumeArgs {
    /// The flow that these arguments mean.
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
        // A json record is printed as it came. The fields of other formats are known; of raw there
        // are none.
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

    /// The plan of the flow. Mistakes are printed.
    fn plan(&self) -> Result<Plan, Exit> {
        let text = Text {
            name: "consume".to_owned(),
            text: self.flow(),
            kind: Kind::Flow,
            base: PathBuf::from("."),
            default_name: "consume".to_owned(),
        };
        text.plan(&text.document()?)
    }

    fn reader(&self, wanted: MetaWanted) -> Result<TopicReader, String> {
        TopicReader::open(ReaderSettings {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            begin: self.from,
            group: self.group.clone(),
            properties: self.properties.clone(),
            wanted,
        })
    }
}

/// Consumes until there is nothing more to do, or the user has had enough.
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
        // Whoever read what is printed has had enough.
        Err(Ended::Unread) => Exit::Done,
        Err(Ended::Failed(reason)) => {
            eprintln!("error: {reason}");
            Exit::Failed
        }
    }
}

/// Why it came to an end before it was to.
#[derive(Debug)]
enum Ended {
    Unread,
    Failed(String),
}

impl From<String> for Ended {
    fn from(reason: String) -> Self {
        Ended::Failed(reason)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Ended::Unread,
            _ => Ended::Failed(format!("cannot write to standard output: {error}")),
        }
    }
}

/// Prints the rate.
fn measure(args: &ConsumeArgs) -> Result<(), Ended> {
    let (mut records, mut bytes) = (0, 0);
    let mut meter = Meter::start();
    let mut out = io::stdout();
    let outcome = each_batch(args, MetaWanted::default(), |batches| {
        for batch in batches {
            records += batch.len() as u64;
            bytes += (0..batch.len())
                .filter_map(|row| batch.payloads.get(row))
                .map(|payload| payload.len() as u64)
                .sum::<u64>();
        }
        if meter.since() >= SHOW_EVERY {
            writeln!(out, "{}", meter.look(records, bytes))?;
        }
        Ok(())
    });
    if !matches!(outcome, Err(Ended::Unread)) {
        writeln!(
            io::stdout(),
            "consumed {}",
            meter.in_all(records, bytes).in_all()
        )?;
    }
    outcome
}

/// Prints the records.
fn show(args: &ConsumeArgs, plan: &Plan) -> Result<(), Ended> {
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
        eprintln!("{} records could not be printed", printer.bad);
    }
    outcome
}

/// Reads until the arguments say that it is enough, and calls `take` with what came, at least every
/// [`PATIENCE`]. What it has taken is committed where there is a group.
fn each_batch(
    args: &ConsumeArgs,
    wanted: MetaWanted,
    mut take: impl FnMut(Vec<Batch>) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let stop = interrupts::flag()?;
    let mut reader = args.reader(wanted)?;
    let mut left = args.number.unwrap_or(u64::MAX);
    let mut committed = Instant::now();
    while left > 0 && !stop.load(Ordering::Relaxed) && !(args.exit && reader.is_at_end()) {
        let batches = reader.read(usize::try_from(left).unwrap_or(usize::MAX), PATIENCE)?;
        left -= batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        take(batches)?;
        if committed.elapsed() >= COMMIT_EVERY {
            reader.commit()?;
            committed = Instant::now();
        }
    }
    Ok(reader.commit()?)
}

/// What may be made of records at once, in bytes.
const LARGEST: usize = 16 << 20;

/// Takes batches through the planned steps, and prints what comes out.
struct Printer<'p> {
    source: &'p PlannedSource,
    processor: Processor,
    encoder: RecordEncoder,
    /// How many records could not be printed.
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
            RecordFormat::Raw
        } else {
            RecordFormat::Json
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
            processor: Processor::new(source, LARGEST)?,
            encoder,
            bad: 0,
        })
    }

    fn print(&mut self, batch: Batch, out: &mut impl Write) -> Result<(), Ended> {
        let batch = Arc::new(batch);
        let mut done = 0;
        while done < batch.len() {
            let records = done..done
                .saturating_add(self.processor.at_once())
                .min(batch.len());
            let mut arrivals = Arrivals {
                encoder: &self.encoder,
                lines: Vec::new(),
                failure: None,
            };
            self.processor.prepare(&batch, records.clone())?;
            let passed = self
                .processor
                .process(self.source, &batch, records.clone(), &mut arrivals)
                .map_err(|thrown| thrown.to_string())?;
            // Fewer are tried then.
            let ProcessOutcome::All(bad) = passed else {
                continue;
            };
            let Arrivals { lines, failure, .. } = arrivals;
            if let Some(failure) = failure {
                return Err(Ended::Failed(failure));
            }
            out.write_all(&lines)?;
            self.bad += bad.len() as u64;
            for record in bad {
                let offset = batch
                    .positions
                    .get(record.number as usize)
                    .copied()
                    .unwrap_or(batch.next);
                eprintln!("{} offset {offset}: {}", batch.split.id, record.reason);
            }
            done = records.end;
        }
        Ok(())
    }
}

/// Takes the place of the sink.
struct Arrivals<'e> {
    encoder: &'e RecordEncoder,
    lines: Vec<u8>,
    failure: Option<String>,
}

impl Exits for Arrivals<'_> {
    fn decoded(&mut self, _source: &PlannedSource, _rows: &Rows) {}

    fn arrive(&mut self, _sink: usize, rows: Rows) -> Vec<BadRow> {
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

    fn passed(&mut self, _step: &Step, _rows: &Rows) {}
}

#[cfg(test)]
mod tests;
