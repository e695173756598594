//! The stages `limit` of an attempt of a run.
//!
//! A limit does not drop the records after the last one that passes: the batches with them are not
//! processed, as if they had not been read, and the source is read no further. So nothing has to be
//! remembered beyond the attempt, and no record is lost. After a failure the next attempt begins at
//! the committed positions and counts from zero, like the next run.
//!
//! A split that is given up and taken again is re-read. The records that had passed pass again and do
//! not count: of each split, all records up to the last one that had passed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_dsl::Span;
use pseidon_plan::{Operator, Plan, SourceIndex};

/// The limits of a plan.
#[derive(Default)]
pub(crate) struct Limits {
    /// The limit that the records of a source pass; only sources that have one. It may be that of
    /// several sources.
    of_sources: HashMap<SourceIndex, (Span, Arc<Mutex<RunLimit>>)>,
}

/// A limit, and what has passed it.
struct RunLimit {
    /// How many further records may pass.
    left: u64,
    /// The position of the last record of each split that has passed.
    last: HashMap<SplitId, Position>,
}

impl RunLimit {
    fn new(records: u64) -> RunLimit {
        RunLimit {
            left: records,
            last: HashMap::new(),
        }
    }

    /// Counts records that pass, which have these positions. If there are too many, none is counted.
    /// Returns whether they are the last ones.
    ///
    /// # Errors
    /// The position of the first record that may not pass.
    fn admit(&mut self, split: &SplitId, positions: &[Position]) -> Result<bool, Position> {
        let last = self.last.get(split).copied();
        let is_new = |position: &Position| last.is_none_or(|last| *position > last);
        let known = positions.partition_point(|position| !is_new(position));
        let (_, new) = positions.split_at(known);
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        // The records that were made of one record pass together.
        let fitting = match new.get(..left).and_then(|fitting| fitting.last()) {
            Some(end) => new.partition_point(|position| position <= end),
            None => left.min(new.len()),
        };
        if let Some(first) = new.get(fitting) {
            return Err(*first);
        }
        self.left = self.left.saturating_sub(new.len() as u64);
        if let Some(position) = new.last() {
            self.last.insert(split.clone(), *position);
        }
        Ok(self.left == 0 && !new.is_empty())
    }

    /// Whether no record of a split from this position on may pass.
    fn is_over(&self, split: &SplitId, position: Position) -> bool {
        let is_new = self.last.get(split).is_none_or(|last| position > *last);
        self.left == 0 && is_new
    }
}

impl Limits {
    /// The limits of a plan, which nothing has passed.
    pub(crate) fn of(plan: &Plan) -> Limits {
        let mut limits: HashMap<Span, Arc<Mutex<RunLimit>>> = HashMap::new();
        let mut of_sources = HashMap::new();
        for (index, source) in plan.indexed_sources() {
            for step in &source.chain.steps {
                if let Operator::Limit(records, place) = step.operator {
                    let new = || Arc::new(Mutex::new(RunLimit::new(records)));
                    let limit = limits.entry(place).or_insert_with(new).clone();
                    of_sources.insert(index, (place, limit));
                }
            }
        }
        Limits { of_sources }
    }

    /// Whether the records of a source pass a limit.
    pub(crate) fn apply_to(&self, source: SourceIndex) -> bool {
        self.of_sources.contains_key(&source)
    }

    /// Whether no record of a split of this source from this position on may pass.
    pub(crate) fn is_over(&self, source: SourceIndex, split: &SplitId, position: Position) -> bool {
        let limit = self.of_sources.get(&source);
        limit.is_some_and(|(_, limit)| limit.lock().is_over(split, position))
    }

    /// Counts records of a source that pass its limit, which have these positions. If there are too
    /// many, none is counted. Returns whether they are the last ones.
    ///
    /// # Errors
    /// The position of the first record that may not pass.
    pub(crate) fn admit(
        &self,
        source: SourceIndex,
        split: &SplitId,
        positions: &[Position],
    ) -> Result<bool, Position> {
        let limit = self.of_sources.get(&source);
        limit.map_or(Ok(false), |(_, limit)| limit.lock().admit(split, positions))
    }

    /// The sources of which no further record may pass, if this one is one of them.
    pub(crate) fn ended_with(&self, source: SourceIndex) -> Vec<SourceIndex> {
        let Some((place, limit)) = self.of_sources.get(&source) else {
            return Vec::new();
        };
        if limit.lock().left > 0 {
            return Vec::new();
        }
        let sources = self.of_sources.iter();
        let sources = sources.filter(|(_, (other, _))| other == place);
        sources.map(|(index, _)| *index).collect()
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;

    fn split(name: &str) -> SplitId {
        SplitId::from(name)
    }

    #[test]
    fn at_most_the_limit_passes() {
        // The split and the positions, and the first that may not pass.
        type Step<'a> = (&'a str, &'a [u64], Option<u64>);
        let cases: [(u64, &[Step<'_>]); 7] = [
            (
                3,
                &[
                    ("a", &[1, 2, 3], None),
                    ("a", &[4], Some(4)),
                    ("b", &[1], Some(1)),
                ],
            ),
            (3, &[("a", &[1, 5, 7, 9], Some(9)), ("a", &[1, 5, 7], None)]),
            (
                3,
                &[
                    ("a", &[1, 5], None),
                    ("b", &[1, 2], Some(2)),
                    ("b", &[1], None),
                ],
            ),
            // Those of one record pass together.
            (3, &[("a", &[1, 1, 4, 4, 4], None), ("a", &[5], Some(5))]),
            (
                3,
                &[("a", &[1, 4, 4, 4, 6], Some(6)), ("a", &[1, 4, 4, 4], None)],
            ),
            // What is read again does not count.
            (
                3,
                &[
                    ("a", &[1, 2], None),
                    ("a", &[1, 2, 3, 4], Some(4)),
                    ("a", &[1, 2, 3], None),
                    ("a", &[2, 3], None),
                ],
            ),
            (
                2,
                &[("a", &[], None), ("a", &[1, 2], None), ("a", &[], None)],
            ),
        ];
        for (records, steps) in cases {
            let mut limit = RunLimit::new(records);
            for (name, positions, refused) in steps {
                let found = limit.admit(&split(name), positions);
                assert_eq!(found.err(), *refused, "{steps:?}");
            }
        }
    }

    #[test]
    fn a_limit_is_over_after_the_last_record_that_passed() {
        let mut limit = RunLimit::new(2);
        assert!(!limit.is_over(&split("a"), 0));
        assert_eq!(limit.admit(&split("a"), &[3]), Ok(false));
        assert_eq!(limit.admit(&split("a"), &[3, 8]), Ok(true));
        // What is read again does not end the reading.
        assert_eq!(limit.admit(&split("a"), &[3]), Ok(false));
        let over = [0, 3, 8, 9].map(|position| limit.is_over(&split("a"), position));
        assert_eq!(over, [false, false, false, true]);
        assert!(limit.is_over(&split("b"), 0));
    }
}
