//! Takeovers: of sinks that contradict their protocol, and of what another plan has left.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pseidon_delivery::committer::SplitToBegin;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, InstanceId, LaneId, StagedEntry, StateStore};
use pseidon_plugin::lane::{Lane, LaneRules};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::{RoutedRows, TakeoverResult, TargetPosition};

use super::*;

/// A sink that writes nothing.
#[derive(Default)]
struct TestSink {
    /// What its target holds, if it holds positions.
    target: Option<TargetPositions>,
    /// Called when splits are taken over.
    meanwhile: Option<Box<dyn Fn() + Send + Sync>>,
}

impl TestSink {
    fn with_target(positions: &[(&str, Position)]) -> TestSink {
        let held = |(split, low): &(&str, Position)| {
            let position = TargetPosition {
                low: *low,
                ..TargetPosition::default()
            };
            (SplitId::from(*split), position)
        };
        TestSink {
            target: Some(TargetPositions {
                location: "the test's target".to_owned(),
                by_split: positions.iter().map(held).collect(),
            }),
            ..TestSink::default()
        }
    }
}

impl Sink for TestSink {
    fn rules(&self) -> LaneRules {
        LaneRules {
            single_writer: true,
            rollover: Rollover::every(Duration::ZERO),
            check_every: Duration::from_secs(1),
            most_open: usize::MAX,
        }
    }

    fn take_over(&self, _: &[TakenSplit], _: &[StagedEntry]) -> Result<TakeoverResult, SinkError> {
        self.meanwhile.iter().for_each(|meanwhile| meanwhile());
        Ok(TakeoverResult {
            published: Vec::new(),
            held: self.target.clone(),
        })
    }

    fn route(&self, _: Rows) -> RoutedRows {
        RoutedRows::default()
    }

    fn lane(&self, _: &LaneId, _: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Err(SinkError::Fatal("no lane is opened".into()))
    }
}

struct State {
    store: Arc<EmbeddedStore>,
    _dir: tempfile::TempDir,
}

/// A plan in which the sinks `a` and `b` are reached, and `b` holds its positions in a target if it
/// has one.
struct NewPlan<'a> {
    owner: &'a str,
    plan: &'a str,
    accepts_other_plans: bool,
    a: TestSink,
    b: TestSink,
}

impl Default for NewPlan<'_> {
    fn default() -> Self {
        NewPlan {
            owner: "new",
            plan: "new",
            accepts_other_plans: false,
            a: TestSink::default(),
            b: TestSink::default(),
        }
    }
}

impl State {
    fn new() -> State {
        let dir = tempfile::tempdir().unwrap();
        State {
            store: Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap()),
            _dir: dir,
        }
    }

    fn committer(&self, sink: &str, positions: Positions, by: (&str, &str)) -> Committer {
        let (owner, plan) = by;
        let claimant = Claimant {
            owner: owner.into(),
            plan: plan.to_owned(),
            accepts_other_plans: false,
        };
        Committer::new(
            sink.into(),
            self.store.clone(),
            claimant,
            positions,
            Arc::default(),
        )
    }

    /// State of plan `old`, whose instance has died, with the split `s` at these positions of the
    /// sinks.
    fn left_at(positions: &[(&str, Position)]) -> State {
        let state = State::new();
        for (sink, low) in positions {
            let committer = state.committer(sink, Positions::InStore, ("dead", "old"));
            let record = committer.take(&["s".into()]).unwrap().remove(0);
            committer.hold(&[("s".into(), record.epoch)]).unwrap();
            let begun = SplitToBegin {
                split: "s".into(),
                record,
                start: *low,
                resume: None,
            };
            committer.begin(vec![begun]).unwrap();
        }
        state
    }

    /// Takes `s` over in the sinks `a` and `b`. Returns its low positions, or why it was refused.
    fn take_over(&self, by: NewPlan<'_>) -> Result<Vec<Option<Position>>, String> {
        let positions = match by.b.target {
            Some(_) => Positions::InTarget,
            None => Positions::InStore,
        };
        let claimant = Claimant {
            owner: by.owner.into(),
            plan: by.plan.to_owned(),
            accepts_other_plans: by.accepts_other_plans,
        };
        let open = |sink: &str, positions| {
            let (store, claimant) = (self.store.clone(), claimant.clone());
            Committer::new(sink.into(), store, claimant, positions, Arc::default())
        };
        let (a, b) = (open("a", Positions::InStore), open("b", positions));
        let sinks = [(&a, &by.a), (&b, &by.b)];
        let sinks = sinks.map(|(committer, sink)| TakeoverSink { committer, sink });
        match take_over(&sinks, &["s".into()], |_| true) {
            Ok(taken) => Ok(taken[0].iter().map(|record| record.low).collect()),
            Err(TakeoverError { sink, error }) => Err(format!("{sink}: {error}")),
        }
    }

    /// The plan and the owners of `s` in each of these sinks.
    fn holders(&self, sinks: &[&str]) -> Vec<String> {
        let holder = |sink: &&str| {
            let record = self.store.records_of(&SinkId::from(*sink), &["s".into()]);
            let record = record.unwrap().remove(0);
            let owners: Vec<&str> = record.owners.iter().map(InstanceId::as_str).collect();
            format!("{}: {}", record.plan.unwrap_or_default(), owners.join(" "))
        };
        sinks.iter().map(holder).collect()
    }
}

#[test]
fn what_another_plan_left_uneven_is_refused_and_stays_as_it_is() {
    let state = State::left_at(&[("a", 5), ("b", 7)]);
    for _ in 0..2 {
        assert_eq!(
            state.take_over(NewPlan::default()).unwrap_err(),
            "a: s is at position 5 in `a` and at 7 in `b`"
        );
        assert_eq!(
            state.holders(&["a", "b"]),
            ["old: dead new", "old: dead new"]
        );
    }
    let old = NewPlan {
        owner: "next",
        plan: "old",
        ..NewPlan::default()
    };
    assert_eq!(state.take_over(old), Ok(vec![Some(5), Some(7)]));
    assert_eq!(state.holders(&["a", "b"]), ["old: next", "old: next"]);
    let accepting = NewPlan {
        accepts_other_plans: true,
        ..NewPlan::default()
    };
    assert_eq!(state.take_over(accepting), Ok(vec![Some(5), Some(7)]));
    assert_eq!(state.holders(&["a", "b"]), ["new: new", "new: new"]);
}

#[test]
fn what_another_plan_left_at_one_position_is_continued() {
    let state = State::left_at(&[("a", 5), ("b", 5)]);
    assert_eq!(state.take_over(NewPlan::default()), Ok(vec![Some(5); 2]));
    assert_eq!(state.holders(&["a", "b"]), ["new: new", "new: new"]);
    // A sink that the split has not reached before.
    let state = State::left_at(&[("b", 5)]);
    assert_eq!(state.take_over(NewPlan::default()), Ok(vec![None, Some(5)]));
}

#[test]
fn a_position_of_a_target_counts_and_not_its_copy() {
    let state = State::left_at(&[("a", 5), ("b", 5)]);
    let further = || NewPlan {
        b: TestSink::with_target(&[("s", 9)]),
        ..NewPlan::default()
    };
    assert_eq!(
        state.take_over(further()).unwrap_err(),
        "a: s is at position 5 in `a` and at 9 in `b`"
    );
    let own = NewPlan {
        plan: "old",
        ..further()
    };
    assert_eq!(state.take_over(own), Ok(vec![Some(5), Some(9)]));
}

#[test]
fn a_sink_that_is_not_reached_any_more_is_asked_too() {
    let state = State::left_at(&[("a", 5), ("b", 5), ("gone", 4)]);
    assert_eq!(
        state.take_over(NewPlan::default()).unwrap_err(),
        "a: s is at position 4 in `gone` and at 5 in `b`"
    );
    let state = State::left_at(&[("a", 5), ("b", 5), ("gone", 5)]);
    assert_eq!(
        state.take_over(NewPlan::default()).unwrap_err(),
        "a: s was not released in `gone`, which it does not reach any more"
    );
    state
        .store
        .release(&"gone".into(), &[("s".into(), 1)])
        .unwrap();
    assert_eq!(state.take_over(NewPlan::default()), Ok(vec![Some(5); 2]));
}

/// Another instance takes the split in a sink after this one has: then it is held in none.
#[test]
fn a_split_that_is_taken_meanwhile_is_held_in_no_sink() {
    let state = State::left_at(&[("a", 5), ("b", 5)]);
    let store = state.store.clone();
    let by_another = move || {
        let taken = store.take(&"a".into(), &["s".into()], &"other".into());
        taken.map(drop).unwrap();
    };
    let overtaken = NewPlan {
        b: TestSink {
            meanwhile: Some(Box::new(by_another)),
            ..TestSink::default()
        },
        ..NewPlan::default()
    };
    let refused = state.take_over(overtaken).unwrap_err();
    assert_eq!(refused, "a: another instance has taken over s");
    assert_eq!(
        state.holders(&["a", "b"]),
        ["old: dead new other", "old: dead new"]
    );
}

#[test]
fn a_sink_that_contradicts_its_protocol_ends_the_run() {
    let cases = [
        (Positions::InStore, false, None),
        (Positions::InTarget, true, None),
        (
            Positions::InStore,
            true,
            Some(
                "internal error: by its protocol the sink `out` leaves its positions to the state \
                 store, but at the takeover it did not",
            ),
        ),
        (
            Positions::InTarget,
            false,
            Some(
                "internal error: by its protocol the sink `out` holds its positions in its target, \
                 but at the takeover it did not",
            ),
        ),
    ];
    for (positions, holds_positions, expected) in cases {
        let state = State::new();
        let committer = state.committer("out", positions, ("one", "p"));
        let sink = match holds_positions {
            true => TestSink::with_target(&[]),
            false => TestSink::default(),
        };
        let sinks = [TakeoverSink {
            committer: &committer,
            sink: &sink,
        }];
        let taken = take_over(&sinks, &["in:0".into()], |_| true);
        assert_eq!(
            taken.err().map(|of| of.error.to_string()).as_deref(),
            expected
        );
        // A sink may not look at its target if nothing is taken over.
        assert!(take_over(&sinks, &[], |_| true).is_ok());
    }
}
