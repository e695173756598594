//! Records that a lane cannot write.

use super::*;

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
                assert!(failures < 6, "{noticed:?} {spoiled}");
            };
            let split = SplitId::from(SPLITS[usize::from(spoiled > 100)]);
            let expected = Finding::Culprit(split.clone(), spoiled);
            assert_eq!(culprit, Some(expected), "{noticed:?} {spoiled}");
            assert!(failures > 0, "{noticed:?} {spoiled}");
            let reason = suspects.culprit(&"a".into(), &split, spoiled);
            assert_eq!(reason.as_deref(), Some("as the test demands"));
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
