//! `pseidon produce`: writes test records to a topic, as fast as the brokers accept them.
//!
//! Each thread has its own producer. The threads take chunks of record numbers from one counter
//! ([`NumberAllocator`]), so that exactly the requested number of records is produced at the
//! requested rate, however fast each thread is.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use indicatif::ProgressBar;
use parking_lot::Mutex;
use pseidon_delivery::{Reason, WithCauses};
use pseidon_dsl::expr;
use pseidon_dsl::node;
use pseidon_kafka::tools::{Deliveries, TopicWriter};
use pseidon_synthetic::{NumberExpr, Pace};

use crate::cli::{Exit, ProduceArgs};
use crate::counted::counted;
use crate::interrupts;
use crate::load::{Parameters, PipelineText, TextKind};
use crate::throughput::Meter;
use crate::{output, stderr_line};

/// The most records that a thread produces in one go.
const CHUNK: u64 = 512;
/// How often a waiting thread checks whether the command is stopped.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long records may take to be delivered after the last one was produced, or after the command
/// was stopped.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of records without `--number` and `--file`.
const DEFAULT_NUMBER: u64 = 1_000_000;

/// Produces records, and prints how many were delivered. `bar` is the progress line, if there is a
/// terminal.
pub(crate) fn produce(args: &ProduceArgs, bar: Option<ProgressBar>) -> Exit {
    let records = match RecordGenerator::new(args) {
        Ok(records) => records,
        Err(exit) => return exit,
    };
    match try_produce(args, &records, bar) {
        Ok(exit) => exit,
        Err(reason) => {
            stderr_line!("error: {}", WithCauses(&reason));
            Exit::Failed
        }
    }
}

fn try_produce(
    args: &ProduceArgs,
    records: &RecordGenerator,
    bar: Option<ProgressBar>,
) -> Result<Exit, Reason> {
    let deliveries = Arc::new(Deliveries::default());
    let open = |_| {
        TopicWriter::open(
            &args.brokers,
            &args.topic,
            &args.properties,
            deliveries.clone(),
        )
        .map_err(Reason::of)
    };
    let writers = (0..args.threads).map(open).collect::<Result<Vec<_>, _>>()?;
    let stop = interrupts::flag().map_err(Reason::of)?;
    let count = args.number.unwrap_or(records.count);
    let allocator = NumberAllocator {
        next: Mutex::new(0),
        count,
        pace: args.rate,
        began: Instant::now(),
        stop: stop.clone(),
    };
    let meter = Meter::start();
    let outcome = std::thread::scope(|scope| {
        let spawn = |writer| scope.spawn(|| work(writer, records, &allocator, &deliveries));
        let threads: Vec<_> = writers.into_iter().map(spawn).collect();
        if let Some(bar) = &bar {
            show(bar, &threads, &deliveries);
        }
        threads
            .into_iter()
            .map(joined)
            .collect::<Result<Vec<()>, Reason>>()
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let verb = if stop.load(Ordering::Relaxed) {
        "stopped after"
    } else {
        "produced"
    };
    let total = meter.total(deliveries.records(), deliveries.bytes());
    let exit = output::print(&format!("{verb} {}\n", total.summary()));
    outcome?;
    if let Some(reason) = deliveries.reason() {
        let what = format!(
            "{} records were not delivered: {reason}",
            deliveries.failed()
        );
        return Err(what.into());
    }
    Ok(exit)
}

fn joined(thread: ScopedJoinHandle<'_, Result<(), Reason>>) -> Result<(), Reason> {
    thread
        .join()
        .unwrap_or_else(|_| Err("a producer thread panicked".into()))
}

/// Shows the progress until every thread has finished.
fn show(
    bar: &ProgressBar,
    threads: &[ScopedJoinHandle<'_, Result<(), Reason>>],
    deliveries: &Deliveries,
) {
    let mut meter = Meter::start();
    while !threads.iter().all(ScopedJoinHandle::is_finished) {
        std::thread::sleep(POLL_INTERVAL);
        bar.tick();
        if meter.since() >= Duration::from_millis(500) {
            let records = deliveries.records();
            let now = meter.sample(records, deliveries.bytes());
            bar.set_message(format!("{}  {now}", counted(records, "record")));
        }
    }
}

/// Produces chunks until all numbers are allocated, the command is stopped or a delivery fails.
fn work(
    writer: TopicWriter,
    records: &RecordGenerator,
    allocator: &NumberAllocator,
    deliveries: &Deliveries,
) -> Result<(), Reason> {
    let outcome = (|| {
        while deliveries.failed() == 0
            && let Some(numbers) = allocator.next()
        {
            if !records.send(numbers, &writer)? {
                break;
            }
            writer.poll();
        }
        Ok(())
    })();
    if outcome.is_err() {
        allocator.stop.store(true, Ordering::Relaxed);
    }
    writer.finish(if allocator.stop.load(Ordering::Relaxed) {
        STOP_TIMEOUT
    } else {
        DELIVERY_TIMEOUT
    });
    outcome
}

/// Allocates record numbers to threads.
struct NumberAllocator {
    next: Mutex<u64>,
    count: u64,
    pace: Option<Pace>,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl NumberAllocator {
    /// Returns the next numbers as soon as they are due; `None` when all are allocated or the
    /// command is stopped.
    fn next(&self) -> Option<Range<u64>> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.allocate(self.began.elapsed()) {
                Allocation::Numbers(numbers) => return Some(numbers),
                Allocation::Wait(pause) => std::thread::sleep(pause.min(POLL_INTERVAL)),
                Allocation::Finished => return None,
            }
        }
        None
    }

    fn allocate(&self, elapsed: Duration) -> Allocation {
        let mut next = self.next.lock();
        if *next >= self.count {
            return Allocation::Finished;
        }
        let due = self
            .pace
            .map_or(self.count, |pace| pace.due(elapsed))
            .min(self.count);
        match self.pace {
            Some(pace) if due <= *next => Allocation::Wait(pace.pause(*next, elapsed)),
            _ => {
                let first = *next;
                *next = due.min(first + CHUNK);
                Allocation::Numbers(first..*next)
            }
        }
    }
}

/// The answer to a thread that asks for numbers.
#[derive(Debug, PartialEq, Eq)]
enum Allocation {
    Numbers(Range<u64>),
    /// No number is due before this time has passed.
    Wait(Duration),
    Finished,
}

/// Generates the keys and values of records.
struct RecordGenerator {
    values: ValueSource,
    key: Option<NumberExpr>,
    /// The number of records without `--number`.
    count: u64,
}

/// Where the values of records come from.
enum ValueSource {
    Expression(NumberExpr),
    Lines(FileLines),
}

impl RecordGenerator {
    /// Compiles the expressions and reads the file of the arguments. Errors are printed.
    fn new(args: &ProduceArgs) -> Result<RecordGenerator, Exit> {
        let (values, count) = match &args.file {
            Some(file) => {
                let lines = FileLines::read(file).map_err(|reason| {
                    stderr_line!("error: {}", WithCauses(&reason));
                    Exit::WrongFile
                })?;
                let count = lines.ends.len() as u64;
                (ValueSource::Lines(lines), count)
            }
            None => {
                let value = args.value.clone().unwrap_or_else(default_value);
                (
                    ValueSource::Expression(expression("--value", &value)?),
                    DEFAULT_NUMBER,
                )
            }
        };
        let key = args
            .key
            .as_ref()
            .map(|key| expression("--key", key))
            .transpose()?;
        Ok(RecordGenerator { values, key, count })
    }

    /// Generates and sends the records of these numbers. Returns `false` if it stopped early
    /// because a delivery failed.
    fn send(&self, numbers: Range<u64>, writer: &TopicWriter) -> Result<bool, Reason> {
        let first = numbers.start;
        let all: Vec<u64> = numbers.clone().collect();
        let evaluate = |expr: &NumberExpr| match expr.evaluate(&all) {
            Ok(values) => bytes_of(&values).map(Some).map_err(Reason::of),
            Err(ArrowError::MemoryError(_)) if all.len() > 1 => Ok(None),
            Err(error) => Err(Reason::of(error)),
        };
        let in_halves = || {
            let half = numbers.start + all.len() as u64 / 2;
            Ok(self.send(numbers.start..half, writer)? && self.send(half..numbers.end, writer)?)
        };
        let keys = match &self.key {
            Some(key) => match evaluate(key)? {
                None => return in_halves(),
                keys => keys,
            },
            None => None,
        };
        let values = match &self.values {
            ValueSource::Expression(value) => match evaluate(value)? {
                None => return in_halves(),
                values => values,
            },
            ValueSource::Lines(_) => None,
        };
        for row in 0..all.len() {
            let value = match (&values, &self.values) {
                (Some(values), _) => values.is_valid(row).then(|| values.value(row)),
                (None, ValueSource::Lines(lines)) => Some(lines.get(first + row as u64)),
                (None, ValueSource::Expression(_)) => None,
            };
            let key = keys
                .as_ref()
                .filter(|keys| keys.is_valid(row))
                .map(|keys| keys.value(row));
            if !writer.send(key, value).map_err(Reason::of)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The default expression of a value: JSON like the access log of a web shop, with timestamps that
/// start now and advance by a millisecond for each record.
fn default_value() -> String {
    let now = chrono::Utc::now().timestamp_millis();
    format!(
        r#"'{{"id":' || n || ',"ts":' || ({now} + n) || ',"user":"u' || (h % 10000) || '","url":"/item/' || (h % 997)
           || '","status":' || case when r < 0.97 then 200 else 500 end || ',"bytes":' || (h % 100000) || '}}'"#
    )
}

/// Compiles the expression of an argument, and evaluates it once to detect errors at run time.
/// Errors are printed.
fn expression(argument: &str, text: &str) -> Result<NumberExpr, Exit> {
    let source = PipelineText {
        name: argument.to_owned(),
        text: text.to_owned(),
        kind: TextKind::Flow,
        base: PathBuf::from("."),
        default_name: String::new(),
        parameters: Parameters::default(),
        tables: Default::default(),
    };
    let parsed = expr::parse(&node::Text::plain(text, 0)).map_err(|errors| source.show(&errors))?;
    let compiled = NumberExpr::new(&parsed, 0).map_err(|errors| source.show(&errors))?;
    compiled
        .evaluate(&[0])
        .and_then(|value| bytes_of(&value))
        .map_err(|reason| {
            stderr_line!("error: {argument}: {reason}");
            Exit::WrongFile
        })?;
    Ok(compiled)
}

/// The values as bytes: strings and binary values as they are, others cast to strings. NULL is a
/// record without a value.
fn bytes_of(column: &ArrayRef) -> Result<BinaryArray, ArrowError> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = |column: &ArrayRef, to: &DataType| cast_with_options(column, to, &strict);
    let bytes = match column.data_type() {
        DataType::Null => new_null_array(&DataType::Binary, column.len()),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            cast(column, &DataType::Binary)?
        }
        _ => cast(&cast(column, &DataType::Utf8)?, &DataType::Binary)?,
    };
    bytes.as_binary_opt::<i32>().cloned().ok_or_else(|| {
        let what = "the value cannot be converted to bytes";
        ArrowError::CastError(what.to_owned())
    })
}

/// The lines of a file, which is held in memory.
struct FileLines {
    text: Vec<u8>,
    /// The end of each line, before its line feed. Never empty.
    ends: Vec<usize>,
}

impl FileLines {
    fn read(file: &Path) -> Result<FileLines, Reason> {
        let text = std::fs::read(file)
            .map_err(|error| Reason::caused_by(format!("cannot read {}", file.display()), error))?;
        FileLines::of(text).ok_or_else(|| format!("{} has no lines", file.display()).into())
    }

    /// Splits a text into lines; `None` if it is empty.
    fn of(text: Vec<u8>) -> Option<FileLines> {
        let mut ends: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b'\n').collect();
        if text.last().is_some_and(|last| *last != b'\n') {
            ends.push(text.len());
        }
        (!ends.is_empty()).then_some(FileLines { text, ends })
    }

    /// The line for a record number, without its line ending. After the last line comes the first.
    fn get(&self, number: u64) -> &[u8] {
        let index = (number % self.ends.len() as u64) as usize;
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] + 1
        };
        let line = &self.text[start..self.ends[index]];
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

#[cfg(test)]
mod tests;
