//! The invalid records of a run, for observers and for its summary: the last ones, and how many
//! there were for each reason.

use std::collections::VecDeque;

use parking_lot::Mutex;
use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::Batch;
use pseidon_plugin::source::RecordPlace;

/// How many invalid records are remembered.
const MAX_RECENT: usize = 20;
/// How many kinds of reasons are counted. Records of further kinds are counted together.
const MAX_REASONS: usize = 100;
/// How many characters of a record are shown.
const MAX_BEGINNING: usize = 200;

/// The invalid records of a run, over all of its attempts.
#[derive(Default)]
pub(crate) struct BadRecordHistory(Mutex<History>);

#[derive(Default)]
struct History {
    recent: VecDeque<RecentBadRecord>,
    reasons: Vec<(String, BadRecordReason)>,
    others: u64,
}

/// An invalid record, for observers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentBadRecord {
    /// The stage that could not process it.
    pub stage: String,
    /// The split of the record.
    pub split: SplitId,
    /// Its position in the split.
    pub position: Position,
    /// Why the stage could not process it, without stage and position.
    pub reason: String,
}

/// Why records were invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecordReason {
    /// The stage that could not process them.
    pub stage: String,
    /// The reason of the first of them. Those of the others may differ in values.
    pub reason: String,
    /// How many there were. Those that were read again after a restart are counted again.
    pub count: u64,
    /// The first of them.
    pub first: BadRecordExample,
}

/// An invalid record, as an example of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecordExample {
    /// The stage that has read it.
    pub source: String,
    /// Where it is.
    pub place: RecordPlace,
    /// Its beginning; `None` if it has no bytes.
    pub beginning: Option<String>,
}

/// The reasons of all invalid records of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadRecordReasons {
    /// The reasons, the most frequent first.
    pub reasons: Vec<BadRecordReason>,
    /// How many records had further reasons.
    pub others: u64,
}

impl BadRecordExample {
    /// The record with this number in a batch of the stage.
    pub(crate) fn of(stage: &str, batch: &Batch, number: u32) -> BadRecordExample {
        let number = number as usize;
        let beginning = batch.payloads.get(number).map(|bytes| {
            let bytes = &bytes[..bytes.len().min(4 * MAX_BEGINNING)];
            let text = String::from_utf8_lossy(bytes);
            text.chars().take(MAX_BEGINNING).collect()
        });
        BadRecordExample {
            source: stage.to_owned(),
            place: RecordPlace {
                split: batch.first_split().clone(),
                topic: batch.split.topic.clone(),
                partition: batch.split.partition,
                position: batch.first_position(number),
            },
            beginning,
        }
    }
}

impl BadRecordHistory {
    /// Remembers a record, and forgets the oldest one if there are too many.
    pub(crate) fn note(&self, bad: RecentBadRecord) {
        let recent = &mut self.0.lock().recent;
        if recent.len() == MAX_RECENT {
            recent.pop_front();
        }
        recent.push_back(bad);
    }

    /// Counts records by stage and reason. `example` is called for the first of a kind, with its
    /// number.
    pub(crate) fn count<'a>(
        &self,
        records: impl IntoIterator<Item = (&'a str, &'a str, u32)>,
        example: impl Fn(u32) -> BadRecordExample,
    ) {
        let mut history = self.0.lock();
        for (stage, reason, number) in records {
            history.count(stage, reason, || example(number));
        }
    }

    /// All that are remembered, the newest last.
    pub(crate) fn list(&self) -> Vec<RecentBadRecord> {
        self.0.lock().recent.iter().cloned().collect()
    }

    /// The reasons so far.
    pub(crate) fn reasons(&self) -> BadRecordReasons {
        let history = self.0.lock();
        let mut reasons: Vec<_> = history
            .reasons
            .iter()
            .map(|(_, reason)| reason.clone())
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        BadRecordReasons {
            reasons,
            others: history.others,
        }
    }
}

impl History {
    fn count(&mut self, stage: &str, reason: &str, example: impl FnOnce() -> BadRecordExample) {
        let kind = kind_of(reason);
        let known = self
            .reasons
            .iter_mut()
            .find(|(known, counted)| *known == kind && counted.stage == stage);
        if let Some((_, counted)) = known {
            counted.count += 1;
        } else if self.reasons.len() < MAX_REASONS {
            let counted = BadRecordReason {
                stage: stage.to_owned(),
                reason: reason.to_owned(),
                count: 1,
                first: example(),
            };
            self.reasons.push((kind, counted));
        } else {
            self.others += 1;
        }
    }
}

/// A reason without the values of its record: what is in single quotes, and numbers.
fn kind_of(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(c) = rest.chars().next() {
        let is_word = kind.ends_with(|last: char| last.is_alphanumeric());
        let value = match c {
            '\'' => rest[1..].find('\'').map(|end| end + 2),
            '0'..='9' if !is_word => Some(
                rest.find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len()),
            ),
            _ => None,
        };
        match value {
            Some(_) => kind.push('…'),
            None => kind.push(c),
        }
        rest = &rest[value.unwrap_or(c.len_utf8())..];
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(number: u32) -> BadRecordExample {
        BadRecordExample {
            source: "in".to_owned(),
            place: RecordPlace {
                split: "in:clicks/0".into(),
                topic: "clicks".to_owned(),
                partition: 0,
                position: number.into(),
            },
            beginning: None,
        }
    }

    #[test]
    fn reasons_that_differ_in_values_are_counted_together() {
        let history = BadRecordHistory::default();
        let records = [
            ("a", "`n`: '12.5' is not a valid int64"),
            ("a", "not a JSON object"),
            ("a", "`n`: '' is not a valid int64"),
            ("b", "`n`: '7' is not a valid int64"),
            ("a", "`n`: '7' is not a valid int32"),
            ("b", "expected 3 fields, found 12"),
            ("b", "expected 3 fields, found 4"),
            ("b", "it's open"),
        ];
        let numbered = (0..).zip(records);
        history.count(
            numbered.map(|(at, (stage, reason))| (stage, reason, at)),
            example,
        );
        let reasons = history.reasons();
        let shown: Vec<String> = reasons
            .reasons
            .iter()
            .map(|reason| {
                let first = reason.first.place.position;
                format!(
                    "{} {} {} #{first}",
                    reason.count, reason.stage, reason.reason
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "2 a `n`: '12.5' is not a valid int64 #0",
                "2 b expected 3 fields, found 12 #5",
                "1 a not a JSON object #1",
                "1 b `n`: '7' is not a valid int64 #3",
                "1 a `n`: '7' is not a valid int32 #4",
                "1 b it's open #7",
            ]
        );
        assert_eq!(reasons.others, 0);
    }

    #[test]
    fn the_number_of_reasons_is_limited() {
        let history = BadRecordHistory::default();
        for number in 0..MAX_REASONS + 7 {
            let name: String = (0..=number).map(|_| 'x').collect();
            history.count([("a", name.as_str(), 0)], example);
        }
        let reasons = history.reasons();
        assert_eq!((reasons.reasons.len(), reasons.others), (MAX_REASONS, 7));
    }
}
