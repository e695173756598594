//! Snapshots of a state file that another thread writes.

use std::fs;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Commit, SinkId, SplitCommit, StateStore, StoreError, WithCauses};

/// Sets a flag when it is dropped, also by a panic.
struct SetAtEnd<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The state is copied while another thread commits to two splits in one step, which the copy must
/// not tear apart.
#[test]
fn a_snapshot_holds_whole_commits() {
    let dir = tempfile::tempdir().unwrap();
    assert!(EmbeddedStore::snapshot(dir.path(), "p").unwrap().is_none());
    let store = EmbeddedStore::open(dir.path(), "p").unwrap();
    let sink = SinkId::from("lake");
    let splits = ["s/0".into(), "s/1".into()];
    store.take(&sink, &splits, &"a".into()).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    let commit = || {
        for sequence in 0.. {
            if is_over.load(order) {
                return sequence;
            }
            let both = splits
                .clone()
                .map(|split| SplitCommit::to_low(split, 1, sequence, sequence));
            let step = Commit {
                splits: both.to_vec(),
                ..Commit::of("a".into())
            };
            store.commit(&sink, &step).unwrap();
        }
        0
    };
    let commits = std::thread::scope(|scope| {
        let committing = scope.spawn(commit);
        let over = SetAtEnd(&is_over);
        let mut last = 0;
        for _ in 0..100 {
            let snapshot = EmbeddedStore::snapshot(dir.path(), "p").unwrap().unwrap();
            assert!(snapshot.is_in_use);
            let records = snapshot.store.records(&sink).unwrap();
            let lows: Vec<u64> = records
                .iter()
                .filter_map(|(_, record)| record.low)
                .collect();
            assert!(lows.windows(2).all(|pair| pair[0] == pair[1]), "{lows:?}");
            let low = lows.first().copied().unwrap_or(0);
            assert!(low >= last, "{low} after {last}");
            last = low;
        }
        drop(over);
        committing.join().unwrap()
    });
    assert!(commits > 10, "it committed meanwhile");
    drop(store);
    let snapshot = EmbeddedStore::snapshot(dir.path(), "p").unwrap().unwrap();
    assert!(!snapshot.is_in_use);
    // What is written to the copy is not kept.
    snapshot.store.set_note("n", "v").unwrap();
    let store = EmbeddedStore::open(dir.path(), "p").unwrap();
    assert_eq!(store.note("n").unwrap(), None);
    assert_eq!(store.records(&sink).unwrap()[0].1.sequence, commits);
}

#[test]
fn a_snapshot_of_a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), "p").unwrap();
    store.set_note("n", "v").unwrap();
    drop(store);
    let path = dir.path().join("p.redb");
    for bytes in [0, 1000] {
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let outcome = EmbeddedStore::snapshot(dir.path(), "p").map(|_| ());
        assert!(
            matches!(&outcome, Err(StoreError::Failed(reason))
                if WithCauses(reason).to_string().contains("Restore the file from a copy")),
            "{outcome:?}"
        );
    }
}

/// To look whether a run has the file open takes a lock for a moment. A run that starts at that
/// moment waits for it.
#[test]
fn a_file_is_opened_while_others_look_at_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(dir.path(), "p").unwrap());
    let looks = || {
        for _ in 0..300 {
            EmbeddedStore::snapshot(dir.path(), "p").unwrap().unwrap();
        }
    };
    std::thread::scope(|scope| {
        let looking: Vec<_> = (0..2).map(|_| scope.spawn(looks)).collect();
        while looking.iter().any(|looking| !looking.is_finished()) {
            let store = EmbeddedStore::open(dir.path(), "p").unwrap();
            let Err(StoreError::Failed(reason)) = EmbeddedStore::open(dir.path(), "p") else {
                panic!("it is opened twice")
            };
            assert!(reason.to_string().contains("is in use"), "{reason}");
            drop(store);
        }
    });
}
