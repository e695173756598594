//! Lanes: the units that a sink makes durable.
//!
//! The engine opens a lane for the first rows that go to it
//! ([`Sink::lane`](crate::sink::Sink::lane)), writes rows to it, and seals it when its [`Rollover`]
//! says so, when its splits are released, or when too many lanes are open. A sealed lane is either
//! on its way to be durable ([`Completion`]) or an open transaction ([`Transaction`]). The engine
//! commits sealed lanes in the order in which they were sealed, and has the sink publish what is
//! staged of them.
//!
//! A lane never waits for its target. It returns [`Room::Full`] and calls its waker later, or it
//! returns [`Room::Blocked`] and the engine retries it with a backoff and serves other lanes
//! meanwhile. So a plugin cannot delay the lanes of others by waiting.

use std::time::Duration;

use pseidon_delivery::{SplitCommit, StagedEntry};

use crate::rollover::Rollover;
use crate::rows::Rows;
use crate::sink::error::SinkError;

/// How the engine handles the lanes of a sink.
#[derive(Clone, Debug)]
pub struct LaneRules {
    /// Whether one writer has all lanes of the sink.
    pub single_writer: bool,
    /// When lanes are sealed.
    pub rollover: Rollover,
    /// How often the engine checks whether a lane is too old or idle.
    pub check_every: Duration,
    /// How many lanes all writers together may have open; `usize::MAX` for no limit.
    pub most_open: usize,
}

/// Whether a lane accepted rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It accepted all rows.
    Ready,
    /// It accepted no rows. It calls the waker that it was opened with when the write can be
    /// retried.
    Full,
    /// It accepted no rows, for this reason. The engine retries after a backoff.
    Blocked(String),
    /// It accepted no rows, for this reason, and could if another lane were sealed.
    TooManyOpen(String),
    /// It accepted no rows and never will. They stay uncommitted, and the next run re-reads them.
    Closed,
}

/// An open lane. Dropping it discards its content.
///
/// Its methods are called on a writer thread, which works for many runs. One that must wait all the
/// same, such as for a server's answer, calls [`about_to_wait`](crate::waiting::about_to_wait)
/// first. If it does not, its thread is replaced after a second.
pub trait Lane: Send {
    /// Accepts all of these rows, or none. Rows of one split come in order of their positions.
    ///
    /// # Errors
    /// The run cannot continue; it restarts from the committed positions.
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError>;

    /// The bytes in the target so far, plus an estimate for what is buffered.
    fn bytes(&self) -> u64 {
        0
    }

    /// The bytes that the lane buffers in memory.
    fn memory(&self) -> usize {
        0
    }

    /// Writes out the buffered rows, as far as the target accepts them.
    fn shed(&mut self) -> Result<Room, SinkError> {
        Ok(Room::Ready)
    }

    /// Called about every [`LaneRules::check_every`].
    fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Seals the lane. Called only after it has accepted rows.
    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError>;
}

/// The result of sealing a lane.
pub enum SealOutcome {
    /// Everything is in the target and visible to readers.
    Durable,
    /// The lane has steps left before it is durable, and then there may be something to publish.
    Pending(Box<dyn Completion>),
    /// The target commits records and positions in one transaction. The engine commits it at once,
    /// so that the next lane can begin another.
    Transaction(Box<dyn Transaction>),
}

/// The steps of a sealed lane from its last row to a durable unit. Dropping it before it is durable
/// discards the unit. Waits are announced as for a [`Lane`].
pub trait Completion: Send {
    /// Takes the next steps. Once it has returned [`LaneProgress::Durable`] the state store decides the
    /// fate of the unit, even if this value is dropped.
    ///
    /// # Errors
    /// The unit is lost; the run restarts from the committed positions.
    fn advance(&mut self) -> Result<LaneProgress, SinkError>;
}

/// The progress of a sealed lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneProgress {
    /// The unit is durable, and this is staged of it. The commit records these entries, and then
    /// they are published.
    Durable(Vec<StagedEntry>),
    /// The lane calls the waker that it was opened with when there is more to do.
    Pending,
    /// The target accepts nothing now, for this reason. The engine retries after a backoff.
    Blocked(String),
}

/// An open transaction of a target that holds the positions itself. Dropping it before it is
/// committed aborts it.
///
/// Both methods are called on a writer thread and may wait for the target, after a call of
/// [`about_to_wait`](crate::waiting::about_to_wait).
pub trait Transaction: Send {
    /// Writes the positions to the target and commits.
    ///
    /// # Errors
    /// The transaction is aborted, or its outcome is unknown; the next take-over finds out which.
    fn commit(&mut self, splits: &[SplitCommit]) -> Result<(), SinkError>;

    /// Called when the positions are entered in the ledger.
    fn committed(self: Box<Self>) -> Result<(), SinkError>;
}
