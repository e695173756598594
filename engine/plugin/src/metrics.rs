//! The metrics of a running pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The metrics of one run. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Records read from a source, by stage.
    pub records_in: IntCounterVec,
    /// Bytes of the payloads of these records, by stage.
    pub bytes_in: IntCounterVec,
    /// Records handed to a sink, by stage.
    pub records_out: IntCounterVec,
    /// Bytes a sink has written, by stage.
    pub bytes_out: IntCounterVec,
    /// Invalid records, by stage and outcome (`quarantined`, `dropped`).
    pub bad_records: IntCounterVec,
    /// Records with fields that the inferred schema of their source does not have, by stage.
    pub new_field_records: IntCounterVec,
    /// 1 while a source cannot reach what it reads from, by stage.
    pub source_unreachable: IntGaugeVec,
    /// Positions that a source has not read yet, by stage: records, or bytes of files.
    pub lag: IntGaugeVec,
    /// Files that a source could not read to their end, by stage.
    broken_files: IntGaugeVec,
    /// Files open for writing, by stage.
    pub open_files: IntGaugeVec,
    /// Files published, by stage.
    pub files: IntCounterVec,
    /// 1 while a sink cannot write and retries, by stage.
    pub sink_blocked: IntGaugeVec,
    /// Committed files that could not be published and are retried, by stage.
    pub unpublished_files: IntGaugeVec,
    /// Published files that wait to be moved or reported, by stage.
    pub waiting_files: IntGaugeVec,
    /// 1 while the state store does not answer.
    pub store_unreachable: IntGauge,
    /// Bytes of records in flight, of all runs that share the memory budget.
    pub memory_used: IntGauge,
    /// Why sources cannot read, by stage.
    source_troubles: Arc<Mutex<BTreeMap<String, String>>>,
    run_trouble: Arc<Mutex<Option<RunTrouble>>>,
    /// The names of [`Metrics::broken_files`].
    broken_file_names: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
    /// By sink.
    misplaced_files: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Metrics {
    /// Creates and registers all metrics at zero.
    #[allow(
        clippy::new_without_default,
        reason = "a run creates its metrics explicitly, once"
    )]
    pub fn new() -> Metrics {
        let registration = Registration::default();
        let counters = |name, help| registration.counters(name, help, &["stage"]);
        let gauges = |name, help| registration.gauges(name, help);
        Metrics {
            records_in: counters("pseidon_source_records_total", "Records read."),
            bytes_in: counters("pseidon_source_bytes_total", "Bytes of the records read."),
            records_out: counters("pseidon_sink_records_total", "Records handed to the sink."),
            bytes_out: counters(
                "pseidon_sink_bytes_total",
                "Bytes written by the sink, after compression.",
            ),
            bad_records: registration.counters(
                "pseidon_bad_records_total",
                "Records that could not be processed.",
                &["stage", "outcome"],
            ),
            new_field_records: counters(
                "pseidon_source_new_field_records_total",
                "Records with fields that the inferred schema does not have.",
            ),
            source_unreachable: gauges(
                "pseidon_source_unreachable",
                "1 while the source cannot reach what it reads from.",
            ),
            lag: gauges(
                "pseidon_source_lag_records",
                "Records that the source has not read yet; of files, bytes.",
            ),
            broken_files: gauges(
                "pseidon_source_broken_files",
                "Files that the source could not read to their end.",
            ),
            open_files: gauges("pseidon_sink_open_files", "Files open for writing."),
            files: counters("pseidon_sink_files_total", "Files published."),
            sink_blocked: gauges(
                "pseidon_sink_blocked",
                "1 while the sink cannot write and retries.",
            ),
            unpublished_files: gauges(
                "pseidon_sink_unpublished_files",
                "Committed files that could not be published and are retried.",
            ),
            waiting_files: gauges(
                "pseidon_sink_waiting_files",
                "Published files that wait to be moved or reported.",
            ),
            store_unreachable: registration.gauge(
                "pseidon_state_store_unreachable",
                "1 while the state store does not answer.",
            ),
            memory_used: registration
                .gauge("pseidon_memory_used_bytes", "Bytes of records in flight."),
            source_troubles: Arc::default(),
            run_trouble: Arc::default(),
            broken_file_names: Arc::default(),
            misplaced_files: Arc::default(),
            registry: registration.registry,
        }
    }

    /// How many invalid records were quarantined, and how many dropped, over all stages.
    pub fn bad_totals(&self) -> (u64, u64) {
        let (mut quarantined, mut dropped) = (0, 0);
        for family in self.bad_records.collect() {
            for metric in family.get_metric() {
                let outcome = metric
                    .get_label()
                    .iter()
                    .find(|label| label.name() == "outcome")
                    .map(|label| label.value());
                let count = metric.get_counter().get_value() as u64;
                if outcome == Some("dropped") {
                    dropped += count
                } else {
                    quarantined += count
                }
            }
        }
        (quarantined, dropped)
    }

    /// Sets why a source cannot read, as a sentence that names the stage; `None` when it reads.
    pub fn set_source_trouble(&self, stage: &str, trouble: Option<String>) {
        let mut troubles = self.source_troubles.lock();
        match trouble {
            Some(trouble) => _ = troubles.insert(stage.to_owned(), trouble),
            None => _ = troubles.remove(stage),
        }
    }

    /// Changes the names of the files that a source could not read to their end.
    pub fn change_broken_files(&self, stage: &str, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut names = self.broken_file_names.lock();
        let of_stage = names.entry(stage.to_owned()).or_default();
        change(of_stage);
        let gauge = self.broken_files.with_label_values(&[stage]);
        gauge.set(of_stage.len() as i64);
    }

    /// The names of the files that sources could not read to their end.
    pub fn broken_file_names(&self) -> BTreeSet<String> {
        self.broken_file_names
            .lock()
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// Sets how many committed files are not in their place when a sink is closed, because a person
    /// has to repair a folder.
    pub fn set_misplaced_files(&self, sink: &str, count: u64) {
        self.misplaced_files.lock().insert(sink.to_owned(), count);
    }

    /// How many files are not in their place, in all sinks that were closed.
    pub fn misplaced_files(&self) -> u64 {
        self.misplaced_files.lock().values().sum()
    }

    /// Whether a sink cannot write and retries.
    pub fn is_sink_blocked(&self) -> bool {
        set_stages(&self.sink_blocked).next().is_some()
    }

    /// Sets why the run restarts; `None` when it is stable again.
    pub fn set_run_trouble(&self, trouble: Option<RunTrouble>) {
        *self.run_trouble.lock() = trouble;
    }

    /// What keeps the run from making progress now, as sentences; empty if nothing does. Values of
    /// records are in them only with `shows_records`.
    pub fn troubles(&self, shows_records: bool) -> Vec<String> {
        let of_run = self.run_trouble.lock().clone();
        let of_run = of_run.map(|trouble| match trouble.reason {
            Some(reason) if shows_records => format!("{}: {reason}", trouble.what),
            _ => trouble.what,
        });
        let mut troubles: Vec<String> = of_run.into_iter().collect();
        if self.store_unreachable.get() != 0 {
            troubles.push(
                "the state store does not answer: nothing is committed until it does".to_owned(),
            );
        }
        troubles.extend(
            set_stages(&self.source_unreachable)
                .map(|stage| format!("the source `{stage}` cannot reach what it reads from")),
        );
        troubles.extend(self.source_troubles.lock().values().cloned());
        troubles.extend(
            set_stages(&self.sink_blocked)
                .map(|stage| format!("the sink `{stage}` cannot write and is retrying")),
        );
        let unpublished = set_stages(&self.unpublished_files);
        troubles.extend(unpublished.map(|stage| {
            format!("the sink `{stage}` cannot publish committed files and is retrying")
        }));
        troubles
    }

    /// All metrics, in the form that Prometheus' encoders take.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// Creates metrics at zero and registers them. Names and labels are constant and valid, and each
/// name is registered once.
#[derive(Default)]
struct Registration {
    registry: Registry,
}

impl Registration {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Gauges by stage.
    fn gauges(&self, name: &str, help: &str) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help), &["stage"]))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::new(name, help))
    }

    fn registered<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("the name and labels are constant and valid");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each name is registered once");
        metric
    }
}

/// Why a run restarts.
#[derive(Clone, Debug)]
pub struct RunTrouble {
    /// What has happened, without values of records.
    pub what: String,
    /// The reason, which may quote a record.
    pub reason: Option<String>,
}

impl From<String> for RunTrouble {
    fn from(what: String) -> RunTrouble {
        RunTrouble { what, reason: None }
    }
}

/// The stages whose gauge is not zero.
fn set_stages(gauges: &IntGaugeVec) -> impl Iterator<Item = String> {
    let stage = |metric: &prometheus::proto::Metric| {
        let stage = metric
            .get_label()
            .iter()
            .find(|label| label.name() == "stage")?
            .value()
            .to_owned();
        (metric.get_gauge().get_value() != 0.0).then_some(stage)
    };
    let families = gauges.collect();
    families
        .iter()
        .flat_map(|family| {
            family
                .get_metric()
                .iter()
                .filter_map(stage)
                .collect::<Vec<_>>()
        })
        .collect::<Vec<_>>()
        .into_iter()
}
