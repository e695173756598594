//! The messages of the positions topic.
//!
//! The key names pipeline, sink and split; the value says up to where the split's records are in the sink's topic, and which instance said
//! so. Every commit writes one for each split that moved, inside the transaction of the records. An instance also writes one when it takes a
//! split over, before its first record: so the last message always names the instance that may have a transaction open ([`super::takeover`]).

use pseidon_delivery::{LaneId, Position, SinkId, SplitCommit, SplitId};
use serde_json::{Value, json};

/// The version of the value's layout.
const VERSION: u64 = 1;

/// Whose positions these are.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Everything of a key before the split.
    prefix: String,
    /// The instance.
    pub(super) instance: String,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Everything of the split below it is in the topic; `None` if nobody has committed yet.
    pub(super) position: Option<Position>,
    /// The instance that wrote it.
    pub(super) instance: String,
}

impl Owner {
    /// The positions of this sink of a pipeline, written by this instance.
    pub(super) fn new(pipeline: &str, sink: &SinkId, instance: &str) -> Owner {
        Owner { prefix: format!("{}/{}/", escape(pipeline), escape(sink.as_str())), instance: instance.to_owned() }
    }

    /// The key of a split.
    pub(super) fn key(&self, split: &SplitId) -> String {
        format!("{}{split}", self.prefix)
    }

    /// The split that a key names, if it is one of ours.
    pub(super) fn split(&self, key: &[u8]) -> Option<SplitId> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(&self.prefix).map(SplitId::from)
    }

    /// What to write about a split.
    pub(super) fn value(&self, position: Option<Position>) -> String {
        json!({"version": VERSION, "position": position, "instance": self.instance}).to_string()
    }
}

impl Told {
    /// Reads a value. An error says what is wrong with it.
    pub(super) fn parse(value: &[u8]) -> Result<Told, String> {
        let value: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        match value["version"].as_u64() {
            Some(VERSION) => {}
            Some(other) => return Err(format!("it has version {other}, which only a newer version of the program can read")),
            None => return Err("it has no version".to_owned()),
        }
        let position = match &value["position"] {
            Value::Null => None,
            position => Some(position.as_u64().ok_or_else(|| format!("{position} is not a position"))?),
        };
        let instance = value["instance"].as_str().ok_or("it names no instance")?.to_owned();
        Ok(Told { position, instance })
    }
}

/// Where a split stands after a commit: with a single lane, what the lane holds is all there is, even where the low position has not come
/// as far yet.
pub(super) fn position_after(commit: &SplitCommit, lane: &LaneId) -> Position {
    let ahead = commit.ahead.iter().filter(|(name, _)| name == lane).map(|(_, upto)| *upto).max();
    ahead.unwrap_or(0).max(commit.low)
}

/// Keeps `/` for the key's own use.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pipeline: &str, sink: &str) -> Owner {
        Owner::new(pipeline, &SinkId::from(sink), "here")
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        let split = SplitId::from("clicks:a/b/3");
        let mine = owner("a", "b/c");
        assert_eq!(mine.key(&split), "a/b%2Fc/clicks:a/b/3");
        assert_eq!(mine.split(mine.key(&split).as_bytes()), Some(split.clone()));
        for (pipeline, sink) in [("a/b", "c"), ("a", "b"), ("a", "b%2Fc"), ("A", "b/c")] {
            assert_eq!(mine.split(owner(pipeline, sink).key(&split).as_bytes()), None, "{pipeline} {sink}");
        }
        assert_eq!(mine.split(b"\xff"), None);
    }

    #[test]
    fn values_are_read_back() {
        for position in [None, Some(0), Some(u64::MAX)] {
            let value = owner("p", "s").value(position);
            assert_eq!(Told::parse(value.as_bytes()), Ok(Told { position, instance: "here".to_owned() }));
        }
        for wrong in ["", "{}", "[]", r#"{"version":2,"position":1,"instance":"a"}"#, r#"{"version":1,"position":-1,"instance":"a"}"#, r#"{"version":1}"#] {
            assert!(Told::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_lane_holds_counts() {
        let lane = LaneId::from("transaction");
        let commit = |low, ahead: &[(&str, u64)]| SplitCommit {
            split: "s".into(),
            epoch: 1,
            sequence: 1,
            low,
            ahead: ahead.iter().map(|(name, upto)| ((*name).into(), *upto)).collect(),
            caught_up: vec![],
        };
        assert_eq!(position_after(&commit(7, &[]), &lane), 7);
        assert_eq!(position_after(&commit(7, &[("transaction", 9)]), &lane), 9);
        assert_eq!(position_after(&commit(7, &[("other", 9)]), &lane), 7);
    }
}
