//! The follow-up of a published file: what is done with it after publishing. The state store keeps
//! it until it is done.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// The folder of broken files below a base directory, unless `:quarantine` names one.
pub(super) const BROKEN: &str = "quarantine";

/// The work that follows publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FollowUp {
    /// How many records the file contains.
    pub(super) records: u64,
    /// Their positions by split, `upto` exclusive: `{"clicks/3": {"first": 10, "upto": 20}}`.
    pub(super) positions: Map<String, Value>,
    /// Where the file is moved; `None` if it stays where it was published.
    pub(super) destination: Option<Destination>,
}

/// Where a file is moved after publishing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The folder, an absolute path.
    pub(super) folder: PathBuf,
    /// The prefix of its name there.
    pub(super) prefix: String,
    /// The folder of broken files, an absolute path; `None` if the file is not checked.
    pub(super) quarantine: Option<PathBuf>,
}

impl FollowUp {
    /// The follow-up as JSON; see [`FollowUp::from_json`].
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({ "records": self.records, "positions": self.positions });
        if let Some(destination) = &self.destination {
            json["folder"] = destination.folder.to_string_lossy().into();
            json["prefix"] = destination.prefix.as_str().into();
            if let Some(quarantine) = &destination.quarantine {
                json["quarantine"] = quarantine.to_string_lossy().into();
            }
        }
        json
    }

    /// Parses the JSON of [`FollowUp::to_json`].
    pub(super) fn from_json(json: &Value) -> Option<FollowUp> {
        let destination = match json.get("folder") {
            None => None,
            Some(folder) => Some(Destination {
                folder: folder.as_str()?.into(),
                prefix: json.get("prefix")?.as_str()?.to_owned(),
                quarantine: match json.get("quarantine") {
                    None => None,
                    Some(quarantine) => Some(quarantine.as_str()?.into()),
                },
            }),
        };
        let positions = json.get("positions")?.as_object()?.clone();
        // A fraction is not a position, and not every one is printed as it was read.
        if !positions.values().all(has_positions) {
            return None;
        }
        Some(FollowUp {
            records: json.get("records")?.as_u64()?,
            positions,
            destination,
        })
    }
}

/// Whether the entry of a split has positions, and nothing else.
fn has_positions(split: &Value) -> bool {
    split
        .as_object()
        .is_some_and(|positions| positions.values().all(Value::is_u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_integers() {
        for (positions, is_valid) in [
            (json!({ "a": { "first": 1, "upto": u64::MAX } }), true),
            (json!({ "a": { "first": 9.5e36 } }), false),
            (json!({ "a": { "first": -1 } }), false),
            (json!({ "a": 1 }), false),
        ] {
            let json = json!({ "records": 1, "positions": positions });
            assert_eq!(FollowUp::from_json(&json).is_some(), is_valid, "{json}");
        }
    }

    #[test]
    fn json_keeps_every_field() {
        let positions = json!({ "in:clicks/3": { "first": 10, "upto": 20 } })
            .as_object()
            .unwrap()
            .clone();
        let plain = FollowUp {
            records: 10,
            positions,
            destination: None,
        };
        let moved = Destination {
            folder: "/lake/a".into(),
            prefix: "host-".into(),
            quarantine: None,
        };
        let checked = Destination {
            quarantine: Some("/lake/broken".into()),
            ..moved.clone()
        };
        for destination in [None, Some(moved), Some(checked)] {
            let follow_up = FollowUp {
                destination,
                ..plain.clone()
            };
            assert_eq!(
                FollowUp::from_json(&follow_up.to_json()).unwrap(),
                follow_up
            );
        }
        assert_eq!(FollowUp::from_json(&json!({ "inode": 7 })), None);
    }
}
