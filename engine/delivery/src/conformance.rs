//! The conformance suite of [`StateStore`]: a test that every implementation must pass.

use std::collections::HashMap;
use std::sync::Barrier;

use crate::{
    Claimant, Commit, CommitError, CommitRecord, LaneId, SinkId, SplitCommit, SplitId, StagedEntry,
    StateStore, StoredPlan,
};

/// Runs the suite; panics at the first failure. `open` returns the store of a pipeline: an empty
/// one for a name that was not used before, the same content again for one that was.
pub fn check(open: &dyn Fn(&str) -> Box<dyn StateStore>) {
    taking_raises_the_epoch_and_returns_the_previous_owner(&*open("take"));
    release_clears_the_owner_of_what_is_still_held(&*open("release"));
    a_step_changes_what_it_names(&*open("commit"));
    the_largest_numbers_survive(&*open("numbers"));
    staged_entries_stay_until_they_are_published(&*open("staged"));
    a_refused_step_changes_nothing(&*open("refused"));
    the_most_severe_reason_is_returned(&*open("reasons"));
    an_empty_store_is_distinguished_from_a_takeover(&*open("emptied"));
    names_do_not_collide(&*open("names"));
    thousands_of_lanes_fit_into_one_step(&*open("large"));
    thousands_of_splits_may_be_refused(&*open("many"));
    only_one_of_two_steps_wins(&*open("race"));
    a_fenced_owner_can_do_nothing(&*open("fence"));
    marks_of_fenced_owners_do_not_accumulate(&*open("marks"));
    steps_in_a_group_are_independent(&*open("group"));
    lanes_that_are_ahead_keep_their_plan(&*open("plans"));
    what_a_source_stores_beside_a_position_is_kept(&*open("resume"));
    finished_splits_can_be_forgotten(&*open("finished"));
    plans_and_notes_are_kept(&*open("plan"));
    pipelines_are_separate(&*open("apart:1"), &*open("apart"));
    everything_survives_reopening(open);
}

fn sink() -> SinkId {
    SinkId::from("lake")
}

fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.into(),
        plan: "p".into(),
        accepts_other_plans: false,
    }
}

fn take(store: &dyn StateStore, split: &str, owner: &str) -> CommitRecord {
    store
        .take(&sink(), &[split.into()], &claimant(owner))
        .unwrap()
        .remove(0)
}

/// Takes a split under a plan; returns the plan that the record was under before.
fn take_by_plan(
    store: &dyn StateStore,
    split: &str,
    plan: &str,
    accepts_other_plans: bool,
) -> Option<String> {
    let claimant = Claimant {
        owner: "a".into(),
        plan: plan.into(),
        accepts_other_plans,
    };
    store
        .take(&sink(), &[split.into()], &claimant)
        .unwrap()
        .remove(0)
        .plan
}

fn records(store: &dyn StateStore, sink: &SinkId) -> HashMap<String, CommitRecord> {
    store
        .records(sink)
        .unwrap()
        .into_iter()
        .map(|(split, record)| (split.to_string(), record))
        .collect()
}

fn step(split: &str, epoch: u64, sequence: u64, low: u64) -> SplitCommit {
    SplitCommit::to_low(split.into(), epoch, sequence, low)
}

fn steps(splits: Vec<SplitCommit>) -> Commit {
    steps_of("a", splits)
}

fn steps_of(owner: &str, splits: Vec<SplitCommit>) -> Commit {
    Commit {
        owner: owner.into(),
        splits,
        ..Commit::default()
    }
}

fn entry(id: &str) -> StagedEntry {
    StagedEntry {
        id: id.into(),
        detail: format!("detail of {id}"),
    }
}

fn staged(store: &dyn StateStore, sink: &SinkId) -> Vec<String> {
    let mut ids: Vec<String> = store
        .staged(sink)
        .unwrap()
        .into_iter()
        .map(|entry| entry.id)
        .collect();
    ids.sort();
    ids
}

fn taking_raises_the_epoch_and_returns_the_previous_owner(store: &dyn StateStore) {
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
        .take(&sink(), &["s/1".into(), "s/0".into()], &claimant("b"))
        .unwrap();
    assert_eq!(
        (both[0].epoch, both[0].owners.as_slice()),
        (1, &[][..]),
        "answers are in the order of the request"
    );
    assert_eq!(
        (both[1].epoch, both[1].owners.as_slice()),
        (2, &["a".to_owned()][..])
    );

    let kept = records(store, &sink());
    let expected = CommitRecord {
        epoch: 2,
        owners: vec!["a".into(), "b".into()],
        plan: Some("p".into()),
        ..CommitRecord::default()
    };
    assert_eq!(kept["s/0"], expected);
    assert_eq!(
        store.owners(&sink()).unwrap(),
        ["a".to_owned(), "b".to_owned()].into()
    );
    assert!(store.owners(&SinkId::from("other")).unwrap().is_empty());
    assert_eq!(
        take(store, "s/0", "b").owners,
        ["a"],
        "a repeated take changes nothing but the epoch"
    );
    store
        .set_owner(&sink(), &[("s/0".into(), 3)], Some("b"))
        .unwrap();
    assert_eq!(
        take(store, "s/0", "c").owners,
        ["b"],
        "fenced owners are not returned again"
    );
    assert_eq!(store.sinks().unwrap(), [sink()]);
    assert!(store.take(&sink(), &[], &claimant("b")).unwrap().is_empty());
}

fn release_clears_the_owner_of_what_is_still_held(store: &dyn StateStore) {
    take(store, "mine", "a");
    take(store, "lost", "a");
    take(store, "lost", "b");
    store
        .set_owner(
            &sink(),
            &[
                ("mine".into(), 1),
                ("lost".into(), 1),
                ("never seen".into(), 1),
            ],
            None,
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

fn a_step_changes_what_it_names(store: &dyn StateStore) {
    for split in ["s/0", "s/1", "s/2"] {
        take(store, split, "a");
    }
    let lane = |name: &str| LaneId::from(name);
    let mut first = step("s/0", 1, 0, 10);
    first.ahead = vec![(lane("x"), 15), (lane("y"), 20)];
    store
        .commit(&sink(), &steps(vec![first, step("s/1", 1, 0, 7)]))
        .unwrap();
    let mut second = step("s/0", 1, 1, 15);
    second.ahead = vec![(lane("y"), 25), (lane("z"), 16)];
    second.caught_up = vec![lane("x"), lane("never ahead")];
    store.commit(&sink(), &steps(vec![second])).unwrap();

    let kept = records(store, &sink());
    let expected = CommitRecord {
        epoch: 1,
        sequence: 2,
        low: Some(15),
        ahead: [(lane("y"), 25), (lane("z"), 16)].into(),
        owners: vec!["a".into()],
        plan: Some("p".into()),
        ..CommitRecord::default()
    };
    assert_eq!(kept["s/0"], expected);
    assert_eq!((kept["s/1"].sequence, kept["s/1"].low), (1, Some(7)));
    assert_eq!((kept["s/2"].sequence, kept["s/2"].low), (0, None));
    assert_eq!(
        take(store, "s/0", "b"),
        CommitRecord {
            epoch: 2,
            ..expected
        }
    );
}

fn the_largest_numbers_survive(store: &dyn StateStore) {
    let split = "s/0";
    let lane = LaneId::from("x");
    take(store, split, "a");
    for (sequence, position) in [(1 << 53) + 1, i64::MAX as u64 + 2, u64::MAX - 1]
        .into_iter()
        .enumerate()
    {
        let mut large = step(split, 1, sequence as u64, position);
        large.ahead = vec![(lane.clone(), position + 1)];
        store.commit(&sink(), &steps(vec![large])).unwrap();
        let kept = &records(store, &sink())[split];
        assert_eq!(
            (kept.low, kept.ahead[&lane]),
            (Some(position), position + 1)
        );
    }
}

fn staged_entries_stay_until_they_are_published(store: &dyn StateStore) {
    take(store, "s/0", "a");
    assert!(staged(store, &sink()).is_empty());
    store
        .commit(
            &sink(),
            &Commit {
                staged: vec![entry("1"), entry("2"), entry("3")],
                ..steps(vec![step("s/0", 1, 0, 1)])
            },
        )
        .unwrap();
    assert_eq!(staged(store, &sink()), ["1", "2", "3"]);
    assert!(
        store.staged(&sink()).unwrap().contains(&entry("2")),
        "the detail is kept"
    );
    // A step may consist of nothing but published ids.
    store
        .commit(
            &sink(),
            &Commit {
                published: vec!["2".into(), "unknown".into()],
                ..steps(vec![])
            },
        )
        .unwrap();
    assert_eq!(staged(store, &sink()), ["1", "3"]);
    store
        .forget(&sink(), &["1".into(), "unknown".into()])
        .unwrap();
    assert_eq!(staged(store, &sink()), ["3"]);
    store.forget(&sink(), &[]).unwrap();
    assert!(staged(store, &SinkId::from("other")).is_empty());
}

fn a_refused_step_changes_nothing(store: &dyn StateStore) {
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

fn the_most_severe_reason_is_returned(store: &dyn StateStore) {
    let splits: Vec<SplitId> = ["free", "lost", "lost too", "old", "far"]
        .map(SplitId::from)
        .into();
    store.take(&sink(), &splits, &claimant("a")).unwrap();
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
    store.take(&sink(), &splits[1..3], &claimant("b")).unwrap();

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
    let show = |error: CommitError| match error {
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
        assert_eq!(show(answer(&steps)), expected, "{steps:?}");
    }
}

fn an_empty_store_is_distinguished_from_a_takeover(store: &dyn StateStore) {
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

fn names_do_not_collide(store: &dyn StateStore) {
    let odd = [
        "", ":", "a", "a:b", "a:b:c", "b:c", "{a}", "}", "%3A", "a\0b", "ünï", "a b\n", "\"'\\",
        "a/b", "..", "v", "epoch", "1",
    ];
    for (at, sink) in odd.iter().enumerate() {
        for (number, split) in odd.iter().enumerate() {
            let sink = SinkId::from(*sink);
            let record = store
                .take(&sink, &[(*split).into()], &claimant("a"))
                .unwrap()
                .remove(0);
            assert_eq!(
                record.epoch, 1,
                "{sink:?} {split:?} collides with another one"
            );
            let mut step = step(split, 1, 0, (at * 100 + number) as u64);
            step.ahead = odd
                .iter()
                .map(|lane| (LaneId::from(*lane), 1_000_000))
                .collect();
            let id = format!("{split}{at}");
            store
                .commit(
                    &sink,
                    &Commit {
                        staged: vec![entry(&id)],
                        ..steps(vec![step])
                    },
                )
                .unwrap();
        }
    }
    let mut sinks: Vec<String> = store
        .sinks()
        .unwrap()
        .iter()
        .map(SinkId::to_string)
        .collect();
    let mut expected: Vec<String> = odd.map(String::from).into();
    sinks.sort();
    expected.sort();
    assert_eq!(sinks, expected);
    for (at, sink) in odd.iter().enumerate() {
        let sink = SinkId::from(*sink);
        let kept = records(store, &sink);
        assert_eq!(kept.len(), odd.len());
        for (number, split) in odd.iter().enumerate() {
            assert_eq!(kept[*split].low, Some((at * 100 + number) as u64));
            assert_eq!(kept[*split].ahead.len(), odd.len());
        }
        let mut ids: Vec<String> = odd.iter().map(|split| format!("{split}{at}")).collect();
        ids.sort();
        assert_eq!(staged(store, &sink), ids);
    }
}

fn thousands_of_lanes_fit_into_one_step(store: &dyn StateStore) {
    const LANES: u64 = 20_000;
    take(store, "s/0", "a");
    take(store, "s/1", "a");
    let lane = |number: u64| LaneId::from(format!("region=somewhere/hour={number}"));
    let mut large = step("s/0", 1, 0, 5);
    large.ahead = (0..LANES)
        .map(|number| (lane(number), number + 10))
        .collect();
    let staged_entries = (0..LANES / 4)
        .map(|number| entry(&number.to_string()))
        .collect();
    let other = step("s/1", 1, 0, 5);
    store
        .commit(
            &sink(),
            &Commit {
                staged: staged_entries,
                ..steps(vec![large, other])
            },
        )
        .unwrap();
    let record = take(store, "s/0", "b");
    assert_eq!(record.ahead.len() as u64, LANES);
    assert_eq!(record.ahead[&lane(LANES - 1)], LANES + 9);
    assert_eq!(staged(store, &sink()).len() as u64, LANES / 4);

    let mut back = step("s/0", 2, 1, LANES + 10);
    back.caught_up = record.ahead.into_keys().collect();
    let published = (0..LANES / 4).map(|number| number.to_string()).collect();
    store
        .commit(
            &sink(),
            &Commit {
                published,
                ..steps(vec![back])
            },
        )
        .unwrap();
    assert!(records(store, &sink())["s/0"].ahead.is_empty());
    assert!(staged(store, &sink()).is_empty());
}

fn only_one_of_two_steps_wins(store: &dyn StateStore) {
    const ROUNDS: u64 = 20;
    take(store, "s/0", "a");
    for sequence in 0..ROUNDS {
        let start = Barrier::new(2);
        let winners: usize = std::thread::scope(|scope| {
            let attempts = [1, 2].map(|low| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    store
                        .commit(&sink(), &steps(vec![step("s/0", 1, sequence, low)]))
                        .is_ok()
                })
            });
            attempts
                .into_iter()
                .map(|attempt| usize::from(attempt.join().unwrap()))
                .sum()
        });
        assert_eq!(winners, 1);
    }
    assert_eq!(records(store, &sink())["s/0"].sequence, ROUNDS);
}

fn thousands_of_splits_may_be_refused(store: &dyn StateStore) {
    let splits: Vec<SplitId> = (0..12_000)
        .map(|number| SplitId::from(format!("s/{number}")))
        .collect();
    store.take(&sink(), &splits, &claimant("a")).unwrap();
    store.take(&sink(), &splits, &claimant("b")).unwrap();
    let of_a = splits
        .iter()
        .map(|split| step(split.as_str(), 1, 0, 1))
        .collect();
    match store.commit(&sink(), &steps(of_a)) {
        Err(CommitError::Fenced(fenced)) => assert_eq!(fenced, splits),
        other => panic!("{other:?}"),
    }
    let of_b = splits
        .iter()
        .map(|split| step(split.as_str(), 2, 0, 1))
        .collect();
    store.commit(&sink(), &steps_of("b", of_b)).unwrap();
    assert!(
        store
            .records(&sink())
            .unwrap()
            .iter()
            .all(|(_, record)| record.low == Some(1))
    );
}

fn a_fenced_owner_can_do_nothing(store: &dyn StateStore) {
    for split in ["s/0", "s/1"] {
        take(store, split, "a");
    }
    store
        .commit(&sink(), &steps(vec![step("s/0", 1, 0, 5)]))
        .unwrap();
    store.fence(&sink(), "a").unwrap();
    let before = records(store, &sink());
    let refused = |answer: Result<(), CommitError>| match answer {
        Err(CommitError::OwnerFenced(owner)) => owner == "a",
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
            .take(&sink(), &["s/0".into(), "s/2".into()], &claimant("a"))
            .map(drop)
    ));
    assert_eq!(records(store, &sink()), before);
    // A store that has lost data is the more severe reason.
    assert!(matches!(
        store.commit(&sink(), &steps(vec![step("s/0", 1, 4, 9)])),
        Err(CommitError::Sequence { .. })
    ));
    store.fence(&sink(), "a").unwrap();

    // Other owners and other sinks are not affected.
    let other = SinkId::from("other");
    store.take(&other, &["s/0".into()], &claimant("a")).unwrap();
    store
        .commit(&other, &steps(vec![step("s/0", 1, 0, 5)]))
        .unwrap();
    assert_eq!(take(store, "s/0", "b").owners, ["a"]);
    store
        .commit(&sink(), &steps_of("b", vec![step("s/0", 2, 1, 9)]))
        .unwrap();
}

fn marks_of_fenced_owners_do_not_accumulate(store: &dyn StateStore) {
    take(store, "held", "dead");
    store.fence(&sink(), "dead").unwrap();
    for number in 0..200 {
        let owner = format!("gone-{number}");
        take(store, "s/0", &owner);
        store.fence(&sink(), &owner).unwrap();
        let epoch = take(store, "s/0", "next").epoch;
        store
            .set_owner(&sink(), &[("s/0".into(), epoch)], Some("next"))
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

fn steps_in_a_group_are_independent(store: &dyn StateStore) {
    let (lake, errors) = (sink(), SinkId::from("errors"));
    take(store, "s/0", "a");
    store
        .take(&errors, &["s/0".into(), "s/1".into()], &claimant("a"))
        .unwrap();
    let good = Commit {
        staged: vec![entry("1")],
        ..steps(vec![step("s/0", 1, 0, 3)])
    };
    let old = Commit {
        staged: vec![entry("2")],
        ..steps(vec![step("s/0", 7, 0, 3)])
    };
    let other = steps(vec![step("s/1", 1, 0, 8)]);
    // The last step continues what the first one of the group has written.
    let next = steps(vec![step("s/0", 1, 1, 4)]);
    let answers = store.commit_many(&[
        (&lake, &good),
        (&errors, &old),
        (&errors, &other),
        (&lake, &next),
    ]);
    let applied: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(applied, [true, false, true, true], "{answers:?}");
    assert_eq!(
        (records(store, &lake)["s/0"].low, staged(store, &lake)),
        (Some(4), vec!["1".to_owned()])
    );
    assert_eq!(records(store, &errors)["s/1"].low, Some(8));
    assert_eq!(records(store, &errors)["s/0"].low, None);
    assert!(staged(store, &errors).is_empty());
    assert!(store.commit_many(&[]).is_empty());
}

fn lanes_that_are_ahead_keep_their_plan(store: &dyn StateStore) {
    assert_eq!(take_by_plan(store, "s/0", "one", false), None);
    assert_eq!(
        take_by_plan(store, "s/0", "two", false).as_deref(),
        Some("one"),
        "nothing is ahead: the plan may change"
    );
    let mut ahead = step("s/0", 2, 0, 5);
    ahead.ahead = vec![("x".into(), 9)];
    store.commit(&sink(), &steps(vec![ahead])).unwrap();
    for _ in 0..2 {
        assert_eq!(
            take_by_plan(store, "s/0", "three", false).as_deref(),
            Some("two")
        );
    }
    assert_eq!(
        take_by_plan(store, "s/0", "three", true).as_deref(),
        Some("two")
    );
    assert_eq!(
        take_by_plan(store, "s/0", "four", false).as_deref(),
        Some("three"),
        "plan three was accepted"
    );
    let mut behind = step("s/0", 6, 1, 9);
    behind.caught_up = vec!["x".into()];
    store.commit(&sink(), &steps(vec![behind])).unwrap();
    take_by_plan(store, "s/0", "five", false);
    assert_eq!(records(store, &sink())["s/0"].plan.as_deref(), Some("five"));
}

fn what_a_source_stores_beside_a_position_is_kept(store: &dyn StateStore) {
    take(store, "s/0", "a");
    let said = "{\"topic\":\"\u{1f600}\",\n\"epoch\":7}";
    let steps_and_kept = [
        (Some(said), said),
        (None, said),
        (Some(""), ""),
        (Some("x"), "x"),
    ];
    for (sequence, (resume, kept)) in steps_and_kept.into_iter().enumerate() {
        let step = SplitCommit {
            resume: resume.map(Into::into),
            ..step("s/0", 1, sequence as u64, 7)
        };
        store.commit(&sink(), &steps(vec![step])).unwrap();
        assert_eq!(records(store, &sink())["s/0"].resume, Some(kept.into()));
    }
    assert_eq!(take(store, "s/0", "b").resume, Some("x".into()));
}

fn finished_splits_can_be_forgotten(store: &dyn StateStore) {
    let all = ["open", "held", "ahead", "done"];
    for split in all {
        take(store, split, "a");
    }
    let finished = |split: &str| SplitCommit {
        finished: Some(1_700_000_000),
        ..step(split, 1, 0, 5)
    };
    let mut ahead = finished("ahead");
    ahead.ahead = vec![("x".into(), 9)];
    store
        .commit(
            &sink(),
            &steps(vec![
                step("open", 1, 0, 5),
                finished("held"),
                ahead,
                finished("done"),
            ]),
        )
        .unwrap();
    assert_eq!(take(store, "held", "a").finished, Some(1_700_000_000));
    let released = ["open", "ahead", "done"].map(|split| (SplitId::from(split), 1));
    store.set_owner(&sink(), &released, None).unwrap();

    let names: Vec<SplitId> = all
        .iter()
        .chain(&["unknown"])
        .map(|split| SplitId::from(*split))
        .collect();
    store.forget_splits(&sink(), &names).unwrap();
    let mut left: Vec<String> = records(store, &sink()).into_keys().collect();
    left.sort();
    assert_eq!(left, ["ahead", "held", "open"]);
    assert_eq!(
        take(store, "done", "a"),
        CommitRecord {
            epoch: 1,
            ..CommitRecord::default()
        },
        "it is a new split now"
    );
    // A step without a finish time clears it.
    store
        .commit(&sink(), &steps(vec![step("held", 2, 1, 6)]))
        .unwrap();
    assert_eq!(records(store, &sink())["held"].finished, None);
}

fn plans_and_notes_are_kept(store: &dyn StateStore) {
    assert!(store.plans().unwrap().is_empty());
    let texts = ["{:name \"a\"}", "", "an \u{1f600} and a \0"];
    for text in texts {
        let plan = StoredPlan {
            fingerprint: format!("of {text}"),
            text: text.into(),
        };
        assert_eq!(store.plan(&plan.fingerprint).unwrap(), None);
        store.add_plan(&plan).unwrap();
        store.add_plan(&plan).unwrap();
        assert_eq!(
            store.plan(&plan.fingerprint).unwrap().as_deref(),
            Some(text)
        );
    }
    store
        .add_plan(&StoredPlan {
            fingerprint: "of ".into(),
            text: "other".into(),
        })
        .unwrap();
    assert_eq!(store.plan("of ").unwrap().as_deref(), Some("other"));
    store
        .forget_plans(&[format!("of {}", texts[0]), "unknown".into()])
        .unwrap();
    store.forget_plans(&[]).unwrap();
    let mut plans = store.plans().unwrap();
    plans.sort();
    assert_eq!(plans, ["of ".to_owned(), format!("of {}", texts[2])]);
    assert_eq!(store.note("schema").unwrap(), None);
    store.set_note("schema", "{}").unwrap();
    store.set_note("identity", "mine").unwrap();
    store.set_note("schema", "{:a :int64}").unwrap();
    assert_eq!(
        store.note("schema").unwrap().as_deref(),
        Some("{:a :int64}")
    );
    assert_ne!(store.identity().unwrap(), "mine");
}

fn pipelines_are_separate(one: &dyn StateStore, other: &dyn StateStore) {
    take(one, "s/0", "a");
    one.set_note("schema", "{}").unwrap();
    assert!(other.sinks().unwrap().is_empty());
    assert_eq!(other.note("schema").unwrap(), None);
    assert_ne!(one.identity().unwrap(), other.identity().unwrap());
    assert_eq!(one.identity().unwrap(), one.identity().unwrap());
}

fn everything_survives_reopening(open: &dyn Fn(&str) -> Box<dyn StateStore>) {
    let name = "again";
    let plan = StoredPlan {
        fingerprint: "f".into(),
        text: "t".into(),
    };
    let store = open(name);
    let identity = store.identity().unwrap();
    take(&*store, "s/0", "a");
    let mut first = step("s/0", 1, 0, 10);
    first.ahead = vec![("x".into(), 15)];
    store
        .commit(
            &sink(),
            &Commit {
                staged: vec![entry("1")],
                ..steps(vec![first])
            },
        )
        .unwrap();
    store.add_plan(&plan).unwrap();
    store.set_note("n", "v").unwrap();
    let before = records(&*store, &sink());
    drop(store);

    let store = open(name);
    assert_eq!(store.identity().unwrap(), identity);
    assert_eq!(records(&*store, &sink()), before);
    assert_eq!(staged(&*store, &sink()), ["1"]);
    assert_eq!(store.plan("f").unwrap().as_deref(), Some("t"));
    assert_eq!(store.note("n").unwrap().as_deref(), Some("v"));
    store
        .commit(&sink(), &steps(vec![step("s/0", 1, 1, 20)]))
        .unwrap();
}
