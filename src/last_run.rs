//! When the last run ended that read records: a run that finds nothing new says so.
//!
//! The time is a note in the state. It is only for people: a run that was killed has not written it.

use chrono::{SecondsFormat, Utc};
use pseidon_delivery::{StateStore, StoreError, WithCauses};
use pseidon_plan::Plan;

/// The note with the time, in RFC 3339.
const NOTE: &str = "last-read";

/// Notes the time at the end of a run that has read this number of records. Returns what to say of
/// one that has read none although the pipeline has been read before. `place` is where the state is,
/// and `file` the pipeline file.
pub(crate) fn note_end(
    plan: &Plan,
    store: &dyn StateStore,
    records: u64,
    (place, file): (&str, &str),
) -> Option<String> {
    if !plan.keeps_state {
        return None;
    }
    let said = match records {
        0 => nothing_new(plan, store, place, file),
        _ => {
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
            store.set_note(NOTE, &now).map(|()| None)
        }
    };
    said.unwrap_or_else(|error| {
        let error = WithCauses(&error).to_string();
        tracing::debug!(error, "cannot note when the run ended");
        None
    })
}

fn nothing_new(
    plan: &Plan,
    store: &dyn StateStore,
    place: &str,
    file: &str,
) -> Result<Option<String>, StoreError> {
    let mut was_read = false;
    for sink in plan.sinks.iter() {
        let records = store.records(&sink.id)?;
        was_read |= records.iter().any(|(_, record)| record.low > Some(0));
    }
    let last = store.note(NOTE)?.map_or(String::new(), |time| {
        format!("; the last run that read records ended at {time}")
    });
    Ok(was_read.then(|| {
        format!(
            "nothing is new: everything was already read or skipped (state: {place}){last}. \
             To read it again: pseidon offsets {file} --to earliest"
        )
    }))
}
