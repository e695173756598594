//! Who may commit: taking over, releasing and fencing.

use super::{claimant, records, sink, step, steps, steps_of, take};
use crate::{Claimant, Commit, CommitError, CommitRecord, SinkId, SplitId, StateStore};

pub(super) fn taking_raises_the_epoch_and_returns_the_previous_owner(store: &dyn StateStore) {
    assert!(store.sinks().unwrap().is_empty());
    assert!(store.records(&sink()).unwrap().is_empty());
    let first = take(store, "s/0", "a");
    assert_eq!(
        first,
        CommitRecord {
            epoch: 1,
            ..CommitRecord::default()
        }
    );

    let both = store
        .take(&sink(), &["s/1".into(), "s/0".into()], &"b".into())
        .unwrap();
    assert_eq!(
        (both[0].epoch, both[0].owners.as_slice()),
        (1, &[][..]),
        "answers are in the order of the request"
    );
    assert_eq!(
        (both[1].epoch, both[1].owners.as_slice()),
        (2, &["a".into()][..])
    );

    let kept = records(store, &sink());
    let expected = CommitRecord {
        epoch: 2,
        owners: vec!["a".into(), "b".into()],
        ..CommitRecord::default()
    };
    assert_eq!(kept["s/0"], expected);
    assert_eq!(
        store.owners(&sink()).unwrap(),
        ["a".into(), "b".into()].into()
    );
    assert!(store.owners(&SinkId::from("other")).unwrap().is_empty());
    assert_eq!(
        take(store, "s/0", "b").owners,
        ["a".into()],
        "a repeated take changes nothing but the epoch"
    );
    store
        .hold(&sink(), &[("s/0".into(), 3)], &claimant("b"))
        .unwrap();
    assert_eq!(
        take(store, "s/0", "c").owners,
        ["b".into()],
        "fenced owners are not returned again"
    );
    assert_eq!(store.sinks().unwrap(), [sink()]);
    assert!(store.take(&sink(), &[], &"b".into()).unwrap().is_empty());
}

pub(super) fn holding_sets_the_owner_and_the_plan(store: &dyn StateStore) {
    let plans = |store: &dyn StateStore| -> Vec<(String, Option<String>)> {
        let names = ["mine", "lost", "never seen"].map(SplitId::from);
        let records = store.records_of(&sink(), &names).unwrap();
        let owners = |record: &CommitRecord| -> Vec<String> {
            record.owners.iter().map(ToString::to_string).collect()
        };
        records
            .into_iter()
            .map(|record| (owners(&record).join(" "), record.plan))
            .collect()
    };
    let none = || (String::new(), None);
    assert_eq!(plans(store), [none(), none(), none()]);
    take(store, "mine", "dead");
    for split in ["mine", "lost"] {
        take(store, split, "a");
    }
    take(store, "lost", "b");
    let taken = |names: &[(&str, u64)]| -> Vec<(SplitId, u64)> {
        names
            .iter()
            .map(|(name, epoch)| (SplitId::from(*name), *epoch))
            .collect()
    };
    let all = taken(&[("lost", 1), ("mine", 2), ("never seen", 1)]);
    match store.hold(&sink(), &all, &claimant("a")) {
        Err(CommitError::Fenced(others)) => {
            assert_eq!(others, ["lost", "never seen"].map(SplitId::from));
        }
        other => panic!("{other:?}"),
    }
    let mine = ("a".to_owned(), Some("p".to_owned()));
    assert_eq!(
        plans(store),
        [mine.clone(), ("a b".to_owned(), None), none()]
    );
    assert!(!records(store, &sink()).contains_key("never seen"));

    // The answer may have been lost.
    store
        .hold(&sink(), &taken(&[("mine", 2)]), &claimant("a"))
        .unwrap();
    // Taking changes no plan, and neither does a step.
    store
        .commit(&sink(), &steps(vec![step("mine", 2, 0, 5)]))
        .unwrap();
    assert_eq!(take(store, "mine", "b").plan, mine.1);
    let of_other_plan = Claimant {
        plan: "q".into(),
        ..claimant("b")
    };
    store
        .hold(&sink(), &taken(&[("mine", 3)]), &of_other_plan)
        .unwrap();
    let record = records(store, &sink())["mine"].clone();
    assert_eq!(
        (record.plan.as_deref(), record.low, record.sequence),
        (Some("q"), Some(5), 1)
    );
    assert!(store.hold(&sink(), &[], &claimant("a")).is_ok());
    let nothing = store.records_of(&sink(), &[]).unwrap();
    assert!(nothing.is_empty());
}

pub(super) fn release_clears_the_owner_of_what_is_still_held(store: &dyn StateStore) {
    take(store, "mine", "a");
    take(store, "lost", "a");
    take(store, "lost", "b");
    store
        .release(
            &sink(),
            &[
                ("mine".into(), 1),
                ("lost".into(), 1),
                ("never seen".into(), 1),
            ],
        )
        .unwrap();
    let kept = records(store, &sink());
    assert_eq!((kept["mine"].owners.len(), kept["mine"].epoch), (0, 1));
    assert_eq!((kept["lost"].owners.len(), kept["lost"].epoch), (2, 2));
    assert!(!kept.contains_key("never seen"));
    // The epoch is still valid: a release does not fence.
    store
        .commit(&sink(), &steps(vec![step("mine", 1, 0, 5)]))
        .unwrap();
}

pub(super) fn a_fenced_owner_can_do_nothing(store: &dyn StateStore) {
    for split in ["s/0", "s/1"] {
        take(store, split, "a");
    }
    store
        .commit(&sink(), &steps(vec![step("s/0", 1, 0, 5)]))
        .unwrap();
    store.fence(&sink(), &"a".into()).unwrap();
    let before = records(store, &sink());
    let refused = |answer: Result<(), CommitError>| match answer {
        Err(CommitError::OwnerFenced(owner)) => owner.as_str() == "a",
        _ => false,
    };
    // The same holds for a step without splits.
    let publishes = Commit {
        published: vec!["1".into()],
        ..steps(vec![])
    };
    for commit in [
        steps(vec![step("s/0", 1, 1, 9)]),
        steps(vec![step("s/0", 1, 1, 9), step("s/1", 1, 0, 9)]),
        publishes,
    ] {
        assert!(refused(store.commit(&sink(), &commit)));
    }
    assert!(refused(
        store
            .take(&sink(), &["s/0".into(), "s/2".into()], &"a".into())
            .map(drop)
    ));
    assert_eq!(records(store, &sink()), before);
    // A store that has lost data is the more severe reason.
    assert!(matches!(
        store.commit(&sink(), &steps(vec![step("s/0", 1, 4, 9)])),
        Err(CommitError::Sequence { .. })
    ));
    store.fence(&sink(), &"a".into()).unwrap();

    // Other owners and other sinks are not affected.
    let other = SinkId::from("other");
    store.take(&other, &["s/0".into()], &"a".into()).unwrap();
    store
        .commit(&other, &steps(vec![step("s/0", 1, 0, 5)]))
        .unwrap();
    assert_eq!(take(store, "s/0", "b").owners, ["a".into()]);
    store
        .commit(&sink(), &steps_of("b", vec![step("s/0", 2, 1, 9)]))
        .unwrap();
}

pub(super) fn marks_of_fenced_owners_do_not_accumulate(store: &dyn StateStore) {
    take(store, "held", "dead");
    store.fence(&sink(), &"dead".into()).unwrap();
    for number in 0..200 {
        let owner = format!("gone-{number}");
        take(store, "s/0", &owner);
        store.fence(&sink(), &owner.into()).unwrap();
        let epoch = take(store, "s/0", "next").epoch;
        store
            .hold(&sink(), &[("s/0".into(), epoch)], &claimant("next"))
            .unwrap();
    }
    // An owner that is still on a record stays fenced, however many were fenced after it.
    let answer = store.commit(&sink(), &steps_of("dead", vec![step("held", 1, 0, 1)]));
    assert!(
        matches!(answer, Err(CommitError::OwnerFenced(_))),
        "{answer:?}"
    );
    // All epochs of the other owners have been raised.
    let answer = store.commit(&sink(), &steps_of("gone-0", vec![step("s/0", 1, 0, 1)]));
    assert!(
        matches!(
            answer,
            Err(CommitError::OwnerFenced(_) | CommitError::Fenced(_))
        ),
        "{answer:?}"
    );
}
