//! What a plan has left unfinished, so that only the same plan can continue it.
//!
//! A plan decides which records belong to which sink and lane. While the sinks of a split are at
//! different positions, some records have reached all their sinks and others have not. A plan that
//! sends a record elsewhere would lose it (its new sink is past it already) or double it. So
//! another plan may continue a split only where all sinks that the earlier plan wrote are at the
//! same position, and no lane is ahead. A graceful stop ends so; a crash hardly ever does.

use std::collections::HashSet;
use std::fmt;

use crate::{CommitRecord, Position, SinkId, SplitId};

/// The record of a split in one sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkRecord<'a> {
    /// The sink.
    pub sink: &'a SinkId,
    /// The record, with the positions of the target if the target holds them.
    pub record: &'a CommitRecord,
    /// Whether records of the split can reach the sink in the plan that is to continue it. Of other
    /// sinks it is not known where they hold their positions.
    pub is_reached: bool,
}

impl SinkRecord<'_> {
    fn is_begun(&self) -> bool {
        self.record.low.is_some()
    }

    /// The position up to which the sink, or one of its lanes, holds records.
    fn upto(&self) -> Position {
        let ahead = self.record.ahead.values().copied().max();
        self.record.low.max(ahead).unwrap_or(0)
    }
}

/// What one plan has left unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedWork {
    /// The fingerprint of that plan, if it is known; its text is in the store.
    pub plan: Option<String>,
    /// The splits; at least one.
    pub splits: Vec<UnfinishedSplit>,
}

/// A split that a plan has left unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedSplit {
    /// The split.
    pub split: SplitId,
    /// Every sink of that plan holds all records below this position.
    pub low: Position,
    /// It is finished when every sink of that plan holds all records below this position.
    pub upto: Position,
    /// What is unfinished about it.
    pub left: LeftWork,
}

/// What is unfinished about a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftWork {
    /// Lanes of a sink are ahead of its low position.
    LanesAhead {
        /// The sink.
        sink: SinkId,
        /// How many lanes are ahead.
        lanes: usize,
    },
    /// Sinks hold all records below different positions.
    Uneven {
        /// The sink with the lowest position.
        behind: (SinkId, Position),
        /// The sink with the highest position.
        ahead: (SinkId, Position),
    },
    /// A sink that the new plan does not reach still has an owner, and its target may hold the
    /// positions.
    Held {
        /// The sink.
        sink: SinkId,
    },
}

impl UnfinishedWork {
    /// The work of one plan: the one of which a split is found first. What others have left is found
    /// when this one is finished.
    pub fn of_one_plan<'a>(
        found: impl IntoIterator<Item = (Option<&'a str>, UnfinishedSplit)>,
    ) -> Option<UnfinishedWork> {
        let mut found = found.into_iter();
        let (plan, first) = found.next()?;
        let others = found.filter(|(other, _)| *other == plan);
        let others = others.map(|(_, split)| split);
        Some(UnfinishedWork {
            plan: plan.map(str::to_owned),
            splits: std::iter::once(first).chain(others).collect(),
        })
    }
}

impl fmt::Display for UnfinishedWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.splits.first() else {
            return f.write_str("nothing is unfinished");
        };
        write!(f, "{first}")?;
        match self.splits.len() - 1 {
            0 => Ok(()),
            1 => f.write_str(", and 1 more split"),
            more => write!(f, ", and {more} more splits"),
        }
    }
}

impl fmt::Display for UnfinishedSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let split = &self.split;
        match &self.left {
            LeftWork::LanesAhead { sink, lanes: 1 } => {
                write!(f, "1 lane of {split} is ahead in `{sink}`")
            }
            LeftWork::LanesAhead { sink, lanes } => {
                write!(f, "{lanes} lanes of {split} are ahead in `{sink}`")
            }
            LeftWork::Uneven {
                behind: (behind, low),
                ahead: (ahead, high),
            } => write!(
                f,
                "{split} is at position {low} in `{behind}` and at {high} in `{ahead}`"
            ),
            LeftWork::Held { sink } => write!(
                f,
                "{split} was not released in `{sink}`, which it does not reach any more"
            ),
        }
    }
}

/// What other plans than `plan` have left unfinished in a split, given its record in every sink;
/// with the fingerprint of that plan. `None` if `plan` may continue it.
///
/// Only plans under which a sink that `plan` reaches was written count: a sink that is reached
/// again after a pause gets what it missed, and what was accepted once (`--accept-changed-plan`) is
/// not asked for again.
pub fn unfinished_work<'a>(
    split: &SplitId,
    records: &[SinkRecord<'a>],
    plan: &str,
) -> Option<(Option<&'a str>, UnfinishedSplit)> {
    let begun = || records.iter().filter(|of_sink| of_sink.is_begun());
    let others: HashSet<Option<&str>> = begun()
        .filter(|of_sink| of_sink.is_reached)
        .map(|of_sink| of_sink.record.plan.as_deref())
        .filter(|other| *other != Some(plan))
        .collect();
    let mut others: Vec<Option<&str>> = others.into_iter().collect();
    others.sort_unstable();
    others.into_iter().find_map(|other| {
        let of_plan: Vec<SinkRecord<'_>> = begun()
            .filter(|of_sink| of_sink.record.plan.as_deref() == other)
            .copied()
            .collect();
        let unfinished = UnfinishedSplit {
            split: split.clone(),
            low: of_plan
                .iter()
                .filter_map(|of| of.record.low)
                .min()
                .unwrap_or(0),
            upto: of_plan.iter().map(SinkRecord::upto).max().unwrap_or(0),
            left: left_by_one_plan(&of_plan)?,
        };
        Some((other, unfinished))
    })
}

fn left_by_one_plan(records: &[SinkRecord<'_>]) -> Option<LeftWork> {
    if let Some(of_sink) = records.iter().find(|of| !of.record.ahead.is_empty()) {
        return Some(LeftWork::LanesAhead {
            sink: of_sink.sink.clone(),
            lanes: of_sink.record.ahead.len(),
        });
    }
    let at = |of: &SinkRecord<'_>| (of.sink.clone(), of.record.low.unwrap_or(0));
    let behind = at(records.iter().min_by_key(|of| of.record.low)?);
    let ahead = at(records.iter().max_by_key(|of| of.record.low)?);
    if behind.1 < ahead.1 {
        return Some(LeftWork::Uneven { behind, ahead });
    }
    // If no sink has anything to come, a target is not further either.
    if records.iter().all(|of| of.record.is_settled()) {
        return None;
    }
    let is_held = |of: &&SinkRecord<'_>| !of.is_reached && !of.record.owners.is_empty();
    let held = records.iter().find(is_held)?;
    Some(LeftWork::Held {
        sink: held.sink.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of plan `p` at this position; the methods below change it.
    fn at(low: Position) -> CommitRecord {
        CommitRecord {
            epoch: 1,
            low: Some(low),
            plan: Some("p".to_owned()),
            ..CommitRecord::default()
        }
    }

    fn of_plan(plan: &str, low: Position) -> CommitRecord {
        CommitRecord {
            plan: Some(plan.to_owned()),
            ..at(low)
        }
    }

    fn owned(low: Position) -> CommitRecord {
        CommitRecord {
            owners: vec!["dead".into()],
            ..at(low)
        }
    }

    /// What plan `p` and others have left for plan `new`, in words, with the plan that has to
    /// finish it and the position. Sinks whose name begins with `-` are not reached.
    fn left(records: &[(&str, CommitRecord)]) -> String {
        let sinks: Vec<SinkId> = records
            .iter()
            .map(|(sink, _)| SinkId::from(*sink))
            .collect();
        let records: Vec<SinkRecord<'_>> = sinks
            .iter()
            .zip(records)
            .map(|(sink, (name, record))| SinkRecord {
                sink,
                record,
                is_reached: !name.starts_with('-'),
            })
            .collect();
        match unfinished_work(&"s".into(), &records, "new") {
            None => "nothing".to_owned(),
            Some((plan, left)) => {
                format!("{}: {left}; up to {}", plan.unwrap_or("?"), left.upto)
            }
        }
    }

    #[test]
    fn only_what_one_plan_left_at_one_position_may_be_continued() {
        let ahead = CommitRecord {
            ahead: [("x".into(), 7), ("y".into(), 9)].into(),
            ..at(5)
        };
        let new_sink = CommitRecord::default;
        let uneven = "p: s is at position 5 in `b` and at 6 in `a`; up to 6";
        let lanes = "p: 2 lanes of s are ahead in `a`; up to 9";
        for (expected, records) in [
            ("nothing", vec![]),
            ("nothing", vec![("a", new_sink())]),
            ("nothing", vec![("a", at(5))]),
            (
                "nothing",
                vec![("a", at(5)), ("b", at(5)), ("c", new_sink())],
            ),
            (uneven, vec![("a", at(6)), ("b", at(5))]),
            (uneven, vec![("b", at(5)), ("c", new_sink()), ("a", at(6))]),
            (lanes, vec![("a", ahead.clone())]),
            (lanes, vec![("b", at(5)), ("a", ahead.clone())]),
            // Without lanes ahead the owner of a sink that is reached does not matter: it is
            // fenced.
            ("nothing", vec![("a", owned(5)), ("b", at(5))]),
        ] {
            assert_eq!(left(&records), expected, "{records:?}");
        }
    }

    #[test]
    fn its_own_work_is_continued() {
        let ahead = CommitRecord {
            ahead: [("x".into(), 7)].into(),
            ..of_plan("new", 5)
        };
        for records in [
            vec![("a", ahead.clone())],
            vec![("a", of_plan("new", 6)), ("b", of_plan("new", 5))],
            // What was accepted once is not asked for again.
            vec![("a", of_plan("new", 6)), ("-b", owned(5))],
        ] {
            assert_eq!(left(&records), "nothing", "{records:?}");
        }
    }

    #[test]
    fn a_sink_that_is_not_reached_any_more_counts_until_it_is_released() {
        let records = |low, gone: CommitRecord| vec![("a", at(low)), ("-b", gone)];
        assert_eq!(left(&records(5, at(5))), "nothing");
        assert_eq!(
            left(&records(5, owned(5))),
            "p: s was not released in `-b`, which it does not reach any more; up to 5"
        );
        assert_eq!(
            left(&records(5, at(4))),
            "p: s is at position 4 in `-b` and at 5 in `a`; up to 5"
        );
        // A plan before the last one, whose sinks were released.
        assert_eq!(left(&records(5, of_plan("older", 3))), "nothing");
    }

    #[test]
    fn a_split_that_every_sink_has_finished_is_not_left() {
        let finished = |record| CommitRecord {
            finished: Some(1),
            ..record
        };
        let ahead = CommitRecord {
            ahead: [("x".into(), 7)].into(),
            ..finished(at(5))
        };
        for (expected, records) in [
            (
                "nothing",
                vec![("a", finished(at(5))), ("-b", finished(owned(5)))],
            ),
            (
                // The file has grown since `a` has finished it.
                "p: s is at position 5 in `a` and at 7 in `b`; up to 7",
                vec![("a", finished(at(5))), ("b", finished(at(7)))],
            ),
            (
                "p: s is at position 4 in `b` and at 5 in `a`; up to 5",
                vec![("a", finished(at(5))), ("b", at(4))],
            ),
            (
                "p: 1 lane of s is ahead in `a`; up to 7",
                vec![("a", ahead), ("b", finished(at(7)))],
            ),
        ] {
            assert_eq!(left(&records), expected, "{records:?}");
        }
    }

    #[test]
    fn each_plan_is_compared_with_itself_only() {
        // The last takeover ended between two sinks.
        let mixed = vec![("a", of_plan("new", 5)), ("b", at(5))];
        assert_eq!(left(&mixed), "nothing");
        // `b` was left out by plan `p`, and comes back with what it has missed.
        let paused = vec![("a", at(9)), ("b", of_plan("older", 3))];
        assert_eq!(left(&paused), "nothing");
        let both = vec![
            ("a", at(9)),
            ("b", of_plan("older", 3)),
            ("c", of_plan("older", 4)),
        ];
        assert_eq!(
            left(&both),
            "older: s is at position 3 in `b` and at 4 in `c`; up to 4"
        );
        let unknown = CommitRecord {
            plan: None,
            ..at(5)
        };
        assert_eq!(left(&[("a", unknown.clone())]), "nothing");
        assert_eq!(
            left(&[
                ("a", unknown.clone()),
                (
                    "b",
                    CommitRecord {
                        low: Some(6),
                        ..unknown
                    }
                )
            ]),
            "?: s is at position 5 in `a` and at 6 in `b`; up to 6"
        );
    }
}
