//! What is shown of the board, made anew a few times a second at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_dsl::print;
use serde_json::{Map, Value, json};

use super::counts::{Counts, records_in};
use super::guard::Token;
use super::kept::Kept;
use super::process::{Memory, connections, megabytes};
use super::rates::{Rate, Rates};
use super::{masking, prometheus};
use crate::board::{Board, Entry};

/// How long a page is shown as it is, at least. Whoever polls more often costs no more than who
/// does not.
const KEEP: Duration = Duration::from_millis(250);
/// The same for what is asked of the kernel with one call for each open file.
const KEEP_CONNECTIONS: Duration = Duration::from_secs(5);

/// The board as it is shown.
pub(crate) struct Watched {
    pub(crate) board: Arc<Board>,
    pub(crate) token: Option<Token>,
    rates: Mutex<Rates>,
    /// Memory when the process began to serve.
    first_memory: Memory,
    was_ready: AtomicBool,
    connections: Kept<usize>,
    metrics: Kept<Arc<str>>,
    prometheus: Kept<Arc<str>>,
    logs: Kept<Arc<str>>,
    stats: Kept<Arc<str>>,
}

impl Watched {
    /// Nothing is shown yet.
    pub(crate) fn new(board: Arc<Board>, token: Option<Token>) -> Watched {
        Watched {
            board,
            token,
            rates: Mutex::new(Rates::new(Instant::now())),
            first_memory: Memory::now(),
            was_ready: AtomicBool::new(false),
            connections: Kept::new(KEEP_CONNECTIONS),
            metrics: Kept::new(KEEP),
            prometheus: Kept::new(KEEP),
            logs: Kept::new(KEEP),
            stats: Kept::new(KEEP),
        }
    }

    /// Brings the rates up to date.
    pub(crate) fn look(&self) {
        let counts = self
            .board
            .entries()
            .into_iter()
            .map(|entry| (entry.name.clone(), records_in(&entry.metrics)));
        self.rates.lock().look(counts, Instant::now());
    }

    /// The rate of one entry.
    pub(crate) fn rate(&self, entry: &str) -> Rate {
        self.rates.lock().of(entry)
    }

    /// `/metrics`: the documented names, and all else under `pseidon`.
    pub(crate) fn metrics(&self) -> Arc<str> {
        self.metrics.get(|| body(&self.make_metrics()))
    }

    /// `/metrics/prometheus`.
    pub(crate) fn prometheus(&self) -> Arc<str> {
        self.prometheus.get(|| prometheus::page(&self.board).into())
    }

    /// `/logs`.
    pub(crate) fn logs(&self) -> Arc<str> {
        self.logs.get(|| {
            body(
                &self
                    .board
                    .entries()
                    .iter()
                    .map(|entry| self.describe(entry))
                    .collect(),
            )
        })
    }

    /// `/logs/NAME`, if there is such a log.
    pub(crate) fn log(&self, name: &str) -> Option<String> {
        self.board
            .find(name)
            .map(|entry| format!("{:#}\n", self.describe(&entry)))
    }

    /// `/stats`.
    pub(crate) fn stats(&self) -> Arc<str> {
        self.stats.get(|| body(&self.make_stats()))
    }

    /// `/config`; an error says why it cannot be shown.
    pub(crate) fn config(&self) -> Result<String, String> {
        let pipeline = masking::pipeline(&self.board.plan.text);
        pipeline
            .map(|pipeline| print::pretty(&pipeline) + "\n")
            .ok_or_else(|| {
                "the pipeline's text cannot be read again, and so is not shown".to_owned()
            })
    }

    /// Whether every entry has run, or is known to be wrong. Once it is so it stays so: a log that
    /// is new later is no reason to send the process nothing any more.
    pub(crate) fn is_ready(&self) -> bool {
        if self.was_ready.load(Ordering::Relaxed) {
            return true;
        }
        let ready = self.board.is_ready();
        self.was_ready.store(ready, Ordering::Relaxed);
        ready
    }

    fn make_metrics(&self) -> Value {
        let board = &self.board;
        let entries = board.entries();
        let counts = total(&entries);
        let rate = self.rates.lock().total();
        let errors = entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.errors()))
            .filter(|(_, errors)| *errors > 0);
        json!({
            "etl-service-thread-queue": board.pools.queued(),
            "etl-service-thread-metrics": {
                "count": counts.records_in,
                "mean-rate": mean(counts.records_in, board.began.elapsed()),
                "one-minute-rate": rate.one,
                "five-minute-rate": rate.five,
                "fifteen-minute-rate": rate.fifteen,
            },
            "open-connections": { "tcp-conn": self.connections.get(connections) },
            "topic-errors": errors.map(|(name, errors)| (name, errors.into())).collect::<Map<_, _>>(),
            "memory": self.memory(),
            "redis": { "redis-conn": { "pool": self.state_store() } },
            "pseidon": self.own(&entries, &counts),
        })
    }

    fn own(&self, entries: &[Arc<Entry>], counts: &Counts) -> Value {
        let mut own = counts.json();
        if let Value::Object(own) = &mut own {
            own.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            own.insert("pipeline".into(), self.board.plan.name.as_str().into());
            own.insert(
                "uptime-seconds".into(),
                self.board.began.elapsed().as_secs().into(),
            );
            own.insert("entries".into(), by_state(entries));
        }
        own
    }

    /// What a page made for Java shows of memory, for a process that has no heap of a set size.
    fn memory(&self) -> Value {
        let (now, budget) = (Memory::now(), self.board.pools.budget());
        json!({
            "direct": {
                "memory-used": megabytes(budget.used() as u64),
                "count": self.board.pools.queued(),
                "total-capacity": megabytes(budget.limit() as u64),
            },
            "heap": {
                "heap": {
                    "init": megabytes(self.first_memory.own),
                    "used": megabytes(now.own),
                    "max": megabytes(self.board.plan.settings.memory as u64),
                    "committed": megabytes(now.asked),
                },
                // -1 is what Java says where there is no limit.
                "non-heap": {
                    "init": megabytes(self.first_memory.of_files),
                    "used": megabytes(now.of_files),
                    "max": -1,
                    "committed": megabytes(now.code),
                },
            },
        })
    }

    fn state_store(&self) -> String {
        self.board.plan.settings.state.as_deref().map_or_else(
            || "embedded".to_owned(),
            |url| masking::text(url).into_owned(),
        )
    }

    fn describe(&self, entry: &Entry) -> Value {
        let (state, counts) = (entry.state(), Counts::of(&entry.metrics));
        let positions = entry.view.positions().into_iter().map(|of_sink| {
            let splits = of_sink
                .splits
                .iter()
                .map(|(split, position)| (split.to_string(), (*position).into()));
            (of_sink.sink, Value::Object(splits.collect()))
        });
        json!({
            "log": entry.name,
            "state": state.word(),
            "reason": state.reason(),
            "running-seconds": entry.live().map(|live| live.since.elapsed().as_secs()),
            "lag": counts.lag,
            "rate": self.rate(&entry.name).one,
            "errors": entry.errors(),
            "open-files": counts.open_files,
            "positions": positions.collect::<Map<_, _>>(),
        })
    }

    fn make_stats(&self) -> Value {
        let entries = self.board.entries();
        let mut stages: BTreeMap<String, Counts> = BTreeMap::new();
        for (stage, counts) in entries
            .iter()
            .flat_map(|entry| Counts::by_stage(&entry.metrics))
        {
            stages.entry(stage).or_default().add(&counts);
        }
        let uptime = self.board.began.elapsed();
        let counts = total(&entries);
        json!({
            "pipeline": self.board.plan.name,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime-seconds": uptime.as_secs(),
            "mean-rate": mean(counts.records_in, uptime),
            "entries": by_state(&entries),
            "totals": counts.json(),
            "stages": stages.iter().map(|(stage, counts)| (stage.clone(), counts.json())).collect::<Map<_, _>>(),
        })
    }
}

fn total(entries: &[Arc<Entry>]) -> Counts {
    let mut all = Counts::default();
    entries
        .iter()
        .for_each(|entry| all.add(&Counts::of(&entry.metrics)));
    all
}

fn by_state(entries: &[Arc<Entry>]) -> Value {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    entries
        .iter()
        .for_each(|entry| *states.entry(entry.state().word()).or_default() += 1);
    json!(states)
}

fn mean(records: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        records as f64 / time.as_secs_f64()
    }
}

fn body(value: &Value) -> Arc<str> {
    (format!("{value:#}\n")).into()
}
