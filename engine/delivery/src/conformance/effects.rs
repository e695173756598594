//! What a step changes.

use std::sync::Barrier;

use super::{entry, records, sink, staged, step, steps, take};
use crate::{Commit, CommitRecord, LaneId, SinkId, SplitCommit, StateStore};

pub(super) fn a_step_changes_what_it_names(store: &dyn StateStore) {
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

pub(super) fn staged_entries_stay_until_they_are_published(store: &dyn StateStore) {
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

pub(super) fn only_one_of_two_steps_wins(store: &dyn StateStore) {
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

pub(super) fn steps_in_a_group_are_independent(store: &dyn StateStore) {
    let (lake, errors) = (sink(), SinkId::from("errors"));
    take(store, "s/0", "a");
    store
        .take(&errors, &["s/0".into(), "s/1".into()], &"a".into())
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

pub(super) fn what_a_source_stores_beside_a_position_is_kept(store: &dyn StateStore) {
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
