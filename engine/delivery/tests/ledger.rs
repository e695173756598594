//! The ledger by hand: small tables of what is done and what the store would be told.

use std::collections::HashMap;

use pseidon_delivery::{CommitRecord, LaneCommit, LaneId, Ledger, Position, SplitCommit, SplitId};

/// One thing that happens to a ledger. `"x@7"` is the lane x, durable up to 7.
enum Act {
    /// A record of this split and position goes to this lane.
    Give(&'static str, Position, &'static str),
    /// All below it has been handed out or filtered out.
    Advance(&'static str, Position),
    /// A commit of these lanes of these splits, and what it must say.
    Commit(&'static [(&'static str, &'static [(&'static str, Position)])], &'static [&'static str]),
    /// A commit of no lane, and what it must say.
    Idle(&'static [&'static str]),
    /// Below which position the lane holds everything.
    Held(&'static str, &'static str, Position),
}
use Act::{Advance, Commit, Give, Held, Idle};

/// `s: 3→4 low 5 +x@7 -y`: epoch 3, sequence 4, the new low position, what is ahead now, and what no longer is.
fn show(commit: &SplitCommit) -> String {
    let mut ahead: Vec<String> = commit.ahead.iter().map(|(lane, upto)| format!(" +{lane}@{upto}")).collect();
    let mut caught_up: Vec<String> = commit.caught_up.iter().map(|lane| format!(" -{lane}")).collect();
    ahead.sort();
    caught_up.sort();
    format!("{}: {}→{} low {}{}{}", commit.split, commit.epoch, commit.sequence, commit.low, ahead.concat(), caught_up.concat())
}

fn shown(commits: &[SplitCommit]) -> Vec<String> {
    let mut shown: Vec<String> = commits.iter().map(show).collect();
    shown.sort();
    shown
}

fn record(epoch: u64, sequence: u64, low: Option<Position>, ahead: &[(&str, Position)]) -> CommitRecord {
    let ahead: HashMap<LaneId, Position> = ahead.iter().map(|(lane, upto)| (LaneId::from(*lane), *upto)).collect();
    CommitRecord { epoch, sequence, low, ahead, owners: Vec::new() }
}

fn run(name: &str, taken: &[(&str, CommitRecord)], acts: &[Act]) {
    let mut ledger = Ledger::default();
    for (split, record) in taken {
        ledger.take(SplitId::from(*split), record.clone(), 0);
    }
    for (at, act) in acts.iter().enumerate() {
        match act {
            Give(split, position, lane) => ledger.dispatch(&(*split).into(), &(*lane).into(), *position, *position),
            Advance(split, frontier) => ledger.advance(&(*split).into(), *frontier),
            Held(split, lane, expected) => {
                assert_eq!(ledger.already_held(&(*split).into(), &(*lane).into()), *expected, "{name}, act {at}");
            }
            Idle(expected) => {
                let commits = ledger.prepare_idle();
                assert_eq!(shown(&commits), *expected, "{name}, act {at}");
                ledger.confirm(&[], &commits);
            }
            Commit(lanes, expected) => {
                let lane_commit = |(lane, splits): &(&str, &[(&str, Position)])| LaneCommit {
                    lane: LaneId::from(*lane),
                    splits: splits.iter().map(|(split, upto)| (SplitId::from(*split), *upto)).collect(),
                };
                let lanes: Vec<LaneCommit> = lanes.iter().map(lane_commit).collect();
                let commits = ledger.prepare(&lanes);
                assert_eq!(shown(&commits), *expected, "{name}, act {at}");
                ledger.confirm(&lanes, &commits);
            }
        }
    }
}

#[test]
fn one_split() {
    let new = || [("s", record(1, 0, Some(0), &[]))];
    run(
        "a lane that holds everything moves the low position to its end",
        &new(),
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
        &new(),
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
        &new(),
        &[Give("s", 0, "x"), Give("s", 1, "y"), Advance("s", 2), Commit(&[("x", &[("s", 1)]), ("y", &[("s", 2)])], &["s: 1→0 low 2"])],
    );
    run(
        "what a lane got after its file was closed still waits",
        &new(),
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
        "a closed file ahead of another lane, with more behind it",
        &new(),
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
        "a lane that goes further ahead is written again",
        &new(),
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
    run(
        "filtered records move the low position by themselves, up to what waits",
        &new(),
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
    run("the frontier does not go back", &new(), &[Advance("s", 7), Advance("s", 3), Idle(&["s: 1→0 low 7"])]);
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
        "low passes lanes that had nothing more to get",
        &crashed(),
        &[Advance("s", 13), Idle(&["s: 4→9 low 13 -y"]), Advance("s", 30), Idle(&["s: 4→10 low 30 -x"])],
    );
    run(
        "a lane goes further than it was",
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
    let both = || [("s", record(1, 0, Some(0), &[])), ("t", record(2, 5, Some(100), &[]))];
    run(
        "a lane's commit is about all its splits and no other",
        &both(),
        &[
            Give("s", 0, "x"),
            Give("t", 100, "x"),
            Give("t", 101, "y"),
            Advance("s", 1),
            Advance("t", 102),
            Commit(&[("x", &[("s", 1), ("t", 101)])], &["s: 1→0 low 1", "t: 2→5 low 101"]),
            Commit(&[("y", &[("t", 102)])], &["t: 2→6 low 102"]),
        ],
    );
    run(
        "what is not ours is left out",
        &both(),
        &[Give("u", 0, "x"), Advance("u", 9), Held("u", "x", 0), Commit(&[("x", &[("u", 1)])], &[]), Idle(&[])],
    );
    run("an idle step is about those that moved", &both(), &[Advance("t", 300), Idle(&["t: 2→5 low 300"])]);
}

#[test]
fn a_split_that_was_dropped_is_gone() {
    let mut ledger = Ledger::default();
    ledger.take("s".into(), record(7, 0, None, &[]), 3);
    assert_eq!(ledger.lows(), [("s".into(), 3)]);
    assert_eq!(ledger.drop_split(&"s".into()), Some(7));
    assert_eq!(ledger.drop_split(&"s".into()), None);
    assert_eq!(ledger.splits().count(), 0);
}
