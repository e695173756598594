//! The counts of an entry, read from its metrics as plain numbers.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use pseidon_plugin::metrics::Metrics;
use serde_json::{Value, json};

/// The counts of a stage, of an entry or of all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) records_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) quarantined: u64,
    pub(crate) dropped: u64,
    pub(crate) lag: i64,
    pub(crate) open_files: i64,
    pub(crate) files: u64,
}

impl Counts {
    /// The counts of an entry, by stage.
    pub(crate) fn by_stage(metrics: &Metrics) -> BTreeMap<String, Counts> {
        let mut stages: BTreeMap<String, Counts> = BTreeMap::new();
        each(metrics, &mut |metric, add| {
            add(
                stages.entry(label(metric, "stage").to_owned()).or_default(),
                metric,
            )
        });
        stages
    }

    /// The counts of an entry over all its stages.
    pub(crate) fn of(metrics: &Metrics) -> Counts {
        let mut all = Counts::default();
        each(metrics, &mut |metric, add| add(&mut all, metric));
        all
    }

    /// Adds other counts to these.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.records_in += other.records_in;
        self.bytes_in += other.bytes_in;
        self.records_out += other.records_out;
        self.bytes_out += other.bytes_out;
        self.quarantined += other.quarantined;
        self.dropped += other.dropped;
        self.lag += other.lag;
        self.open_files += other.open_files;
        self.files += other.files;
    }

    /// The counts as JSON, with the names of `/stats`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "records-in": self.records_in,
            "bytes-in": self.bytes_in,
            "records-out": self.records_out,
            "bytes-out": self.bytes_out,
            "quarantined": self.quarantined,
            "dropped": self.dropped,
            "lag": self.lag,
            "open-files": self.open_files,
            "files": self.files,
        })
    }
}

/// Adds a sample to its count.
type Add = fn(&mut Counts, &Metric);

/// Visits all samples of an entry, each with the function that adds it.
fn each(metrics: &Metrics, visit: &mut dyn FnMut(&Metric, Add)) {
    let mut all = |vec: &dyn Collector, add: Add| {
        vec.collect()
            .iter()
            .flat_map(MetricFamily::get_metric)
            .for_each(|metric| visit(metric, add));
    };
    all(&metrics.records_in, |counts, metric| {
        counts.records_in += counter(metric)
    });
    all(&metrics.bytes_in, |counts, metric| {
        counts.bytes_in += counter(metric)
    });
    all(&metrics.records_out, |counts, metric| {
        counts.records_out += counter(metric)
    });
    all(&metrics.bytes_out, |counts, metric| {
        counts.bytes_out += counter(metric)
    });
    all(&metrics.lag, |counts, metric| counts.lag += gauge(metric));
    all(&metrics.open_files, |counts, metric| {
        counts.open_files += gauge(metric)
    });
    all(&metrics.files, |counts, metric| {
        counts.files += counter(metric)
    });
    all(&metrics.bad_records, |counts, metric| {
        match label(metric, "outcome") {
            "dropped" => counts.dropped += counter(metric),
            _ => counts.quarantined += counter(metric),
        }
    });
}

/// The number of records read. It collects only this metric, since it is called often.
pub(crate) fn records_in(metrics: &Metrics) -> u64 {
    metrics
        .records_in
        .collect()
        .iter()
        .flat_map(MetricFamily::get_metric)
        .map(counter)
        .sum()
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric
        .get_label()
        .iter()
        .find(|label| label.name() == name)
        .map_or("", |label| label.value())
}

fn counter(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

fn gauge(metric: &Metric) -> i64 {
    metric.get_gauge().get_value() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_stage_and_summed() {
        let metrics = Metrics::new();
        metrics.records_in.with_label_values(&["in"]).inc_by(10);
        metrics.bytes_in.with_label_values(&["in"]).inc_by(100);
        metrics.lag.with_label_values(&["in"]).set(7);
        metrics.records_out.with_label_values(&["one"]).inc_by(4);
        metrics.records_out.with_label_values(&["two"]).inc_by(5);
        metrics.open_files.with_label_values(&["two"]).set(2);
        metrics
            .bad_records
            .with_label_values(&["in", "dropped"])
            .inc();
        metrics
            .bad_records
            .with_label_values(&["in", "quarantined"])
            .inc_by(3);
        let stages = Counts::by_stage(&metrics);
        let expected = Counts {
            records_in: 10,
            bytes_in: 100,
            lag: 7,
            dropped: 1,
            quarantined: 3,
            ..Counts::default()
        };
        assert_eq!(stages["in"], expected);
        assert_eq!(
            stages["two"],
            Counts {
                records_out: 5,
                open_files: 2,
                ..Counts::default()
            }
        );
        assert_eq!(
            Counts::of(&metrics),
            Counts {
                records_out: 9,
                open_files: 2,
                ..expected
            }
        );
        assert_eq!(records_in(&metrics), 10);
    }
}
