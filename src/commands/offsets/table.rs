//! The positions as a table for people, and as JSON.

use std::fmt::Write;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use pseidon_delivery::{CommitRecord, SinkId};
use serde_json::{Value, json};

use crate::aligned::aligned;
use crate::counted::counted;
use crate::splits::{PipelineState, SplitState};

/// What stands where a value is not known, or does not exist.
const NONE: &str = "-";

/// The state as a table. `file` is the name of the pipeline file, for the help.
pub(super) fn text(file: &str, state: Option<&PipelineState>) -> String {
    let Some(state) = state else {
        return format!("{file} has no state: it has not run yet\n");
    };
    let mut text = format!("state: {}", state.place);
    if let Some(written) = state.written {
        let _ = write!(text, ", last written {}", time(written));
    }
    if state.is_in_use {
        text.push_str(", in use by a running process");
    }
    text.push('\n');
    if state.splits.is_empty() {
        text.push_str("no split was read yet\n");
    } else {
        let head = [
            "SOURCE", "SPLIT", "POSITION", "END", "LAG", "AHEAD", "OWNER",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(state.splits.iter().map(row));
        text.push_str(&aligned(&rows));
    }
    for (sink, count) in &state.staged {
        let files = counted(*count as u64, "committed file");
        let _ = writeln!(
            text,
            "{sink}: {files} not visible yet: pseidon staged {file}"
        );
    }
    for sink in state.in_target.iter().chain(&state.groups) {
        let _ = writeln!(
            text,
            "{sink}: its target holds the positions; the copies that are shown may be older"
        );
    }
    text
}

fn row(split: &SplitState) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or(NONE.to_owned(), |it| it.to_string());
    let end = match split.status.is_gone {
        true => "not found".to_owned(),
        false => number(split.status.end),
    };
    let owners: Vec<&str> = split.owners().iter().map(|owner| owner.as_str()).collect();
    let owners = match owners.is_empty() {
        true => NONE.to_owned(),
        false => owners.join(", "),
    };
    vec![
        split.source.clone(),
        split.status.name.clone(),
        number(split.position()),
        end,
        number(split.lag().filter(|_| !split.status.is_gone)),
        split.ahead().to_string(),
        owners,
    ]
}

/// The state as one JSON object with a line end.
pub(super) fn json(pipeline: &str, state: Option<&PipelineState>) -> String {
    let value = match state {
        None => json!({"pipeline": pipeline, "state": null, "splits": []}),
        Some(state) => {
            let splits: Vec<Value> = state.splits.iter().map(split_json).collect();
            let staged = state.staged.iter();
            let staged: Value = staged
                .map(|(sink, count)| (sink.to_string(), Value::from(*count)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            json!({
                "pipeline": pipeline,
                "state": state.place,
                "in_use": state.is_in_use,
                "written": state.written.map(time),
                "splits": splits,
                "staged": staged,
            })
        }
    };
    format!("{value:#}\n")
}

fn split_json(split: &SplitState) -> Value {
    let owners: Vec<&str> = split.owners().iter().map(|owner| owner.as_str()).collect();
    let sink = |(sink, record): &(SinkId, CommitRecord)| json!({"sink": sink.as_str(), "position": record.low, "ahead": record.ahead.len()});
    json!({
        "source": split.source,
        "split": split.status.name,
        "id": split.status.split.as_str(),
        "position": split.position(),
        "end": split.status.end,
        "lag": split.lag(),
        "exists": !split.status.is_gone,
        "finished": split.at.as_ref().is_some_and(|at| at.is_finished),
        "owners": owners,
        "sinks": split.sinks.iter().map(sink).collect::<Vec<_>>(),
    })
}

fn time(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Secs, true)
}
