//! The stage that a command names, and the records that come through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_dsl::nearest;
use pseidon_plan::Plan;
use pseidon_plugin::rows::Rows;

use super::split_word;
use crate::runs::{RunEntry, RunRegistry};
use crate::stages::{source_of, stages};

/// How long a command waits for records in total.
const ROWS_TIMEOUT: Duration = Duration::from_secs(2);

/// The stage of a log that a command names, and its other arguments.
pub(super) struct StageTarget<'a> {
    entry: Arc<RunEntry>,
    pub(super) plan: Arc<Plan>,
    pub(super) stage: &'a str,
    pub(super) rest: &'a str,
}

/// Parses `[LOG] STAGE …`. The log is optional if there is only one.
pub(super) fn target<'a>(
    runs: &RunRegistry,
    text: &'a str,
) -> Result<StageTarget<'a>, Vec<String>> {
    let (first, rest) = split_word(text);
    if first.is_empty() {
        return Err(vec!["missing stage; try stages".to_owned()]);
    }
    let named = runs.find(first).map(|entry| {
        let (stage, rest) = split_word(rest);
        let plan = plan_of(runs, &entry);
        if source_of(&plan, stage).is_some() {
            Ok(StageTarget {
                entry,
                plan,
                stage,
                rest,
            })
        } else {
            Err(no_stage(&plan, stage))
        }
    });
    if let Some(Ok(target)) = named {
        return Ok(target);
    }
    let entry = match (only(runs), named) {
        (Err(_), Some(Err(reason))) => return Err(reason),
        (only, _) => only?,
    };
    let plan = plan_of(runs, &entry);
    if source_of(&plan, first).is_none() {
        return Err(no_stage(&plan, first));
    }
    Ok(StageTarget {
        entry,
        plan,
        stage: first,
        rest,
    })
}

pub(super) fn no_stage(plan: &Plan, stage: &str) -> Vec<String> {
    let stages = stages(plan);
    vec![
        match nearest(stage, stages.iter().map(|stage| stage.name.as_str())) {
            Some(near) => format!("unknown stage `{stage}`; did you mean `{near}`?"),
            None => format!("unknown stage `{stage}`; try stages"),
        },
    ]
}

impl StageTarget<'_> {
    /// The next rows, batch by batch, until there are `count` or [`ROWS_TIMEOUT`] has passed.
    /// Without any row, it is an error.
    pub(super) fn rows(&self, count: usize) -> Result<Vec<Rows>, Vec<String>> {
        if self.entry.live().is_none() {
            return Err(vec![format!("`{}` is not running", self.entry.name)]);
        }
        let deadline = Instant::now() + ROWS_TIMEOUT;
        let (mut batches, mut missing) = (Vec::new(), count);
        while missing > 0
            && let Some(rows) = self.entry.view.rows(
                self.stage,
                missing,
                deadline.saturating_duration_since(Instant::now()),
            )
        {
            missing -= rows.len().min(missing);
            batches.push(rows);
        }
        if batches.is_empty() {
            return Err(vec![format!(
                "no record passed through `{}` within {} s",
                self.stage,
                ROWS_TIMEOUT.as_secs()
            )]);
        }
        Ok(batches)
    }
}

/// The only entry, for a command that does not name one.
fn only(runs: &RunRegistry) -> Result<Arc<RunEntry>, Vec<String>> {
    match runs.entries().as_slice() {
        [entry] => Ok(entry.clone()),
        [] => Err(vec!["nothing was started yet".to_owned()]),
        _ => Err(vec![
            "there are several logs; name one before the stage".to_owned(),
        ]),
    }
}

/// The plan of an entry; if it is not running, the plan for a sample row.
pub(super) fn plan_of(runs: &RunRegistry, entry: &RunEntry) -> Arc<Plan> {
    entry
        .live()
        .map_or_else(|| runs.plan.clone(), |live| live.plan)
}
