//! `pseidon produce`: test records into a topic, as fast as it takes them.
//!
//! Each thread has a producer of its own. They take turns of some hundred record numbers from one
//! count ([`Turns`]), so that exactly as many are made as were asked for, at the rate that was
//! asked for, however fast each thread is.

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
use clap::Args;
use indicatif::{HumanCount, ProgressBar};
use parking_lot::Mutex;
use pseidon_dsl::expr;
use pseidon_dsl::node;
use pseidon_kafka::tools::{Deliveries, TopicWriter};
use pseidon_synthetic::{NumberExpr, Pace};

use crate::load::{Kind, Text};
use crate::throughput::Meter;
use crate::{Exit, interrupts};

/// How many records a thread makes in one go.
const TURN: u64 = 512;
/// How long a thread that waits for its turn takes to notice that it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long records may take to arrive after the last one was made, or after the user has said
/// stop.
const PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How many records are made when nobody says so.
const NUMBER: u64 = 1_000_000;

/// What to produce.
#[derive(Args)]
pub(crate) struct ProduceArgs {
    /// Where the cluster is reached: host:port, several with commas.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How many records [default: 1000000; with --file, one for each of its lines].
    #[arg(short, long, value_name = "N")]
    number: Option<u64>,
    /// How many threads, each with a producer of its own.
    #[arg(long, value_name = "T", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// A record's value: an SQL expression of its number `n`, a random number `r` in [0, 1) and a
    /// random whole number `h`, such as "'line ' || n". Without it (and without --file) records are
    /// small JSON objects.
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "file")]
    value: Option<String>,
    /// The records' values are the lines of this file, from its beginning again after its end.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A record's key: an expression as for --value, such as "h % 100".
    #[arg(long, value_name = "EXPRESSION")]
    key: Option<String>,
    /// Records per second, over all threads. Without it as many as the brokers take.
    #[arg(long, value_name = "N", value_parser = pace)]
    rate: Option<Pace>,
    /// A property of librdkafka, such as compression.type=zstd. May be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

fn pace(text: &str) -> Result<Pace, String> {
    text.parse()
        .ok()
        .and_then(Pace::new)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

/// `name=value`
pub(crate) fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE, such as security.protocol=ssl".to_owned()),
    }
}

/// Produces, and says what was done. The bar is the progress line.
pub(crate) fn produce(args: &ProduceArgs, bar: Option<ProgressBar>) -> Exit {
    let records = match Records::new(args) {
        Ok(records) => records,
        Err(exit) => return exit,
    };
    match try_produce(args, &records, bar) {
        Ok(exit) => exit,
        Err(reason) => {
            eprintln!("error: {reason}");
            Exit::Failed
        }
    }
}

fn try_produce(
    args: &ProduceArgs,
    records: &Records,
    bar: Option<ProgressBar>,
) -> Result<Exit, String> {
    let deliveries = Arc::new(Deliveries::default());
    let open = |_| {
        TopicWriter::open(
            &args.brokers,
            &args.topic,
            &args.properties,
            deliveries.clone(),
        )
    };
    let writers = (0..args.threads).map(open).collect::<Result<Vec<_>, _>>()?;
    let stop = interrupts::flag().map_err(|error| error.to_string())?;
    let count = args.number.unwrap_or(records.count);
    let turns = Turns {
        next: Mutex::new(0),
        count,
        pace: args.rate,
        began: Instant::now(),
        stop: stop.clone(),
    };
    let meter = Meter::start();
    let outcome = std::thread::scope(|scope| {
        let spawn = |writer| scope.spawn(|| work(writer, records, &turns, &deliveries));
        let threads: Vec<_> = writers.into_iter().map(spawn).collect();
        if let Some(bar) = &bar {
            show(bar, &threads, &deliveries);
        }
        threads
            .into_iter()
            .map(joined)
            .collect::<Result<Vec<()>, String>>()
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let how = if stop.load(Ordering::Relaxed) {
        "stopped after"
    } else {
        "produced"
    };
    println!(
        "{how} {}",
        meter
            .in_all(deliveries.records(), deliveries.bytes())
            .in_all()
    );
    outcome?;
    if let Some(reason) = deliveries.reason() {
        return Err(format!(
            "{} records were not delivered: {reason}",
            deliveries.failed()
        ));
    }
    Ok(Exit::Done)
}

fn joined(thread: ScopedJoinHandle<'_, Result<(), String>>) -> Result<(), String> {
    thread
        .join()
        .unwrap_or_else(|_| Err("a thread has panicked".to_owned()))
}

/// Shows the progress until every thread has ended.
fn show(
    bar: &ProgressBar,
    threads: &[ScopedJoinHandle<'_, Result<(), String>>],
    deliveries: &Deliveries,
) {
    let mut meter = Meter::start();
    while !threads.iter().all(ScopedJoinHandle::is_finished) {
        std::thread::sleep(LOOK_EVERY);
        bar.tick();
        if meter.since() >= Duration::from_millis(500) {
            let records = deliveries.records();
            let now = meter.look(records, deliveries.bytes());
            bar.set_message(format!("{} records  {now}", HumanCount(records)));
        }
    }
}

/// What one thread does.
fn work(
    writer: TopicWriter,
    records: &Records,
    turns: &Turns,
    deliveries: &Deliveries,
) -> Result<(), String> {
    let outcome = (|| {
        while deliveries.failed() == 0
            && let Some(numbers) = turns.next()
        {
            if !records.send(numbers, &writer)? {
                break;
            }
            writer.poll();
        }
        Ok(())
    })();
    if outcome.is_err() {
        turns.stop.store(true, Ordering::Relaxed);
    }
    writer.finish(if turns.stop.load(Ordering::Relaxed) {
        STOP_PATIENCE
    } else {
        PATIENCE
    });
    outcome
}

/// Which records are next.
struct Turns {
    next: Mutex<u64>,
    count: u64,
    pace: Option<Pace>,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Turns {
    /// The numbers to make next, as soon as they are due; `None` when there is nothing more to do.
    fn next(&self) -> Option<Range<u64>> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.take(self.began.elapsed()) {
                Take::Numbers(numbers) => return Some(numbers),
                Take::Wait(pause) => std::thread::sleep(pause.min(LOOK_EVERY)),
                Take::Nothing => return None,
            }
        }
        None
    }

    fn take(&self, elapsed: Duration) -> Take {
        let mut next = self.next.lock();
        if *next >= self.count {
            return Take::Nothing;
        }
        let due = self
            .pace
            .map_or(self.count, |pace| pace.due(elapsed))
            .min(self.count);
        match self.pace {
            Some(pace) if due <= *next => Take::Wait(pace.pause(*next, elapsed)),
            _ => {
                let first = *next;
                *next = due.min(first + TURN);
                Take::Numbers(first..*next)
            }
        }
    }
}

/// What a thread is told.
#[derive(Debug, PartialEq, Eq)]
enum Take {
    Numbers(Range<u64>),
    Wait(Duration),
    Nothing,
}

/// What the records are.
struct Records {
    values: Values,
    key: Option<NumberExpr>,
    /// How many there are when nobody says so.
    count: u64,
}

enum Values {
    Made(NumberExpr),
    Lines(Lines),
}

impl Records {
    /// What the arguments say. Mistakes are printed.
    fn new(args: &ProduceArgs) -> Result<Records, Exit> {
        let (values, count) = match &args.file {
            Some(file) => {
                let lines = Lines::read(file).map_err(|reason| {
                    eprintln!("error: {reason}");
                    Exit::WrongFile
                })?;
                let count = lines.ends.len() as u64;
                (Values::Lines(lines), count)
            }
            None => {
                let value = args.value.clone().unwrap_or_else(default_value);
                (Values::Made(expression("--value", &value)?), NUMBER)
            }
        };
        let key = args
            .key
            .as_ref()
            .map(|key| expression("--key", key))
            .transpose()?;
        Ok(Records { values, key, count })
    }

    /// Makes the records of these numbers. Gives whether all could be handed over before one was
    /// given up.
    fn send(&self, numbers: Range<u64>, writer: &TopicWriter) -> Result<bool, String> {
        let first = numbers.start;
        let all: Vec<u64> = numbers.clone().collect();
        let made = |expr: &NumberExpr| match expr.evaluate(&all) {
            Ok(values) => bytes_of(&values).map(Some),
            Err(ArrowError::MemoryError(_)) if all.len() > 1 => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        let in_halves = || {
            let half = numbers.start + all.len() as u64 / 2;
            Ok(self.send(numbers.start..half, writer)? && self.send(half..numbers.end, writer)?)
        };
        let keys = match &self.key {
            Some(key) => match made(key)? {
                None => return in_halves(),
                keys => keys,
            },
            None => None,
        };
        let made = match &self.values {
            Values::Made(value) => match made(value)? {
                None => return in_halves(),
                values => values,
            },
            Values::Lines(_) => None,
        };
        for row in 0..all.len() {
            let value = match (&made, &self.values) {
                (Some(made), _) => made.is_valid(row).then(|| made.value(row)),
                (None, Values::Lines(lines)) => Some(lines.get(first + row as u64)),
                (None, Values::Made(_)) => None,
            };
            let key = keys
                .as_ref()
                .filter(|keys| keys.is_valid(row))
                .map(|keys| keys.value(row));
            if !writer.send(key, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a web shop's log might look like; a record each millisecond, from now on.
fn default_value() -> String {
    let now = chrono::Utc::now().timestamp_millis();
    format!(
        r#"'{{"id":' || n || ',"ts":' || ({now} + n) || ',"user":"u' || (h % 10000) || '","url":"/item/' || (h % 997)
           || '","status":' || case when r < 0.97 then 200 else 500 end || ',"bytes":' || (h % 100000) || '}}'"#
    )
}

/// Compiles an argument. Mistakes are printed; one that only shows when a record is made shows
/// here, too.
fn expression(argument: &str, text: &str) -> Result<NumberExpr, Exit> {
    let shown = Text {
        name: argument.to_owned(),
        text: text.to_owned(),
        kind: Kind::Flow,
        base: PathBuf::from("."),
        default_name: String::new(),
    };
    let parsed =
        expr::parse(&node::Text::plain(text, 0)).map_err(|mistakes| shown.show(&mistakes))?;
    let compiled = NumberExpr::new(&parsed, 0).map_err(|mistakes| shown.show(&mistakes))?;
    compiled
        .evaluate(&[0])
        .map_err(|error| error.to_string())
        .and_then(|value| bytes_of(&value))
        .map_err(|reason| {
            eprintln!("error: {argument}: {reason}");
            Exit::WrongFile
        })?;
    Ok(compiled)
}

/// Texts become their bytes; other values the bytes of the text that a cast makes of them. NULL is
/// no value at all.
fn bytes_of(column: &ArrayRef) -> Result<BinaryArray, String> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = |column: &ArrayRef, to: &DataType| {
        cast_with_options(column, to, &strict).map_err(|error| error.to_string())
    };
    let bytes = match column.data_type() {
        DataType::Null => new_null_array(&DataType::Binary, column.len()),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            cast(column, &DataType::Binary)?
        }
        _ => cast(&cast(column, &DataType::Utf8)?, &DataType::Binary)?,
    };
    bytes
        .as_binary_opt::<i32>()
        .cloned()
        .ok_or_else(|| "the value has no bytes".to_owned())
}

/// The lines of a file, held in memory.
struct Lines {
    text: Vec<u8>,
    /// Where each line ends, without its line feed; never empty.
    ends: Vec<usize>,
}

impl Lines {
    fn read(file: &Path) -> Result<Lines, String> {
        let text = std::fs::read(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Lines::of(text).ok_or_else(|| format!("{} has no lines", file.display()))
    }

    /// The lines of a text; `None` if there are none.
    fn of(text: Vec<u8>) -> Option<Lines> {
        let mut ends: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b'\n').collect();
        if text.last().is_some_and(|last| *last != b'\n') {
            ends.push(text.len());
        }
        (!ends.is_empty()).then_some(Lines { text, ends })
    }

    /// The line of this number; after the last comes the first.
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
