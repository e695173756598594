//! The progress of a run: a line on a terminal while it runs, and a summary at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use pseidon_plan::Plan;
use pseidon_plugin::metrics::Metrics;
use pseidon_service::runs::RunRegistry;

use crate::broken_files::BrokenFiles;
use crate::counted::counted;
use crate::invalid_records::InvalidRecords;
use crate::missing_fields;
use crate::stderr_line;
use crate::systemd::ServiceProgress;

/// A progress line, if it is `wanted` and standard error is a terminal.
pub(crate) fn bar(wanted: bool) -> Option<ProgressBar> {
    (wanted && std::io::stderr().is_terminal())
        .then(|| ProgressBar::new_spinner().with_style(style()))
}

/// One line, however narrow the terminal is: a longer one would leave its rest behind at each draw.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The counts of all runs in the process, over all stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    records_in: u64,
    bytes_in: u64,
    records_out: u64,
    bytes_out: u64,
    quarantined: u64,
    dropped: u64,
    files: u64,
    open_files: i64,
    lag: i64,
}

impl Totals {
    fn of(runs: &RunRegistry) -> Totals {
        let mut totals = Totals::default();
        runs.entries()
            .iter()
            .for_each(|entry| totals.add(&runs.plan, &entry.metrics));
        totals
    }

    /// Adds the counts of one run. All runs have the stages of `plan`.
    fn add(&mut self, plan: &Plan, metrics: &Metrics) {
        let totals = self;
        for source in &plan.sources {
            let stage = [source.stage.as_str()];
            totals.records_in += metrics.records_in.with_label_values(&stage).get();
            totals.bytes_in += metrics.bytes_in.with_label_values(&stage).get();
            totals.lag += metrics.lag.with_label_values(&stage).get();
        }
        for sink in &plan.sinks {
            let stage = [sink.id.as_str()];
            if !sink.is_quarantine {
                totals.records_out += metrics.records_out.with_label_values(&stage).get();
                totals.bytes_out += metrics.bytes_out.with_label_values(&stage).get();
                totals.files += metrics.files.with_label_values(&stage).get();
            }
            totals.open_files += metrics.open_files.with_label_values(&stage).get();
        }
        let (quarantined, dropped) = metrics.bad_totals();
        totals.quarantined += quarantined;
        totals.dropped += dropped;
    }
}

/// The progress for the status line of systemd.
pub(crate) fn progress(runs: &RunRegistry) -> ServiceProgress {
    let totals = Totals::of(runs);
    ServiceProgress {
        records: totals.records_in,
        bytes: totals.bytes_in,
        lag: totals.lag,
    }
}

/// A thread that shows the progress until this value is dropped.
pub(crate) struct ProgressDisplay {
    bar: ProgressBar,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressDisplay {
    /// Starts the thread. If the system refuses it, no progress is shown.
    pub(crate) fn start(bar: ProgressBar, runs: &Arc<RunRegistry>) -> ProgressDisplay {
        let ended = Arc::new(AtomicBool::new(false));
        let (line, runs, is_ended) = (bar.clone(), runs.clone(), ended.clone());
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                let mut rate = RateWindow::default();
                while !is_ended.load(Ordering::Relaxed) {
                    let totals = Totals::of(&runs);
                    line.set_message(message(&totals, rate.update(totals.records_in)));
                    line.tick();
                    std::thread::sleep(Duration::from_millis(250));
                }
            });
        ProgressDisplay {
            bar,
            ended,
            thread: thread.ok(),
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

fn message(totals: &Totals, rate: f64) -> String {
    let mut text = format!(
        "{}  {}  {}/s  lag {}  {}",
        counted(totals.records_in, "record"),
        HumanBytes(totals.bytes_in),
        HumanCount(rate as u64),
        HumanCount(totals.lag.max(0) as u64),
        counted(totals.open_files.max(0) as u64, "open file"),
    );
    if totals.quarantined + totals.dropped > 0 {
        text.push_str(&format!(
            "  {} invalid",
            HumanCount(totals.quarantined + totals.dropped)
        ));
    }
    text
}

/// The rate in records per second over about the last three seconds.
#[derive(Default)]
struct RateWindow {
    samples: std::collections::VecDeque<(Instant, u64)>,
}

impl RateWindow {
    fn update(&mut self, records: u64) -> f64 {
        let now = Instant::now();
        self.samples.push_back((now, records));
        while self.samples.len() > 2
            && self
                .samples
                .front()
                .is_some_and(|(at, _)| now - *at > Duration::from_secs(3))
        {
            self.samples.pop_front();
        }
        let Some((first, before)) = self.samples.front() else {
            return 0.0;
        };
        let seconds = (now - *first).as_secs_f64();
        if seconds > 0.0 {
            (records - before) as f64 / seconds
        } else {
            0.0
        }
    }
}

/// A sentence if more records of all runs in the process were invalid than `:max-invalid` allows.
pub(crate) fn too_many_invalid(runs: &RunRegistry) -> Option<String> {
    let limit = runs.plan.settings.max_invalid?;
    let totals = Totals::of(runs);
    let invalid = totals.quarantined + totals.dropped;
    limit.is_exceeded(invalid, totals.records_in).then(|| {
        let read = counted(totals.records_in, "record");
        format!(
            "{} of {read} are invalid, more than `:max-invalid` allows ({limit})",
            HumanCount(invalid)
        )
    })
}

/// The share of invalid records, in percent, from which on a run warns of them.
const MANY_INVALID: u64 = 10;

/// A sentence if many records are invalid, and `:max-invalid` says nothing about it.
fn many_invalid(runs: &RunRegistry, totals: &Totals) -> Option<String> {
    let invalid = totals.quarantined + totals.dropped;
    let is_many = invalid > 0 && invalid * 100 >= totals.records_in * MANY_INVALID;
    (is_many && runs.plan.settings.max_invalid.is_none()).then(|| {
        let are = if totals.records_in == 1 { "is" } else { "are" };
        format!(
            "{} of {} {are} invalid; with `:max-invalid \"1%\"` in `:settings`, such a run ends with \
             exit code 3",
            HumanCount(invalid),
            counted(totals.records_in, "record")
        )
    })
}

/// The number of records that all runs in the process have read.
pub(crate) fn records_read(runs: &RunRegistry) -> u64 {
    Totals::of(runs).records_in
}

/// The number of invalid records of all runs in the process. A record is counted at each stage at
/// which it is invalid.
pub(crate) fn invalid_records(runs: &RunRegistry) -> u64 {
    let totals = Totals::of(runs);
    totals.quarantined + totals.dropped
}

/// Prints a sentence after the summary: as a line on a terminal, otherwise as a log line.
pub(crate) fn say(sentence: &str) {
    match std::io::stderr().is_terminal() {
        true => stderr_line!("  {sentence}"),
        false => tracing::info!("{sentence}"),
    }
}

/// Prints the totals of a run as lines on a terminal, otherwise as a log line. `how` says how it
/// ended.
pub(crate) fn summary(runs: &RunRegistry, how: &str) {
    let totals = Totals::of(runs);
    let seconds = runs.began.elapsed().as_secs_f64();
    let invalid = InvalidRecords::of(runs);
    let broken = BrokenFiles::of(runs);
    if !std::io::stderr().is_terminal() {
        missing_fields::report(runs);
        missing_fields::report_added(runs);
        invalid.log(totals.quarantined);
        if let Some(many) = many_invalid(runs, &totals) {
            tracing::warn!("{many}");
        }
        broken.log();
        tracing::info!(
            records_in = totals.records_in,
            bytes_in = totals.bytes_in,
            records_out = totals.records_out,
            bytes_out = totals.bytes_out,
            quarantined = totals.quarantined,
            dropped = totals.dropped,
            files = totals.files,
            seconds,
            "{how}"
        );
        return;
    }
    stderr_line!("{how} in {seconds:.1} s");
    stderr_line!(
        "  read     {}, {}",
        counted(totals.records_in, "record"),
        HumanBytes(totals.bytes_in)
    );
    stderr_line!(
        "  written  {}, {}, {}",
        counted(totals.records_out, "record"),
        HumanBytes(totals.bytes_out),
        counted(totals.files, "file")
    );
    if totals.quarantined + totals.dropped > 0 {
        invalid.print(totals.quarantined, totals.dropped);
    }
    if let Some(many) = many_invalid(runs, &totals) {
        stderr_line!("  warning  {many}");
    }
    broken.print();
    missing_fields::report(runs);
    missing_fields::report_added(runs);
}

#[cfg(test)]
mod tests {
    use std::io;

    use indicatif::{ProgressDrawTarget, TermLike};
    use parking_lot::Mutex;

    use super::*;

    /// A terminal of 40 columns that keeps what is written.
    #[derive(Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            40
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_line_fits_a_narrow_terminal() {
        let written = Arc::new(Mutex::new(String::new()));
        let terminal = Terminal(written.clone());
        let target = ProgressDrawTarget::term_like(Box::new(terminal));
        let bar = ProgressBar::with_draw_target(None, target).with_style(style());
        bar.set_message("123,456,789 records, 12.3 MiB, 456,789 records/s, 3 files");
        let written = written.lock();
        let line = written.trim_end();
        assert!(
            line.contains("123,456") && line.chars().count() <= 40,
            "{line:?}"
        );
    }
}
