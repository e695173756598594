//! Runs simulations of the delivery protocol.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use pseidon_simulation::scenario::{Kind, Kinds, Mutation};
use pseidon_simulation::{Settings, run};

/// Run simulations of the delivery protocol, one for each seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Exclude a kind of fault; may be repeated
    #[arg(long, value_enum)]
    without: Vec<Kind>,
    /// Remove a safeguard, to see that the simulation notices
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
    /// Print the trace of each seed
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let kinds = arguments
        .without
        .iter()
        .fold(Kinds::all(), |kinds, kind| kinds.without(*kind));
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(arguments.from), AtomicU64::new(0));
    let end = arguments.from + arguments.seeds;
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = run(&Settings {
                seed,
                kinds,
                mutation: arguments.mutation,
                traced: arguments.trace,
            });
            if let Some(trace) = &outcome.trace {
                println!("{}", trace.join("\n"));
            }
            for violation in &outcome.violations {
                println!("seed {seed}: {violation}");
            }
            failed.fetch_add(u64::from(!outcome.violations.is_empty()), Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds in {:.1?}, {failed} failed",
        arguments.seeds,
        began.elapsed()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
