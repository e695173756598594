//! What a run shows of itself: one line on a terminal, and a summary at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use pseidon_plan::Plan;
use pseidon_plugin::metrics::Metrics;

use crate::board::Board;
use crate::systemd::Progress;

/// A progress line, where there is a terminal to show it on.
pub(crate) fn bar(wanted: bool) -> Option<ProgressBar> {
    (wanted && std::io::stderr().is_terminal()).then(|| {
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        ProgressBar::new_spinner().with_style(style)
    })
}

/// The numbers of a run, over all stages.
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
    fn of(board: &Board) -> Totals {
        let mut totals = Totals::default();
        board
            .entries()
            .iter()
            .for_each(|entry| totals.add(&board.plan, &entry.metrics));
        totals
    }

    /// Adds what one entry has counted. All entries have the stages of the board's plan.
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
            }
            totals.files += metrics.files.with_label_values(&stage).get();
            totals.open_files += metrics.open_files.with_label_values(&stage).get();
        }
        let (quarantined, dropped) = metrics.bad_totals();
        totals.quarantined += quarantined;
        totals.dropped += dropped;
    }
}

/// What a service tells of itself.
pub(crate) fn progress(board: &Board) -> Progress {
    let totals = Totals::of(board);
    Progress {
        records: totals.records_in,
        bytes: totals.bytes_in,
        lag: totals.lag,
    }
}

/// Shows the progress of a run until it is dropped.
pub(crate) struct Shown {
    bar: ProgressBar,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shown {
    /// Starts showing.
    pub(crate) fn start(bar: ProgressBar, board: &Arc<Board>) -> Shown {
        let ended = Arc::new(AtomicBool::new(false));
        let (line, board, over) = (bar.clone(), board.clone(), ended.clone());
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                let mut rate = Rate::default();
                while !over.load(Ordering::Relaxed) {
                    let totals = Totals::of(&board);
                    line.set_message(message(&totals, rate.update(totals.records_in)));
                    line.tick();
                    std::thread::sleep(Duration::from_millis(250));
                }
            });
        Shown {
            bar,
            ended,
            thread: thread.ok(),
        }
    }
}

impl Drop for Shown {
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
        "{} records  {}  {}/s  lag {}  {} open files",
        HumanCount(totals.records_in),
        HumanBytes(totals.bytes_in),
        HumanCount(rate as u64),
        HumanCount(totals.lag.max(0) as u64),
        totals.open_files,
    );
    if totals.quarantined + totals.dropped > 0 {
        text.push_str(&format!(
            "  {} bad",
            HumanCount(totals.quarantined + totals.dropped)
        ));
    }
    text
}

/// Records a second over about the last three seconds.
#[derive(Default)]
struct Rate {
    seen: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn update(&mut self, records: u64) -> f64 {
        let now = Instant::now();
        self.seen.push_back((now, records));
        while self.seen.len() > 2
            && self
                .seen
                .front()
                .is_some_and(|(at, _)| now - *at > Duration::from_secs(3))
        {
            self.seen.pop_front();
        }
        let Some((first, before)) = self.seen.front() else {
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

/// Says what a run has done: as lines on a terminal, as a log line otherwise.
pub(crate) fn summary(board: &Board, how: &str) {
    let totals = Totals::of(board);
    let seconds = board.began.elapsed().as_secs_f64();
    if !std::io::stderr().is_terminal() {
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
    eprintln!("{how} in {seconds:.1} s");
    eprintln!(
        "  read     {} records, {}",
        HumanCount(totals.records_in),
        HumanBytes(totals.bytes_in)
    );
    eprintln!(
        "  written  {} records, {}, {} files",
        HumanCount(totals.records_out),
        HumanBytes(totals.bytes_out),
        totals.files
    );
    if totals.quarantined + totals.dropped > 0 {
        eprintln!(
            "  bad      {} put aside, {} dropped",
            HumanCount(totals.quarantined),
            HumanCount(totals.dropped)
        );
    }
}
