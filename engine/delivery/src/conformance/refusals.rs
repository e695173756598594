//! When a step is refused, and with which reason.

use super::{entry, records, sink, staged, step, steps, take};
use crate::{Commit, CommitError, SplitCommit, SplitId, StateStore};

pub(super) fn a_refused_step_changes_nothing(store: &dyn StateStore) {
    for split in ["good", "late"] {
        take(store, split, "a");
    }
    store
        .commit(
            &sink(),
            &Commit {
                staged: vec![entry("1")],
                ..steps(vec![step("good", 1, 0, 3)])
            },
        )
        .unwrap();
    take(store, "late", "b");
    let before = records(store, &sink());
    for wrong in [
        step("late", 1, 0, 9),
        step("late", 2, 7, 9),
        step("late", 3, 0, 9),
        step("unknown", 1, 0, 9),
    ] {
        let mut good = step("good", 1, 1, 4);
        good.ahead = vec![("x".into(), 9)];
        let commit = Commit {
            staged: vec![entry("2")],
            published: vec!["1".into()],
            ..steps(vec![good, wrong])
        };
        store.commit(&sink(), &commit).unwrap_err();
        assert_eq!(records(store, &sink()), before);
        assert_eq!(staged(store, &sink()), ["1"]);
    }
}

pub(super) fn the_most_severe_reason_is_returned(store: &dyn StateStore) {
    let splits: Vec<SplitId> = ["free", "lost", "lost too", "old", "far"]
        .map(SplitId::from)
        .into();
    store.take(&sink(), &splits, &"a".into()).unwrap();
    store
        .commit(
            &sink(),
            &steps(vec![
                step("lost", 1, 0, 1),
                step("old", 1, 0, 1),
                step("far", 1, 0, 1),
            ]),
        )
        .unwrap();
    store.take(&sink(), &splits[1..3], &"b".into()).unwrap();

    let (free, fenced, fenced_too) = (
        step("free", 1, 0, 1),
        step("lost", 1, 1, 2),
        step("lost too", 1, 0, 2),
    );
    let (behind, above, fenced_behind) = (
        step("old", 1, 2, 2),
        step("far", 1, 0, 2),
        step("lost", 1, 2, 2),
    );
    let epoch_behind = step("free", 2, 0, 1);
    let answer = |splits: &[&SplitCommit]| {
        store
            .commit(
                &sink(),
                &steps(splits.iter().map(|step| (*step).clone()).collect()),
            )
            .unwrap_err()
    };
    for (steps, expected) in [
        (vec![&fenced], "fenced lost"),
        (vec![&fenced, &free, &fenced_too], "fenced lost, lost too"),
        (vec![&behind], "sequence old: 2 1"),
        (vec![&above], "sequence far: 0 1"),
        (vec![&above, &fenced], "fenced lost"),
        (vec![&above, &fenced, &behind], "sequence old: 2 1"),
        (vec![&fenced_behind, &fenced_too], "sequence lost: 2 1"),
        (vec![&epoch_behind], "epoch free: 2 1"),
        (
            vec![&above, &fenced, &behind, &epoch_behind],
            "epoch free: 2 1",
        ),
    ] {
        assert_eq!(shown(answer(&steps)), expected, "{steps:?}");
    }
}

/// The reason of a refusal, as the table above shows it.
fn shown(error: CommitError) -> String {
    match error {
        CommitError::Fenced(splits) => format!(
            "fenced {}",
            splits
                .iter()
                .map(SplitId::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ),
        CommitError::Sequence {
            split,
            expected,
            found,
        } => format!("sequence {split}: {expected} {found}"),
        CommitError::Epoch {
            split,
            expected,
            found,
        } => format!("epoch {split}: {expected} {found}"),
        other => panic!("{other}"),
    }
}

pub(super) fn an_empty_store_is_distinguished_from_a_takeover(store: &dyn StateStore) {
    match store.commit(&sink(), &steps(vec![step("s/0", 3, 12, 100)])) {
        Err(CommitError::Epoch {
            expected: 3,
            found: 0,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    assert!(
        store.records(&sink()).unwrap().is_empty(),
        "a refused step creates no record"
    );
}
