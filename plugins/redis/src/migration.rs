//! Converts the state of an earlier format to the current one.
//!
//! Format 1 stored one plan for the pipeline in `meta`, and the plan of each log of a table in two
//! notes; no record named its plan. Each part may be repeated, by the same instance or by another
//! one that starts at the same time.

use std::collections::HashMap;

use pseidon_delivery::{SinkId, StateStore, StoreError, StoredPlan};
use redis::cmd;

use crate::store::{FORMAT, RedisStore};

/// Writes the plans in format 2, and the fingerprint of its plan into each record.
pub(crate) fn from_format_1(store: &RedisStore) -> Result<(), StoreError> {
    let plan = store.hash_field("meta", "plan")?;
    if let (Some(fingerprint), Some(text)) = (&plan, store.hash_field("meta", "plan_text")?) {
        store.add_plan(&StoredPlan {
            fingerprint: fingerprint.clone(),
            text,
        })?;
    }
    let notes: HashMap<String, String> = store.query(cmd("HGETALL").arg(store.key("notes")))?;
    let plan_of_log = |log: &str| notes.get(&format!("{log}/plan"));
    for (key, text) in &notes {
        let Some(log) = key.strip_suffix("/plan-text") else {
            continue;
        };
        if let Some(fingerprint) = plan_of_log(log) {
            store.add_plan(&StoredPlan {
                fingerprint: format!("{log}/{fingerprint}"),
                text: text.clone(),
            })?;
        }
    }
    for sink in store.sinks()? {
        let of_log = sink
            .as_str()
            .split_once('/')
            .and_then(|(log, _)| plan_of_log(log));
        if let Some(fingerprint) = of_log.or(plan.as_ref()) {
            name_plan(store, &sink, fingerprint)?;
        }
    }
    store
        .query::<i64>(cmd("HSET").arg(store.key("meta")).arg("format").arg(FORMAT))
        .map(drop)
}

fn name_plan(store: &RedisStore, sink: &SinkId, fingerprint: &str) -> Result<(), StoreError> {
    let splits = store.splits(sink)?;
    splits.iter().try_for_each(|split| {
        store
            .query::<i64>(
                cmd("HSETNX")
                    .arg(store.split_key(sink, split))
                    .arg("plan")
                    .arg(fingerprint),
            )
            .map(drop)
    })
}
