//! Converts the state of an earlier format to the current one.
//!
//! Format 1 stored one plan for the pipeline in `meta`, and the plan of each log of a table in two
//! notes; no record named its plan. Each part may be repeated, by the same instance or by another
//! one that starts at the same time.

use std::collections::HashMap;

use pseidon_delivery::{SinkId, StoreError, StoredPlan};
use redis::cmd;

use crate::keyspace::{FORMAT, Keyspace};

/// Writes the plans in format 2, and the fingerprint of its plan into each record.
pub(crate) fn from_format_1(keyspace: &Keyspace) -> Result<(), StoreError> {
    let plan = keyspace.hash_field("meta", "plan")?;
    if let (Some(fingerprint), Some(text)) = (&plan, keyspace.hash_field("meta", "plan_text")?) {
        keyspace.add_plan(&StoredPlan {
            fingerprint: fingerprint.clone(),
            text,
        })?;
    }
    let notes: HashMap<String, String> =
        keyspace.query(cmd("HGETALL").arg(keyspace.key("notes")))?;
    let plan_of_log = |log: &str| notes.get(&format!("{log}/plan"));
    for (key, text) in &notes {
        let Some(log) = key.strip_suffix("/plan-text") else {
            continue;
        };
        if let Some(fingerprint) = plan_of_log(log) {
            keyspace.add_plan(&StoredPlan {
                fingerprint: format!("{log}/{fingerprint}"),
                text: text.clone(),
            })?;
        }
    }
    for sink in keyspace.sinks()? {
        let of_log = sink
            .as_str()
            .split_once('/')
            .and_then(|(log, _)| plan_of_log(log));
        if let Some(fingerprint) = of_log.or(plan.as_ref()) {
            name_plan(keyspace, &sink, fingerprint)?;
        }
    }
    keyspace
        .query::<i64>(
            cmd("HSET")
                .arg(keyspace.key("meta"))
                .arg("format")
                .arg(FORMAT),
        )
        .map(drop)
}

fn name_plan(keyspace: &Keyspace, sink: &SinkId, fingerprint: &str) -> Result<(), StoreError> {
    let splits = keyspace.splits(sink)?;
    splits.iter().try_for_each(|split| {
        keyspace
            .query::<i64>(
                cmd("HSETNX")
                    .arg(keyspace.split_key(sink, split))
                    .arg("plan")
                    .arg(fingerprint),
            )
            .map(drop)
    })
}
