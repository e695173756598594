//! `pseidon reset`: forgets the state of a pipeline.
//!
//! The next run then starts as the first one did. What was delivered stays, and is delivered again.

use pseidon_delivery::failpoint::reach;
use pseidon_delivery::{OperatorError, OperatorStore, SplitId, StoreError, WithCauses};
use pseidon_plan::Plan;

use super::offsets::{failed, print, with_help};
use crate::cli::{Exit, ResetArgs};
use crate::counted::counted;
use crate::load;
use crate::splits::{PipelineState, setup_of};
use crate::state::{self, StateView};

/// Prints what would be forgotten, or forgets it.
pub(crate) fn reset(args: &ResetArgs) -> Exit {
    match try_reset(args) {
        Ok(text) => print(&text),
        Err(exit) => exit,
    }
}

fn try_reset(args: &ResetArgs) -> Result<String, Exit> {
    let (text, document, plan) = load::planned(&args.file, &args.parameters)?;
    if load::is_template(&document) {
        return Err(failed(&"the state of a template cannot be reset"));
    }
    let (folder, file) = (state::folder(&text.base), args.file.display().to_string());
    let in_store = |error: StoreError| failed(&WithCauses(&error));
    let nothing = format!("{file} has no state: it has not run yet\n");
    if args.execute {
        let Some(store) = state::open_to_change(&plan, &folder).map_err(in_store)? else {
            return Ok(nothing);
        };
        let view = StateView::of(store.clone());
        let state = PipelineState::read(&plan, view, false).map_err(in_store)?;
        refuse_unfinished(&state, &file)?;
        execute(&plan, &state, &*store, &file)?;
        return Ok(describe(&plan, &state) + "forgotten\n");
    }
    let Some(view) = state::view(&plan, &folder).map_err(in_store)? else {
        return Ok(nothing);
    };
    if view.is_in_use {
        return Err(failed(&format!(
            "a running process has {} open\n  help: stop it first",
            view.place
        )));
    }
    let state = PipelineState::read(&plan, view, false).map_err(in_store)?;
    refuse_unfinished(&state, &file)?;
    Ok(describe(&plan, &state) + "nothing was changed; to forget it, add --execute\n")
}

/// What is forgotten and what stays.
fn describe(plan: &Plan, state: &PipelineState) -> String {
    let known = state
        .splits
        .iter()
        .filter(|split| split.at.is_some())
        .count() as u64;
    let mut text = format!(
        "forgets the positions of {} of `{}`, inferred schemas, and earlier versions of the file\n",
        counted(known, "split"),
        plan.name
    );
    for group in &state.groups {
        text.push_str(&format!("forgets the groups of `{group}`\n"));
    }
    text.push_str(
        "keeps the output files and the quarantined records: the next run delivers everything that \
         it re-reads beside them\n\
         the next run begins like the first one: a source with `:start :latest` begins at the end\n",
    );
    text
}

/// Refuses work that was not finished, and positions that are not in the state.
fn refuse_unfinished(state: &PipelineState, file: &str) -> Result<(), Exit> {
    let error = match (state.held(), state.staged.first()) {
        (Some(split), _) => OperatorError::Held(split.clone()),
        (None, Some((sink, _))) => OperatorError::Staged(sink.clone()),
        (None, None) => match state.in_target.first() {
            None => return Ok(()),
            Some(sink) => {
                return Err(failed(&format!(
                    "`{sink}` holds its positions in its target, which cannot be reset\n  help: \
                     rename the stage, so that it starts without positions"
                )));
            }
        },
    };
    Err(failed(&with_help(&error, file)))
}

fn execute(
    plan: &Plan,
    state: &PipelineState,
    store: &dyn OperatorStore,
    file: &str,
) -> Result<(), Exit> {
    for source in plan.sources.iter().filter(|source| source.group.is_none()) {
        let splits = state
            .splits
            .iter()
            .filter(|split| split.source == source.stage);
        let splits: Vec<SplitId> = splits.map(|split| split.status.split.clone()).collect();
        let withdrawn = source.source.withdraw(&setup_of(plan, source), &splits);
        withdrawn.map_err(|error| failed(&WithCauses(&error)))?;
    }
    reach("reset-withdrawn");
    store
        .clear()
        .map_err(|error| failed(&with_help(&error, file)))
}
