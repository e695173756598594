//! Large numbers, odd names, and steps with thousands of parts.

use super::{entry, records, sink, staged, step, steps, steps_of, take};
use crate::{Commit, CommitError, LaneId, SinkId, SplitId, StateStore};

pub(super) fn the_largest_numbers_survive(store: &dyn StateStore) {
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

pub(super) fn names_do_not_collide(store: &dyn StateStore) {
    let odd = [
        "", ":", "a", "a:b", "a:b:c", "b:c", "{a}", "}", "%3A", "a\0b", "ünï", "a b\n", "\"'\\",
        "a/b", "..", "v", "epoch", "1",
    ];
    for (at, sink) in odd.iter().enumerate() {
        for (number, split) in odd.iter().enumerate() {
            let sink = SinkId::from(*sink);
            let record = store
                .take(&sink, &[(*split).into()], &"a".into())
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

pub(super) fn thousands_of_lanes_fit_into_one_step(store: &dyn StateStore) {
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
    let published = (0..LANES / 4)
        .map(|number| number.to_string().into())
        .collect();
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

pub(super) fn thousands_of_splits_may_be_refused(store: &dyn StateStore) {
    let splits: Vec<SplitId> = (0..12_000)
        .map(|number| SplitId::from(format!("s/{number}")))
        .collect();
    store.take(&sink(), &splits, &"a".into()).unwrap();
    store.take(&sink(), &splits, &"b".into()).unwrap();
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
