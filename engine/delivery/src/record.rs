//! Commit records, and the steps that change them.

use std::collections::HashMap;

use crate::{LaneId, Position, SplitId};

/// What the store holds for one (pipeline, sink, split).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRecord {
    /// Raised by every take-over. A commit under an older epoch fails.
    pub epoch: u64,
    /// Counts the commits. It never falls; a store that shows a lower one has lost data.
    pub sequence: u64,
    /// Every record below it is durable in this sink or was filtered out before it. `None` until the split is begun.
    pub low: Option<Position>,
    /// Lanes that are further: every record of this lane below the position is durable too.
    pub ahead: HashMap<LaneId, Position>,
    /// The instances that took the split and may still be at work on it, oldest first: whoever takes it over does not know at first
    /// whether those before are gone. Empty when it was released or never taken.
    pub owners: Vec<String>,
}

/// A lane's records became durable as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCommit {
    /// The lane.
    pub lane: LaneId,
    /// The splits it holds records of, each with the position up to which (exclusive) the lane now holds everything that belongs to it.
    pub splits: Vec<(SplitId, Position)>,
}

/// Something durable that readers cannot see yet. Written in the same step as the commit, removed once it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Unique within the sink.
    pub id: String,
    /// What the sink needs to publish it: whoever reads the record must be able to.
    pub detail: String,
}

/// One split's part of an atomic step. Only what changes travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitCommit {
    /// The split.
    pub split: SplitId,
    /// The epoch under which it was taken; the step fails if the store's differs.
    pub epoch: u64,
    /// The sequence the store must show; the step sets it to one more.
    pub sequence: u64,
    /// The new low position.
    pub low: Position,
    /// Lanes that are now ahead of it.
    pub ahead: Vec<(LaneId, Position)>,
    /// Lanes that no longer are.
    pub caught_up: Vec<LaneId>,
}

/// An atomic step: all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The splits' parts.
    pub splits: Vec<SplitCommit>,
    /// What is staged with it.
    pub staged: Vec<Staged>,
    /// The ids of what was staged before and is published by now.
    pub published: Vec<String>,
}
