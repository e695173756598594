//! The conformance suite of [`StateStore`]: a test that every implementation must pass.

mod contents;
mod effects;
mod extremes;
mod operator;
mod ownership;
mod refusals;

use std::collections::HashMap;

pub use self::operator::check_operator;
use crate::{Claimant, Commit, CommitRecord, SinkId, SplitCommit, StagedEntry, StateStore};

/// Runs the suite; panics at the first failure. `open` returns the store of a pipeline: an empty
/// one for a name that was not used before, the same content again for one that was.
pub fn check(open: &dyn Fn(&str) -> Box<dyn StateStore>) {
    ownership::taking_raises_the_epoch_and_returns_the_previous_owner(&*open("take"));
    ownership::release_clears_the_owner_of_what_is_still_held(&*open("release"));
    effects::a_step_changes_what_it_names(&*open("commit"));
    extremes::the_largest_numbers_survive(&*open("numbers"));
    effects::staged_entries_stay_until_they_are_published(&*open("staged"));
    refusals::a_refused_step_changes_nothing(&*open("refused"));
    refusals::the_most_severe_reason_is_returned(&*open("reasons"));
    refusals::an_empty_store_is_distinguished_from_a_takeover(&*open("emptied"));
    extremes::names_do_not_collide(&*open("names"));
    extremes::thousands_of_lanes_fit_into_one_step(&*open("large"));
    extremes::thousands_of_splits_may_be_refused(&*open("many"));
    effects::only_one_of_two_steps_wins(&*open("race"));
    ownership::a_fenced_owner_can_do_nothing(&*open("fence"));
    ownership::marks_of_fenced_owners_do_not_accumulate(&*open("marks"));
    effects::steps_in_a_group_are_independent(&*open("group"));
    ownership::holding_sets_the_owner_and_the_plan(&*open("hold"));
    effects::what_a_source_stores_beside_a_position_is_kept(&*open("resume"));
    contents::finished_splits_can_be_forgotten(&*open("finished"));
    contents::plans_and_notes_are_kept(&*open("plan"));
    contents::pipelines_are_separate(&*open("apart:1"), &*open("apart"));
    contents::everything_survives_reopening(open);
}

fn sink() -> SinkId {
    SinkId::from("lake")
}

fn claimant(owner: &str) -> Claimant {
    Claimant {
        owner: owner.into(),
        plan: "p".into(),
        accepts_other_plans: false,
    }
}

fn take(store: &dyn StateStore, split: &str, owner: &str) -> CommitRecord {
    store
        .take(&sink(), &[split.into()], &owner.into())
        .unwrap()
        .remove(0)
}

fn records(store: &dyn StateStore, sink: &SinkId) -> HashMap<String, CommitRecord> {
    store
        .records(sink)
        .unwrap()
        .into_iter()
        .map(|(split, record)| (split.to_string(), record))
        .collect()
}

fn step(split: &str, epoch: u64, sequence: u64, low: u64) -> SplitCommit {
    SplitCommit::to_low(split.into(), epoch, sequence, low)
}

fn steps(splits: Vec<SplitCommit>) -> Commit {
    steps_of("a", splits)
}

fn steps_of(owner: &str, splits: Vec<SplitCommit>) -> Commit {
    Commit {
        splits,
        ..Commit::of(owner.into())
    }
}

fn entry(id: &str) -> StagedEntry {
    StagedEntry {
        id: id.into(),
        detail: format!("detail of {id}"),
    }
}

fn staged(store: &dyn StateStore, sink: &SinkId) -> Vec<String> {
    let mut ids: Vec<String> = store
        .staged(sink)
        .unwrap()
        .into_iter()
        .map(|entry| entry.id.to_string())
        .collect();
    ids.sort();
    ids
}
