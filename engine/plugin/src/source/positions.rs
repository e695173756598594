//! The splits of a source as an operator sees them, while the source does not run.

use pseidon_delivery::{Position, ResumeToken, SplitId};

use super::Resumption;

/// A split that the state knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSplit {
    /// The split.
    pub split: SplitId,
    /// Where it would be continued.
    pub at: Resumption,
}

/// A split for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitStatus {
    /// The split.
    pub split: SplitId,
    /// The name by which an operator knows it: a topic with a partition, a path.
    pub name: String,
    /// The position after the last record that exists now; `None` if only reading would tell.
    pub end: Option<Position>,
    /// Whether the source does not find the split any more.
    pub is_gone: bool,
}

impl SplitStatus {
    /// A split of this stage of which only the id is known.
    pub fn of_id(stage: &str, split: &SplitId) -> SplitStatus {
        let prefix = format!("{stage}:");
        let name = split.as_str().strip_prefix(&prefix);
        SplitStatus {
            split: split.clone(),
            name: name.unwrap_or(split.as_str()).to_owned(),
            end: None,
            is_gone: false,
        }
    }
}

/// A record for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The split.
    pub split: SplitId,
    /// The topic of its split, as in `@topic`.
    pub topic: String,
    /// The partition of its split, as in `@partition`.
    pub partition: i32,
    /// Its position in the split.
    pub position: Position,
}

/// Where an operator moves a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveTo {
    /// To the first record that there is.
    Earliest,
    /// Behind the last record that there is.
    Latest,
    /// To the first record that is not older: milliseconds since 1970.
    Time(i64),
    /// To this position.
    Position(Position),
}

/// A split with the place to which it is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitTarget {
    /// The split.
    pub split: SplitId,
    /// The name by which an operator knows it.
    pub name: String,
    /// The new place; an error is a sentence that says why the split cannot be moved there.
    pub place: Result<NewPlace, String>,
}

/// A place in a split, as a source that has read up to there would store it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPlace {
    /// The position.
    pub position: Position,
    /// What the source needs beside the position.
    pub resume: Option<ResumeToken>,
    /// Whether the split is read to its end there, and never gets more records.
    pub is_finished: bool,
}
