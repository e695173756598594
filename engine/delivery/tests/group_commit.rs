//! Group commit: the conformance suite, and that steps of many threads share calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use parking_lot::Mutex;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Commit, CommitError, GroupCommit, SinkId, SplitCommit, StateStore, conformance,
    forward_to_store,
};

#[test]
fn passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&|pipeline| {
        Box::new(GroupCommit::new(Arc::new(
            EmbeddedStore::open(dir.path(), pipeline).unwrap(),
        )))
    });
}

/// A store that counts its calls, and blocks in the first one until the test releases it.
struct CountingStore {
    store: EmbeddedStore,
    calls: AtomicUsize,
    first: Barrier,
    sizes: Mutex<Vec<usize>>,
    panics: bool,
}

impl StateStore for CountingStore {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        self.sizes.lock().push(steps.len());
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.first.wait();
            self.first.wait();
            assert!(!self.panics, "injected panic");
        }
        self.store.commit_many(steps)
    }

    forward_to_store!(store);
}

const SINKS: usize = 40;

fn sink(number: usize) -> SinkId {
    SinkId::from(format!("sink-{number}"))
}

fn counting(panics: bool) -> (tempfile::TempDir, Arc<CountingStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), "p").unwrap();
    for number in 0..SINKS {
        store
            .take(&sink(number), &["s".into()], &"a".into())
            .unwrap();
    }
    let (calls, sizes) = Default::default();
    (
        dir,
        Arc::new(CountingStore {
            store,
            calls,
            first: Barrier::new(2),
            sizes,
            panics,
        }),
    )
}

fn step(owner: &str) -> Commit {
    Commit {
        splits: vec![SplitCommit::to_low("s".into(), 1, 0, 5)],
        ..Commit::of(owner.into())
    }
}

#[test]
fn waiting_steps_share_a_call_and_each_has_its_own_answer() {
    let (_dir, counting) = counting(false);
    counting.store.fence(&sink(7), &"dead".into()).unwrap();
    let grouped = GroupCommit::new(counting.clone());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| grouped.commit(&sink(0), &step("a")));
        counting.first.wait();
        let others: Vec<_> = (1..SINKS)
            .map(|number| {
                let grouped = &grouped;
                scope.spawn(move || {
                    grouped.commit(&sink(number), &step(if number == 7 { "dead" } else { "a" }))
                })
            })
            .collect();
        while grouped.waiting() < SINKS - 1 {
            std::thread::yield_now();
        }
        counting.first.wait();
        first.join().unwrap().unwrap();
        let answers: Vec<_> = others
            .into_iter()
            .map(|other| other.join().unwrap())
            .collect();
        let refused: Vec<usize> = (1..)
            .zip(&answers)
            .filter(|(_, answer)| answer.is_err())
            .map(|(number, _)| number)
            .collect();
        assert_eq!(refused, [7], "{answers:?}");
    });
    assert_eq!(*counting.sizes.lock(), [1, SINKS - 1]);
}

#[test]
fn a_panic_in_the_store_leaves_no_thread_waiting() {
    let (_dir, counting) = counting(true);
    let grouped = GroupCommit::new(counting.clone());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| grouped.commit(&sink(0), &step("a")));
        counting.first.wait();
        let second = scope.spawn(|| grouped.commit(&sink(1), &step("a")));
        while grouped.waiting() == 0 {
            std::thread::yield_now();
        }
        counting.first.wait();
        first.join().unwrap_err();
        second.join().unwrap().unwrap();
    });
}
