//! A simulated instance: a process that makes one attempt after another, as the engine does.

use std::fmt;
use std::sync::Arc;

use pseidon_delivery::committer::{AcknowledgedVersions, CommitterError};
use pseidon_exec::sharing::SharingError;
use pseidon_plugin::sink::SinkError;

use crate::attempt;
use crate::world::SharedWorld;

/// How long a process waits after a temporary failure, in milliseconds.
const WAIT: u64 = 500;

/// The identity of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) machine: usize,
    pub(crate) number: usize,
    /// The version of the pipeline that it runs.
    pub(crate) plan: usize,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}p{}", self.machine, self.number)?;
        if self.plan > 0 {
            write!(f, "-v{}", self.plan + 1)
        } else {
            Ok(())
        }
    }
}

/// Why an attempt has ended.
#[derive(Debug)]
pub(crate) enum Failure {
    Fenced(String),
    Transient(String),
    /// Another plan has left lanes ahead.
    OtherPlan(String),
    /// The state is impossible: something has lost data.
    Evidence(String),
    Stopped,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Fenced(reason)
            | Failure::Transient(reason)
            | Failure::OtherPlan(reason)
            | Failure::Evidence(reason) => f.write_str(reason),
            Failure::Stopped => f.write_str("it was requested to leave"),
        }
    }
}

impl From<CommitterError> for Failure {
    fn from(abandon: CommitterError) -> Self {
        match abandon {
            CommitterError::Fenced(error) => Failure::Fenced(error.to_string()),
            other @ CommitterError::OtherPlan { .. } => Failure::OtherPlan(other.to_string()),
            CommitterError::Fatal(reason) => Failure::Evidence(reason),
            CommitterError::Stopped => Failure::Stopped,
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Committer(abandon) => abandon.into(),
            SinkError::Transient(reason) | SinkError::Refused(reason) => Failure::Transient(reason),
            SinkError::Fatal(reason) => Failure::Evidence(reason),
        }
    }
}

impl From<SharingError> for Failure {
    fn from(error: SharingError) -> Self {
        match error {
            SharingError::Lost(_) => Failure::Fenced(error.to_string()),
            SharingError::Store(reason) => Failure::Evidence(reason),
        }
    }
}

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
            Failure::Transient(_) => {
                let until = world.lock().time.since_boot + WAIT;
                while world.lock().time.since_boot < until {
                    world.switch();
                }
            }
            Failure::Stopped | Failure::OtherPlan(_) => return,
            Failure::Evidence(reason) => {
                let mut world = world.lock();
                let reason = world.disks.without_dir(&reason);
                return world.raise_alarm(id, reason);
            }
        }
    }
}
