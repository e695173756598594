//! The staged entry of a file in the state store, with which every process can publish the file.

use std::fmt;
use std::path::{Path, PathBuf};

use pseidon_delivery::{StagedEntry, StagedId};
use pseidon_plugin::sink::{SinkError, StagedFile};
use serde_json::{Value, json};

use super::disk::DiskId;
use super::follow_up::{BROKEN, FollowUp};
use super::host::Host;

/// A staged entry of the state store: how a file is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The machine of the process that wrote it.
    pub(super) host: Host,
    /// The disk it is on; `None` in an entry of an earlier version.
    pub(super) disk: Option<DiskId>,
    /// Its inode, which it keeps under every name; an earlier version recorded it only together
    /// with a follow-up.
    pub(super) inode: Option<u64>,
    /// Its size; an earlier version recorded it only together with a follow-up.
    pub(super) bytes: Option<u64>,
    /// The base directory, an absolute path.
    pub(super) base: PathBuf,
    /// The hidden name, relative to the base directory.
    pub(super) hidden: String,
    /// The visible name, relative to the base directory.
    pub(super) visible: String,
    /// The extension of that name, without the first dot; a suffix that makes a name unique goes
    /// before it.
    pub(super) extension: String,
    /// The follow-up after publishing, if there is one.
    pub(super) follow_up: Option<FollowUp>,
}

impl Move {
    /// Serializes the entry for the state store.
    pub(super) fn to_detail(&self) -> String {
        let mut detail = json!({
            "host": self.host.to_text(),
            "base": self.base.to_string_lossy(),
            "hidden": self.hidden,
            "visible": self.visible,
            "extension": self.extension,
        });
        if let Some(disk) = &self.disk {
            detail["disk"] = disk.as_str().into();
        }
        if let Some(inode) = self.inode {
            detail["inode"] = inode.into();
        }
        if let Some(bytes) = self.bytes {
            detail["bytes"] = bytes.into();
        }
        if let Some(follow_up) = &self.follow_up {
            detail["then"] = follow_up.to_json();
        }
        detail.to_string()
    }

    /// Parses an entry that [`Move::to_detail`] of this version or an earlier one wrote.
    pub(super) fn from_detail(detail: &str) -> Option<Move> {
        let value: Value = serde_json::from_str(detail).ok()?;
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let then = value.get("then");
        // An earlier version kept them inside the follow-up.
        let number = |key: &str| value.get(key).or_else(|| then?.get(key))?.as_u64();
        Some(Move {
            host: Host::from_text(&text("host")?),
            disk: match value.get("disk") {
                None => None,
                Some(disk) => Some(DiskId::from_text(disk.as_str()?)?),
            },
            inode: number("inode"),
            bytes: number("bytes"),
            base: text("base")?.into(),
            hidden: text("hidden")?,
            visible: text("visible")?,
            extension: text("extension")?,
            follow_up: match then {
                None => None,
                Some(then) => Some(FollowUp::from_json(then)?),
            },
        })
    }

    /// The same entry on a disk whose base directory has this path now.
    pub(super) fn with_base(&self, base: &Path) -> Move {
        let mut moving = Move {
            base: base.to_owned(),
            ..self.clone()
        };
        let follow_up = moving.follow_up.as_mut();
        if let Some(destination) = follow_up.and_then(|follow_up| follow_up.destination.as_mut())
            && destination.quarantine == Some(self.base.join(BROKEN))
        {
            destination.quarantine = Some(base.join(BROKEN));
        }
        moving
    }

    /// Describes the file for people. `bases` are the base directories of this machine.
    pub(super) fn describe(&self, mut bases: impl Iterator<Item = PathBuf>) -> StagedFile {
        let is_here = match &self.disk {
            Some(_) => bases.any(|base| DiskId::of(&base).ok().flatten() == self.disk),
            None => self.base.join(&self.hidden).exists(),
        };
        StagedFile {
            path: self.base.join(&self.visible),
            disk: self.disk.as_ref().map(|disk| disk.as_str().to_owned()),
            machine: self.host.name().to_owned(),
            is_here,
        }
    }

    /// The folders of its hidden and its visible name.
    pub(super) fn dirs(&self) -> impl Iterator<Item = PathBuf> + use<> {
        [&self.hidden, &self.visible]
            .map(|name| self.base.join(name).parent().map(Path::to_owned))
            .into_iter()
            .flatten()
    }

    /// The visible name without its folder.
    pub(super) fn file_name(&self) -> &str {
        self.visible
            .rsplit_once('/')
            .map_or(self.visible.as_str(), |(_, name)| name)
    }

    /// The file's name without its extension, and the extension with its dot.
    pub(super) fn stem_and_ending(&self) -> (&str, String) {
        let (name, ending) = (self.file_name(), format!(".{}", self.extension));
        (name.strip_suffix(&ending).unwrap_or(name), ending)
    }

    /// The candidate name with this number, without its folder: the visible name, then `name~1`,
    /// `name~2` …
    pub(super) fn name(&self, number: u32) -> String {
        if number == 0 {
            return self.file_name().to_owned();
        }
        let (stem, ending) = self.stem_and_ending();
        format!("{stem}~{number}{ending}")
    }

    /// The path that the file has after publishing, for messages.
    pub(super) fn shown(&self) -> impl fmt::Display + use<> {
        self.base.join(&self.visible).display().to_string()
    }
}

/// Parses staged entries. Returns the move of each, with its id.
pub(super) fn read_moves(staged: Vec<StagedEntry>) -> Result<Vec<(StagedId, Move)>, SinkError> {
    let read = |entry: StagedEntry| match Move::from_detail(&entry.detail) {
        Some(moving) => Ok((entry.id, moving)),
        None => {
            let what = format!(
                "the state store holds a staged file `{}` in a format that this version cannot \
                 read",
                entry.id
            );
            Err(SinkError::Fatal(what.into()))
        }
    };
    staged.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::follow_up::Destination;

    fn destination() -> impl Strategy<Value = Destination> {
        let text = "(/|\\PC){0,6}";
        (text, text, prop::option::of(text)).prop_map(|(folder, prefix, quarantine)| Destination {
            folder: folder.into(),
            prefix,
            quarantine: quarantine.map(PathBuf::from),
        })
    }

    fn follow_up() -> impl Strategy<Value = FollowUp> {
        let positions = prop::collection::vec(("\\PC{0,5}", any::<u64>(), any::<u64>()), 0..3);
        let parts = (any::<u64>(), positions, prop::option::of(destination()));
        parts.prop_map(|(records, positions, destination)| FollowUp {
            records,
            positions: positions
                .into_iter()
                .map(|(split, first, upto)| (split, json!({ "first": first, "upto": upto })))
                .collect(),
            destination,
        })
    }

    fn entry() -> impl Strategy<Value = Move> {
        let host = "[a-z]{0,3} [0-9-]{0,3}".prop_map(|host| Host::from_text(&host));
        let disk = "[0-9a-fA-F]{32}".prop_map(|id| DiskId::from_text(&id).unwrap());
        let numbers = (
            prop::option::of(any::<u64>()),
            prop::option::of(any::<u64>()),
        );
        let name = "(/|\"|\\PC){0,6}";
        (
            (host, prop::option::of(disk), numbers),
            (name, name, name, name),
            prop::option::of(follow_up()),
        )
            .prop_map(|((host, disk, (inode, bytes)), names, follow_up)| Move {
                host,
                disk,
                inode,
                bytes,
                base: names.0.into(),
                hidden: names.1,
                visible: names.2,
                extension: names.3,
                follow_up,
            })
    }

    proptest! {
        #[test]
        fn entries_round_trip(moving in entry()) {
            prop_assert_eq!(Move::from_detail(&moving.to_detail()), Some(moving));
        }

        // Such as that of another version, or of a store that was damaged.
        #[test]
        fn a_changed_entry_is_refused_or_means_what_it_prints(
            moving in entry(),
            at in any::<prop::sample::Index>(),
            removed in 0..20_usize,
            added in r#"[0-9a-z",:{}\[\]. ]{0,5}"#,
        ) {
            let mut detail: Vec<char> = moving.to_detail().chars().collect();
            let from = at.index(detail.len());
            let to = (from + removed).min(detail.len());
            detail.splice(from..to, added.chars());
            let detail = detail.into_iter().collect::<String>();
            if let Some(read) = Move::from_detail(&detail) {
                let _ = (read.name(1), read.dirs().count());
                prop_assert_eq!(Move::from_detail(&read.to_detail()), Some(read), "{}", detail);
            }
        }
    }

    #[test]
    fn entries_round_trip_and_those_of_earlier_versions_are_parsed() {
        let follow_up = FollowUp {
            records: 10,
            positions: serde_json::Map::new(),
            destination: None,
        };
        let moving = Move {
            host: Host::this(),
            disk: DiskId::from_text(&"0".repeat(32)),
            inode: Some(7),
            bytes: Some(3),
            base: "/data".into(),
            hidden: ".open/1.open".into(),
            visible: "a=1/clicks-3-000.json.gz".into(),
            extension: "json.gz".into(),
            follow_up: Some(follow_up.clone()),
        };
        assert_eq!(Move::from_detail(&moving.to_detail()).unwrap(), moving);
        let plain = concat!(
            r#"{"host":"a b","base":"/data","hidden":".open/1.open","#,
            r#""visible":"a=1/x.json","extension":"json"}"#
        );
        let moving = Move::from_detail(plain).unwrap();
        assert_eq!(
            (moving.disk, moving.inode, moving.bytes, moving.follow_up),
            (None, None, None, None)
        );
        let then = r#","then":{"inode":7,"bytes":100,"records":10,"positions":{}}}"#;
        let moving = Move::from_detail(&plain.replace('}', then)).unwrap();
        assert_eq!(
            (moving.disk, moving.inode, moving.bytes, moving.follow_up),
            (None, Some(7), Some(100), Some(follow_up))
        );
    }
}
