//! The ledger by hand: small tables of actions and the steps that they must produce.

use std::collections::HashMap;

use pseidon_delivery::{
    CommitRecord, LaneCommit, LaneId, Ledger, Position, ResumePoint, SplitCommit, SplitId,
};

/// One action on a ledger. `"x@7"` is the lane x, durable up to 7.
enum LedgerAction {
    /// A record of this split and position is dispatched to this lane.
    Give(&'static str, Position, &'static str),
    /// Everything below this position has been dispatched or filtered out.
    Advance(&'static str, Position),
    /// A commit of these lanes of these splits, and the expected step.
    Commit(
        &'static [(&'static str, &'static [(&'static str, Position)])],
        &'static [&'static str],
    ),
    /// A commit without lanes, and the expected step.
    Idle(&'static [&'static str]),
    /// The position below which the lane must hold everything.
    Held(&'static str, &'static str, Position),
}
use LedgerAction::{Advance, Commit, Give, Held, Idle};

/// Formats a step as `s: 3→4 low 5 +x@7 -y`: epoch 3, sequence 4, the new low position, the lanes
/// that are ahead now, and those that no longer are.
fn show(commit: &SplitCommit) -> String {
    let mut ahead: Vec<String> = commit
        .ahead
        .iter()
        .map(|(lane, upto)| format!(" +{lane}@{upto}"))
        .collect();
    let mut caught_up: Vec<String> = commit
        .caught_up
        .iter()
        .map(|lane| format!(" -{lane}"))
        .collect();
    ahead.sort();
    caught_up.sort();
    format!(
        "{}: {}→{} low {}{}{}",
        commit.split,
        commit.epoch,
        commit.sequence,
        commit.low,
        ahead.concat(),
        caught_up.concat()
    )
}

fn shown(commits: &[SplitCommit]) -> Vec<String> {
    let mut shown: Vec<String> = commits.iter().map(show).collect();
    shown.sort();
    shown
}

fn record(
    epoch: u64,
    sequence: u64,
    low: Option<Position>,
    ahead: &[(&str, Position)],
) -> CommitRecord {
    let ahead: HashMap<LaneId, Position> = ahead
        .iter()
        .map(|(lane, upto)| (LaneId::from(*lane), *upto))
        .collect();
    CommitRecord {
        epoch,
        sequence,
        low,
        ahead,
        ..CommitRecord::default()
    }
}

fn run(name: &str, taken: &[(&str, CommitRecord)], acts: &[LedgerAction]) {
    let mut ledger = Ledger::default();
    for (split, record) in taken {
        ledger.take(SplitId::from(*split), record.clone(), 0);
    }
    for (at, act) in acts.iter().enumerate() {
        match act {
            Give(split, position, lane) => {
                ledger.dispatch(&(*split).into(), &(*lane).into(), *position, *position)
            }
            Advance(split, frontier) => ledger.advance(&(*split).into(), *frontier, None),
            Held(split, lane, expected) => {
                assert_eq!(
                    ledger.already_held(&(*split).into(), &(*lane).into()),
                    *expected,
                    "{name}, act {at}"
                );
            }
            Idle(expected) => {
                let commits = ledger.prepare_idle(0);
                assert_eq!(shown(&commits), *expected, "{name}, act {at}");
                ledger.confirm(&[], &commits);
            }
            Commit(lanes, expected) => {
                let lane_commit = |(lane, splits): &(&str, &[(&str, Position)])| LaneCommit {
                    lane: LaneId::from(*lane),
                    splits: splits
                        .iter()
                        .map(|(split, upto)| (SplitId::from(*split), *upto))
                        .collect(),
                };
                let lanes: Vec<LaneCommit> = lanes.iter().map(lane_commit).collect();
                let commits = ledger.prepare(&lanes, 0);
                assert_eq!(shown(&commits), *expected, "{name}, act {at}");
                ledger.confirm(&lanes, &commits);
            }
        }
    }
}

/// A split from its beginning.
fn new_split() -> [(&'static str, CommitRecord); 1] {
    [("s", record(1, 0, Some(0), &[]))]
}

#[test]
fn one_split() {
    run(
        "a lane that holds everything moves the low position to its end",
        &new_split(),
        &[
            Give("s", 0, "x"),
            Give("s", 4, "x"),
            Advance("s", 6),
            Commit(&[("x", &[("s", 5)])], &["s: 1→0 low 6"]),
            Idle(&[]),
            Held("s", "x", 6),
        ],
    );
    run(
        "another lane holds it back, until it is durable too",
        &new_split(),
        &[
            Give("s", 0, "x"),
            Give("s", 1, "y"),
            Give("s", 2, "x"),
            Advance("s", 3),
            Commit(&[("x", &[("s", 3)])], &["s: 1→0 low 1 +x@3"]),
            Held("s", "x", 3),
            Held("s", "y", 1),
            Commit(&[("y", &[("s", 2)])], &["s: 1→1 low 3 -x"]),
            Held("s", "x", 3),
        ],
    );
    run(
        "two lanes in one step leave nothing ahead",
        &new_split(),
        &[
            Give("s", 0, "x"),
            Give("s", 1, "y"),
            Advance("s", 2),
            Commit(&[("x", &[("s", 1)]), ("y", &[("s", 2)])], &["s: 1→0 low 2"]),
        ],
    );
}

#[test]
fn one_split_whose_lanes_continue_after_a_closed_file() {
    run(
        "records that a lane got after its file was closed still wait",
        &new_split(),
        &[
            Give("s", 0, "x"),
            Give("s", 5, "x"),
            Give("s", 9, "x"),
            Advance("s", 10),
            Commit(&[("x", &[("s", 1)])], &["s: 1→0 low 1"]),
            Idle(&[]),
            Commit(&[("x", &[("s", 6)])], &["s: 1→1 low 6"]),
            Idle(&[]),
            Commit(&[("x", &[("s", 10)])], &["s: 1→2 low 10"]),
        ],
    );
    run(
        "a closed file ahead of another lane, followed by more records",
        &new_split(),
        &[
            Give("s", 0, "y"),
            Give("s", 1, "x"),
            Give("s", 2, "x"),
            Advance("s", 3),
            Commit(&[("x", &[("s", 2)])], &["s: 1→0 low 0 +x@2"]),
            Commit(&[("y", &[("s", 1)])], &["s: 1→1 low 2 -x"]),
        ],
    );
    run(
        "a lane that moves further ahead is written again",
        &new_split(),
        &[
            Give("s", 0, "y"),
            Give("s", 1, "x"),
            Advance("s", 2),
            Commit(&[("x", &[("s", 2)])], &["s: 1→0 low 0 +x@2"]),
            Give("s", 2, "x"),
            Advance("s", 3),
            Commit(&[("x", &[("s", 3)])], &["s: 1→1 low 0 +x@3"]),
            Commit(&[("y", &[("s", 1)])], &["s: 1→2 low 3 -x"]),
        ],
    );
}

#[test]
fn one_split_with_filtered_records() {
    run(
        "filtered records move the low position by themselves, up to what waits",
        &new_split(),
        &[
            Advance("s", 7),
            Idle(&["s: 1→0 low 7"]),
            Idle(&[]),
            Give("s", 8, "x"),
            Advance("s", 20),
            Idle(&["s: 1→1 low 8"]),
            Idle(&[]),
            Commit(&[("x", &[("s", 9)])], &["s: 1→2 low 20"]),
        ],
    );
    run(
        "the frontier never decreases",
        &new_split(),
        &[Advance("s", 7), Advance("s", 3), Idle(&["s: 1→0 low 7"])],
    );
}

#[test]
fn after_a_crash() {
    let crashed = || [("s", record(4, 9, Some(10), &[("x", 15), ("y", 12)]))];
    run(
        "lanes that were ahead skip what they hold",
        &crashed(),
        &[
            Held("s", "x", 15),
            Held("s", "y", 12),
            Held("s", "z", 10),
            Idle(&[]),
            // 10 belongs to z; 11 to y, which has it; 13 to y; 14 to x, which has it.
            Give("s", 10, "z"),
            Give("s", 13, "y"),
            Advance("s", 15),
            Idle(&[]),
            Commit(&[("z", &[("s", 11)])], &["s: 4→9 low 13 -y"]),
            Commit(&[("y", &[("s", 14)])], &["s: 4→10 low 15 -x"]),
            Held("s", "x", 15),
        ],
    );
    run(
        "the low position passes lanes that get no more records",
        &crashed(),
        &[
            Advance("s", 13),
            Idle(&["s: 4→9 low 13 -y"]),
            Advance("s", 30),
            Idle(&["s: 4→10 low 30 -x"]),
        ],
    );
    run(
        "a lane moves further ahead than it was",
        &crashed(),
        &[
            Give("s", 10, "z"),
            Give("s", 16, "x"),
            Advance("s", 17),
            Commit(&[("x", &[("s", 17)])], &["s: 4→9 low 10 +x@17"]),
            Commit(&[("z", &[("s", 11)])], &["s: 4→10 low 17 -x -y"]),
        ],
    );
}

#[test]
fn several_splits() {
    let both = || {
        [
            ("s", record(1, 0, Some(0), &[])),
            ("t", record(2, 5, Some(100), &[])),
        ]
    };
    run(
        "a lane's commit contains all its splits and no other",
        &both(),
        &[
            Give("s", 0, "x"),
            Give("t", 100, "x"),
            Give("t", 101, "y"),
            Advance("s", 1),
            Advance("t", 102),
            Commit(
                &[("x", &[("s", 1), ("t", 101)])],
                &["s: 1→0 low 1", "t: 2→5 low 101"],
            ),
            Commit(&[("y", &[("t", 102)])], &["t: 2→6 low 102"]),
        ],
    );
    run(
        "splits that are not owned are left out",
        &both(),
        &[
            Give("u", 0, "x"),
            Advance("u", 9),
            Held("u", "x", 0),
            Commit(&[("x", &[("u", 1)])], &[]),
            Idle(&[]),
        ],
    );
    run(
        "an idle step contains the splits that moved",
        &both(),
        &[Advance("t", 300), Idle(&["t: 2→5 low 300"])],
    );
}

#[test]
fn a_dropped_split_is_not_owned() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(7, 0, None, &[]), 3);
    assert_eq!(ledger.lows(), [("s".into(), 3)]);
    assert_eq!(ledger.drop_split(&"s".into()), Some((7, false)));
    assert_eq!(ledger.drop_split(&"s".into()), None);
    assert!(!ledger.has(&"s".into()));
}

/// Commits what the lane `x` holds up to this position; returns the step's resume value.
fn resume_from(position: u64, at: u64) -> ResumePoint {
    ResumePoint {
        position,
        resume: format!("at {at}").into(),
    }
}

fn commit_x(ledger: &mut Ledger, upto: Position) -> Option<String> {
    let lanes = [LaneCommit {
        lane: "x".into(),
        splits: vec![("s".into(), upto)],
    }];
    let steps = ledger.prepare(&lanes, 0);
    ledger.confirm(&lanes, &steps);
    steps[0]
        .resume
        .as_ref()
        .map(|resume| resume.as_str().to_owned())
}

#[test]
fn a_resume_value_belongs_to_the_greatest_position_up_to_the_low_one() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(1, 1, Some(0), &[]), 0);
    for at in [10, 20, 30, 40] {
        ledger.dispatch(&"s".into(), &"x".into(), at - 10, at - 1);
        ledger.advance(&"s".into(), at, Some(&resume_from(at, at)));
    }
    assert_eq!(
        commit_x(&mut ledger, 5),
        None,
        "the source provided nothing for a position up to 5"
    );
    assert_eq!(commit_x(&mut ledger, 25).as_deref(), Some("at 20"));
    assert_eq!(commit_x(&mut ledger, 26), None, "the store has it");
    assert_eq!(commit_x(&mut ledger, 40).as_deref(), Some("at 40"));
    ledger.advance(&"s".into(), 50, Some(&resume_from(50, 40)));
    let idle = ledger.prepare_idle(0);
    assert_eq!(
        (idle[0].low, idle[0].resume.clone()),
        (50, None),
        "it has not changed"
    );
}

/// A batch may be committed up to a position inside it, and a part of it may become durable before
/// the rest.
#[test]
fn a_resume_value_may_belong_to_positions_inside_a_batch() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(1, 1, Some(0), &[]), 0);
    ledger.dispatch(&"s".into(), &"x".into(), 0, 9);
    ledger.advance(&"s".into(), 10, Some(&resume_from(1, 1)));
    assert_eq!(commit_x(&mut ledger, 4).as_deref(), Some("at 1"));
    ledger.advance(&"s".into(), 12, Some(&resume_from(13, 13)));
    assert_eq!(
        commit_x(&mut ledger, 12),
        None,
        "it belongs to no position up to 12"
    );
    ledger.dispatch(&"s".into(), &"x".into(), 12, 15);
    ledger.advance(&"s".into(), 16, Some(&resume_from(13, 13)));
    assert_eq!(commit_x(&mut ledger, 14).as_deref(), Some("at 13"));
}

#[test]
fn resume_values_of_a_long_waiting_split_are_thinned_out() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(1, 1, Some(0), &[]), 0);
    for at in 1..=100_000 {
        ledger.dispatch(&"s".into(), &"x".into(), at - 1, at - 1);
        ledger.advance(&"s".into(), at, Some(&resume_from(at, at)));
    }
    let mut last = 0;
    for upto in (1..=100_000).step_by(777) {
        if let Some(resume) = commit_x(&mut ledger, upto) {
            let at: u64 = resume.trim_start_matches("at ").parse().unwrap();
            assert!(at <= upto && at > last, "{at} for {upto}");
            last = at;
        }
    }
    assert!(last > 99_000, "{last}");
    assert_eq!(
        commit_x(&mut ledger, 100_000).as_deref(),
        Some("at 100000"),
        "the newest one is never dropped"
    );
}

#[test]
fn a_split_is_finished_when_its_last_record_is_durable() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(1, 1, Some(0), &[]), 0);
    ledger.dispatch(&"s".into(), &"x".into(), 0, 9);
    ledger.advance(&"s".into(), 10, None);
    ledger.end(&"s".into());
    assert!(ledger.prepare_idle(7).is_empty(), "its records still wait");
    let lanes = [LaneCommit {
        lane: "x".into(),
        splits: vec![("s".into(), 10)],
    }];
    let steps = ledger.prepare(&lanes, 7);
    assert_eq!((steps[0].low, steps[0].finished), (10, Some(7)));
    ledger.confirm(&lanes, &steps);
    assert!(
        ledger.prepare_idle(8).is_empty(),
        "the split is finished once"
    );
    assert_eq!(ledger.drop_split(&"s".into()), Some((1, true)));

    // The same holds for a split without a record, whose position does not move.
    ledger.take("empty".into(), record(1, 1, Some(5), &[]), 0);
    assert!(ledger.prepare_idle(9).is_empty());
    ledger.end(&"empty".into());
    let steps = ledger.prepare_idle(9);
    assert_eq!((steps[0].low, steps[0].finished), (5, Some(9)));
}

#[test]
fn the_highest_position_is_that_of_the_frontier_or_of_a_lane() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.highest(&"s".into()), None);
    ledger.take("s".into(), record(1, 1, Some(5), &[("x", 9), ("y", 7)]), 0);
    assert_eq!(ledger.highest(&"s".into()), Some(9));
    // A split that ends there has no lane ahead.
    ledger.advance(&"s".into(), 9, None);
    ledger.end(&"s".into());
    let steps = ledger.prepare_idle(7);
    assert_eq!(shown(&steps), ["s: 1→1 low 9 -x -y"]);
    assert_eq!(steps[0].finished, Some(7));
    ledger.confirm(&[], &steps);
    ledger.advance(&"s".into(), 12, None);
    assert_eq!(ledger.highest(&"s".into()), Some(12));
}

#[test]
fn take_moved_returns_only_splits_that_moved() {
    let mut ledger = Ledger::default();
    for split in ["s", "t"] {
        ledger.take(split.into(), record(1, 1, Some(0), &[]), 0);
    }
    assert_eq!(ledger.take_moved(), ["s".into(), "t".into()].into());
    ledger.advance(&"t".into(), 5, None);
    let idle = ledger.prepare_idle(0);
    assert!(
        ledger.take_moved().is_empty(),
        "the store has not answered yet"
    );
    ledger.confirm(&[], &idle);
    assert_eq!(ledger.take_moved(), ["t".into()].into());
    assert_eq!(
        (ledger.low(&"t".into()), ledger.low(&"u".into())),
        (Some(5), None)
    );
}
