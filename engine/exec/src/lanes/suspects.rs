//! The search for a record because of which a lane fails, such as by a panic in an encoder.
//!
//! What a failed lane held is not committed, and is read again by the next attempt. There, the lane
//! is sealed at more positions, so that no unit has records of two *parts* of what has failed. The
//! part that fails again is divided once more, while the others are committed. When a unit that has
//! only one position fails twice, its record is the *culprit*: from then on it does not reach the
//! lane, but the error policy of the sink.
//!
//! Sealing a lane earlier changes nothing about delivery. So nothing of this has to be kept: a
//! process that starts again finds the culprit again, if it fails each time. And what the sink has
//! passed is forgotten, since it does not reach the lane again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::{LaneId, Position, SplitId};
use pseidon_plugin::Rows;

/// How many parts what has failed is divided into.
const PARTS: u64 = 16;
/// How many culprits a sink may have that it has not passed. If there are more, the encoder is at
/// fault.
const MAX_CULPRITS: usize = 100;

/// Positions of a split, from the first up to another one, which is exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PositionRange {
    pub(super) split: SplitId,
    pub(super) first: Position,
    pub(super) upto: Position,
}

impl PositionRange {
    /// The positions of rows; `None` if there are none.
    pub(super) fn of(rows: &Rows) -> Option<PositionRange> {
        let last = rows.len().checked_sub(1)?;
        Some(PositionRange {
            split: rows.batch().split.id.clone(),
            first: rows.position(0),
            upto: rows.position(last) + 1,
        })
    }
}

/// The content of a lane that has failed; it is not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedLane {
    pub(super) lane: LaneId,
    /// What it had accepted, a range for each split.
    pub(super) accepted: Vec<PositionRange>,
    /// What it was accepting.
    pub(super) offered: Option<PositionRange>,
}

/// What a failure has shown about its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is in one of several parts, which are written separately from now on.
    Parts,
    /// It is the record at this position.
    Culprit(SplitId, Position),
    /// It is not a record: the same content has failed again, or very many records have.
    Nothing,
}

/// What is known of the records because of which lanes of a sink have failed, in all attempts of a
/// run.
#[derive(Debug, Default)]
pub struct Suspects {
    lanes: Mutex<HashMap<LaneId, LaneSuspects>>,
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct LaneSuspects {
    /// The parts of each split: where each begins, and where it ends.
    parts: HashMap<SplitId, BTreeMap<Position, Position>>,
    /// The records that have failed alone, once.
    failed_once: HashSet<(SplitId, Position)>,
    /// The reasons why records cannot be written.
    culprits: HashMap<(SplitId, Position), String>,
}

impl Suspects {
    /// Notes that a lane has failed, for this reason. `lows` are the positions up to which the sink
    /// has passed its splits.
    pub(super) fn note(
        &self,
        failed: &FailedLane,
        reason: &str,
        lows: &[(SplitId, Position)],
    ) -> Finding {
        let mut lanes = self.lanes.lock();
        lanes.retain(|_, known| {
            known.forget_below(lows);
            !known.is_empty()
        });
        let culprits: usize = lanes.values().map(|known| known.culprits.len()).sum();
        let known = lanes.entry(failed.lane.clone()).or_default();
        self.is_used.store(true, Ordering::Release);
        match failed.only_position() {
            Some(_) if culprits >= MAX_CULPRITS => Finding::Nothing,
            Some(at) => known.failed_alone(at, reason),
            None => known.divide(&failed.parts()),
        }
    }

    /// Whether no lane has failed.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_used.load(Ordering::Acquire)
    }

    /// The records of a split that cannot be written to the lane, each with the reason.
    pub(crate) fn culprits(&self, lane: &LaneId, split: &SplitId) -> Vec<(Position, String)> {
        let culprits = self.look(lane, |known| {
            let culprits = known.culprits.iter().filter(|((of, _), _)| of == split);
            Some(
                culprits
                    .map(|((_, at), reason)| (*at, reason.clone()))
                    .collect(),
            )
        });
        culprits.unwrap_or_default()
    }

    /// Where the part begins that contains this position; `None` if no part does.
    pub(super) fn part(
        &self,
        lane: &LaneId,
        split: &SplitId,
        position: Position,
    ) -> Option<Position> {
        self.look(lane, |known| known.part(split, position))
    }

    /// The first position behind this one that is in another part, or behind this part.
    pub(super) fn next_part(
        &self,
        lane: &LaneId,
        split: &SplitId,
        position: Position,
    ) -> Option<Position> {
        self.look(lane, |known| {
            let parts = known.parts.get(split)?;
            let own = parts.range(..=position).next_back();
            match own.map(|(_, upto)| *upto).filter(|upto| *upto > position) {
                Some(upto) => Some(upto),
                None => parts.range(position..).next().map(|(first, _)| *first),
            }
        })
    }

    fn look<T>(&self, lane: &LaneId, at: impl FnOnce(&LaneSuspects) -> Option<T>) -> Option<T> {
        // Nearly every run has none.
        if self.is_empty() {
            return None;
        }
        self.lanes.lock().get(lane).and_then(at)
    }
}

impl FailedLane {
    /// The position of all its records, if they have the same.
    fn only_position(&self) -> Option<(SplitId, Position)> {
        let mut ranges = self.accepted.iter().chain(&self.offered);
        let PositionRange { split, first, upto } = ranges.next()?;
        let is_same = |range: &PositionRange| {
            (&range.split, range.first, range.upto) == (split, *first, *upto)
        };
        (*upto == first + 1 && ranges.all(is_same)).then(|| (split.clone(), *first))
    }

    /// The ranges that are written separately from now on. A position is never divided.
    fn parts(&self) -> Vec<PositionRange> {
        let mut accepted = self.accepted.clone();
        if let Some(offered) = &self.offered {
            for range in accepted.iter_mut().filter(|of| of.split == offered.split) {
                range.upto = range.upto.min(offered.first);
            }
            accepted.retain(|range| range.first < range.upto);
        }
        let parts: Vec<PositionRange> = accepted.into_iter().chain(self.offered.clone()).collect();
        match parts.as_slice() {
            [only] => only.divided(),
            _ => parts,
        }
    }
}

impl PositionRange {
    fn divided(&self) -> Vec<PositionRange> {
        let length = self.upto - self.first;
        let count = length.min(PARTS);
        let at = |number: u64| {
            let offset = u128::from(length) * u128::from(number) / u128::from(count.max(1));
            self.first + offset as Position
        };
        let part = |number| PositionRange {
            split: self.split.clone(),
            first: at(number),
            upto: at(number + 1),
        };
        (0..count).map(part).collect()
    }
}

impl LaneSuspects {
    fn part(&self, split: &SplitId, position: Position) -> Option<Position> {
        let (first, upto) = self.parts.get(split)?.range(..=position).next_back()?;
        (position < *upto).then_some(*first)
    }

    /// Notes that the record at this position has failed alone. Once is not enough: it may have been
    /// something else. What is behind a culprit may be written as before.
    fn failed_alone(&mut self, at: (SplitId, Position), reason: &str) -> Finding {
        if self.culprits.contains_key(&at) {
            return Finding::Nothing;
        }
        let (split, position) = at.clone();
        if self.failed_once.insert(at.clone()) {
            // So that it is alone the next time.
            let (first, upto) = (position, position + 1);
            self.divide(&[PositionRange { split, first, upto }]);
            return Finding::Parts;
        }
        self.failed_once.remove(&at);
        self.culprits.insert(at, reason.to_owned());
        self.parts.clear();
        Finding::Culprit(split, position)
    }

    /// Forgets what is below the positions that the sink has passed.
    fn forget_below(&mut self, lows: &[(SplitId, Position)]) {
        for (split, low) in lows {
            self.culprits.retain(|(of, at), _| of != split || at >= low);
            self.failed_once.retain(|(of, at)| of != split || at >= low);
            if let Some(parts) = self.parts.get_mut(split) {
                parts.retain(|_, upto| *upto > *low);
            }
        }
        self.parts.retain(|_, parts| !parts.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.failed_once.is_empty() && self.culprits.is_empty()
    }

    fn divide(&mut self, parts: &[PositionRange]) -> Finding {
        let mut is_new = false;
        for PositionRange { split, first, upto } in parts {
            let known = self.parts.entry(split.clone()).or_default();
            is_new |= cut(known, *first) | cut(known, *upto) | fill(known, *first, *upto);
        }
        match is_new {
            true => Finding::Parts,
            false => Finding::Nothing,
        }
    }
}

/// Divides the part that contains this position and begins before it. Returns whether there is one.
fn cut(parts: &mut BTreeMap<Position, Position>, at: Position) -> bool {
    let Some((_, upto)) = parts.range_mut(..at).next_back() else {
        return false;
    };
    let end = *upto;
    if end <= at {
        return false;
    }
    *upto = at;
    parts.insert(at, end);
    true
}

/// Adds parts where there are none between these positions, at which parts begin and end. Returns
/// whether there are new ones.
fn fill(parts: &mut BTreeMap<Position, Position>, first: Position, upto: Position) -> bool {
    let inside: Vec<(Position, Position)> = parts
        .range(first..upto)
        .map(|(first, upto)| (*first, *upto))
        .collect();
    let mut at = first;
    let mut is_new = false;
    for (begin, end) in inside.into_iter().chain([(upto, upto)]) {
        if at < begin {
            parts.insert(at, begin);
            is_new = true;
        }
        at = end;
    }
    is_new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(split: &str, first: Position, upto: Position) -> PositionRange {
        PositionRange {
            split: split.into(),
            first,
            upto,
        }
    }

    fn failed(accepted: &[PositionRange], offered: Option<PositionRange>) -> FailedLane {
        FailedLane {
            lane: "a".into(),
            accepted: accepted.to_vec(),
            offered,
        }
    }

    fn note(suspects: &Suspects, lane: &FailedLane) -> Finding {
        suspects.note(lane, "why", &[])
    }

    /// The parts of a split as `first..upto`, in order.
    fn parts(suspects: &Suspects, split: &str) -> Vec<(Position, Position)> {
        let lanes = suspects.lanes.lock();
        let known = lanes.get(&"a".into());
        let parts = known.and_then(|known| known.parts.get(&split.into()));
        let parts = parts.into_iter().flatten();
        parts.map(|(first, upto)| (*first, *upto)).collect()
    }

    #[test]
    fn what_was_offered_is_a_part_of_its_own_and_then_divided() {
        let suspects = Suspects::default();
        let lane = failed(&[range("s", 0, 100)], Some(range("s", 100, 132)));
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        assert_eq!(parts(&suspects, "s"), [(0, 100), (100, 132)]);
        let lane = failed(&[], Some(range("s", 100, 132)));
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        assert_eq!(parts(&suspects, "s").len(), 17);
        assert_eq!(suspects.part(&"a".into(), &"s".into(), 103), Some(102));
        assert_eq!(suspects.next_part(&"a".into(), &"s".into(), 103), Some(104));
        assert_eq!(suspects.part(&"a".into(), &"s".into(), 132), None);
        assert_eq!(suspects.part(&"b".into(), &"s".into(), 103), None);
        let lane = failed(&[], Some(range("s", 102, 104)));
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        let lane = failed(&[range("s", 103, 104)], None);
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        let culprit = Finding::Culprit("s".into(), 103);
        assert_eq!(note(&suspects, &lane), culprit);
        let culprits = suspects.culprits(&"a".into(), &"s".into());
        assert_eq!(culprits, [(103, "why".to_owned())]);
        assert_eq!(
            parts(&suspects, "s"),
            [],
            "the others are written as before"
        );
        assert_eq!(note(&suspects, &lane), Finding::Nothing);
    }

    #[test]
    fn each_split_is_a_part() {
        let suspects = Suspects::default();
        let lane = failed(&[range("s", 5, 9), range("t", 0, 1)], None);
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        assert_eq!(parts(&suspects, "s"), [(5, 9)]);
        assert_eq!(parts(&suspects, "t"), [(0, 1)]);
        assert_eq!(
            note(&suspects, &lane),
            Finding::Nothing,
            "they could not be separated"
        );
    }

    /// It may have been something else, such as a lack of memory.
    #[test]
    fn a_record_that_has_failed_once_is_no_culprit() {
        let suspects = Suspects::default();
        let of = |at| failed(&[], Some(range("s", at, at + 1)));
        for at in [7, 8] {
            assert_eq!(note(&suspects, &of(at)), Finding::Parts);
        }
        assert_eq!(suspects.culprits(&"a".into(), &"s".into()), []);
        assert_eq!(parts(&suspects, "s"), [(7, 8), (8, 9)], "alone again");
        assert_eq!(note(&suspects, &of(7)), Finding::Culprit("s".into(), 7));
    }

    /// A run of months meets more of them than a broken encoder at once.
    #[test]
    fn what_the_sink_has_passed_is_forgotten() {
        let suspects = Suspects::default();
        let of = |at| failed(&[], Some(range("s", at, at + 1)));
        let fail = |at, low| suspects.note(&of(at), "why", &[("s".into(), low)]);
        assert_eq!(fail(5, 0), Finding::Parts);
        for at in 10..10 + 2 * MAX_CULPRITS as Position {
            assert_eq!(fail(at, at), Finding::Parts);
            assert_eq!(fail(at, at), Finding::Culprit("s".into(), at));
            assert_eq!(suspects.culprits(&"a".into(), &"s".into()).len(), 1);
        }
        assert_eq!(fail(5, 6), Finding::Parts, "it has failed once");
        let lane = failed(&[range("s", 990, 1000)], Some(range("s", 1000, 1010)));
        assert_eq!(suspects.note(&lane, "why", &[]), Finding::Parts);
        let lows = [("s".into(), 1000), ("t".into(), 0)];
        let lane = failed(&[range("t", 0, 5)], Some(range("t", 5, 6)));
        assert_eq!(suspects.note(&lane, "why", &lows), Finding::Parts);
        assert_eq!(parts(&suspects, "s"), [(1000, 1010)]);
        assert_eq!(parts(&suspects, "t"), [(0, 5), (5, 6)]);
    }

    #[test]
    fn an_encoder_that_fails_for_very_many_records_is_at_fault() {
        let suspects = Suspects::default();
        let of = |position: Position| FailedLane {
            lane: format!("{}", position % 3).as_str().into(),
            ..failed(&[], Some(range("s", position, position + 1)))
        };
        for position in 0..MAX_CULPRITS as Position {
            assert_eq!(note(&suspects, &of(position)), Finding::Parts);
            let found = note(&suspects, &of(position));
            assert_eq!(found, Finding::Culprit("s".into(), position));
        }
        let found = note(&suspects, &of(1000));
        assert_eq!(found, Finding::Nothing);
    }

    /// The rows of a record may come in several batches.
    #[test]
    fn a_position_is_never_divided() {
        let suspects = Suspects::default();
        let lane = failed(&[range("s", 0, 8)], Some(range("s", 7, 20)));
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        assert_eq!(parts(&suspects, "s"), [(0, 7), (7, 20)]);
        let lane = failed(&[range("s", 7, 8)], Some(range("s", 7, 8)));
        assert_eq!(note(&suspects, &lane), Finding::Parts);
        let culprit = Finding::Culprit("s".into(), 7);
        assert_eq!(note(&suspects, &lane), culprit);
    }

    proptest! {
        /// Whatever a lane is divided into, a file holds what is between two cuts, and one that holds
        /// a culprit fails.
        #[test]
        fn every_culprit_is_found(
            positions in prop::collection::btree_set(0_u64..1 << 40, 2..60),
            culprits in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            batch in 1..20_usize,
        ) {
            let positions: Vec<Position> = positions.into_iter().collect();
            let bad = |at: usize| culprits.iter().any(|bad| bad.index(positions.len()) == at);
            let wrong: Vec<Position> =
                (0..positions.len()).filter(|at| bad(*at)).map(|at| positions[at]).collect();
            let suspects = Suspects::default();
            let (lane, split) = (LaneId::from("a"), SplitId::from("s"));
            let mut found = Vec::new();
            let mut attempts = 0;
            loop {
                let good: Vec<Position> =
                    positions.iter().copied().filter(|at| !found.contains(at)).collect();
                let files = good.chunk_by(|one, other| {
                    suspects.part(&lane, &split, *one) == suspects.part(&lane, &split, *other)
                });
                let mut files = files.filter(|file| file.iter().any(|at| wrong.contains(at)));
                let Some(file) = files.next() else { break };
                let at = file.iter().position(|at| wrong.contains(at)).unwrap();
                // The batch fails, or the file as a whole when it is sealed.
                let begin = at / batch * batch;
                let of = |rows: &[Position]| {
                    let (first, last) = (rows.first()?, rows.last()?);
                    Some(range("s", *first, last + 1))
                };
                let lane = match batch % 2 {
                    0 => failed(of(file).as_slice(), None),
                    _ => failed(
                        of(&file[..begin]).as_slice(),
                        of(&file[begin..file.len().min(begin + batch)]),
                    ),
                };
                match note(&suspects, &lane) {
                    Finding::Parts => {}
                    Finding::Culprit(_, position) => found.push(position),
                    Finding::Nothing => prop_assert!(false, "{lane:?}"),
                }
                attempts += 1;
                prop_assert!(attempts < 60 * found.len().max(1) + 60);
            }
            found.sort_unstable();
            prop_assert_eq!(found, wrong);
        }
    }
}
