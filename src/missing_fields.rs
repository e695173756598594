//! Fields that the pipeline uses and that had no value in any record, and fields of records that
//! the pipeline does not have, for the summary of a run.

use std::io::IsTerminal;

use crate::stderr_line;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_dsl::printable;
use pseidon_exec::MissingField;
use pseidon_service::runs::RunRegistry;
use serde_json::Value;

/// Reports the fields that had no value in any record. A template reports none: its logs differ,
/// and a field may be in some of them only.
pub(crate) fn report(runs: &RunRegistry) {
    if runs.is_template() {
        return;
    }
    let entries = runs.entries();
    let missing = entries.iter().flat_map(|entry| entry.view.missing_fields());
    for field in missing {
        let near = suggestion(&field);
        if std::io::stderr().is_terminal() {
            let help = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            stderr_line!(
                "  note     no record of {} had a value for `{}`{help}",
                field.stage,
                field.path
            );
        } else {
            tracing::warn!(
                stage = field.stage,
                field = %field.path,
                did_you_mean = near,
                "no record had a value for this field"
            );
        }
    }
}

/// Reports the records that have fields which the inferred schema of their source does not have.
pub(crate) fn report_added(runs: &RunRegistry) {
    for added in runs
        .entries()
        .iter()
        .flat_map(|entry| entry.view.added_fields())
    {
        let names: Vec<&str> = added.names.iter().map(String::as_str).collect();
        let (stage, records) = (&added.stage, added.records);
        if std::io::stderr().is_terminal() {
            stderr_line!(
                "  note     {records} records of {stage} have fields that the inferred schema does \
                 not have, and are written without them: `{}`\n           help: {ADDED_HELP}",
                printable(&names.join("`, `"))
            );
        } else {
            tracing::warn!(
                stage,
                records,
                fields = names.join(","),
                help = ADDED_HELP,
                "records have fields that the inferred schema does not have"
            );
        }
    }
}

/// How to keep fields that an inferred schema does not have.
const ADDED_HELP: &str = "write the output of `pseidon infer FILE` with these fields after :schema";

/// The field of the first record whose name is most similar.
fn suggestion(missing: &MissingField) -> Option<String> {
    let record: Value = serde_json::from_slice(missing.sample.as_ref()?).ok()?;
    let mut parent = &record;
    let (last, before) = missing.path.0.split_last()?;
    for step in before {
        parent = match step {
            PathStep::Field(name) => parent.get(name)?,
            PathStep::Index(index) => parent.get(*index as usize)?,
        };
    }
    let PathStep::Field(name) = last else {
        return None;
    };
    let fields = parent.as_object()?.keys().map(String::as_str);
    // Without quotes, `installed-size` is a difference of two fields.
    let is_joined = |field: &&str| field.contains('-') && field.split('-').any(|part| part == name);
    let near = match fields.clone().find(is_joined) {
        Some(field) => field,
        // The field itself may be there, with null.
        None => pseidon_dsl::nearest(name, fields.filter(|field| field != name))?,
    };
    let mut path = before.to_vec();
    path.push(PathStep::Field(near.to_owned()));
    Some(Path(path).to_string())
}
