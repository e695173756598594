//! The responses of the status endpoints, each rebuilt a few times a second at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parking_lot::Mutex;
use pseidon_dsl::printable::printable_json;
use pseidon_dsl::{print, printable};
use serde_json::{Map, Value, json};

use crate::JsonLines;
use crate::audit::RefusalLog;
use crate::counts::{Counts, records_in};
use crate::guard::Access;
use crate::limits::Limits;
use crate::process::{ProcessMemory, connections, megabytes};
use crate::rates::{Rate, Rates};
use crate::runs::{RunEntry, RunRegistry};
use crate::ttl_cache::TtlCache;
use crate::{masking, prometheus};

/// How long a response is cached, at least, so that frequent polling costs no more than slow
/// polling.
const PAGE_TTL: Duration = Duration::from_millis(250);
/// How long the count of connections is cached: it takes a system call for each open file.
const CONNECTIONS_TTL: Duration = Duration::from_secs(5);

/// The status endpoints and their caches, and what HTTP and the REPL have in common.
pub(crate) struct StatusPages {
    pub(crate) runs: Arc<RunRegistry>,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) refusals: RefusalLog,
    /// Locked while the REPL evaluates an expression: one at a time.
    pub(crate) evaluation: Mutex<()>,
    pub(crate) json: JsonLines,
    rates: Mutex<Rates>,
    /// The memory of the process when the service started.
    first_memory: ProcessMemory,
    was_ready: AtomicBool,
    connections: TtlCache<usize>,
    metrics: TtlCache<Bytes>,
    prometheus: TtlCache<Bytes>,
    logs: TtlCache<Bytes>,
    logs_without_records: TtlCache<Bytes>,
    stats: TtlCache<Bytes>,
    config: TtlCache<Result<Bytes, String>>,
}

impl StatusPages {
    /// Creates the pages with empty caches.
    pub(crate) fn new(
        runs: Arc<RunRegistry>,
        access: Access,
        limits: Limits,
        json: JsonLines,
    ) -> StatusPages {
        StatusPages {
            runs,
            access,
            limits,
            refusals: RefusalLog::default(),
            evaluation: Mutex::new(()),
            json,
            rates: Mutex::new(Rates::new(Instant::now())),
            first_memory: ProcessMemory::now(),
            was_ready: AtomicBool::new(false),
            connections: TtlCache::new(CONNECTIONS_TTL),
            metrics: TtlCache::new(PAGE_TTL),
            prometheus: TtlCache::new(PAGE_TTL),
            logs: TtlCache::new(PAGE_TTL),
            logs_without_records: TtlCache::new(PAGE_TTL),
            stats: TtlCache::new(PAGE_TTL),
            config: TtlCache::new(PAGE_TTL),
        }
    }

    /// Updates the rates. Called every [`SAMPLE_INTERVAL`](crate::rates::SAMPLE_INTERVAL).
    pub(crate) fn sample_rates(&self) {
        let counts = self
            .runs
            .entries()
            .into_iter()
            .map(|entry| (entry.name.clone(), records_in(&entry.metrics)));
        self.rates.lock().sample(counts, Instant::now());
    }

    /// The rate of an entry; zero if it is unknown.
    pub(crate) fn rate(&self, entry: &str) -> Rate {
        self.rates.lock().of(entry)
    }

    /// `/metrics`: the names of the documented page, and everything else under `pseidon`.
    pub(crate) fn metrics(&self) -> Bytes {
        self.metrics.get(|| body(&self.build_metrics()))
    }

    /// `/metrics/prometheus`.
    pub(crate) fn prometheus(&self) -> Bytes {
        self.prometheus.get(|| prometheus::page(&self.runs).into())
    }

    /// `/logs`, with values of records or without.
    pub(crate) fn logs(&self, shows_records: bool) -> Bytes {
        let cache = if shows_records {
            &self.logs
        } else {
            &self.logs_without_records
        };
        cache.get(|| {
            let entries = self.runs.entries();
            let logs = entries
                .iter()
                .map(|entry| self.describe(entry, shows_records));
            body(&logs.collect())
        })
    }

    /// `/logs/NAME`; `None` if the log is unknown. It is not cached.
    pub(crate) fn log(&self, name: &str, shows_records: bool) -> Option<Bytes> {
        self.runs
            .find(name)
            .map(|entry| body(&self.describe(&entry, shows_records)))
    }

    /// `/stats`.
    pub(crate) fn stats(&self) -> Bytes {
        self.stats.get(|| body(&self.build_stats()))
    }

    /// `/config`: the pipeline without its secrets. An error says why it cannot be shown.
    pub(crate) fn config(&self) -> Result<Bytes, String> {
        self.config.get(|| {
            let pipeline = masking::pipeline(&self.runs.plan.text).ok_or_else(|| {
                "the text of the pipeline cannot be parsed, so its secrets cannot be masked"
                    .to_owned()
            })?;
            Ok((print::pretty(&pipeline) + "\n").into())
        })
    }

    /// Whether every entry was started, or is known to be invalid. Once true it stays true: a log
    /// that is added later does not make the process unavailable.
    pub(crate) fn is_ready(&self) -> bool {
        if self.was_ready.load(Ordering::Relaxed) {
            return true;
        }
        let ready = self.runs.is_ready();
        self.was_ready.store(ready, Ordering::Relaxed);
        ready
    }

    fn build_metrics(&self) -> Value {
        let runs = &self.runs;
        let entries = runs.entries();
        let counts = total(&entries);
        let rate = self.rates.lock().total();
        let errors: Map<_, _> = entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.errors()))
            .filter(|(_, errors)| *errors > 0)
            .map(|(name, errors)| (name, errors.into()))
            .collect();
        json!({
            "etl-service-thread-queue": runs.pools.queued(),
            "etl-service-thread-metrics": {
                "count": counts.records_in,
                "mean-rate": mean(counts.records_in, runs.began.elapsed()),
                "one-minute-rate": rate.one,
                "five-minute-rate": rate.five,
                "fifteen-minute-rate": rate.fifteen,
            },
            "open-connections": { "tcp-conn": self.connections.get(connections) },
            "topic-errors": errors,
            "memory": self.memory(),
            "redis": { "redis-conn": { "pool": self.state_store() } },
            "pseidon": self.own_metrics(&entries, &counts),
        })
    }

    fn own_metrics(&self, entries: &[Arc<RunEntry>], counts: &Counts) -> Value {
        let mut own = counts.json();
        if let Value::Object(own) = &mut own {
            own.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            own.insert("pipeline".into(), self.runs.plan.name.as_str().into());
            own.insert(
                "uptime-seconds".into(),
                self.runs.began.elapsed().as_secs().into(),
            );
            own.insert("entries".into(), by_state(entries));
        }
        own
    }

    /// The `memory` of `/metrics`, whose names are those of a JVM: values of this process that come
    /// closest to them.
    fn memory(&self) -> Value {
        let (now, budget) = (ProcessMemory::now(), self.runs.pools.budget());
        json!({
            "direct": {
                "memory-used": megabytes(budget.used() as u64),
                "count": self.runs.pools.queued(),
                "total-capacity": megabytes(budget.limit() as u64),
            },
            "heap": {
                "heap": {
                    "init": megabytes(self.first_memory.anonymous),
                    "used": megabytes(now.anonymous),
                    "max": megabytes(self.runs.plan.settings.memory.bytes() as u64),
                    "committed": megabytes(now.allocated),
                },
                // A JVM shows -1 where there is no limit.
                "non-heap": {
                    "init": megabytes(self.first_memory.files),
                    "used": megabytes(now.files),
                    "max": -1,
                    "committed": megabytes(now.code),
                },
            },
        })
    }

    fn state_store(&self) -> String {
        self.runs.plan.settings.state.as_ref().map_or_else(
            || "embedded".to_owned(),
            |url| masking::text(url.expose()).into_owned(),
        )
    }

    fn describe(&self, entry: &RunEntry, shows_records: bool) -> Value {
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
            "state": state.as_str(),
            "reason": state.reason(shows_records).map(printable),
            "running-seconds": entry.live().map(|live| live.since.elapsed().as_secs()),
            "lag": counts.lag,
            "rate": self.rate(&entry.name).one,
            "errors": entry.errors(),
            "open-files": counts.open_files,
            "positions": positions.collect::<Map<_, _>>(),
        })
    }

    fn build_stats(&self) -> Value {
        let entries = self.runs.entries();
        let mut stages: BTreeMap<String, Counts> = BTreeMap::new();
        for (stage, counts) in entries
            .iter()
            .flat_map(|entry| Counts::by_stage(&entry.metrics))
        {
            stages.entry(stage).or_default().add(&counts);
        }
        let uptime = self.runs.began.elapsed();
        let counts = total(&entries);
        let stages: Map<_, _> = stages
            .into_iter()
            .map(|(stage, counts)| (stage, counts.json()))
            .collect();
        json!({
            "pipeline": self.runs.plan.name,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime-seconds": uptime.as_secs(),
            "mean-rate": mean(counts.records_in, uptime),
            "entries": by_state(&entries),
            "totals": counts.json(),
            "stages": stages,
        })
    }
}

/// The counts of all entries together.
fn total(entries: &[Arc<RunEntry>]) -> Counts {
    let mut all = Counts::default();
    entries
        .iter()
        .for_each(|entry| all.add(&Counts::of(&entry.metrics)));
    all
}

/// How many entries are in each state; states without entries are left out.
fn by_state(entries: &[Arc<RunEntry>]) -> Value {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    entries
        .iter()
        .for_each(|entry| *states.entry(entry.state().as_str()).or_default() += 1);
    json!(states)
}

/// Records per second since the start.
fn mean(records: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        records as f64 / time.as_secs_f64()
    }
}

/// The keys whose values are words of the program, or the name of a log, which clients send back.
const OWN_WORDS: &[&str] = &["log", "state", "version"];

fn body(value: &Value) -> Bytes {
    let text = format!("{value:#}\n");
    printable_json(&text, OWN_WORDS).into_owned().into()
}
