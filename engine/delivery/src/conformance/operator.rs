//! The conformance suite of [`OperatorStore`].

use super::{claimant, entry, records, sink, staged, step, steps, take};
use crate::store::SplitVersion;
use crate::{
    Commit, CommitError, CommitRecord, OperatorError, OperatorStore, SinkId, SplitId, SplitMove,
    StateStore, StoredPlan,
};

/// Runs the suite; see [`check`](super::check).
pub fn check_operator(open: &dyn Fn(&str) -> Box<dyn OperatorStore>) {
    splits_are_moved_together(&*open("moved"));
    unfinished_work_is_not_moved(&*open("unmoved"));
    a_state_is_cleared(&*open("cleared"));
    committed_files_are_not_cleared(&*open("uncleared"));
}

fn other() -> SinkId {
    SinkId::from("a:b")
}

fn version(record: &CommitRecord) -> SplitVersion {
    SplitVersion {
        epoch: record.epoch,
        sequence: record.sequence,
    }
}

/// A split that was read up to 10 and released.
fn released(store: &dyn StateStore, split: &str) {
    let epoch = take(store, split, "a").epoch;
    store
        .hold(&sink(), &[(split.into(), epoch)], &claimant("a"))
        .unwrap();
    let mut begun = step(split, epoch, 0, 10);
    begun.resume = Some("before".into());
    begun.finished = Some(7);
    store.commit(&sink(), &steps(vec![begun])).unwrap();
    store.release(&sink(), &[(split.into(), epoch)]).unwrap();
}

fn to(store: &dyn StateStore, sink: &SinkId, split: &str, position: u64) -> SplitMove {
    let seen = records(store, sink).get(split).map(version);
    SplitMove {
        sink: sink.clone(),
        split: split.into(),
        seen: seen.unwrap_or_default(),
        to: position,
        resume: None,
        finished: None,
    }
}

fn splits_are_moved_together(store: &dyn OperatorStore) {
    released(store, "s/0");
    let stale = records(store, &sink())["s/0"].clone();
    let moves = [
        to(store, &sink(), "s/0", u64::MAX),
        SplitMove {
            resume: Some("after".into()),
            finished: Some(9),
            ..to(store, &sink(), "s/1", 5)
        },
        to(store, &other(), "s/0", 0),
    ];
    store.move_splits(&moves).unwrap();
    let moved = records(store, &sink());
    let expected = CommitRecord {
        epoch: stale.epoch + 1,
        sequence: stale.sequence + 1,
        low: Some(u64::MAX),
        resume: None,
        finished: None,
        plan: None,
        ..stale.clone()
    };
    assert_eq!(stale.plan.as_deref(), Some("p"));
    assert_eq!(moved["s/0"], expected);
    let new = CommitRecord {
        epoch: 1,
        sequence: 1,
        low: Some(5),
        resume: Some("after".into()),
        finished: Some(9),
        ..CommitRecord::default()
    };
    assert_eq!(moved["s/1"], new);
    assert_eq!(records(store, &other())["s/0"].low, Some(0));
    // An instance that had it before cannot commit any more.
    let late = steps(vec![step("s/0", stale.epoch, stale.sequence, 11)]);
    let refused = store.commit(&sink(), &late);
    assert!(
        matches!(refused, Err(CommitError::Fenced(_))),
        "{refused:?}"
    );
    // One of them has changed since it was seen, so none is moved.
    let again = [to(store, &sink(), "s/1", 1), moves[0].clone()];
    let refused = store.move_splits(&again);
    assert!(
        matches!(refused, Err(OperatorError::Changed)),
        "{refused:?}"
    );
    assert_eq!(records(store, &sink()), moved);
    // The next instance continues where the split was moved to.
    assert_eq!(take(store, "s/1", "b").low, Some(5));
}

fn unfinished_work_is_not_moved(store: &dyn OperatorStore) {
    released(store, "s/0");
    released(store, "s/1");
    let epoch = take(store, "s/1", "a").epoch;
    let mut ahead = step("s/1", epoch, 1, 10);
    ahead.ahead = vec![("x".into(), 15)];
    store.commit(&sink(), &steps(vec![ahead])).unwrap();
    store.release(&sink(), &[("s/1".into(), epoch)]).unwrap();
    let both = || [to(store, &sink(), "s/0", 1), to(store, &sink(), "s/1", 1)];
    let before = records(store, &sink());
    let refused = store.move_splits(&both());
    let is_ahead = |split: &SplitId| split.as_str() == "s/1";
    assert!(
        matches!(&refused, Err(OperatorError::Ahead(split)) if is_ahead(split)),
        "{refused:?}"
    );
    let staging = Commit {
        staged: vec![entry("1")],
        ..steps(Vec::new())
    };
    store.commit(&sink(), &staging).unwrap();
    let refused = store.move_splits(&[to(store, &sink(), "s/0", 1)]);
    assert!(
        matches!(&refused, Err(OperatorError::Staged(of)) if *of == sink()),
        "{refused:?}"
    );
    assert_eq!(records(store, &sink()), before);
}

fn a_state_is_cleared(store: &dyn OperatorStore) {
    store.clear().unwrap();
    released(store, "s/0");
    released(store, "s/1");
    let plan = StoredPlan {
        fingerprint: "f".into(),
        text: "t".into(),
    };
    store.add_plan(&plan).unwrap();
    store.set_note("n", "v").unwrap();
    let identity = store.identity().unwrap();
    let stale = records(store, &sink())["s/0"].clone();
    store.clear().unwrap();
    for (split, record) in records(store, &sink()) {
        let nothing = CommitRecord {
            epoch: record.epoch,
            sequence: record.sequence,
            ..CommitRecord::default()
        };
        assert_eq!(record, nothing, "{split}");
    }
    assert_eq!(store.plan("f").unwrap(), None);
    assert_eq!(store.note("n").unwrap(), None);
    assert_eq!(store.identity().unwrap(), identity);
    let late = steps(vec![step("s/0", stale.epoch, stale.sequence, 11)]);
    assert!(store.commit(&sink(), &late).is_err());
    // It is a split that was never begun.
    let taken = take(store, "s/0", "b");
    assert_eq!(
        (taken.low, taken.resume, taken.finished),
        (None, None, None)
    );
    let first = step("s/0", taken.epoch, taken.sequence, 3);
    let first = Commit {
        owner: "b".into(),
        ..steps(vec![first])
    };
    store.commit(&sink(), &first).unwrap();
}

fn committed_files_are_not_cleared(store: &dyn OperatorStore) {
    released(store, "s/0");
    let staging = Commit {
        staged: vec![entry("1")],
        ..steps(Vec::new())
    };
    store.commit(&sink(), &staging).unwrap();
    let before = records(store, &sink());
    let refused = store.clear();
    assert!(
        matches!(refused, Err(OperatorError::Staged(_))),
        "{refused:?}"
    );
    assert_eq!(records(store, &sink()), before);
    assert_eq!(staged(store, &sink()), ["1"]);
}
