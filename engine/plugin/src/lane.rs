//! Lanes: the units that a sink makes durable.
//!
//! The engine opens a lane for the first rows that go to it
//! ([`Sink::lane`](crate::sink::Sink::lane)), hands it rows, and seals it when its [`Rollover`]
//! says so, when its splits are given back, or when too many lanes are open. A sealed lane is on
//! its way to be durable ([`Completion`]), or is an open transaction ([`Transaction`]). The engine
//! commits sealed lanes in the order in which they were sealed, and has the sink publish what is
//! staged of them.
//!
//! A lane never waits for its target. It returns [`Room::Full`] and has its waker called, or
//! [`Room::Blocked`] and is tried again by the engine, which waits with a backoff and serves other
//! lanes meanwhile. So a plugin cannot hold up the lanes of others by waiting.

use std::time::Duration;

use pseidon_delivery::{SplitCommit, Staged};

use crate::rollover::Rollover;
use crate::rows::Rows;
use crate::sink::SinkError;

/// How the engine treats the lanes of a sink.
#[derive(Clone, Debug)]
pub struct LaneRules {
    /// Whether one writer has all lanes.
    pub single_writer: bool,
    /// When lanes are sealed.
    pub rollover: Rollover,
    /// How often the engine looks whether a lane's time is over.
    pub check_every: Duration,
    /// How many lanes all writers together may have open; `usize::MAX` for any number.
    pub most_open: usize,
}

/// Whether a lane takes rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It has taken the rows that were offered.
    Ready,
    /// It has taken none of them. The waker that it was opened with is called when it is to be
    /// tried again.
    Full,
    /// It has taken none of them, for this reason. It is tried again after a while.
    Blocked(String),
    /// It has taken none of them, for this reason, and could if another lane were sealed.
    TooManyOpen(String),
    /// It has taken none of them and never will. They stay uncommitted, and the next run reads them
    /// again.
    Closed,
}

/// An open lane. Dropping it throws away what is in it.
pub trait Lane: Send {
    /// Takes all of these rows, or none; rows of one split come in order of their positions.
    ///
    /// # Errors
    /// The run cannot go on; it restarts from the committed positions.
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError>;

    /// The bytes in the target so far, with an estimate of what is buffered.
    fn bytes(&self) -> u64 {
        0
    }

    /// The bytes that it buffers in memory.
    fn memory(&self) -> usize {
        0
    }

    /// Writes out what it buffers, as far as the target takes it.
    fn shed(&mut self) -> Result<Room, SinkError> {
        Ok(Room::Ready)
    }

    /// Called about as often as [`LaneRules::check_every`] says.
    fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Ends the lane. It has taken rows.
    fn seal(self: Box<Self>) -> Result<Sealed, SinkError>;
}

/// What a lane becomes when it is sealed.
pub enum Sealed {
    /// Everything is in the target, where readers see it.
    Durable,
    /// The rest of the way has to be gone, and something may be left to publish.
    Pending(Box<dyn Completion>),
    /// The target commits records and positions in one transaction. It is committed at once, so
    /// that the next lane can begin another.
    Transaction(Box<dyn Transaction>),
}

/// The way of a sealed lane from its last row to a durable unit. Dropping it before it is durable
/// throws the unit away.
pub trait Completion: Send {
    /// Takes the next steps. Once it has returned [`Progress::Durable`] the state store decides
    /// what becomes of the unit, even if it is dropped.
    ///
    /// # Errors
    /// The unit is lost; the run restarts from the committed positions.
    fn advance(&mut self) -> Result<Progress, SinkError>;
}

/// How far a sealed lane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The unit is durable, and this is staged of it: the commit names it, and then it is
    /// published.
    Durable(Vec<Staged>),
    /// The waker that the lane was opened with is called when there is more to do.
    Pending,
    /// The target takes nothing now, for this reason. It is tried again after a while.
    Blocked(String),
}

/// An open transaction of a target that holds the positions itself. Dropping it before it is
/// committed aborts it.
pub trait Transaction: Send {
    /// Writes the positions and commits.
    ///
    /// # Errors
    /// The transaction is aborted, or its outcome is unknown; the next take-over finds out which.
    fn commit(&mut self, splits: &[SplitCommit]) -> Result<(), SinkError>;

    /// The positions are entered in the ledger.
    fn committed(self: Box<Self>) -> Result<(), SinkError>;
}
