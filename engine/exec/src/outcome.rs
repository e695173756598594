//! How a run ends.

use pseidon_delivery::{Reason, StoreError};
use thiserror::Error;

use crate::failure::PlanChanged;

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All sources are exhausted.
    Complete,
    /// It was stopped, and everything that was read is committed.
    Stopped,
    /// It has finished what an earlier version of the pipeline had left, and everything that was
    /// read is committed; see [`Run::catch_up`](crate::Run::catch_up).
    CaughtUp,
    /// It was asked to end for another plan; see [`Control::Reload`](crate::Control::Reload). What it
    /// has not committed, its plan has left unfinished.
    Reloading,
    /// It was left before everything was committed.
    Left,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// A crashed run of another plan left uncommitted work behind.
    #[error(transparent)]
    PlanChanged(PlanChanged),
    /// It cannot continue until the user changes something.
    #[error(transparent)]
    Failed(Reason),
    /// The state store shows an impossible state, or has fenced this instance. To continue, or to
    /// restart with what it holds now, would lose or duplicate records.
    #[error(transparent)]
    State(Reason),
    /// The state store refused before anything was read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
