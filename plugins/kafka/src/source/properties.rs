//! What holds for any string that the state holds of a Kafka source, and for any start of it: for
//! the tests, and for the fuzz target.

use std::collections::HashMap;

use super::first_subscriptions::FirstSubscriptions;
use super::identity::PartitionIdentity;
use super::start::StartOption;
use crate::tools::StartPosition;

/// A note is damaged and counts as missing, or it is read as the same after it is printed. Names
/// and patterns can be added to it once.
pub fn check_note(note: &str) {
    let mut first = FirstSubscriptions::of_note(Some(note));
    assert_eq!(FirstSubscriptions::of_note(Some(&first.print())), first);
    let before = HashMap::from([("a".to_owned(), 3), ("b".to_owned(), i32::MAX)]);
    let added = ["^a.*", "b", "^(", note].map(str::to_owned);
    first.add(&added, &before);
    assert!(!first.add(&added, &before), "{note}");
    assert_eq!(FirstSubscriptions::of_note(Some(&first.print())), first);
}

/// An identity is read as the same after it is printed.
pub fn check_identity(resume: &str) {
    let identity = PartitionIdentity::from_resume(&resume.into());
    let read = identity
        .to_resume()
        .map(|resume| PartitionIdentity::from_resume(&resume));
    assert_eq!(read.unwrap_or_default(), identity, "{resume}");
}

/// A start is refused, or is not before 1970. `:start` and `--from` mean the same by a time.
pub fn check_start(text: &str) {
    let (option, position) = (text.parse(), text.parse());
    match (&option, &position) {
        (Ok(StartOption::Earliest), Ok(StartPosition::Earliest))
        | (Ok(StartOption::Latest), Ok(StartPosition::Latest)) => {}
        (Ok(StartOption::At(time)), Ok(StartPosition::Time(other))) => {
            assert_eq!(time, other, "{text}");
            assert!(*time >= 0, "{text}");
        }
        // A number is a time for one, and an offset for the other.
        (Ok(StartOption::At(time)), Ok(StartPosition::Offset(offset))) => {
            assert_eq!(u64::try_from(*time).as_ref(), Ok(offset), "{text}");
        }
        (Err(_), Err(_)) => {}
        _ => panic!("{text}: {option:?}, {position:?}"),
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, FixedOffset};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_note_is_read_or_counts_as_missing(
            subscribed in prop::collection::vec("\\^?[a(.*|)]{0,4}|\\PC{0,3}", 0..4),
            partitions in prop::collection::btree_map("[ab]{1,2}", any::<i32>(), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let note = serde_json::json!({"subscribed": subscribed, "partitions": partitions});
            let note = note.to_string();
            check_note(&note);
            check_note(note.get(..cut.index(note.len())).unwrap_or_default());
        }

        #[test]
        fn any_identity_is_read(resume in "[a@0-9-]{0,6}|\\PC{0,5}|@-?[0-9]{1,12}") {
            check_identity(&resume);
        }

        #[test]
        fn any_start_is_read_or_refused(
            text in "earliest|latest|[+-]?[0-9]{1,20}|[0-9T:.Z+-]{0,24}|\\PC{0,8}",
        ) {
            check_start(&text);
        }

        #[test]
        fn a_time_is_read_whatever_its_offset_is(
            millis in 0..253_402_300_799_999_i64,
            minutes in -23 * 60..23 * 60_i32,
        ) {
            let offset = FixedOffset::east_opt(minutes * 60).unwrap();
            let time = DateTime::from_timestamp_millis(millis).unwrap().with_timezone(&offset);
            let text = time.to_rfc3339();
            check_start(&text);
            prop_assume!(text.len() <= "2026-01-31T00:00:00.000+00:00".len());
            prop_assert_eq!(text.parse(), Ok(StartOption::At(millis)));
        }
    }
}
