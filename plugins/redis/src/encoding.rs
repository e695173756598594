//! How steps, their answers and commit records are written in Redis.

use std::collections::HashMap;

use pseidon_delivery::{
    Commit, CommitError, CommitRecord, InstanceId, LaneId, Position, ResumeToken, SplitCommit,
    StagedId, StoreError,
};
use serde_json::{Value, json};

/// The prefix of the fields of a record that are lanes.
const LANE_FIELD: &str = "a:";

/// A step as `commit.lua` parses it. Numbers are strings, and a list of pairs is one flat list.
pub(crate) fn step_json(commit: &Commit) -> Value {
    let split = |step: &SplitCommit| {
        let ahead: Vec<String> = step
            .ahead
            .iter()
            .flat_map(|(lane, upto)| [format!("{LANE_FIELD}{lane}"), upto.to_string()])
            .collect();
        let caught_up: Vec<String> = step
            .caught_up
            .iter()
            .map(|lane| format!("{LANE_FIELD}{lane}"))
            .collect();
        let mut split = json!({
            "epoch": step.epoch.to_string(),
            "seq": step.sequence.to_string(),
            "next": (step.sequence + 1).to_string(),
            "low": step.low.to_string(),
            "ahead": ahead,
            "caught_up": caught_up,
            // An empty string stands for none, so that the field can be written with the others.
            "finished": step.finished.map_or_else(String::new, |at| at.to_string()),
        });
        if let Some(resume) = &step.resume {
            split["resume"] = resume.as_str().into();
        }
        split
    };
    let splits: Vec<_> = commit.splits.iter().map(split).collect();
    let staged: Vec<&str> = commit
        .staged
        .iter()
        .flat_map(|entry| [entry.id.as_str(), entry.detail.as_str()])
        .collect();
    let published: Vec<&str> = commit.published.iter().map(StagedId::as_str).collect();
    json!({
        "owner": commit.owner.as_str(),
        "splits": splits,
        "staged": staged,
        "published": published,
    })
}

pub(crate) fn read_answer(answer: &[String], commit: &Commit) -> Result<(), CommitError> {
    let step = |index: &String| {
        index
            .parse::<usize>()
            .ok()
            .and_then(|index| commit.splits.get(index.checked_sub(1)?))
    };
    match answer {
        [done] if done == "done" => return Ok(()),
        [owner] if owner == "owner" => return Err(CommitError::OwnerFenced(commit.owner.clone())),
        [fenced, indices @ ..] if fenced == "fenced" => {
            return Err(CommitError::Fenced(
                indices
                    .iter()
                    .filter_map(step)
                    .map(|step| step.split.clone())
                    .collect(),
            ));
        }
        [kind, index, found] => {
            if let (Some(step), Ok(found)) = (step(index), found.parse()) {
                let split = step.split.clone();
                return Err(match kind.as_str() {
                    "epoch" => CommitError::Epoch {
                        split,
                        expected: step.epoch,
                        found,
                    },
                    _ => CommitError::Sequence {
                        split,
                        expected: step.sequence,
                        found,
                    },
                });
            }
        }
        _ => {}
    }
    Err(unexpected_answer(&answer).into())
}

pub(crate) fn unexpected_answer(answer: &dyn std::fmt::Debug) -> StoreError {
    StoreError::Failed(format!("unexpected answer of a script in redis: {answer:?}").into())
}

/// The owners in the field of a record.
pub(crate) fn parse_owners(owners: &str) -> impl Iterator<Item = InstanceId> + '_ {
    owners
        .split('\n')
        .filter(|owner| !owner.is_empty())
        .map(InstanceId::from)
}

/// Parses the hash of a record.
pub(crate) fn parse_record(fields: HashMap<String, String>) -> Result<CommitRecord, StoreError> {
    let mut record = CommitRecord::default();
    for (field, value) in fields {
        let number = || -> Result<Position, StoreError> {
            value.parse().map_err(|_| {
                StoreError::Failed(
                    format!("redis holds a commit record whose {field} is {value:?}, not a number")
                        .into(),
                )
            })
        };
        match field.as_str() {
            "epoch" => record.epoch = number()?,
            "seq" => record.sequence = number()?,
            "low" => record.low = Some(number()?),
            "owner" => record.owners = parse_owners(&value).collect(),
            "plan" => record.plan = Some(value),
            "resume" => record.resume = Some(ResumeToken::from(value)),
            "finished" if value.is_empty() => {}
            "finished" => record.finished = Some(number()?),
            other => {
                if let Some(lane) = other.strip_prefix(LANE_FIELD) {
                    record.ahead.insert(LaneId::from(lane), number()?);
                }
            }
        }
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 7] = ["epoch", "seq", "low", "owner", "plan", "resume", "finished"];
    const ANSWER: &str = "done|owner|fenced|epoch|seq|[0-9]{0,3}|.{0,3}";

    proptest! {
        #[test]
        fn any_record_is_parsed_or_refused(
            fields in prop::collection::hash_map(
                prop_oneof![
                    prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
                    "(a:)?.{0,4}",
                ],
                prop_oneof![any::<u64>().prop_map(|number| number.to_string()), ".{0,5}"],
                0..8,
            ),
        ) {
            let is_number = |name: &str| {
                let value = fields.get(name);
                let value = value.filter(|value| name != "finished" || !value.is_empty());
                value.is_none_or(|value| value.parse::<Position>().is_ok())
            };
            let lanes = || fields.keys().filter(|name| name.starts_with(LANE_FIELD));
            let is_valid = ["epoch", "seq", "low", "finished"].into_iter().all(is_number)
                && lanes().all(|name| is_number(name));
            match parse_record(fields.clone()) {
                Ok(record) => {
                    prop_assert!(is_valid);
                    prop_assert_eq!(record.ahead.len(), lanes().count());
                    prop_assert_eq!(record.low.is_some(), fields.contains_key("low"));
                }
                Err(_) => prop_assert!(!is_valid),
            }
        }

        #[test]
        fn no_answer_of_a_script_panics(answer in prop::collection::vec(ANSWER, 0..5)) {
            let mut commit = Commit::of(InstanceId::from("owner"));
            commit.splits.push(SplitCommit::to_low("split".into(), 1, 1, 1));
            prop_assert_eq!(read_answer(&answer, &commit).is_ok(), answer == ["done"]);
        }
    }
}
