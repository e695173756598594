//! Commit records, and the atomic steps that change them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::{InstanceId, LaneId, Position, SplitId, StagedId};

/// What the store holds for each (pipeline, sink, split).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRecord {
    /// Raised by every takeover. A commit under an older epoch fails.
    pub epoch: u64,
    /// Counts the commits. It never decreases; a store that shows a lower one has lost data.
    pub sequence: u64,
    /// The low position: every record below it is durable in this sink or was filtered out before
    /// it. `None` until the split is begun.
    pub low: Option<Position>,
    /// Lanes that are ahead: every record of the lane below this position is durable too.
    pub ahead: HashMap<LaneId, Position>,
    /// The instances that took the split and may still be working on it, oldest first: an instance
    /// that takes it over does not know at first whether the earlier ones have exited. Empty if it
    /// was released or never taken.
    pub owners: Vec<InstanceId>,
    /// The fingerprint of the plan whose lanes `ahead` names, and under which `low` is meant: what
    /// belongs to this sink below it was decided by that plan. `None` until an instance holds the
    /// split, and after an operator has moved it.
    pub plan: Option<String>,
    /// What the source needs beside `low` to continue there. It belongs to the greatest position up
    /// to `low` for which the source provided it.
    pub resume: Option<ResumeToken>,
    /// When the split was finished, in seconds since 1970: no record of it is left to read. `None`
    /// while more records may follow.
    pub finished: Option<u64>,
}

impl CommitRecord {
    /// Whether nothing of the split is left to read or to commit in this sink.
    pub fn is_settled(&self) -> bool {
        self.finished.is_some() && self.ahead.is_empty()
    }
}

/// What a source stores beside a position, such as a topic's id or a digest of the bytes before it.
/// The store and the engine do not interpret it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ResumeToken(Arc<str>);

impl ResumeToken {
    /// The string as the source provided it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ResumeToken {
    fn from(text: &str) -> Self {
        ResumeToken(text.into())
    }
}

impl From<String> for ResumeToken {
    fn from(text: String) -> Self {
        ResumeToken(text.into())
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A [`ResumeToken`] with the lowest position that it belongs to. It belongs to higher positions
/// too, until the source provides another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The lowest position that it belongs to.
    pub position: Position,
    /// What the source stores beside this position.
    pub resume: ResumeToken,
}

/// An instance that holds splits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The instance itself, which owns what it claims.
    pub owner: InstanceId,
    /// The fingerprint of the plan that it runs.
    pub plan: String,
    /// Whether it continues what another plan has left unfinished as if it were its own.
    pub accepts_other_plans: bool,
}

/// The records of a lane that became durable as one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCommit {
    /// The lane, named as in [`CommitRecord::ahead`].
    pub lane: LaneId,
    /// The splits of its records, each with the position up to which (exclusive) the lane now holds
    /// every record that belongs to it.
    pub splits: Vec<(SplitId, Position)>,
}

/// Something durable that readers cannot see yet. It is written in the same step as the commit, and
/// removed after it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedEntry {
    /// By which a later step, once it is published, removes it.
    pub id: StagedId,
    /// What the sink needs to publish it. It must be sufficient for every instance that reads the
    /// entry.
    pub detail: String,
}

/// The part of one split in an atomic step. It contains only what changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitCommit {
    /// A split of which the step changes something.
    pub split: SplitId,
    /// The epoch under which it was taken; the step fails if the store's differs.
    pub epoch: u64,
    /// The sequence that the store must show; the step increases it by one.
    pub sequence: u64,
    /// The new low position.
    pub low: Position,
    /// Lanes that are now ahead of the low position.
    pub ahead: Vec<(LaneId, Position)>,
    /// Lanes that are no longer ahead.
    pub caught_up: Vec<LaneId>,
    /// Replaces [`CommitRecord::resume`]; `None` keeps it.
    pub resume: Option<ResumeToken>,
    /// Sets [`CommitRecord::finished`]; `None` clears it.
    pub finished: Option<u64>,
}

impl SplitCommit {
    /// The position below which this lane has every record that belongs to it, after the step. If
    /// the target has a single lane, that is the position to store in it, even if the low position
    /// is lower.
    pub fn upto(&self, lane: &LaneId) -> Position {
        let ahead = self.ahead.iter().filter(|(name, _)| name == lane);
        let ahead = ahead.map(|(_, upto)| *upto).max();
        ahead.unwrap_or(0).max(self.low)
    }

    /// A step that only moves the low position.
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

/// An atomic step: it is applied completely or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The committing instance. The step is refused once this name is fenced.
    pub owner: InstanceId,
    /// The parts of the splits.
    pub splits: Vec<SplitCommit>,
    /// The entries that are staged by this step.
    pub staged: Vec<StagedEntry>,
    /// The ids of entries that were staged before and are published now.
    pub published: Vec<StagedId>,
}

impl Commit {
    /// A step of this instance that changes nothing.
    pub fn of(owner: InstanceId) -> Commit {
        Commit {
            owner,
            splits: Vec::new(),
            staged: Vec::new(),
            published: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_ahead_sets_the_position() {
        let lane = LaneId::from("only");
        let commit = |low, ahead: &[(&str, u64)]| SplitCommit {
            ahead: ahead
                .iter()
                .map(|(name, upto)| ((*name).into(), *upto))
                .collect(),
            ..SplitCommit::to_low("s".into(), 1, 1, low)
        };
        assert_eq!(commit(7, &[]).upto(&lane), 7);
        assert_eq!(commit(7, &[("only", 9)]).upto(&lane), 9);
        assert_eq!(commit(7, &[("other", 9)]).upto(&lane), 7);
    }
}
