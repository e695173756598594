//! Commit records, and the steps that change them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::{LaneId, Position, SplitId};

/// What the store holds for one (pipeline, sink, split).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRecord {
    /// Raised by every take-over. A commit under an older epoch fails.
    pub epoch: u64,
    /// Counts the commits. It never falls; a store that shows a lower one has lost data.
    pub sequence: u64,
    /// Every record below it is durable in this sink or was filtered out before it. `None` until
    /// the split is begun.
    pub low: Option<Position>,
    /// Lanes that are further: every record of this lane below the position is durable too.
    pub ahead: HashMap<LaneId, Position>,
    /// The instances that took the split and may still be at work on it, oldest first: an instance
    /// that takes it over does not know at first whether those before are gone. Empty when it was
    /// released or never taken.
    pub owners: Vec<String>,
    /// The fingerprint of the plan whose lanes `ahead` names. `None` until an instance takes the
    /// split.
    pub plan: Option<String>,
    /// What the source needs beside `low` to continue there; it belongs to the greatest position up
    /// to `low` for which the source said it.
    pub resume: Option<Resume>,
    /// When the split was finished, in seconds since 1970: no record of it is left to read. `None`
    /// while there may be more.
    pub finished: Option<u64>,
}

/// What a source keeps beside a position, such as a topic's id or a digest of the bytes before it.
/// The store and the engine do not read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Resume(Arc<str>);

impl Resume {
    /// The source's own text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Resume {
    fn from(text: &str) -> Self {
        Resume(text.into())
    }
}

impl From<String> for Resume {
    fn from(text: String) -> Self {
        Resume(text.into())
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A [`Resume`] with the least position that it belongs to. It belongs to higher ones too, until
/// the source says something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeFrom {
    /// The position.
    pub position: Position,
    /// What the source keeps beside it.
    pub resume: Resume,
}

/// The instance that takes splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Its name, used for no other instance.
    pub owner: String,
    /// The fingerprint of the plan that it runs.
    pub plan: String,
    /// Whether it takes over lanes that another plan left ahead as if they were its own.
    pub accepts_other_plans: bool,
}

/// A lane's records became durable as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCommit {
    /// The lane.
    pub lane: LaneId,
    /// The splits it holds records of, each with the position up to which (exclusive) the lane now
    /// holds everything that belongs to it.
    pub splits: Vec<(SplitId, Position)>,
}

/// Something durable that readers cannot see yet. Written in the same step as the commit, removed
/// once it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Unique within the sink.
    pub id: String,
    /// What the sink needs to publish it: every instance that reads the record must be able to.
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
    /// Replaces [`CommitRecord::resume`]; `None` leaves it.
    pub resume: Option<Resume>,
    /// Sets [`CommitRecord::finished`]; `None` leaves it.
    pub finished: Option<u64>,
}

impl SplitCommit {
    /// A step that moves nothing but the low position.
    pub fn to_low(split: SplitId, epoch: u64, sequence: u64, low: Position) -> SplitCommit {
        SplitCommit {
            split,
            epoch,
            sequence,
            low,
            ahead: Vec::new(),
            caught_up: Vec::new(),
            resume: None,
            finished: None,
        }
    }
}

/// An atomic step: all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The instance that commits. The step is refused once this name is fenced.
    pub owner: String,
    /// The splits' parts.
    pub splits: Vec<SplitCommit>,
    /// What is staged with it.
    pub staged: Vec<Staged>,
    /// The ids of what was staged before and is published by now.
    pub published: Vec<String>,
}
