//! What a store keeps beside the steps, and that nothing of it is lost or mixed.

use super::{entry, records, sink, staged, step, steps, take};
use crate::{Commit, CommitRecord, SplitCommit, SplitId, StateStore, StoredPlan};

pub(super) fn finished_splits_can_be_forgotten(store: &dyn StateStore) {
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
    store.release(&sink(), &released).unwrap();

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

pub(super) fn plans_and_notes_are_kept(store: &dyn StateStore) {
    assert!(store.plans().unwrap().is_empty());
    let texts = ["{:name \"a\"}", "", "an \u{1f600} and a \0"];
    for text in texts {
        let plan = StoredPlan {
            fingerprint: format!("of {text}"),
            text: text.into(),
        };
        assert_eq!(store.plan(&plan.fingerprint).unwrap(), None);
        assert!(!store.has_plan(&plan.fingerprint).unwrap());
        store.add_plan(&plan).unwrap();
        store.add_plan(&plan).unwrap();
        assert!(store.has_plan(&plan.fingerprint).unwrap());
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

pub(super) fn pipelines_are_separate(one: &dyn StateStore, other: &dyn StateStore) {
    take(one, "s/0", "a");
    one.set_note("schema", "{}").unwrap();
    assert!(other.sinks().unwrap().is_empty());
    assert_eq!(other.note("schema").unwrap(), None);
    assert_ne!(one.identity().unwrap(), other.identity().unwrap());
    assert_eq!(one.identity().unwrap(), one.identity().unwrap());
}

pub(super) fn everything_survives_reopening(open: &dyn Fn(&str) -> Box<dyn StateStore>) {
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
