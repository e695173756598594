//! Records that a lane cannot write.

use pseidon_plugin::rows::BadRow;

use super::*;
use crate::culprits::{not_passed, without_culprits};

/// An attempt: three batches of split 0, and one of split 1, for one lane. Returns what is visible,
/// and what has been found if the lane has failed.
fn attempt(
    suspects: &Arc<Suspects>,
    noticed: FailurePoint,
    spoiled: &[Position],
    left_out: &[Position],
) -> (Vec<String>, Option<Finding>) {
    let mut bench = Bench::searching(None, suspects.clone());
    bench.target.lock().noticed = noticed;
    bench.target.lock().spoiled = spoiled.to_vec();
    let batches: [(usize, &[Position], Position); 4] = [
        (0, &[0, 1, 2, 3], 4),
        (1, &[100, 101], 102),
        (0, &[4, 5, 6, 7], 8),
        (0, &[8, 9], 10),
    ];
    for (split, positions, next) in batches {
        let kept = positions.iter().filter(|at| !left_out.contains(at));
        let kept: Vec<Position> = kept.copied().collect();
        if let Err(error) = bench.try_write(split, "a", &kept, next) {
            return (bench.visible(), Some(bench.lanes.search(&error)));
        }
    }
    if let Err(error) = bench.lanes.flush(None, || {}) {
        return (bench.visible(), Some(bench.lanes.search(&error)));
    }
    (bench.visible(), None)
}

#[test]
fn a_record_that_cannot_be_written_is_found() {
    for noticed in [
        FailurePoint::WhenWritten,
        FailurePoint::WhenShed,
        FailurePoint::WhenSealed,
        FailurePoint::ByEncoder,
    ] {
        for spoiled in [0, 3, 6, 9, 101] {
            let suspects = Arc::default();
            let mut failures = 0;
            let culprit = loop {
                match attempt(&suspects, noticed, &[spoiled], &[]).1 {
                    Some(Finding::Parts) => failures += 1,
                    found => break found,
                }
                assert!(failures < 7, "{noticed:?} {spoiled}");
            };
            let split = SplitId::from(SPLITS[usize::from(spoiled > 100)]);
            let expected = Finding::Culprit(split.clone(), spoiled);
            assert_eq!(culprit, Some(expected), "{noticed:?} {spoiled}");
            assert!(failures > 0, "{noticed:?} {spoiled}");
            let culprits = suspects.culprits(&"a".into(), &split);
            assert_eq!(culprits, [(spoiled, "as the test demands".to_owned())]);
            let (visible, end) = attempt(&suspects, noticed, &[spoiled], &[spoiled]);
            assert_eq!((visible.len(), end), (1, None), "one file again");
        }
    }
}

#[test]
fn what_failed_together_is_written_in_parts() {
    let suspects = Arc::default();
    let (visible, found) = attempt(&suspects, FailurePoint::WhenWritten, &[6], &[]);
    assert_eq!((visible, found), (Vec::new(), Some(Finding::Parts)));
    // Nothing fails any more: the parts are what was in the lane of each split, and what was offered.
    let (visible, found) = attempt(&suspects, FailurePoint::WhenWritten, &[], &[]);
    let parts = [
        "a [0, 1, 2, 3]",
        "a [100, 101]",
        "a [4, 5, 6, 7]",
        "a [8, 9]",
    ];
    assert_eq!((visible, found), (parts.map(str::to_owned).to_vec(), None));
}

/// The error policy has the record already.
#[test]
fn a_record_that_was_found_and_fails_again_ends_the_search() {
    let suspects = Arc::default();
    let mut culprits = 0;
    let last = loop {
        match attempt(&suspects, FailurePoint::WhenWritten, &[6], &[]).1 {
            Some(Finding::Parts) => {}
            Some(Finding::Culprit(..)) => culprits += 1,
            found => break found,
        }
        assert!(culprits < 2);
    };
    assert_eq!((culprits, last), (1, Some(Finding::Nothing)));
}

/// Another sink is behind, so its restart reads them again. They are with the error policy already.
#[test]
fn a_culprit_that_the_sink_has_passed_is_not_refused_again() {
    let mut bench = Bench::new(None);
    let suspects = Suspects::default();
    for at in [1, 3, 5, 7] {
        let failed = FailedLane {
            lane: "a".into(),
            accepted: Vec::new(),
            offered: PositionRange::of(&rows(0, &[at], at + 1)),
        };
        suspects.note(&failed, "why", &[]);
        let found = suspects.note(&failed, "why", &[]);
        assert_eq!(found, Finding::Culprit(SPLITS[0].into(), at));
    }
    // The lane is ahead of the low position.
    bench.target.lock().full.push("b".into());
    bench.write(0, "b", &[2], 3);
    bench.write(0, "a", &[4, 5], 6);
    bench.flush(None);
    let ledger = bench.committer.ledger();
    let held = ledger.already_held(&SPLITS[0].into(), &"a".into());
    assert_eq!((ledger.low(&SPLITS[0].into()), held), (Some(2), 6));
    drop(ledger);

    let all = rows(0, &[1, 3, 5, 6, 7], 8);
    let bad = |row| BadRow {
        row,
        reason: "as the target says".to_owned(),
    };
    let of = |lane: &str| RoutedRows {
        chunks: vec![Chunk::new(lane.into(), all.clone())],
        bad: Vec::new(),
        refused: Vec::new(),
    };
    let routed = without_culprits(of("a"), &all, &suspects, &bench.committer);
    let refused: Vec<u32> = routed.refused.iter().map(|bad| bad.row).collect();
    assert_eq!(refused, [4], "only that at position 7");
    assert_eq!(routed.chunks[0].rows.len(), 4, "the lane drops what it has");
    let routed = without_culprits(of("b"), &all, &suspects, &bench.committer);
    assert_eq!((routed.refused.len(), routed.chunks[0].rows.len()), (0, 5));

    let left = not_passed(vec![bad(0), bad(1)], &all, &bench.committer);
    let left: Vec<u32> = left.iter().map(|bad| bad.row).collect();
    assert_eq!(left, [1], "the sink has passed position 1");
}
