//! A deterministic simulation of the delivery protocol.
//!
//! Real parts of Pseidon (the committer with its ledger, the `files` sink with its hidden folders)
//! run in a world that is simulated: a state store behind a network that delays, repeats and loses
//! messages, machines with disks, a topic, a consumer group, readers. One number, the seed, decides
//! the order of all steps and everything that goes wrong, so that a seed always gives the same run.
//!
//! The modules in reading order:
//!
//! 1. [`scenario`]: which kinds of faults there are.
//! 2. `world`: everything outside the instances; its parts are [`store`], `network`, `disk`,
//!    `source` and `target`.
//! 3. `process`: an instance, which is a coroutine: it hands control back at every call of the
//!    store. It makes one `attempt` after another, with the sinks of the `fixture`. `entropy` keeps
//!    other randomness than the seed's away from it; `system` is its operating system, with clocks
//!    and full disks.
//! 4. `scheduler`: what happens next.
//! 5. `check`: what must be true at the end.
//!
//! `docs/simulation.md` says how to read the trace of a run that went wrong.

mod attempt;
mod check;
mod disk;
mod entropy;
mod fixture;
mod network;
mod process;
pub mod scenario;
mod scheduler;
mod source;
pub mod store;
mod system;
mod target;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use scenario::{Kinds, Mutation};
use scheduler::Scheduler;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// What may go wrong.
    pub kinds: Kinds,
    /// The safeguard that is taken away, if any.
    pub mutation: Option<Mutation>,
    /// Whether a trace is wanted.
    pub traced: bool,
}

impl Settings {
    /// A run in which everything may go wrong, without a trace.
    pub fn new(seed: u64) -> Settings {
        Settings {
            seed,
            kinds: Kinds::all(),
            mutation: None,
            traced: false,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What must not be; empty after a good run.
    pub violations: Vec<String>,
    /// What happened, a line for each event, if that was wanted.
    pub trace: Option<Vec<String>>,
}

/// Runs a simulation. Blocks until it is over.
///
/// # Panics
/// If no folder for the simulated disks can be made, or the code under test panics.
pub fn run(settings: &Settings) -> Outcome {
    fixture::prepare();
    let dir = new_folder();
    let work = || {
        entropy::seed_this_thread(settings.seed);
        let (violations, trace) = Scheduler::new(settings, dir).run();
        Outcome { violations, trace }
    };
    // The standard library seeds the hash maps of a thread once, so each run has a new one.
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

/// A folder for the simulated disks that no other run has: in memory, where that is possible.
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
