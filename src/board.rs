//! What runs in this process, for everybody who watches it or tells it what to do.
//!
//! A pipeline is one entry; a template has one for each of its logs, and they come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};
use pseidon_exec::{Control, Pools, Pulse, View};
use pseidon_plan::Plan;
use pseidon_plugin::metrics::Metrics;

/// What runs in this process.
pub(crate) struct Board {
    /// The pipeline; a template as it is planned for a log as most are.
    pub(crate) plan: Arc<Plan>,
    pub(crate) pools: Arc<Pools>,
    pub(crate) began: Instant,
    /// Whether the entries are logs of a template.
    pub(crate) is_template: bool,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// What is wrong with what all entries need, by what it is.
    troubles: Mutex<BTreeMap<&'static str, String>>,
    /// Asks for the table of logs to be read again.
    reload: Option<Sender<()>>,
    /// Whether it is known which entries there are: a template's, once its table has been read.
    is_loaded: AtomicBool,
    /// Beats as long as the supervisor of a template does.
    pub(crate) pulse: Pulse,
}

/// How long the process may show no sign of life before it counts as dead. The slowest that a
/// living one does is to wait for Kafka to cut off who came before, for a minute.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// A pipeline, or a log of a template.
pub(crate) struct Entry {
    /// The log's name, or the pipeline's.
    pub(crate) name: String,
    pub(crate) metrics: Metrics,
    pub(crate) view: Arc<View>,
    state: Mutex<State>,
    live: Mutex<Option<Live>>,
    /// How many bad records had been counted when the count was last reset.
    errors_before: AtomicU64,
}

/// What there is of an entry while it runs.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) plan: Arc<Plan>,
    pub(crate) control: Sender<Control>,
    pub(crate) since: Instant,
}

/// How an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is about to run.
    Starting,
    /// It runs.
    Running,
    /// It runs and reads nothing, since somebody said so.
    Paused,
    /// It is being stopped.
    Stopping,
    /// It has ended.
    Stopped,
    /// It failed, for this reason, and is tried again.
    Failed(String),
    /// Its row has to be changed, for this reason.
    Wrong(String),
    /// It had too many bad records, and was switched off in the table.
    SwitchedOff(String),
}

impl State {
    /// All words for states.
    pub(crate) const WORDS: [&str; 8] = [
        "starting",
        "running",
        "paused",
        "stopping",
        "stopped",
        "failed",
        "wrong",
        "switched-off",
    ];

    /// The state in a word.
    pub(crate) fn word(&self) -> &'static str {
        let number = match self {
            State::Starting => 0,
            State::Running => 1,
            State::Paused => 2,
            State::Stopping => 3,
            State::Stopped => 4,
            State::Failed(_) => 5,
            State::Wrong(_) => 6,
            State::SwitchedOff(_) => 7,
        };
        State::WORDS[number]
    }

    /// Why, where there is more to say.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            State::Failed(reason) | State::Wrong(reason) | State::SwitchedOff(reason) => {
                Some(reason)
            }
            _ => None,
        }
    }
}

impl Board {
    /// A board without entries. `reload` asks for the table of logs to be read again, where there
    /// is one.
    pub(crate) fn new(plan: Arc<Plan>, pools: Arc<Pools>, reload: Option<Sender<()>>) -> Board {
        Board {
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

    /// From now on it is known which entries there are.
    pub(crate) fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    /// Whether every entry has been started, or is known not to be.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
            && self
                .entries()
                .iter()
                .all(|entry| entry.state() != State::Starting)
    }

    /// Whether the process does its work, or waits for something that it knows of.
    pub(crate) fn is_alive(&self) -> bool {
        let entries = self.entries();
        let of_runs = entries
            .iter()
            .filter(|entry| !self.is_template || entry.live().is_some())
            .map(|entry| entry.view.pulse.silent_for());
        let of_supervisor = self.is_template.then(|| self.pulse.silent_for());
        of_runs
            .chain(of_supervisor)
            .all(|silence| silence < LONGEST_SILENCE)
    }

    /// The entry of this name, which is made if there is none. Its counts go on where they were.
    pub(crate) fn entry(&self, name: &str) -> Arc<Entry> {
        self.entries
            .write()
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Entry::new(name)))
            .clone()
    }

    /// The entry of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.read().get(name).cloned()
    }

    /// All entries, ordered by name.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().values().cloned().collect()
    }

    /// Notes what is wrong with something that all entries need, or that it is well again. Gives
    /// whether that is news.
    pub(crate) fn set_trouble(&self, what: &'static str, trouble: Option<String>) -> bool {
        let before = match trouble.clone() {
            Some(trouble) => self.troubles.lock().insert(what, trouble),
            None => self.troubles.lock().remove(what),
        };
        before != trouble
    }

    /// What keeps anything from going on right now, as sentences.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<String> = self.troubles.lock().values().cloned().collect();
        // What many logs suffer from is said once.
        let mut by_trouble: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.entries() {
            let of_entry = entry
                .metrics
                .troubles()
                .into_iter()
                .chain(match entry.state() {
                    State::Failed(reason) | State::Wrong(reason) => Some(reason),
                    _ => None,
                });
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
                    // What is wrong with a row names its log already.
                    [name] if trouble.starts_with(&format!("log `{name}`")) => trouble,
                    [name] => format!("log `{name}`: {trouble}"),
                    names => format!("{} logs: {trouble}", names.len()),
                }),
        );
        troubles
    }

    /// Asks for the table of logs to be read again, now. Gives whether there is one.
    pub(crate) fn reload(&self) -> bool {
        self.reload
            .as_ref()
            .is_some_and(|reload| reload.try_send(()).is_ok() || reload.is_full())
    }
}

impl Entry {
    fn new(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            metrics: Metrics::new(),
            view: Arc::default(),
            state: Mutex::new(State::Starting),
            live: Mutex::new(None),
            errors_before: AtomicU64::new(0),
        }
    }

    /// It runs from now on, or does not any more.
    pub(crate) fn set_live(&self, live: Option<Live>) {
        *self.live.lock() = live;
    }

    /// What there is of it while it runs.
    pub(crate) fn live(&self) -> Option<Live> {
        self.live.lock().clone()
    }

    /// How it is.
    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// How it is from now on.
    pub(crate) fn set_state(&self, state: State) {
        *self.state.lock() = state;
    }

    /// Tells it what to do. Gives whether it runs.
    pub(crate) fn tell(&self, control: Control) -> bool {
        let Some(live) = self.live() else {
            return false;
        };
        match control {
            Control::Pause => self.set_state(State::Paused),
            Control::Resume => self.set_state(State::Running),
            _ => {}
        }
        live.control.send(control).is_ok()
    }

    /// Bad records since the count was last reset.
    pub(crate) fn errors(&self) -> u64 {
        self.all_errors()
            .saturating_sub(self.errors_before.load(Ordering::Relaxed))
    }

    /// Counts bad records from zero again.
    pub(crate) fn reset_errors(&self) {
        self.errors_before
            .store(self.all_errors(), Ordering::Relaxed);
    }

    fn all_errors(&self) -> u64 {
        let (quarantined, dropped) = self.metrics.bad_totals();
        quarantined + dropped
    }
}
