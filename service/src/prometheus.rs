//! `/metrics/prometheus`: the metrics of all entries on one page in Prometheus text format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use pseidon_dsl::conceal::conceal;
use pseidon_plugin::metrics::Metrics;

use crate::process::ProcessMemory;
use crate::runs::{EntryState, RunRegistry};

/// The media type of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of all entries and of the process. For a template, each sample of an entry has the
/// label `log`.
pub(crate) fn page(runs: &RunRegistry) -> String {
    let mut families = Families::default();
    for entry in runs.entries() {
        let log = runs.is_template.then_some(entry.name.as_str());
        for family in gather(&entry.metrics) {
            families.add(family, log);
        }
        if let Some(log) = log {
            families.add(
                gauge(
                    "pseidon_log_running",
                    "1 while the log is running.",
                    "",
                    (entry.state() == EntryState::Running).into(),
                ),
                Some(log),
            );
        }
    }
    for family in of_process(runs) {
        families.add(family, None);
    }
    families.render()
}

/// Metric families by name, each with the samples of all entries.
#[derive(Default)]
struct Families(BTreeMap<String, MetricFamily>);

impl Families {
    fn add(&mut self, mut family: MetricFamily, log: Option<&str>) {
        let mut samples = family.take_metric();
        if let Some(log) = log {
            samples
                .iter_mut()
                .for_each(|sample| add_label(sample, "log", log));
        }
        self.0
            .entry(family.name().to_owned())
            .or_insert(family)
            .mut_metric()
            .extend(samples);
    }

    fn render(mut self) -> String {
        let samples = self.0.values_mut().flat_map(|family| family.mut_metric());
        samples.for_each(conceal_labels);
        // The encoder rejects a family without samples.
        let families: Vec<MetricFamily> = self
            .0
            .into_values()
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_default()
    }
}

/// The metrics of one entry. The bytes in flight are left out: all entries share them, so they are
/// shown once.
fn gather(metrics: &Metrics) -> Vec<MetricFamily> {
    metrics
        .gather()
        .into_iter()
        .filter(|family| family.name() != MEMORY_USED)
        .collect()
}

const MEMORY_USED: &str = "pseidon_memory_used_bytes";

fn of_process(runs: &RunRegistry) -> Vec<MetricFamily> {
    let mut families = vec![
        gauge(
            MEMORY_USED,
            "Bytes of records in flight.",
            "",
            runs.pools.budget().used() as f64,
        ),
        gauge(
            "pseidon_memory_limit_bytes",
            "Limit of the bytes of records in flight.",
            "",
            runs.pools.budget().limit() as f64,
        ),
        gauge(
            "pseidon_etl_queue_batches",
            "Batches waiting for an ETL thread.",
            "",
            runs.pools.queued() as f64,
        ),
        gauge(
            "pseidon_uptime_seconds",
            "Seconds since the start of the process.",
            "",
            runs.began.elapsed().as_secs_f64(),
        ),
        gauge(
            "pseidon_build_info",
            "The version of pseidon.",
            concat!("version=", env!("CARGO_PKG_VERSION")),
            1.0,
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            "",
            ProcessMemory::now().resident() as f64,
        ),
    ];
    // Every state is shown, so that a graph starts at zero instead of without a value.
    let mut states: BTreeMap<&str, f64> = EntryState::ALL.map(|state| (state.as_str(), 0.0)).into();
    runs.entries()
        .iter()
        .for_each(|entry| *states.entry(entry.state().as_str()).or_default() += 1.0);
    families.extend(states.into_iter().map(|(state, count)| {
        gauge(
            "pseidon_entries",
            "Pipelines, or logs of a template, by state.",
            &format!("state={state}"),
            count,
        )
    }));
    families
}

/// A family of one gauge with at most one label, `name=value`.
fn gauge(name: &str, help: &str, label: &str, value: f64) -> MetricFamily {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut sample = Metric::from_gauge(gauge);
    if let Some((label, value)) = label.split_once('=') {
        add_label(&mut sample, label, value);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::GAUGE);
    family.set_metric(vec![sample]);
    family
}

fn add_label(sample: &mut Metric, name: &str, value: &str) {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    let mut labels = sample.take_label();
    labels.push(label);
    sample.set_label(labels);
}

/// Conceals the labels with names from outside, but not that of a log, which clients send back.
fn conceal_labels(sample: &mut Metric) {
    let mut labels = sample.take_label();
    for label in &mut labels {
        if label.name() == "stage"
            && let Cow::Owned(concealed) = conceal(label.value())
        {
            label.set_value(concealed);
        }
    }
    sample.set_label(labels);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(entries: &[(Option<&str>, &Metrics)]) -> String {
        let mut families = Families::default();
        for (log, metrics) in entries {
            gather(metrics)
                .into_iter()
                .for_each(|family| families.add(family, *log));
        }
        families.render()
    }

    #[test]
    fn a_label_has_no_secret_unless_it_names_a_log() {
        pseidon_dsl::conceal::register("${env:LABEL}", "label-s3cret").expect("it is short");
        let metrics = Metrics::new();
        metrics
            .records_in
            .with_label_values(&["a label-s3cret"])
            .inc();
        let page = merged(&[(Some("label-s3cret"), &metrics)]);
        let sample = "{stage=\"a ${env:LABEL}\",log=\"label-s3cret\"} 1";
        assert!(page.contains(sample), "{page}");
    }

    #[test]
    fn each_family_is_written_once_with_the_samples_of_all_logs() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.records_in.with_label_values(&["in"]).inc_by(5);
        two.records_in.with_label_values(&["in"]).inc_by(7);
        two.lag.with_label_values(&["in"]).set(9);
        let page = merged(&[(Some("a"), &one), (Some("b \"x\"\\"), &two)]);
        assert_eq!(
            page,
            "# HELP pseidon_source_lag_records Records that the source has not read yet; of files, bytes.\n\
             # TYPE pseidon_source_lag_records gauge\n\
             pseidon_source_lag_records{stage=\"in\",log=\"b \\\"x\\\"\\\\\"} 9\n\
             # HELP pseidon_source_records_total Records read.\n\
             # TYPE pseidon_source_records_total counter\n\
             pseidon_source_records_total{stage=\"in\",log=\"a\"} 5\n\
             pseidon_source_records_total{stage=\"in\",log=\"b \\\"x\\\"\\\\\"} 7\n\
             # HELP pseidon_state_store_unreachable 1 while the state store does not answer.\n\
             # TYPE pseidon_state_store_unreachable gauge\n\
             pseidon_state_store_unreachable{log=\"a\"} 0\n\
             pseidon_state_store_unreachable{log=\"b \\\"x\\\"\\\\\"} 0\n"
        );
    }
}
