//! A simulated instance: a process that makes one attempt after another, as the engine does.

use std::sync::Arc;

use pseidon_delivery::committer::AcknowledgedVersions;

use crate::attempt;
use crate::failure::Failure;
use crate::names::ProcessId;
use crate::world::SharedWorld;

/// How long a process waits after a temporary failure, in milliseconds.
const WAIT: u64 = 500;

/// A process: makes attempts until one stops well, finds that something has lost data, or is
/// requested to leave.
pub(crate) fn run(world: &SharedWorld, id: ProcessId) {
    let seen: Vec<Arc<AcknowledgedVersions>> =
        world.lock().sinks.iter().map(|_| Arc::default()).collect();
    loop {
        let failure = match attempt::run(world, id, &seen) {
            Ok(()) => {
                return world
                    .lock()
                    .note(|| format!("{id}  has stopped gracefully"));
            }
            Err(failure) => failure,
        };
        {
            let mut world = world.lock();
            let reason = world.disks.without_dir(&failure.to_string());
            world.note(|| format!("{id}  attempt ends: {reason}"));
        }
        match failure {
            Failure::Fenced(_) => world.switch(),
            // The supervisor of the process starts it again.
            Failure::OtherPlan(_) if world.lock().starts_again() => wait(world),
            Failure::Transient(_) => wait(world),
            Failure::Stopped | Failure::OtherPlan(_) => return,
            Failure::Evidence(reason) => {
                let mut world = world.lock();
                let reason = world.disks.without_dir(&reason);
                return world.raise_alarm(id, reason);
            }
        }
    }
}

/// Waits before the next attempt.
fn wait(world: &SharedWorld) {
    let until = world.lock().time.since_boot + WAIT;
    while world.lock().time.since_boot < until {
        world.switch();
    }
}
