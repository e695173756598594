//! An operator's changes of the state: each is one script, which checks everything before it writes.
//!
//! A record keeps its epoch when the state is cleared: an instance that was frozen since must not
//! find the split as it left it.

use pseidon_delivery::{OperatorError, OperatorStore, SinkId, SplitId, SplitMove, StateStore};
use serde_json::{Value, json};

use crate::encoding::unexpected_answer;
use crate::keyspace::FORMAT;
use crate::store::RedisStore;

impl OperatorStore for RedisStore {
    fn move_splits(&self, moves: &[SplitMove]) -> Result<(), OperatorError> {
        let mut sinks: Vec<&SinkId> = moves.iter().map(|one| &one.sink).collect();
        sinks.sort_unstable();
        sinks.dedup();
        let mut call = self.scripts.move_splits.call();
        call.key(self.keyspace.key("meta"))
            .key(self.keyspace.key("sinks"));
        for sink in &sinks {
            call.key(self.keyspace.splits_key(sink))
                .key(self.keyspace.staged_key(sink));
        }
        for one in moves {
            call.key(self.keyspace.split_key(&one.sink, &one.split));
        }
        let steps: Vec<Value> = moves.iter().map(|one| move_json(one, &sinks)).collect();
        let names: Vec<&str> = sinks.iter().map(|sink| sink.as_str()).collect();
        call.arg(FORMAT)
            .arg(json!({"sinks": names, "moves": steps}));
        let answer: Vec<String> = self.keyspace.call_confirmed(&call)?;
        read_answer(&answer, &sinks, |index| {
            moves.get(index).map(|one| &one.split)
        })
    }

    fn clear(&self) -> Result<(), OperatorError> {
        let sinks = self.sinks()?;
        let mut records: Vec<(usize, SplitId)> = Vec::new();
        let mut call = self.scripts.clear.call();
        for name in ["meta", "sinks", "plans", "notes"] {
            call.key(self.keyspace.key(name));
        }
        for (index, sink) in sinks.iter().enumerate() {
            call.key(self.keyspace.splits_key(sink))
                .key(self.keyspace.staged_key(sink));
            let splits = self.keyspace.splits(sink)?;
            call.arg(splits.len());
            records.extend(splits.into_iter().map(|split| (index, split)));
        }
        for (index, split) in &records {
            call.key(self.keyspace.split_key(&sinks[*index], split));
        }
        let answer: Vec<String> = self.keyspace.call_confirmed(&call)?;
        let sinks: Vec<&SinkId> = sinks.iter().collect();
        read_answer(&answer, &sinks, |index| {
            records.get(index).map(|(_, split)| split)
        })
    }
}

/// A move as the script parses it. Numbers are strings, since Lua's cannot represent all of them.
fn move_json(one: &SplitMove, sinks: &[&SinkId]) -> Value {
    let sink = sinks.binary_search(&&one.sink).map_or(0, |at| at + 1);
    let mut step = json!({
        "sink": sink,
        "split": one.split.as_str(),
        "epoch": one.seen.epoch.to_string(),
        "seq": one.seen.sequence.to_string(),
        "next_epoch": (one.seen.epoch + 1).to_string(),
        "next_seq": (one.seen.sequence + 1).to_string(),
        "low": one.to.to_string(),
        "finished": one.finished.map_or_else(String::new, |at| at.to_string()),
    });
    if let Some(resume) = &one.resume {
        step["resume"] = resume.as_str().into();
    }
    step
}

/// The answer of a script, which counts from 1.
fn read_answer<'s>(
    answer: &[String],
    sinks: &[&SinkId],
    split: impl Fn(usize) -> Option<&'s SplitId>,
) -> Result<(), OperatorError> {
    let [kind, number] = answer else {
        return match answer {
            [done] if done == "done" => Ok(()),
            _ => Err(unexpected_answer(&answer).into()),
        };
    };
    let index = number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_sub(1));
    let sink = index.and_then(|index| sinks.get(index));
    let split = index.and_then(split);
    Err(match (kind.as_str(), sink, split) {
        ("changed", ..) => OperatorError::Changed,
        ("staged", Some(sink), _) => OperatorError::Staged((*sink).clone()),
        ("held", _, Some(split)) => OperatorError::Held(split.clone()),
        ("ahead", _, Some(split)) => OperatorError::Ahead(split.clone()),
        _ => unexpected_answer(&answer).into(),
    })
}
