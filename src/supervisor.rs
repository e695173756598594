//! The supervisor of a template, which has one run for each row of a table of logs.
//!
//! The supervisor compares the rows of the table with the logs that run, and starts and stops logs
//! until both are the same. It never blocks on either: a separate thread queries the table
//! ([`table`]), and logs ([`worker`]) run on threads that they share. A log that fails is restarted
//! after a backoff; a log whose row is invalid waits until the row changes.

mod stored;
mod table;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select, tick, unbounded};
use parking_lot::Mutex;
use pseidon_delivery::{Reason, StateStore, WithCauses};
use pseidon_exec::Control;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_logs::LogsSettings;
use pseidon_mysql::{LogRow, TableError};
use pseidon_plan::Plan;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::framing::Framing;
use pseidon_plugin::source::SourceSetup;
use pseidon_service::runs::{EntryState, RunEntry, RunRegistry};

use self::table::{TableEvent, TableRequest};
use self::worker::{LogOutcome, LogRun, OutcomeReporter};
use crate::load::PipelineText;
use crate::load::kept::Tables;
use crate::reload::{self, ReplacedPlans};

/// How often the error counts of the logs are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest and the longest backoff before a log that failed is restarted.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(120);
const TABLE_THREAD_STOPPED: &str =
    "internal error: the thread that reads the table of logs stopped";
/// The key in the state store of the last rows read, for a start while MySQL is not available.
const ROWS_NOTE: &str = "rows";

/// A template that is ready to run.
pub(crate) struct LogTemplate {
    pub(crate) text: PipelineText,
    /// The plan for a sample row.
    pub(crate) plan: Arc<Plan>,
    pub(crate) settings: Arc<LogsSettings>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) accept_changed_plan: bool,
    /// The tables of `lookup`s that all logs use.
    pub(crate) tables: Mutex<Tables>,
}

/// Runs a template until it is stopped. Returns whether everything that was read is committed.
pub(crate) fn run(
    template: LogTemplate,
    runs: Arc<RunRegistry>,
    control: &Receiver<Control>,
    reload: &Receiver<()>,
) -> Result<bool, Reason> {
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
        wanted: WantedMetadata::default(),
        fields: Vec::new(),
        takes_new_fields: false,
        bounds: Default::default(),
        framing: Framing::default(),
        io_threads: template.plan.settings.io_threads.get(),
        memory: template.plan.settings.memory.bytes() / 4,
        instance: "".into(),
        state: String::new(),
        keeps_state: template.plan.keeps_state,
        metrics: pseidon_plugin::metrics::Metrics::new(),
    };
    let consumer = SharedConsumer::start(
        template.settings.kafka.clone(),
        setup,
        runs.pools.budget().clone(),
    )
    .map_err(|error| Reason::caused_by("cannot start a thread", error))?;
    let (requests, events) = table::start(&template.settings)?;
    let text = template.text.clone();
    let replan = move |plan: &Plan| text.template_again(plan);
    let tables = reload::watch_template(template.plan.clone(), replan)
        .map_err(|error| Reason::caused_by("cannot start a thread", error))?;
    let (outcomes, ended) = unbounded();
    let mut supervisor = Supervisor {
        template,
        runs,
        consumer: Arc::new(consumer),
        requests,
        outcomes,
        rows: None,
        logs: BTreeMap::new(),
        off: HashMap::new(),
        subscribed: Vec::new(),
        stopping: false,
    };
    supervisor.supervise(control, reload, &tables.changes, &events, &ended)
}

/// A log that has an enabled row, or that is still running.
struct SupervisedLog {
    entry: Arc<RunEntry>,
    /// Its row in the table, if it should run.
    wanted: Option<LogRow>,
    running: Option<RunningLog>,
    /// The earliest time of the next start, after a failure.
    not_before: Option<Instant>,
    /// The error in its row when it was last started; each error is logged once.
    row_error: Option<String>,
    backoff: Duration,
}

/// The current run of a log.
struct RunningLog {
    row: LogRow,
    control: Sender<Control>,
    stop_requested: bool,
}

struct Supervisor {
    template: Arc<LogTemplate>,
    runs: Arc<RunRegistry>,
    consumer: Arc<SharedConsumer>,
    requests: Sender<TableRequest>,
    outcomes: Sender<(String, LogOutcome)>,
    /// The rows that were last read; `None` before the first read.
    rows: Option<Vec<LogRow>>,
    logs: BTreeMap<String, SupervisedLog>,
    /// Logs that had too many errors, each with the reason, until they are known to be disabled in
    /// the table.
    off: HashMap<String, String>,
    subscribed: Vec<String>,
    stopping: bool,
}

impl Supervisor {
    fn supervise(
        &mut self,
        control: &Receiver<Control>,
        reload: &Receiver<()>,
        changed_tables: &Receiver<Tables>,
        events: &Receiver<TableEvent>,
        ended: &Receiver<(String, LogOutcome)>,
    ) -> Result<bool, Reason> {
        let check = tick(CHECK_INTERVAL);
        let mut deadline = never();
        let mut complete = true;
        loop {
            self.runs.pulse.beat();
            select! {
                recv(events) -> message => match message {
                    Ok(TableEvent::Rows(rows)) => self.handle_rows(rows),
                    Ok(TableEvent::SwitchedOff(log, outcome)) => {
                        self.handle_switched_off(log, outcome)
                    }
                    Err(_) => return Err(TABLE_THREAD_STOPPED.into()),
                },
                recv(ended) -> message => {
                    let Ok((log, outcome)) = message else { continue };
                    if let LogOutcome::StateLost(reason) = outcome {
                        return Err(reason);
                    }
                    complete &= outcome.is_complete();
                    self.handle_outcome(&log, outcome);
                }
                recv(reload) -> _ => {
                    let _ = self.requests.send(TableRequest::Read);
                    // The request most likely follows a fix, so failed logs are restarted now.
                    self.logs.values_mut().for_each(|log| log.not_before = None);
                }
                recv(changed_tables) -> tables => {
                    if let Ok(tables) = tables {
                        self.reload_tables(tables);
                    }
                }
                recv(control) -> message => match message {
                    Ok(Control::Stop) => {
                        self.stopping = true;
                        let grace = self.template.plan.settings.shutdown_grace;
                        // Each log ends its run within the grace; the deadline is for logs that
                        // hang.
                        deadline = after(grace + CHECK_INTERVAL * 4);
                    }
                    Ok(Control::LeaveNow) | Err(_) => return Ok(false),
                    Ok(other) => self.logs.values().for_each(|log| _ = log.entry.send(other)),
                },
                recv(deadline) -> _ => return Ok(false),
                recv(check) -> _ => self.check_errors(),
            }
            self.reconcile();
            if self.stopping && self.logs.values().all(|log| log.running.is_none()) {
                return Ok(complete);
            }
        }
    }

    /// Tables of `lookup`s have changed: the logs continue with these.
    fn reload_tables(&self, tables: Tables) {
        *self.template.tables.lock() = tables;
        for running in self.logs.values().filter_map(|log| log.running.as_ref()) {
            // The send fails if the run has ended meanwhile.
            let _ = running.control.send(Control::Reload);
        }
    }

    fn handle_rows(&mut self, rows: Result<Vec<LogRow>, TableError>) {
        match rows {
            Ok(rows) => {
                self.runs.set_trouble("table", None);
                if self.rows.as_ref() != Some(&rows) {
                    self.save_rows(&rows);
                }
                self.rows = Some(rows);
            }
            Err(error) => {
                let consequence = match &self.rows {
                    Some(rows) => format!("{} logs continue unchanged", rows.len()),
                    None => "no log is known yet".to_owned(),
                };
                let error = WithCauses(&error);
                let trouble = format!("the table of logs cannot be read: {error}; {consequence}");
                if self.runs.set_trouble("table", Some(trouble.clone())) {
                    tracing::warn!("{trouble}");
                }
                if self.rows.is_none() {
                    self.rows = self.saved_rows();
                }
            }
        }
    }

    /// Saves the rows in the state store, for a start while MySQL is not available.
    fn save_rows(&self, rows: &[LogRow]) {
        let text = stored::print_rows(rows);
        if let Err(error) = self.template.store.set_note(ROWS_NOTE, &text) {
            let error = WithCauses(&error);
            tracing::debug!(%error, "cannot save the rows of the table of logs");
        }
    }

    fn saved_rows(&self) -> Option<Vec<LogRow>> {
        let text = self.template.store.note(ROWS_NOTE).ok()??;
        let rows = stored::read_rows(&text)?;
        tracing::warn!(
            logs = rows.len(),
            "running the logs with the rows that were last read"
        );
        Some(rows)
    }

    fn handle_switched_off(&mut self, log: String, outcome: Result<(), TableError>) {
        match outcome {
            Ok(()) => {
                let reason = self.off.remove(&log).unwrap_or_default();
                tracing::error!(log, reason, "switched off in the table");
                // The rows that were read before still have it. It runs again when a later read
                // finds it enabled.
                if let Some(rows) = &mut self.rows {
                    rows.retain(|row| row.log() != log);
                }
            }
            Err(error) => {
                tracing::warn!(
                    log, error = %WithCauses(&error),
                    "cannot switch off the log in the table; it stays stopped"
                )
            }
        }
    }

    fn handle_outcome(&mut self, name: &str, outcome: LogOutcome) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        let mut stop_was_requested = self.stopping;
        if let Some(running) = log.running.take() {
            stop_was_requested |= running.stop_requested;
        }
        log.entry.set_live(None);
        match outcome {
            LogOutcome::Ended { complete: false } if !stop_was_requested => {
                let reason = "it ended before everything was committed, without a request to stop"
                    .to_owned();
                self.handle_outcome(name, LogOutcome::Failed(reason));
            }
            LogOutcome::Ended { .. } => {
                // A log that ends by itself is restarted after a backoff.
                log.not_before = (!stop_was_requested).then(|| Instant::now() + log.backoff);
                log.backoff = if stop_was_requested {
                    MIN_BACKOFF
                } else {
                    (log.backoff * 2).min(MAX_BACKOFF)
                };
                log.row_error = None;
                tracing::info!(log = name, "stopped");
                if !matches!(log.entry.state(), EntryState::SwitchedOff(_)) {
                    log.entry.set_state(EntryState::Stopped);
                }
            }
            LogOutcome::Failed(reason) => {
                tracing::error!(
                    log = name,
                    reason,
                    "failed; restarting in {:?}",
                    log.backoff
                );
                log.entry.set_state(EntryState::Failed(reason));
                log.not_before = Some(Instant::now() + log.backoff);
                log.backoff = (log.backoff * 2).min(MAX_BACKOFF);
            }
            // Handled by `supervise`, which returns.
            LogOutcome::StateLost(_) => {}
            LogOutcome::InvalidRow(reason) => {
                if log.row_error.as_ref() != Some(&reason) {
                    tracing::error!(log = name, reason, "cannot run");
                }
                log.entry.set_state(EntryState::InvalidRow(reason.clone()));
                log.row_error = Some(reason);
                // The error may be fixed elsewhere than in the row: in the columns of a table, or
                // in a schema file.
                log.not_before = Some(Instant::now() + MAX_BACKOFF);
            }
        }
    }

    /// Switches off the logs with more errors than the threshold.
    fn check_errors(&mut self) {
        let threshold = self.template.settings.error_threshold;
        for (name, log) in &self.logs {
            let errors = log.entry.errors();
            if log.running.is_none() || errors <= threshold || self.off.contains_key(name) {
                continue;
            }
            let reason = format!("{errors} records were invalid; the threshold is {threshold}");
            tracing::error!(
                log = name,
                reason,
                "too many invalid records; switching off the log"
            );
            log.entry.set_state(EntryState::SwitchedOff(reason.clone()));
            self.off.insert(name.clone(), reason);
            let _ = self.requests.send(TableRequest::SwitchOff(name.clone()));
        }
    }

    /// Starts and stops logs where the rows differ from what runs.
    fn reconcile(&mut self) {
        let Some(rows) = &self.rows else { return };
        let wanted: HashMap<&str, &LogRow> = if self.stopping {
            HashMap::new()
        } else {
            rows.iter().map(|row| (row.log(), row)).collect()
        };
        for row in wanted.values() {
            if !self.logs.contains_key(row.log()) {
                let entry = self.runs.entry(row.log());
                let log = SupervisedLog {
                    entry,
                    wanted: None,
                    running: None,
                    not_before: None,
                    row_error: None,
                    backoff: MIN_BACKOFF,
                };
                self.logs.insert(row.log().to_owned(), log);
            }
        }
        let is_on = |name: &String| !self.off.contains_key(name);
        let desired: Vec<(String, Option<LogRow>)> = (self.logs.keys())
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
        for (name, row) in desired {
            self.settle(&name, row);
        }
        self.subscribe();
        self.runs.set_loaded();
    }

    /// Starts or stops one log so that it matches its row, without waiting.
    fn settle(&mut self, name: &str, row: Option<LogRow>) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        if log.wanted != row {
            // Errors and backoffs of the old row do not apply to the new one.
            log.not_before = None;
            log.backoff = MIN_BACKOFF;
            log.row_error = None;
            if log.wanted.is_none() {
                log.entry.reset_errors();
            }
            if matches!(log.entry.state(), EntryState::InvalidRow(_))
                || (row.is_some() && matches!(log.entry.state(), EntryState::SwitchedOff(_)))
            {
                log.entry.set_state(EntryState::Stopped);
            }
            log.wanted = row;
        }
        match (&mut log.running, &log.wanted) {
            (Some(running), wanted)
                if wanted.as_ref() != Some(&running.row) && !running.stop_requested =>
            {
                running.stop_requested = true;
                if !matches!(log.entry.state(), EntryState::SwitchedOff(_)) {
                    log.entry.set_state(EntryState::Stopping);
                }
                // The send fails if the run has ended meanwhile.
                let _ = running.control.send(Control::Stop);
            }
            (None, Some(row)) if log.not_before.is_none_or(|at| Instant::now() >= at) => {
                let row = row.clone();
                self.start(name, row);
            }
            (None, None)
                if !matches!(
                    log.entry.state(),
                    EntryState::Stopped | EntryState::SwitchedOff(_)
                ) =>
            {
                log.entry.set_state(EntryState::Stopped)
            }
            _ => {}
        }
    }

    fn start(&mut self, name: &str, row: LogRow) {
        let Some(log) = self.logs.get_mut(name) else {
            return;
        };
        let (control, controls) = unbounded();
        let run = LogRun {
            template: self.template.clone(),
            runs: self.runs.clone(),
            entry: log.entry.clone(),
            consumer: self.consumer.clone(),
            row: row.clone(),
            control: (control.clone(), controls),
            reporter: OutcomeReporter::new(name.to_owned(), self.outcomes.clone()),
            found_earlier: Vec::new(),
            replaced: ReplacedPlans::default(),
            was_open: false,
        };
        log.entry.view.resume();
        log.entry.set_state(EntryState::Starting);
        log.running = Some(RunningLog {
            row,
            control,
            stop_requested: false,
        });
        run.start();
    }

    /// Subscribes to the topics of all running logs, including those that are stopping: they own
    /// their partitions until they end. The subscription does not change while the template stops,
    /// because each change rebalances the group.
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
