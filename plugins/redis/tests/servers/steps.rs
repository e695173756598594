//! The sink, the split and the steps of the tests, and the kinds of errors that they expect.

use pseidon_delivery::{
    Claimant, Commit, CommitRecord, SinkId, SplitCommit, SplitId, StagedEntry, StateStore,
    StoreError, WithCauses,
};
use pseidon_redis::RedisStore;

pub(super) fn sink() -> SinkId {
    SinkId::from("lake")
}

pub(super) fn split() -> SplitId {
    SplitId::from("s/0")
}

pub(super) fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.into(),
        plan: "p".into(),
        accepts_other_plans: false,
    }
}

pub(super) fn step(epoch: u64, sequence: u64, low: u64) -> Commit {
    let step = SplitCommit {
        ahead: vec![("x".into(), low + 5)],
        ..SplitCommit::to_low(split(), epoch, sequence, low)
    };
    let staged = vec![StagedEntry {
        id: sequence.to_string().into(),
        detail: String::new(),
    }];
    Commit {
        owner: "a".into(),
        splits: vec![step],
        staged,
        published: vec![],
    }
}

pub(super) fn only_record(store: &RedisStore) -> CommitRecord {
    let mut records = store.records(&sink()).unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0).1
}

pub(super) fn failed<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Failed(reason)) => WithCauses(&reason).to_string(),
        Err(other) => panic!("expected a permanent error, got: {other}"),
        Ok(_) => panic!("expected an error"),
    }
}

pub(super) fn unavailable<T>(outcome: Result<T, StoreError>) -> String {
    match outcome {
        Err(StoreError::Unavailable(reason)) => WithCauses(&reason).to_string(),
        Err(other) => panic!("expected a transient error, got: {other}"),
        Ok(_) => panic!("expected an error"),
    }
}
