//! Running a template: one run for each log of a table, while rows come and go.
//!
//! The supervisor compares what the table says with what runs, and starts and stops logs until both
//! are the same. It never waits for any of them: the table is asked by a thread of its own
//! ([`table`]), and logs ([`worker`]) run on threads that they share. A log that fails is started
//! again after a while; one that cannot be right waits for its row to change.

mod table;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select, tick, unbounded};
use pseidon_delivery::StateStore;
use pseidon_exec::Control;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_logs::Settings;
use pseidon_mysql::{LogRow, TableError};
use pseidon_plan::Plan;
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::source::SourceSetup;

use self::table::{Asked, Told};
use self::worker::{End, Outcome, Work};
use crate::board::{Board, Entry, State};
use crate::load::Text;

/// How often counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The waits before a log that failed is started again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// The note in which the last known rows are kept, for a start without MySQL.
const ROWS: &str = "rows";

/// What a template needs to run.
pub(crate) struct Template {
    pub(crate) text: Text,
    /// The pipeline as it is planned for a log as most are.
    pub(crate) plan: Arc<Plan>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) accept_changed_plan: bool,
}

/// Runs a template until it is stopped. Gives whether everything was committed in the end.
pub(crate) fn run(
    template: Template,
    board: Arc<Board>,
    control: &Receiver<Control>,
    reload: &Receiver<()>,
) -> Result<bool, String> {
    let template = Arc::new(template);
    let setup = SourceSetup {
        pipeline: template.plan.name.clone(),
        stage: template
            .plan
            .sources
            .first()
            .map(|source| source.stage.clone())
            .unwrap_or_default(),
        base: template.plan.base.clone(),
        wanted: MetaWanted::default(),
        io_threads: template.plan.settings.io_threads,
        memory: template.plan.settings.memory / 4,
        instance: String::new(),
        state: String::new(),
        metrics: pseidon_plugin::metrics::Metrics::new(),
    };
    let consumer = SharedConsumer::start(
        template.settings.kafka.clone(),
        setup,
        board.pools.budget().clone(),
    )
    .map_err(|error| format!("cannot start a thread: {error}"))?;
    let (asked, told) = table::start(&template.settings)?;
    let (end, ended) = unbounded();
    let mut supervisor = Supervisor {
        template,
        board,
        consumer: Arc::new(consumer),
        asked,
        end,
        rows: None,
        logs: BTreeMap::new(),
        off: HashMap::new(),
        subscribed: Vec::new(),
        stopping: false,
    };
    supervisor.supervise(control, reload, &told, &ended)
}

/// A log that somebody wants, or that still runs.
struct Log {
    entry: Arc<Entry>,
    /// Its row as the table has it, if it is to run.
    wanted: Option<LogRow>,
    running: Option<Running>,
    /// When it may be started again, after a failure.
    not_before: Option<Instant>,
    /// What was wrong with it when it was last tried.
    wrong: Option<String>,
    wait: Duration,
}

/// A log's run.
struct Running {
    row: LogRow,
    control: Sender<Control>,
    told_to_stop: bool,
}

struct Supervisor {
    template: Arc<Template>,
    board: Arc<Board>,
    consumer: Arc<SharedConsumer>,
    asked: Sender<Asked>,
    end: Sender<(String, Outcome)>,
    /// As the table had them last.
    rows: Option<Vec<LogRow>>,
    logs: BTreeMap<String, Log>,
    /// Logs that had too many errors and are still enabled in the table as far as is known, each
    /// with the reason.
    off: HashMap<String, String>,
    subscribed: Vec<String>,
    stopping: bool,
}

impl Supervisor {
    fn supervise(
        &mut self,
        control: &Receiver<Control>,
        reload: &Receiver<()>,
        told: &Receiver<Told>,
        ended: &Receiver<(String, Outcome)>,
    ) -> Result<bool, String> {
        let look = tick(LOOK_EVERY);
        let mut deadline = never();
        let mut complete = true;
        loop {
            self.board.pulse.beat();
            select! {
                recv(told) -> message => match message {
                    Ok(Told::Rows(rows)) => self.hear_rows(rows),
                    Ok(Told::SwitchedOff(log, outcome)) => self.hear_switched_off(log, outcome),
                    Err(_) => return Err("internal error: the table of logs is not read any more".to_owned()),
                },
                recv(ended) -> message => {
                    let Ok((log, outcome)) = message else { continue };
                    if let Outcome::StateLost(reason) = outcome {
                        return Err(reason);
                    }
                    complete &= outcome.is_complete();
                    self.hear_ended(&log, outcome);
                }
                recv(reload) -> _ => {
                    let _ = self.asked.send(Asked::Read);
                    // Whoever asks has most likely put something right.
                    self.logs.values_mut().for_each(|log| log.not_before = None);
                }
                recv(control) -> message => match message {
                    Ok(Control::Stop) => {
                        self.stopping = true;
                        let grace = self.template.plan.settings.shutdown_grace;
                        // Each log ends its run within the grace; this is for those that cannot
                        // even do that.
                        deadline = after(grace + LOOK_EVERY * 4);
                    }
                    Ok(Control::LeaveNow) | Err(_) => return Ok(false),
                    Ok(other) => self.logs.values().for_each(|log| _ = log.entry.tell(other)),
                },
                recv(deadline) -> _ => return Ok(false),
                recv(look) -> _ => self.look_at_errors(),
            }
            self.reconcile();
            if self.stopping && self.logs.values().all(|log| log.running.is_none()) {
                return Ok(complete);
            }
        }
    }

    fn hear_rows(&mut self, rows: Result<Vec<LogRow>, TableError>) {
        match rows {
            Ok(rows) => {
                self.board.set_trouble("table", None);
                // A log that was switched off runs again once somebody has enabled it after that.
                if self.rows.as_ref() != Some(&rows) {
                    self.keep(&rows);
                }
                self.rows = Some(rows);
            }
            Err(error) => {
                let going_on = match &self.rows {
                    Some(rows) => format!("{} logs go on as they were", rows.len()),
                    None => "no log is known yet".to_owned(),
                };
                let trouble = format!("the table of logs cannot be read: {error}; {going_on}");
                if self.board.set_trouble("table", Some(trouble.clone())) {
                    tracing::warn!("{trouble}");
                }
                if self.rows.is_none() {
                    self.rows = self.kept();
                }
            }
        }
    }

    /// Keeps the rows for a start without MySQL.
    fn keep(&self, rows: &[LogRow]) {
        let texts: Vec<String> = rows.iter().map(LogRow::to_text).collect();
        let text = serde_json::Value::from(texts).to_string();
        if let Err(error) = self.template.store.set_note(ROWS, &text) {
            tracing::debug!(%error, "the rows of the logs were not kept");
        }
    }

    fn kept(&self) -> Option<Vec<LogRow>> {
        let text = self.template.store.note(ROWS).ok()??;
        let texts: Vec<String> = serde_json::from_str(&text).ok()?;
        let rows = texts
            .iter()
            .map(|text| LogRow::from_text(text))
            .collect::<Result<Vec<_>, _>>()
            .ok()?;
        tracing::warn!(
            logs = rows.len(),
            "the logs run as they were when the table was last read"
        );
        Some(rows)
    }

    fn hear_switched_off(&mut self, log: String, outcome: Result<(), TableError>) {
        match outcome {
            Ok(()) => {
                let reason = self.off.remove(&log).unwrap_or_default();
                tracing::error!(log, reason, "switched off in the table");
                // It is not wanted any more, whatever was read before.
                if let Some(rows) = &mut self.rows {
                    rows.retain(|row| row.log() != log);
                }
            }
            Err(error) => {
                tracing::warn!(log, %error, "cannot be switched off in the table; it stays off here")
            }
        }
    }

    fn hear_ended(&mut self, name: &str, outcome: Outcome) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        let mut was_told_to_stop = self.stopping;
        if let Some(running) = log.running.take() {
            was_told_to_stop |= running.told_to_stop;
        }
        log.entry.set_live(None);
        match outcome {
            Outcome::Ended { complete: false } if !was_told_to_stop => {
                let reason =
                    "it has ended before everything was committed, and was not told to".to_owned();
                self.hear_ended(name, Outcome::Failed(reason));
            }
            Outcome::Ended { .. } => {
                // One that ends by itself is not started again at once.
                log.not_before = (!was_told_to_stop).then(|| Instant::now() + log.wait);
                log.wait = if was_told_to_stop {
                    FIRST_WAIT
                } else {
                    (log.wait * 2).min(LONGEST_WAIT)
                };
                log.wrong = None;
                tracing::info!(log = name, "stopped");
                if !matches!(log.entry.state(), State::SwitchedOff(_)) {
                    log.entry.set_state(State::Stopped);
                }
            }
            Outcome::Failed(reason) => {
                tracing::error!(
                    log = name,
                    reason,
                    "failed; it is started again in {:?}",
                    log.wait
                );
                log.entry.set_state(State::Failed(reason));
                log.not_before = Some(Instant::now() + log.wait);
                log.wait = (log.wait * 2).min(LONGEST_WAIT);
            }
            // The supervisor has left.
            Outcome::StateLost(_) => {}
            Outcome::Wrong(reason) => {
                if log.wrong.as_ref() != Some(&reason) {
                    tracing::error!(log = name, reason, "cannot run");
                }
                log.entry.set_state(State::Wrong(reason.clone()));
                log.wrong = Some(reason);
                // It may be another place than the row that is put right: a table's columns, a
                // schema file.
                log.not_before = Some(Instant::now() + LONGEST_WAIT);
            }
        }
    }

    /// Logs with too many errors are switched off.
    fn look_at_errors(&mut self) {
        let threshold = self.template.settings.error_threshold;
        for (name, log) in &self.logs {
            let errors = log.entry.errors();
            if log.running.is_none() || errors <= threshold || self.off.contains_key(name) {
                continue;
            }
            let reason = format!("{errors} records were bad, and the threshold is {threshold}");
            tracing::error!(log = name, reason, "too many errors; switching it off");
            log.entry.set_state(State::SwitchedOff(reason.clone()));
            self.off.insert(name.clone(), reason);
            let _ = self.asked.send(Asked::SwitchOff(name.clone()));
        }
    }

    /// Starts and stops what differs from what is wanted.
    fn reconcile(&mut self) {
        let Some(rows) = &self.rows else { return };
        let wanted: HashMap<&str, &LogRow> = if self.stopping {
            HashMap::new()
        } else {
            rows.iter().map(|row| (row.log(), row)).collect()
        };
        for row in wanted.values() {
            if !self.logs.contains_key(row.log()) {
                let entry = self.board.entry(row.log());
                let log = Log {
                    entry,
                    wanted: None,
                    running: None,
                    not_before: None,
                    wrong: None,
                    wait: FIRST_WAIT,
                };
                self.logs.insert(row.log().to_owned(), log);
            }
        }
        let is_on = |name: &String| !self.off.contains_key(name);
        let settled: Vec<(String, Option<LogRow>)> = (self.logs.keys())
            .map(|name| {
                (
                    name.clone(),
                    wanted
                        .get(name.as_str())
                        .filter(|_| is_on(name))
                        .map(|row| (*row).clone()),
                )
            })
            .collect();
        for (name, row) in settled {
            self.settle(&name, row);
        }
        self.subscribe();
        self.board.set_loaded();
    }

    /// Brings one log to what its row says, as far as can be done at once.
    fn settle(&mut self, name: &str, row: Option<LogRow>) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        if log.wanted != row {
            // Whatever was wrong with the old row says nothing about the new one.
            log.not_before = None;
            log.wait = FIRST_WAIT;
            log.wrong = None;
            if log.wanted.is_none() {
                log.entry.reset_errors();
            }
            if matches!(log.entry.state(), State::Wrong(_))
                || (row.is_some() && matches!(log.entry.state(), State::SwitchedOff(_)))
            {
                log.entry.set_state(State::Stopped);
            }
            log.wanted = row;
        }
        match (&mut log.running, &log.wanted) {
            (Some(running), wanted)
                if wanted.as_ref() != Some(&running.row) && !running.told_to_stop =>
            {
                running.told_to_stop = true;
                if !matches!(log.entry.state(), State::SwitchedOff(_)) {
                    log.entry.set_state(State::Stopping);
                }
                // One that has ended meanwhile does not hear it.
                let _ = running.control.send(Control::Stop);
            }
            (None, Some(row)) if log.not_before.is_none_or(|at| Instant::now() >= at) => {
                let row = row.clone();
                self.start(name, row);
            }
            (None, None)
                if !matches!(log.entry.state(), State::Stopped | State::SwitchedOff(_)) =>
            {
                log.entry.set_state(State::Stopped)
            }
            _ => {}
        }
    }

    fn start(&mut self, name: &str, row: LogRow) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        let (control, said) = unbounded();
        let work = Work {
            template: self.template.clone(),
            board: self.board.clone(),
            entry: log.entry.clone(),
            consumer: self.consumer.clone(),
            row: row.clone(),
            control: (control.clone(), said),
            end: End::new(name.to_owned(), self.end.clone()),
        };
        log.entry.set_state(State::Starting);
        log.running = Some(Running {
            row,
            control,
            told_to_stop: false,
        });
        work.start();
    }

    /// The topics of all logs that run are subscribed to, also of those that are about to end: what
    /// they have read is theirs until then. Nothing changes while all of them end: each change
    /// would make the group share its partitions out anew.
    fn subscribe(&mut self) {
        if self.stopping {
            return;
        }
        let topics: Vec<String> = self
            .logs
            .iter()
            .filter(|(_, log)| log.running.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        if topics != self.subscribed {
            self.consumer.subscribe(topics.clone());
            self.subscribed = topics;
        }
    }
}
