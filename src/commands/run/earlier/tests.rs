//! Which earlier versions run, and when.

use std::cell::RefCell;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, Commit, LeftWork, Position, SplitCommit, StoredPlan};

use super::*;
use crate::commands::run::tests::plan_in;

/// What the plan with this fingerprint has left of one split.
fn left(plan: &str, upto: Position) -> RunError {
    RunError::PlanChanged(PlanChanged {
        plan: Some(plan.to_owned()),
        left: "some lanes".to_owned(),
        splits: vec![UnfinishedSplit {
            split: "s".into(),
            low: 0,
            upto,
            left: LeftWork::Held { sink: "out".into() },
        }],
    })
}

/// Runs a plan whose starts end like this, one after another. Returns how it ends, and for each
/// start whether it only finishes something.
fn outcome(ends: Vec<Result<Finished, RunError>>) -> (Result<Finished, RunError>, Vec<bool>) {
    let folder = tempfile::tempdir().unwrap();
    let text = "{in (generate {:record {:n \"n\"} :count 1}) pipeline (-> in (drop))}";
    let plan = plan_in(folder.path(), text);
    let (ends, starts) = (RefCell::new(ends.into_iter()), RefCell::new(Vec::new()));
    let start = |_, catch_up: Option<Vec<UnfinishedSplit>>| {
        starts.borrow_mut().push(catch_up.is_some());
        ends.borrow_mut().next().unwrap()
    };
    let earlier = |changed: &PlanChanged| match changed.plan.as_deref() {
        Some("known") => Ok(plan.clone()),
        _ => Err("it is unknown".to_owned()),
    };
    let outcome = finish_and_run(&plan, &start, &earlier);
    assert!(ends.borrow_mut().next().is_none(), "all are started");
    (outcome, starts.into_inner())
}

#[test]
fn what_an_earlier_version_left_is_finished_first() {
    let (end, starts) = outcome(vec![Ok(Finished::Stopped)]);
    assert!(matches!(end, Ok(Finished::Stopped)));
    assert_eq!(starts, [false]);

    let (end, starts) = outcome(vec![
        Err(left("known", 5)),
        Ok(Finished::CaughtUp),
        Err(left("known", 9)),
        Ok(Finished::Complete),
        Ok(Finished::Complete),
    ]);
    assert!(matches!(end, Ok(Finished::Complete)));
    assert_eq!(starts, [false, true, false, true, false]);
}

#[test]
fn what_a_third_version_left_is_finished_before_the_earlier_one() {
    let (end, starts) = outcome(vec![
        Err(left("known", 5)),
        Err(left("known", 3)),
        Ok(Finished::CaughtUp),
        Err(left("known", 5)),
        Ok(Finished::CaughtUp),
        Ok(Finished::Stopped),
    ]);
    assert!(matches!(end, Ok(Finished::Stopped)));
    assert_eq!(starts, [false, true, true, false, true, false]);
}

#[test]
fn a_stop_and_a_failure_end_the_earlier_version_too() {
    for finished in [Finished::Stopped, Finished::Left] {
        let (end, starts) = outcome(vec![Err(left("known", 5)), Ok(finished)]);
        assert_eq!(end.unwrap(), finished);
        assert_eq!(starts, [false, true]);
    }
    let failed = Err(RunError::Failed("no disk".into()));
    let (end, _) = outcome(vec![Err(left("known", 5)), failed]);
    assert_eq!(end.unwrap_err().to_string(), "no disk");
}

#[test]
fn what_cannot_be_finished_is_an_error() {
    let (end, starts) = outcome(vec![Err(left("unknown", 5))]);
    assert!(matches!(end, Err(RunError::PlanChanged(_))));
    assert_eq!(starts, [false]);
    // It has run again and again, and nothing has changed.
    let mut ends = Vec::new();
    for _ in 0..MAX_ROUNDS {
        ends.extend([Err(left("known", 5)), Ok(Finished::CaughtUp)]);
    }
    ends.push(Err(left("known", 5)));
    let (end, starts) = outcome(ends);
    assert!(matches!(end, Err(RunError::PlanChanged(_))));
    assert_eq!(starts.len(), 2 * MAX_ROUNDS + 1);
}

/// A store in which plan `p` holds the split in sinks with these names, at these positions.
fn held_at(positions: &[(&str, Position)]) -> (tempfile::TempDir, EmbeddedStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path(), "p").unwrap();
    let claimant = Claimant {
        owner: "a".into(),
        plan: "p".to_owned(),
        accepts_other_plans: false,
    };
    let split = SplitId::from("s");
    let text = |plan: &str| StoredPlan {
        fingerprint: plan.to_owned(),
        text: format!("text of {plan}"),
    };
    store.add_plan(&text("p")).unwrap();
    for (sink, low) in positions {
        let (sink, owner) = (SinkId::from(*sink), claimant.owner.clone());
        store
            .take(&sink, std::slice::from_ref(&split), &owner)
            .unwrap();
        store.hold(&sink, &[(split.clone(), 1)], &claimant).unwrap();
        let commit = Commit {
            splits: vec![SplitCommit::to_low(split.clone(), 1, 0, *low)],
            ..Commit::of(owner)
        };
        store.commit(&sink, &commit).unwrap();
    }
    (folder, store)
}

#[test]
fn the_plan_of_unfinished_work_is_found() {
    let (_folder, store) = held_at(&[("a", 5), ("b", 7)]);
    let found = unfinished_plan(&store).unwrap();
    assert_eq!(found.unwrap().text, "text of p");
    // What is not released may be at different positions in a target.
    let (_folder, store) = held_at(&[("a", 5), ("b", 5)]);
    let found = unfinished_plan(&store).unwrap();
    assert_eq!(found.unwrap().text, "text of p");
    for sink in ["a", "b"] {
        store.release(&sink.into(), &[("s".into(), 1)]).unwrap();
    }
    assert_eq!(unfinished_plan(&store).unwrap(), None);
    let (_folder, store) = held_at(&[]);
    assert_eq!(unfinished_plan(&store).unwrap(), None);
}

/// The text in the state has settings too.
#[test]
fn a_stored_plan_does_not_decide_that_the_state_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |settings: &str| {
        let flow = "in (files \"in/*.json\") pipeline (-> in (files {:path \"out\" :codec :json}))";
        plan_in(
            folder.path(),
            &format!("{{:settings {{{settings}}} {flow}}}"),
        )
    };
    let redis = r#":state "redis://localhost""#;
    let key = r#":state-key "0123456789abcdef0123456789abcdef""#;
    let unsigned = plan(redis);
    let trusted = [plan(""), plan(&format!("{redis} {key}"))];
    let of = |earlier: &Plan, current: &Plan| check(earlier, &earlier.fingerprint, current);
    for trusting in &trusted {
        let reason = of(trusting, &unsigned).unwrap_err();
        assert!(reason.contains("put back the `:state`"), "{reason}");
        assert_eq!(of(&unsigned, trusting), Ok(()));
        assert_eq!(of(trusting, trusting), Ok(()));
    }
    let accepting = plan(&format!("{redis} {key} :accept-unsigned-state true"));
    assert!(of(&trusted[1], &accepting).is_err());
    assert_eq!(of(&accepting, &unsigned), Ok(()));
}
