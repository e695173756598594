//! Earlier versions of a pipeline: what they have left unfinished is finished before the current
//! version runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pseidon_delivery::unfinished::{SinkRecord, unfinished_work};
use pseidon_delivery::{
    CommitRecord, SinkId, SplitId, StateStore, StoreError, StoredPlan, UnfinishedSplit, WithCauses,
};
use pseidon_exec::{Finished, PlanChanged, RunError};
use pseidon_plan::{Plan, SchemaInference};

use super::failed;
use crate::cli::Exit;
use crate::load::PipelineText;
use crate::load::kept::KeptPipeline;

/// How often the same work may be found unfinished after an earlier version has run. It may belong
/// to other instances, which finish it meanwhile.
pub(crate) const MAX_ROUNDS: usize = 5;

/// Runs a plan to its end; with splits, only until it has finished these.
type StartFn<'a> =
    dyn Fn(Arc<Plan>, Option<Vec<UnfinishedSplit>>) -> Result<Finished, RunError> + 'a;

/// Makes the plan of an earlier version. An error says why it cannot be made.
type PlanFn<'a> = dyn Fn(&PlanChanged) -> Result<Arc<Plan>, String> + 'a;

/// Runs a plan. If earlier versions have left work that only they can finish, they do so first.
pub(super) fn finish_and_run(
    plan: &Arc<Plan>,
    start: &StartFn<'_>,
    plan_earlier: &PlanFn<'_>,
) -> Result<Finished, RunError> {
    let mut found: Vec<PlanChanged> = Vec::new();
    let mut outcome = start(plan.clone(), None);
    loop {
        let Err(RunError::PlanChanged(changed)) = outcome else {
            return outcome;
        };
        found.push(changed.clone());
        let rounds = found.iter().filter(|known| **known == changed).count();
        if rounds > MAX_ROUNDS {
            tracing::error!(rounds, "the earlier version does not finish its work");
            return Err(RunError::PlanChanged(changed));
        }
        let earlier = match plan_earlier(&changed) {
            Ok(earlier) => earlier,
            Err(reason) => {
                tracing::error!(reason, "the earlier version cannot finish its work");
                return Err(RunError::PlanChanged(changed));
            }
        };
        tracing::warn!(
            left = changed.left,
            "the pipeline has changed since a run of it crashed; its own version finishes that run \
             first"
        );
        outcome = match start(earlier, Some(changed.splits)) {
            Ok(Finished::CaughtUp | Finished::Complete) => {
                tracing::info!("the earlier version has finished; starting the current one");
                start(plan.clone(), None)
            }
            // It may need splits of which a third version has left something.
            ended => ended,
        };
    }
}

/// The plan of an earlier version of the pipeline. Errors in its text are printed.
///
/// # Errors
/// The state does not have its text, or [`check`] refuses the plan.
pub(super) fn plan(
    text: &PipelineText,
    current: &Plan,
    changed: &PlanChanged,
    store: &dyn StateStore,
    infer: &SchemaInference<'_>,
) -> Result<Arc<Plan>, String> {
    let unknown = || "the state does not have its text".to_owned();
    let fingerprint = changed.plan.as_deref().ok_or_else(unknown)?;
    let stored = store.plan(fingerprint);
    let stored = stored.map_err(|error| WithCauses(&error).to_string())?;
    let text = earlier_text(text, &stored.ok_or_else(unknown)?);
    let invalid = |_| "its text is invalid now".to_owned();
    let document = text.document().map_err(invalid)?;
    let plan = text.plan_with(&document, infer).map_err(invalid)?;
    check(&plan, fingerprint, current)?;
    Ok(Arc::new(plan))
}

/// Checks a plan that was made from a text in the state: it is the one that the commit records name,
/// and if other programs can write to the state, it does not trust the state either, and calls
/// nothing that the current plan does not call. The fingerprint covers neither the settings nor what
/// is called.
///
/// # Errors
/// Why the plan must not run: another program has written the text, or it makes another plan now,
/// because of a parameter, a variable of the environment or a table that was too large for the
/// state.
pub(crate) fn check(earlier: &Plan, fingerprint: &str, current: &Plan) -> Result<(), String> {
    if earlier.fingerprint != fingerprint {
        return Err(ANOTHER_PLAN.to_owned());
    }
    if current.settings.trusts_state() {
        return Ok(());
    }
    if earlier.settings.trusts_state() {
        return Err(TRUSTS_STATE.to_owned());
    }
    let hooks = |plan: &Plan| -> BTreeSet<String> {
        let sinks = plan.sinks.iter();
        sinks
            .filter_map(|sink| sink.prepared.hook_digest())
            .collect()
    };
    if hooks(earlier).is_subset(&hooks(current)) {
        Ok(())
    } else {
        Err(OTHER_HOOK.to_owned())
    }
}

/// Why the text of an earlier version does not help.
const ANOTHER_PLAN: &str = "its text makes another plan now; put back the environment variables and \
                            parameters that it had, and large tables of `lookup`s, and start \
                            again; if all of them are as they were, another program has changed the \
                            text in the state";
/// Why the text of an earlier version is not run.
const TRUSTS_STATE: &str = "its `:settings` have the state signed, or in a file, and those of the \
                            current version do not, so another program may have written it; put \
                            back the `:state` and the `:state-key` that it had, without \
                            `:accept-unsigned-state`, and start again";
/// The same.
const OTHER_HOOK: &str = "its `:on-close` calls what the current version does not call, and without \
                          a `:state-key` another program may have written that; put back the \
                          `:on-close` that it had, and start again";

fn earlier_text(text: &PipelineText, stored: &str) -> PipelineText {
    let kept = KeptPipeline::read(stored);
    PipelineText {
        name: format!("{} (previous version)", text.name),
        text: kept.text,
        tables: kept.tables,
        ..text.clone()
    }
}

/// The version of the pipeline whose run left unfinished work, as it is kept in the state.
pub(in crate::commands) struct PreviousVersion {
    /// Its text.
    pub(in crate::commands) text: PipelineText,
    /// The fingerprint of its plan, which the commit records name.
    fingerprint: String,
}

impl PreviousVersion {
    /// Checks the plan that its text makes, as [`check`] does.
    pub(in crate::commands) fn check(&self, plan: &Plan, current: &Plan) -> Result<(), Exit> {
        check(plan, &self.fingerprint, current)
            .map_err(|reason| failed(&format!("the previous version cannot run: {reason}")))
    }
}

/// The version of the pipeline whose run left unfinished work.
pub(in crate::commands) fn previous(
    text: &PipelineText,
    store: &dyn StateStore,
) -> Result<PreviousVersion, Exit> {
    match unfinished_plan(store).map_err(|error| failed(&WithCauses(&error)))? {
        Some(stored) => Ok(PreviousVersion {
            text: earlier_text(text, &stored.text),
            fingerprint: stored.fingerprint,
        }),
        None => Err(failed(&format!(
            "no previous version of {} left unfinished work\n  help: start it without --previous",
            text.name
        ))),
    }
}

/// A plan that has left a split unfinished, or else staged files, or else a split that was not
/// released; `None` if there is none.
fn unfinished_plan(store: &dyn StateStore) -> Result<Option<StoredPlan>, StoreError> {
    let mut sinks = Vec::new();
    for sink in store.sinks()? {
        let records = store.records(&sink)?;
        sinks.push((sink, records));
    }
    let named = match left_uneven(&sinks) {
        Some(plan) => Some(plan),
        None => match with_staged(&sinks, store)? {
            Some(plan) => Some(plan),
            None => held(&sinks),
        },
    };
    let Some(fingerprint) = named.map(str::to_owned) else {
        return Ok(None);
    };
    let text = store.plan(&fingerprint)?;
    Ok(text.map(|text| StoredPlan { fingerprint, text }))
}

type SinkRecords = (SinkId, Vec<(SplitId, CommitRecord)>);

fn left_uneven(sinks: &[SinkRecords]) -> Option<&str> {
    let mut by_split: HashMap<&SplitId, Vec<SinkRecord<'_>>> = HashMap::new();
    for (sink, records) in sinks {
        for (split, record) in records {
            by_split.entry(split).or_default().push(SinkRecord {
                sink,
                record,
                is_reached: true,
            });
        }
    }
    // No plan has the empty fingerprint.
    let left = |(split, records)| unfinished_work(split, records, "");
    by_split
        .iter()
        .map(|(split, records)| (*split, records.as_slice()))
        .find_map(left)
        .and_then(|(plan, _)| plan)
}

fn with_staged<'a>(
    sinks: &'a [SinkRecords],
    store: &dyn StateStore,
) -> Result<Option<&'a str>, StoreError> {
    for (sink, records) in sinks {
        if !store.staged(sink)?.is_empty() {
            return Ok(records
                .iter()
                .find_map(|(_, record)| record.plan.as_deref()));
        }
    }
    Ok(None)
}

/// Where targets hold the positions, the store may not show that sinks are at different ones.
fn held(sinks: &[SinkRecords]) -> Option<&str> {
    let mut records = sinks.iter().flat_map(|(_, records)| records);
    records.find_map(|(_, record)| record.plan.as_deref().filter(|_| !record.owners.is_empty()))
}

#[cfg(test)]
mod tests;
