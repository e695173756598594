//! A deterministic simulation of the delivery protocol.
//!
//! Real parts of Pseidon (the committer with its ledger, the `files` sink with its hidden folders) run in a world that is simulated: a state
//! store behind a network that delays, repeats and loses messages, machines with disks, a topic, a consumer group, readers. One number, the
//! seed, decides the order of all steps and everything that goes wrong, so that a seed always gives the same run.
//!
//! The modules in reading order:
//!
//! 1. [`scenario`]: which kinds of faults there are.
//! 2. `world`: everything outside the instances; its parts are [`store`], `network` and `disk`.
//! 3. `process`: an instance, which is a coroutine: it hands control back at every call of the store.
//! 4. `scheduler`: what happens next.
//! 5. `check`: what must be true at the end.
//!
//! `docs/simulation.md` says how to read the trace of a run that went wrong.

mod check;
mod disk;
mod entropy;
mod network;
mod process;
pub mod scenario;
mod scheduler;
pub mod store;
mod world;

use std::path::PathBuf;

use scenario::Kinds;
use scheduler::Scheduler;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What must not be; empty after a good run.
    pub violations: Vec<String>,
    /// What happened, a line for each event, if that was wanted.
    pub trace: Option<Vec<String>>,
}

/// Runs the simulation that `seed` stands for. Blocks until it is over.
///
/// # Panics
/// If no folder for the simulated disks can be made, or the code under test panics.
pub fn run(seed: u64, kinds: Kinds, traced: bool) -> Outcome {
    process::prepare();
    let dir = folder().join(format!("pseidon-simulation-{}-{seed}", std::process::id()));
    let work = move || {
        entropy::seed_this_thread(seed);
        let (violations, trace) = Scheduler::new(seed, kinds, dir, traced).run();
        Outcome { violations, trace }
    };
    // The standard library seeds the hash maps of a thread once, so each run has a new one.
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).spawn(work).expect("a thread can be started");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Where the simulated disks are: in memory, where that is possible.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
