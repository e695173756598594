//! When a run that only finishes the work of an earlier version has done so.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};

/// How long the run waits for what is left while it reads other splits only. What is left may be
/// gone, or belong to another instance by now.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is left in an attempt of such a run. It is over when all records of these splits below
/// their positions are handed to their lanes: a graceful stop then leaves all sinks at one
/// position. (What was read and waits for a throttle is not handed out at a stop.)
pub(crate) struct CatchUp(Mutex<State>);

struct State {
    /// The splits that are left, each with its position.
    left: HashMap<SplitId, Position>,
    /// The splits that are being read.
    held: HashSet<SplitId>,
    /// Whether any split was begun: what was staged is published by then.
    has_begun: bool,
    /// Since when other splits are read and none that is left.
    waiting_since: Option<Instant>,
    /// Whether what is left is not waited for any more.
    has_given_up: bool,
}

impl CatchUp {
    pub(crate) fn new(splits: HashMap<SplitId, Position>) -> CatchUp {
        CatchUp(Mutex::new(State {
            left: splits,
            held: HashSet::new(),
            has_begun: false,
            waiting_since: None,
            has_given_up: false,
        }))
    }

    /// The splits that are left.
    pub(crate) fn left(&self) -> Vec<SplitId> {
        self.0.lock().left.keys().cloned().collect()
    }

    /// A split is begun.
    pub(crate) fn begin(&self, split: &SplitId) {
        let mut state = self.0.lock();
        state.held.insert(split.clone());
        state.has_begun = true;
    }

    /// Everything of a split below this position is handed to its lanes. Returns whether nothing is
    /// left.
    pub(crate) fn reach(&self, split: &SplitId, frontier: Position) -> bool {
        let mut state = self.0.lock();
        if state.left.get(split).is_some_and(|upto| *upto <= frontier) {
            state.left.remove(split);
        }
        state.is_complete()
    }

    /// A split is released: it was read to its end, or another instance reads it now. Returns
    /// whether nothing is left.
    pub(crate) fn release(&self, split: &SplitId) -> bool {
        let mut state = self.0.lock();
        state.held.remove(split);
        state.left.remove(split);
        state.is_complete()
    }

    /// Whether nothing is left, or what is left does not come.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        if state.is_complete() {
            return true;
        }
        let reads_what_is_left = state.left.keys().any(|split| state.held.contains(split));
        if state.held.is_empty() || reads_what_is_left {
            state.waiting_since = None;
            return false;
        }
        state.has_given_up = now >= *state.waiting_since.get_or_insert(now) + PATIENCE;
        state.has_given_up
    }
}

impl State {
    fn is_complete(&self) -> bool {
        self.has_begun && (self.left.is_empty() || self.has_given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(splits: &[(&str, Position)]) -> CatchUp {
        let splits = splits.iter().map(|(split, upto)| ((*split).into(), *upto));
        CatchUp::new(splits.collect())
    }

    #[test]
    fn it_is_over_when_every_split_is_read_up_to_its_position() {
        let catch_up = left(&[("a", 10), ("b", 20)]);
        catch_up.begin(&"a".into());
        assert!(!catch_up.reach(&"a".into(), 9));
        assert!(!catch_up.reach(&"a".into(), 10));
        assert!(!catch_up.is_over(Instant::now()));
        assert_eq!(catch_up.left(), ["b".into()]);
        catch_up.begin(&"b".into());
        assert!(catch_up.reach(&"b".into(), 20));
        assert!(catch_up.is_over(Instant::now()));
    }

    #[test]
    fn a_split_that_is_released_is_not_waited_for() {
        let catch_up = left(&[("a", 10)]);
        catch_up.begin(&"a".into());
        assert!(catch_up.release(&"a".into()));
    }

    #[test]
    fn what_was_only_staged_is_published_when_a_split_is_begun() {
        let catch_up = left(&[]);
        assert!(!catch_up.is_over(Instant::now()));
        catch_up.begin(&"a".into());
        assert!(catch_up.is_over(Instant::now()));
    }

    #[test]
    fn what_does_not_come_is_waited_for_a_while() {
        let (catch_up, start) = (left(&[("gone", 10)]), Instant::now());
        assert!(
            !catch_up.is_over(start + 2 * PATIENCE),
            "nothing is held yet"
        );
        catch_up.begin(&"other".into());
        let from = start + 3 * PATIENCE;
        assert!(!catch_up.is_over(from));
        assert!(!catch_up.is_over(from + PATIENCE / 2));
        // It comes late, and goes again.
        catch_up.begin(&"gone".into());
        assert!(!catch_up.is_over(from + 3 * PATIENCE));
        let late = left(&[("gone", 10)]);
        late.begin(&"other".into());
        assert!(!late.is_over(from));
        assert!(late.is_over(from + PATIENCE));
        // The attempt stops now, and with it the other split is released.
        assert!(late.release(&"other".into()));
        assert!(late.is_over(from + PATIENCE));
    }
}
