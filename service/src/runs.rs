//! The registry of the runs in this process. The binary fills it; the service, systemd and the
//! progress line show it.
//!
//! A pipeline is one entry. A template has an entry for each row of its table, and rows are added
//! and removed while the process runs. An entry is kept when its run ends, with its counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};
use pseidon_exec::{Control, Pools, Pulse, View};
use pseidon_plan::Plan;
use pseidon_plugin::metrics::Metrics;

/// The runs in this process, by name.
pub struct RunRegistry {
    /// The plan of the pipeline; of a template, the plan for a sample row.
    pub plan: Arc<Plan>,
    /// The threads and the memory budget that all entries share.
    pub pools: Arc<Pools>,
    /// When the process started.
    pub began: Instant,
    /// Whether the entries are the logs of a template.
    pub(crate) is_template: bool,
    entries: RwLock<BTreeMap<String, Arc<RunEntry>>>,
    /// Problems with what all entries depend on, by the dependency.
    troubles: Mutex<BTreeMap<&'static str, String>>,
    /// Requests that the table of logs is read again; `None` if there is no table.
    reload: Option<Sender<()>>,
    /// Whether all entries are known: for a template, once its table was read.
    is_loaded: AtomicBool,
    /// The pulse of a template's supervisor.
    pub pulse: Pulse,
}

/// How long a pulse may be silent before the process counts as dead. The longest step of a live run
/// is the wait for Kafka to fence the previous producer, which takes a minute.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// The entry of a pipeline, or of a log of a template.
pub struct RunEntry {
    /// The name of the log, or of the pipeline.
    pub name: String,
    /// The metrics of its runs, from all attempts.
    pub metrics: Metrics,
    /// What its current run shows of itself.
    pub view: Arc<View>,
    state: Mutex<EntryState>,
    live: Mutex<Option<LiveRun>>,
    /// The count of invalid records when it was last reset.
    errors_before: AtomicU64,
}

/// The live part of an entry, which exists while it runs.
#[derive(Clone)]
pub struct LiveRun {
    /// The plan that runs; of a template, the plan for the row.
    pub plan: Arc<Plan>,
    /// Where control requests are sent.
    pub control: Sender<Control>,
    /// When it was started.
    pub since: Instant,
}

/// The state of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It has not been started yet.
    Starting,
    /// It is running.
    Running,
    /// It is running, but reading was paused by a request.
    Paused,
    /// It was requested to stop.
    Stopping,
    /// It ended, or its row was changed or removed. A log that is still in the table is
    /// restarted.
    Stopped,
    /// It failed for this reason, and will be restarted.
    Failed(String),
    /// Its row is invalid for this reason, and has to be changed.
    InvalidRow(String),
    /// It had too many invalid records, and was switched off in the table.
    SwitchedOff(String),
}

/// What is shown instead of a reason that may quote a record.
const HIDDEN_REASON: &str = "the run has failed; the reason requires the role `records`";

impl EntryState {
    /// One state of each kind, without reasons.
    pub(crate) const ALL: [EntryState; 8] = [
        EntryState::Starting,
        EntryState::Running,
        EntryState::Paused,
        EntryState::Stopping,
        EntryState::Stopped,
        EntryState::Failed(String::new()),
        EntryState::InvalidRow(String::new()),
        EntryState::SwitchedOff(String::new()),
    ];

    /// The name of the state, as it is shown to users.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            EntryState::Starting => "starting",
            EntryState::Running => "running",
            EntryState::Paused => "paused",
            EntryState::Stopping => "stopping",
            EntryState::Stopped => "stopped",
            EntryState::Failed(_) => "failed",
            EntryState::InvalidRow(_) => "invalid",
            EntryState::SwitchedOff(_) => "switched-off",
        }
    }

    /// The reason for the state, if it has one. A run may have failed because of a record, which
    /// its reason then quotes: it is shown only to those who may see records.
    pub(crate) fn reason(&self, shows_records: bool) -> Option<&str> {
        match self {
            EntryState::Failed(_) if !shows_records => Some(HIDDEN_REASON),
            EntryState::Failed(reason)
            | EntryState::InvalidRow(reason)
            | EntryState::SwitchedOff(reason) => Some(reason),
            _ => None,
        }
    }
}

impl RunRegistry {
    /// Creates a registry without entries. A template passes a `reload` channel, which requests
    /// that its table is read again.
    pub fn new(plan: Arc<Plan>, pools: Arc<Pools>, reload: Option<Sender<()>>) -> RunRegistry {
        RunRegistry {
            plan,
            pools,
            began: Instant::now(),
            is_template: reload.is_some(),
            entries: RwLock::default(),
            troubles: Mutex::default(),
            is_loaded: AtomicBool::new(reload.is_none()),
            reload,
            pulse: Pulse::default(),
        }
    }

    /// Whether each entry is a log of a template.
    pub fn is_template(&self) -> bool {
        self.is_template
    }

    /// Marks all entries as known.
    pub fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    /// Whether all entries are known and none is [`EntryState::Starting`].
    pub(crate) fn is_ready(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
            && self
                .entries()
                .iter()
                .all(|entry| entry.state() != EntryState::Starting)
    }

    /// Whether the supervisor and all runs are making progress, or wait for something known.
    pub fn is_alive(&self) -> bool {
        let entries = self.entries();
        let of_runs = entries
            .iter()
            .filter(|entry| !self.is_template || entry.live().is_some())
            .map(|entry| entry.view.pulse.silent_for());
        let of_supervisor = self.is_template.then(|| self.pulse.silent_for());
        of_runs
            .chain(of_supervisor)
            .all(|silence| silence < MAX_SILENCE)
    }

    /// The entry of this name, which is created if it does not exist. An existing one keeps its
    /// counts.
    pub fn entry(&self, name: &str) -> Arc<RunEntry> {
        self.entries
            .write()
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(RunEntry::new(name)))
            .clone()
    }

    /// The entry of this name, if it exists.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<RunEntry>> {
        self.entries.read().get(name).cloned()
    }

    /// All entries, ordered by name.
    pub fn entries(&self) -> Vec<Arc<RunEntry>> {
        self.entries.read().values().cloned().collect()
    }

    /// Sets or clears the problem with `dependency`, which all entries depend on. Returns whether
    /// it changed.
    pub fn set_trouble(&self, dependency: &'static str, trouble: Option<String>) -> bool {
        let before = match trouble.clone() {
            Some(trouble) => self.troubles.lock().insert(dependency, trouble),
            None => self.troubles.lock().remove(dependency),
        };
        before != trouble
    }

    /// The current problems, as sentences; empty if there are none. Values of records are in them
    /// only with `shows_records`.
    pub(crate) fn troubles(&self, shows_records: bool) -> Vec<String> {
        let mut troubles: Vec<String> = self.troubles.lock().values().cloned().collect();
        // A problem of several logs is reported once.
        let mut by_trouble: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.entries() {
            let state = entry.state();
            let of_state = match state {
                EntryState::Failed(_) | EntryState::InvalidRow(_) => state.reason(shows_records),
                _ => None,
            };
            let of_state = of_state.map(str::to_owned);
            let of_entry = entry
                .metrics
                .troubles(shows_records)
                .into_iter()
                .chain(of_state);
            of_entry.for_each(|trouble| {
                by_trouble
                    .entry(trouble)
                    .or_default()
                    .push(entry.name.clone())
            });
        }
        troubles.extend(
            by_trouble
                .into_iter()
                .map(|(trouble, names)| match names.as_slice() {
                    _ if !self.is_template => trouble,
                    // The error of an invalid row already names its log.
                    [name] if trouble.starts_with(&format!("log `{name}`")) => trouble,
                    [name] => format!("log `{name}`: {trouble}"),
                    names => format!("{} logs: {trouble}", names.len()),
                }),
        );
        troubles
    }

    /// Requests that the table of logs is read again now. Returns whether there is a table.
    pub(crate) fn reload(&self) -> bool {
        self.reload
            .as_ref()
            .is_some_and(|reload| reload.try_send(()).is_ok() || reload.is_full())
    }
}

impl RunEntry {
    fn new(name: &str) -> RunEntry {
        RunEntry {
            name: name.to_owned(),
            metrics: Metrics::new(),
            view: Arc::default(),
            state: Mutex::new(EntryState::Starting),
            live: Mutex::new(None),
            errors_before: AtomicU64::new(0),
        }
    }

    /// Sets the live part when the run starts, and clears it when the run ended.
    pub fn set_live(&self, live: Option<LiveRun>) {
        *self.live.lock() = live;
    }

    /// The live part; `None` if it is not running.
    pub(crate) fn live(&self) -> Option<LiveRun> {
        self.live.lock().clone()
    }

    /// The current state.
    pub fn state(&self) -> EntryState {
        self.state.lock().clone()
    }

    /// Replaces the state that pages and the REPL show; it controls nothing.
    pub fn set_state(&self, state: EntryState) {
        *self.state.lock() = state;
    }

    /// Sends a control to the run, and updates the state. Returns whether it is running.
    pub fn send(&self, control: Control) -> bool {
        let Some(live) = self.live() else {
            return false;
        };
        match control {
            Control::Pause => self.set_state(EntryState::Paused),
            Control::Resume => self.set_state(EntryState::Running),
            _ => {}
        }
        live.control.send(control).is_ok()
    }

    /// The number of invalid records since the count was last reset.
    pub fn errors(&self) -> u64 {
        self.all_errors()
            .saturating_sub(self.errors_before.load(Ordering::Relaxed))
    }

    /// Resets the count of invalid records to zero.
    pub fn reset_errors(&self) {
        self.errors_before
            .store(self.all_errors(), Ordering::Relaxed);
    }

    fn all_errors(&self) -> u64 {
        let (quarantined, dropped) = self.metrics.bad_totals();
        quarantined + dropped
    }
}
