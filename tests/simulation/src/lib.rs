//! A deterministic simulation of the delivery protocol.
//!
//! Real parts of Pseidon (the committer with its ledger, the `files` sink with its hidden folders)
//! run in a simulated world: a state store behind a network that delays, repeats and loses
//! messages, machines with disks, a topic, a consumer group, readers. One number, the seed,
//! determines the order of all steps and all faults, so a seed always produces the same run.
//!
//! The modules in reading order:
//!
//! 1. [`scenario`]: the kinds of faults.
//! 2. `world`: everything outside the instances; its parts are [`store`], `disk`, and its modules
//!    `network`, `source`, `target` and `plans`.
//! 3. `process`: an instance, which is a coroutine: it yields control at every call of the store
//!    (`client`). It makes one `attempt` after another, with the sinks of the `fixture` and the
//!    `target_sink`. `entropy` replaces all randomness by the seed's; `clock` and `system` are the
//!    operating system of the instances, with full disks.
//! 4. `scheduler`: decides what happens next.
//! 5. `check`: what must be true at the end.
//!
//! `docs/simulation.md` explains how to read the trace of a failed run.

mod attempt;
mod check;
mod client;
mod clock;
mod disk;
mod entropy;
mod failure;
mod fixture;
mod full_disk;
mod names;
mod process;
pub mod scenario;
mod scheduler;
pub mod store;
mod system;
mod target_sink;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::{Kinds, Mutation};
use scheduler::Scheduler;

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed, which determines the whole run.
    pub seed: u64,
    /// The kinds of faults that may occur.
    pub kinds: Kinds,
    /// The safeguard that is removed, if any.
    pub mutation: Option<Mutation>,
    /// Whether to record a trace.
    pub traced: bool,
}

impl Settings {
    /// A run with all kinds of faults and without a trace.
    pub fn new(seed: u64) -> Settings {
        Settings {
            seed,
            kinds: Kinds::all(),
            mutation: None,
            traced: false,
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Violations of the protocol's promises; empty after a good run.
    pub violations: Vec<String>,
    /// One line for each event, if a trace was requested.
    pub trace: Option<Vec<String>>,
}

/// Runs a simulation. Blocks until it has ended.
///
/// # Panics
/// If no folder for the simulated disks can be created, or the code under test panics.
pub fn run(settings: &Settings) -> RunReport {
    fixture::prepare();
    let dir = new_folder();
    let work = || {
        entropy::seed_this_thread(settings.seed);
        let (violations, trace) = Scheduler::new(settings, dir).run();
        RunReport { violations, trace }
    };
    // The standard library seeds the hash maps of a thread once, so each run has a new thread.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(format!("seed {}", settings.seed))
            .spawn_scoped(scope, work);
        thread
            .expect("a thread can be started")
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A unique folder for the simulated disks of this run: in memory, if that is possible.
fn new_folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let memory = PathBuf::from("/dev/shm");
    let above = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    above.join(format!(
        "pseidon-simulation-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
}
