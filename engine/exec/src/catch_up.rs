//! When a run that only finishes the work of an earlier version has done so.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId, UnfinishedSplit};

/// How long the run waits for splits that are left while none of them is read, beside the lease of a
/// dead instance that may have claimed them. They may be gone, or belong to another instance by now.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same as long as there are no splits at all: after a crash, a group withholds its partitions
/// until the session of the dead member has expired.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);

/// What is left in an attempt of such a run. It is over when all records of these splits below
/// their positions are handed to their lanes: a graceful stop then leaves all sinks at one
/// position. (What was read and waits for a throttle is not handed out at a stop.)
pub(crate) struct CatchUp {
    /// The splits that were left when the attempt began. If the plan has no groups, it reads these
    /// only, so that the records after them are left to the next version.
    only: Option<HashSet<SplitId>>,
    /// How many sources are read first.
    sources: usize,
    lease: Duration,
    state: Mutex<State>,
}

struct State {
    /// The splits that are left, each with its position.
    left: HashMap<SplitId, Position>,
    /// The splits that this instance holds.
    held: HashSet<SplitId>,
    /// The sources that have taken splits: what was staged for them is published by then.
    sources: HashSet<String>,
    /// Since when none of the splits that are left is held.
    waiting_since: Option<Instant>,
    /// Whether what is left is not waited for any more.
    has_given_up: bool,
}

impl CatchUp {
    /// `sources` is the number of sources that are read first. `lease` is how long an instance that
    /// has died keeps its claims.
    pub(crate) fn new(
        splits: &[UnfinishedSplit],
        sources: usize,
        has_groups: bool,
        lease: Duration,
    ) -> CatchUp {
        let names = splits.iter().map(|left| left.split.clone());
        CatchUp {
            // A group is complete only with all that comes before it.
            only: (!has_groups).then(|| names.collect()),
            sources,
            lease,
            state: Mutex::new(State {
                left: splits
                    .iter()
                    .map(|left| (left.split.clone(), left.upto))
                    .collect(),
                held: HashSet::new(),
                sources: HashSet::new(),
                waiting_since: None,
                has_given_up: false,
            }),
        }
    }

    /// Whether this run reads the split, or only takes it.
    pub(crate) fn reads(&self, split: &SplitId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(split))
    }

    /// The splits that are left.
    pub(crate) fn left(&self) -> Vec<SplitId> {
        self.state.lock().left.keys().cloned().collect()
    }

    /// A source has taken splits.
    pub(crate) fn take(&self, source: &str, splits: &[SplitId]) {
        let mut state = self.state.lock();
        state.sources.insert(source.to_owned());
        state.held.extend(splits.iter().cloned());
    }

    /// Everything of a split below this position is handed to its lanes.
    pub(crate) fn reach(&self, split: &SplitId, frontier: Position) {
        let mut state = self.state.lock();
        if state.left.get(split).is_some_and(|upto| *upto <= frontier) {
            state.left.remove(split);
        }
    }

    /// A split is released. If it was not read up to its position, another instance continues with
    /// it, or this one when it comes back.
    pub(crate) fn release(&self, split: &SplitId) {
        self.state.lock().held.remove(split);
    }

    /// Whether nothing is left.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.state.lock();
        state.left.is_empty() && state.sources.len() >= self.sources
    }

    /// Whether what is left does not come: none of it was held for a while before `now`.
    pub(crate) fn gives_up(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_held = state.left.keys().any(|split| state.held.contains(split));
        if is_held && !state.has_given_up {
            state.waiting_since = None;
            return false;
        }
        let patience = if state.sources.is_empty() {
            FIRST_PATIENCE
        } else {
            PATIENCE + self.lease
        };
        state.has_given_up |= now >= *state.waiting_since.get_or_insert(now) + patience;
        state.has_given_up
    }
}

#[cfg(test)]
mod tests {
    use pseidon_delivery::LeftWork;

    use super::*;

    fn left(splits: &[(&str, Position)], sources: usize) -> CatchUp {
        let split = |(split, upto): &(&str, Position)| UnfinishedSplit {
            split: (*split).into(),
            low: 0,
            upto: *upto,
            left: LeftWork::Held { sink: "out".into() },
        };
        let splits: Vec<UnfinishedSplit> = splits.iter().map(split).collect();
        CatchUp::new(&splits, sources, false, Duration::ZERO)
    }

    #[test]
    fn it_is_over_when_every_split_has_reached_its_position() {
        let catch_up = left(&[("a", 10), ("b", 20)], 1);
        catch_up.take("in", &["a".into()]);
        catch_up.reach(&"a".into(), 9);
        assert_eq!(catch_up.left().len(), 2);
        catch_up.reach(&"a".into(), 10);
        assert!(!catch_up.is_complete());
        assert_eq!(catch_up.left(), ["b".into()]);
        catch_up.take("in", &["b".into()]);
        catch_up.reach(&"b".into(), 20);
        assert!(catch_up.is_complete());
    }

    #[test]
    fn a_split_that_is_released_too_early_is_still_left() {
        let catch_up = left(&[("a", 10)], 1);
        catch_up.take("in", &["a".into()]);
        catch_up.reach(&"a".into(), 5);
        catch_up.release(&"a".into());
        assert_eq!(catch_up.left(), ["a".into()]);
    }

    #[test]
    fn what_was_only_staged_is_published_when_every_source_has_taken_splits() {
        let catch_up = left(&[], 2);
        assert!(!catch_up.is_complete());
        catch_up.take("in", &["a".into()]);
        assert!(!catch_up.is_complete());
        catch_up.take("other", &[]);
        assert!(catch_up.is_complete());
    }

    #[test]
    fn only_what_is_left_is_read_unless_there_are_groups() {
        let catch_up = left(&[("a", 10)], 1);
        assert!(catch_up.reads(&"a".into()));
        assert!(!catch_up.reads(&"b".into()));
        let with_groups = CatchUp::new(&[], 1, true, Duration::ZERO);
        assert!(with_groups.reads(&"b".into()));
    }

    #[test]
    fn what_does_not_come_is_waited_for_a_while() {
        let (catch_up, start) = (left(&[("gone", 10)], 1), Instant::now());
        assert!(!catch_up.gives_up(start));
        assert!(
            !catch_up.gives_up(start + 2 * PATIENCE),
            "nothing is there yet"
        );
        catch_up.take("in", &["gone".into()]);
        // It is read, however long that takes.
        let from = start + 2 * FIRST_PATIENCE;
        assert!(!catch_up.gives_up(from));
        catch_up.release(&"gone".into());
        assert!(!catch_up.gives_up(from));
        assert!(!catch_up.gives_up(from + PATIENCE / 2));
        assert!(catch_up.gives_up(from + PATIENCE));
        assert!(!catch_up.is_complete());
    }
}
