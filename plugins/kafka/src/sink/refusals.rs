//! The records that the broker has refused.
//!
//! A refused record aborts its transaction. The sink records the position of the refused record
//! here, the run re-reads from the committed positions, and this time
//! [`route`](pseidon_plugin::sink::Sink::route) passes the record to the error policy instead of
//! sending it. These refusals therefore outlive an attempt. A process that restarts has lost them,
//! sends the record, and learns of the refusal again.
//!
//! The quarantine can be past such a record: it commits the positions of what was read, and until the
//! refusal this record was none of its own. The same holds for a record that was sent and that
//! the rules of the topic, which have changed, exclude when it is read again. So the sink reports both
//! to the engine ([`RoutedRows::refused`](pseidon_plugin::sink::RoutedRows::refused)).
//!
//! The broker judges batches. Most brokers name the records of a batch that they refuse; if one
//! does not, all records of the batch are **suspects**, and the next attempt sends each record in a
//! batch of its own until the suspects are judged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};

/// The broker's refusal of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) split: SplitId,
    pub(super) position: Position,
    /// librdkafka's description of the broker's error code.
    pub(super) reason: String,
    /// Whether it concerns this record. Otherwise it concerns a batch that contained the record.
    pub(super) is_certain: bool,
}

/// The refused records of all attempts of a run.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether `known` contains anything, which is rare.
    some: AtomicBool,
    known: Mutex<KnownRefusals>,
}

#[derive(Debug, Default)]
struct KnownRefusals {
    /// Why each record was refused, by position.
    refused: HashMap<SplitId, BTreeMap<Position, String>>,
    /// The last suspect of each split.
    suspects: HashMap<SplitId, Position>,
    /// The positions of the records that were sent in transactions that failed.
    sent: HashMap<SplitId, BTreeSet<Position>>,
}

impl Refusals {
    /// Records refusals. Returns whether any of them is new; if none is, sending the records again
    /// leads to the same refusals.
    pub(super) fn note(&self, refusals: &[Refusal]) -> bool {
        let mut known = self.known.lock();
        let mut is_new = false;
        for Refusal {
            split,
            position,
            reason,
            is_certain,
        } in refusals
        {
            if *is_certain {
                is_new |= known
                    .refused
                    .entry(split.clone())
                    .or_default()
                    .insert(*position, reason.clone())
                    .is_none();
            } else {
                let last = known.suspects.entry(split.clone()).or_insert_with(|| {
                    is_new = true;
                    *position
                });
                *last = (*last).max(*position);
            }
        }
        self.some.store(true, Ordering::Relaxed);
        is_new
    }

    /// Records that these records of a split were sent, and that their transaction has failed.
    pub(super) fn note_sent(&self, split: &SplitId, positions: &[Position]) {
        let mut known = self.known.lock();
        known
            .sent
            .entry(split.clone())
            .or_default()
            .extend(positions);
        self.some.store(true, Ordering::Relaxed);
    }

    /// Whether a record was sent before, in a transaction that has failed: no rule of the topic
    /// excluded it then.
    pub(super) fn was_sent(&self, split: &SplitId, position: Position) -> bool {
        if !self.some.load(Ordering::Relaxed) {
            return false;
        }
        let known = self.known.lock();
        let sent = known.sent.get(split);
        sent.is_some_and(|sent| sent.contains(&position))
    }

    /// Why a record was refused, if it was. Cheap if no record was.
    pub(super) fn reason(&self, split: &SplitId, position: Position) -> Option<String> {
        if !self.some.load(Ordering::Relaxed) {
            return None;
        }
        self.known
            .lock()
            .refused
            .get(split)?
            .get(&position)
            .cloned()
    }

    /// Whether there are suspects, so that each record must be sent in a batch of its own.
    pub(super) fn has_suspects(&self) -> bool {
        self.some.load(Ordering::Relaxed) && !self.known.lock().suspects.is_empty()
    }

    /// Removes what is below the durable positions of the instance's splits, and with `others` also
    /// the suspects of other splits.
    pub(super) fn forget_below(&self, low: impl Fn(&SplitId) -> Option<Position>, others: bool) {
        if !self.some.load(Ordering::Relaxed) {
            return;
        }
        let mut known = self.known.lock();
        known
            .suspects
            .retain(|split, last| low(split).map_or(!others, |low| low <= *last));
        known.sent.retain(|split, positions| {
            match low(split) {
                Some(low) => *positions = positions.split_off(&low),
                None if others => positions.clear(),
                None => {}
            }
            !positions.is_empty()
        });
        known.refused.retain(|split, positions| {
            if let Some(low) = low(split) {
                positions.retain(|position, _| *position >= low);
            }
            !positions.is_empty()
        });
        self.some.store(
            !known.suspects.is_empty() || !known.refused.is_empty() || !known.sent.is_empty(),
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(split: &str, position: Position, is_certain: bool) -> Refusal {
        Refusal {
            split: split.into(),
            position,
            reason: format!("no {position}"),
            is_certain,
        }
    }

    #[test]
    fn durable_records_are_forgotten() {
        let refusals = Refusals::default();
        let (a, b) = (SplitId::from("a"), SplitId::from("b"));
        assert!(refusals.note(&[
            refusal("a", 3, true),
            refusal("a", 9, true),
            refusal("b", 3, true)
        ]));
        assert!(!refusals.note(&[refusal("a", 3, true)]), "it was known");
        assert_eq!(
            (refusals.reason(&a, 3), refusals.reason(&a, 4)),
            (Some("no 3".to_owned()), None)
        );
        refusals.note_sent(&a, &[2, 8, 10]);
        let was_sent = |position| refusals.was_sent(&a, position);
        assert!(was_sent(8) && !was_sent(9) && !refusals.was_sent(&b, 8));
        refusals.forget_below(|split| (*split == a).then_some(9), false);
        assert!(!was_sent(8) && was_sent(10));
        assert_eq!(
            (refusals.reason(&a, 3), refusals.reason(&a, 9)),
            (None, Some("no 9".to_owned()))
        );
        assert!(refusals.reason(&b, 3).is_some(), "nothing is known of b");
    }

    #[test]
    fn suspects_remain_until_all_are_judged() {
        let refusals = Refusals::default();
        let a = SplitId::from("a");
        assert!(refusals.note(&[refusal("a", 3, false), refusal("a", 7, false)]));
        assert_eq!(refusals.reason(&a, 3), None, "a suspect may be good");
        assert!(!refusals.note(&[refusal("a", 5, false)]));
        for (low, suspects) in [(3, true), (7, true), (8, false)] {
            refusals.forget_below(|split| (*split == a).then_some(low), false);
            assert_eq!(refusals.has_suspects(), suspects, "{low}");
        }
        assert!(refusals.note(&[refusal("gone", 1, false)]));
        refusals.forget_below(|split| (*split == a).then_some(8), false);
        assert!(refusals.has_suspects(), "the split may still come");
        refusals.forget_below(|split| (*split == a).then_some(8), true);
        assert!(!refusals.has_suspects(), "another instance has that split");
    }
}
