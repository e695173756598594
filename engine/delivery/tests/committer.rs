//! The committer against a store in an unexpected state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pseidon_delivery::committer::{CommitterError, Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Claimant, Commit, CommitError, CommitRecord, Committer, LaneCommit, SinkId, SplitCommit,
    SplitId, StagedEntry, StateStore, StoreError, WithCauses, forward_to_store,
};

fn sink() -> SinkId {
    SinkId::from("lake")
}

fn split() -> SplitId {
    SplitId::from("s")
}

fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.into(),
        plan: "p".into(),
        accepts_other_plans: false,
    }
}

struct Setup {
    dir: tempfile::TempDir,
    store: Arc<EmbeddedStore>,
    committer: Committer,
}

/// A committer that has begun the split at 0.
fn begun(positions: Positions) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
    let committer = Committer::new(
        sink(),
        store.clone(),
        claimant("a"),
        positions,
        Arc::new(AtomicBool::new(false)),
    );
    let record = committer.take(&[split()]).unwrap().remove(0);
    committer
        .begin(vec![SplitToBegin {
            split: split(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    Setup {
        dir,
        store,
        committer,
    }
}

/// Dispatches the records from `from` to `upto` to the lane x, and returns the commit of it.
fn dispatched(committer: &Committer, from: u64, upto: u64) -> [LaneCommit; 1] {
    let mut ledger = committer.ledger();
    ledger.dispatch(&split(), &"x".into(), from, upto - 1);
    ledger.advance(&split(), upto, None);
    [LaneCommit {
        lane: "x".into(),
        splits: vec![(split(), upto)],
    }]
}

fn staged(id: &str) -> Vec<StagedEntry> {
    vec![StagedEntry {
        id: id.into(),
        detail: String::new(),
    }]
}

fn fatal<T: std::fmt::Debug>(outcome: Result<T, CommitterError>) -> String {
    match outcome {
        Err(CommitterError::Fatal(reason)) => WithCauses(&reason).to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn published_entries_are_removed_with_the_next_step() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    committer
        .commit(&dispatched(&committer, 0, 5), staged("1"))
        .unwrap();
    committer.published(["1".into()]);
    assert_eq!(store.staged(&sink()).unwrap(), staged("1"));
    committer
        .commit(&dispatched(&committer, 5, 9), staged("2"))
        .unwrap();
    assert_eq!(store.staged(&sink()).unwrap(), staged("2"));
    committer.published(["2".into()]);
    committer.commit_idle().unwrap();
    assert_eq!(store.staged(&sink()).unwrap(), []);
}

/// Another instance has written under our epoch, which is only possible if the store lost the
/// increase of the epoch.
#[test]
fn an_impossible_sequence_stops_the_run() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    let strange = SplitCommit::to_low(split(), 1, 1, 3);
    store
        .commit(
            &sink(),
            &Commit {
                splits: vec![strange],
                ..Commit::of("a".into())
            },
        )
        .unwrap();
    let reason = fatal(committer.commit(&dispatched(&committer, 0, 5), staged("1")));
    assert!(
        reason.contains("shows commit 2 of s, but 1 was acknowledged"),
        "{reason}"
    );
    assert_eq!(store.staged(&sink()).unwrap(), []);
}

#[test]
fn an_older_store_stops_the_run_even_after_a_takeover() {
    let Setup {
        dir,
        store,
        committer,
    } = begun(Positions::InStore);
    committer
        .commit(&dispatched(&committer, 0, 5), staged("1"))
        .unwrap();
    drop((store, committer));
    let copy = dir.path().join("copy");
    std::fs::copy(dir.path().join("p.redb"), &copy).unwrap();

    let store: Arc<EmbeddedStore> = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
    store.take(&sink(), &[split()], &"b".into()).unwrap();
    let later = SplitCommit::to_low(split(), 2, 2, 7);
    store
        .commit(
            &sink(),
            &Commit {
                splits: vec![later],
                ..Commit::of("b".into())
            },
        )
        .unwrap();
    drop(store);
    std::fs::rename(copy, dir.path().join("p.redb")).unwrap();
    let store = EmbeddedStore::open(dir.path(), "p").unwrap();
    store.take(&sink(), &[split()], &"c".into()).unwrap();
    store.take(&sink(), &[split()], &"d".into()).unwrap();

    // The owner b is at epoch 2 and sequence 3. The store shows 3 and 2: a takeover, and that the
    // store is behind. The latter decides.
    let next = SplitCommit::to_low(split(), 2, 3, 9);
    match store.commit(
        &sink(),
        &Commit {
            splits: vec![next],
            ..Commit::of("b".into())
        },
    ) {
        Err(CommitError::Sequence {
            expected: 3,
            found: 2,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

/// A store that can be set to apply the next step without an answer.
struct SilentStore {
    inner: EmbeddedStore,
    is_silent: AtomicBool,
}

impl StateStore for SilentStore {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        let answers = self.inner.commit_many(steps);
        if self.is_silent.swap(false, Ordering::Relaxed) {
            return steps
                .iter()
                .map(|_| Err(StoreError::Unavailable("no answer".into()).into()))
                .collect();
        }
        answers
    }

    forward_to_store!(inner);
}

/// The step was applied, so the next one would find the store one commit further than expected.
#[test]
fn no_step_follows_one_that_was_abandoned_without_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SilentStore {
        inner: EmbeddedStore::open(dir.path(), "p").unwrap(),
        is_silent: AtomicBool::new(false),
    });
    let abandoned = Arc::new(AtomicBool::new(true));
    let committer = Committer::new(
        sink(),
        store.clone(),
        claimant("a"),
        Positions::InStore,
        abandoned,
    );
    let record = committer.take(&[split()]).unwrap().remove(0);
    committer
        .begin(vec![SplitToBegin {
            split: split(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    committer.ledger().advance(&split(), 5, None);
    store.is_silent.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let outcome = committer.commit_idle();
        assert!(
            matches!(outcome, Err(CommitterError::Stopped)),
            "{outcome:?}"
        );
    }
    assert_eq!(store.records(&sink()).unwrap()[0].1.low, Some(5));
}

#[test]
fn a_lane_of_a_split_that_is_not_owned_is_fenced_without_a_request() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    let lanes = dispatched(&committer, 0, 5);
    committer.release(&[split()]).unwrap();
    assert!(matches!(
        committer.commit(&lanes, staged("1")),
        Err(CommitterError::Fenced(_))
    ));
    let (_, record) = store.records(&sink()).unwrap().remove(0);
    assert_eq!(
        (record.owners.len(), record.low, record.sequence),
        (0, Some(0), 1)
    );
}

/// If the target holds the positions, the store gets copies of those that the target has, and never
/// more.
#[test]
fn positions_in_the_target_are_copied_by_idle_commits() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InTarget);
    let mut applied = Vec::new();
    let lanes = dispatched(&committer, 0, 5);
    committer
        .commit_through(&lanes, |splits| {
            applied.extend(splits.iter().map(|step| (step.split.clone(), step.low)));
            Ok(())
        })
        .unwrap();
    assert_eq!(applied, [(split(), 5)]);
    committer.ledger().advance(&split(), 8, None);
    let copy = || {
        (
            store.records(&sink()).unwrap()[0].1.low,
            store.records(&sink()).unwrap()[0].1.sequence,
        )
    };
    assert_eq!(copy(), (Some(0), 1), "a commit goes to the target only");
    for _ in 0..2 {
        committer.commit_idle().unwrap();
        assert_eq!(copy(), (Some(5), 2), "8 is not in the target yet");
    }

    committer
        .commit_through(&[], |splits| {
            assert_eq!(splits[0].low, 8);
            Err(CommitterError::Stopped)
        })
        .unwrap_err();
    // An abandoned transaction has changed nothing, so it is prepared again.
    committer
        .commit_through(&[], |splits| {
            assert_eq!(splits[0].low, 8);
            Ok(())
        })
        .unwrap();
    committer
        .commit_through(&[], |_| panic!("nothing moved"))
        .unwrap();
    committer.release(&[split()]).unwrap();
    assert_eq!(copy(), (Some(8), 3));
}

/// A step is refused as a whole if another instance has one of its splits. What it contained of the
/// others is copied with the next one, as is the end of a split.
#[test]
fn a_copy_that_was_refused_is_made_again() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InTarget);
    let other = SplitId::from("other");
    let record = committer
        .take(std::slice::from_ref(&other))
        .unwrap()
        .remove(0);
    committer
        .begin(vec![SplitToBegin {
            split: other.clone(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    let lanes = dispatched(&committer, 0, 5);
    committer.commit_through(&lanes, |_| Ok(())).unwrap();
    committer.ledger().advance(&other, 7, None);
    committer.commit_through(&[], |_| Ok(())).unwrap();
    store
        .take(&sink(), std::slice::from_ref(&other), &"b".into())
        .unwrap();
    assert!(matches!(
        committer.commit_idle(),
        Err(CommitterError::Fenced(_))
    ));
    let copy = || {
        let records = store.records(&sink()).unwrap();
        let own = records.into_iter().find(|(known, _)| *known == split());
        own.map(|(_, record)| (record.low, record.finished.is_some()))
    };
    assert_eq!(copy(), Some((Some(0), false)));
    committer.ledger().drop_split(&other);
    committer.commit_idle().unwrap();
    assert_eq!(copy(), Some((Some(5), false)));

    committer.ledger().end(&split());
    committer.commit_through(&[], |_| Ok(())).unwrap();
    committer.release(&[split()]).unwrap();
    assert_eq!(copy(), Some((Some(5), true)));
}

#[test]
fn a_finished_split_that_is_gone_is_forgotten_after_its_retention() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    committer
        .commit(&dispatched(&committer, 0, 5), staged("1"))
        .unwrap();
    committer.ledger().end(&split());
    committer.release(&[split()]).unwrap();
    let forget = |retention, is_gone| committer.forget_finished(retention, |_| is_gone).unwrap();
    assert_eq!(
        forget(Duration::from_secs(3600), true),
        0,
        "it was finished just now"
    );
    assert_eq!(forget(Duration::ZERO, false), 0, "the source still has it");
    assert_eq!(store.records(&sink()).unwrap().len(), 1);
    assert_eq!(forget(Duration::ZERO, true), 1);
    assert!(store.records(&sink()).unwrap().is_empty());
    // It is a new split now, not one whose record was lost.
    assert_eq!(committer.take(&[split()]).unwrap()[0].epoch, 1);
}

/// The target would keep the position, and nothing would tell a new file from the old one.
#[test]
fn a_finished_split_is_not_forgotten_where_the_target_holds_positions() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InTarget);
    committer.ledger().end(&split());
    committer.commit_through(&[], |_| Ok(())).unwrap();
    committer.release(&[split()]).unwrap();
    assert!(store.records(&sink()).unwrap()[0].1.finished.is_some());
    let forgotten = committer.forget_finished(Duration::ZERO, |_| true).unwrap();
    assert_eq!((forgotten, store.records(&sink()).unwrap().len()), (0, 1));
}

#[test]
fn a_split_that_was_taken_since_is_not_held() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    let epoch = |records: Vec<CommitRecord>| records[0].epoch;
    let taken = epoch(committer.take(&[split()]).unwrap());
    committer.hold(&[(split(), taken)]).unwrap();
    store.take(&sink(), &[split()], &"b".into()).unwrap();
    match committer.hold(&[(split(), taken)]) {
        Err(CommitterError::Fenced(CommitError::Fenced(lost))) => assert_eq!(lost, [split()]),
        other => panic!("{other:?}"),
    }
    // What is released meanwhile stays with the other instance.
    let free = CommitRecord {
        epoch: taken,
        ..CommitRecord::default()
    };
    committer.release_free([(&split(), &free)]).unwrap();
    let kept = &store.records(&sink()).unwrap()[0].1;
    assert_eq!(kept.plan.as_deref(), Some("p"));
    assert_eq!(kept.owners, ["a".into(), "b".into()]);
}

#[test]
fn the_records_of_other_sinks_are_found() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    let other = SinkId::from("errors");
    store.take(&other, &[split()], &"b".into()).unwrap();
    let unknown = SplitId::from("s/unknown");
    let found = committer
        .records_in_other_sinks(&[&sink()], &[unknown, split()])
        .unwrap();
    let [(sink, records)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(*sink, other);
    let epochs: Vec<u64> = records.iter().map(|record| record.epoch).collect();
    assert_eq!(epochs, [0, 1]);
}

#[test]
fn a_plan_whose_text_was_removed_is_stored_again() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    for _ in 0..2 {
        committer.keep_plan(&|| "text".to_owned()).unwrap();
        assert_eq!(store.plan("p").unwrap().as_deref(), Some("text"));
        store.forget_plans(&["p".to_owned()]).unwrap();
    }
}

#[test]
fn only_what_was_free_or_is_settled_is_released_unbegun() {
    let Setup {
        dir: _dir,
        store,
        committer,
    } = begun(Positions::InStore);
    let owners = || store.records(&sink()).unwrap()[0].1.owners.len();
    // The instance that has begun it is dead.
    let taken = committer.take(&[split()]).unwrap().remove(0);
    let had_owner = CommitRecord {
        owners: vec!["dead".into()],
        ..taken.clone()
    };
    committer.release_free([(&split(), &had_owner)]).unwrap();
    assert_eq!(owners(), 1);
    let settled = CommitRecord {
        finished: Some(1),
        ..had_owner
    };
    committer.release_free([(&split(), &settled)]).unwrap();
    assert_eq!(owners(), 0);
    let taken = committer.take(&[split()]).unwrap().remove(0);
    assert_eq!(owners(), 1);
    committer.release_free([(&split(), &taken)]).unwrap();
    assert_eq!(owners(), 0);
}
