//! The decision about a committed file: whether it has to be published, is published, or cannot be
//! published here.

use super::disk::DiskId;

/// The state of a committed file on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskState {
    /// Its hidden name exists, with this many bytes.
    Hidden(u64),
    /// Its hidden name does not exist.
    Gone {
        /// Whether this is the disk to which it was written.
        disk: DiskMatch,
        /// Whether it exists under its visible name, or a numbered variant of it.
        is_visible: bool,
    },
}

/// How the disk of a base directory relates to the disk to which a file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DiskMatch {
    /// It is the same disk.
    Same,
    /// It is another disk, with this id if it has one.
    Other(Option<DiskId>),
    /// It may be either: the entry does not identify the disk to which the file was written.
    Unknown,
}

/// What is left to do with a committed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has to be renamed to its visible name.
    Publish,
    /// It was published; `is_visible` says whether it still exists.
    Published { is_visible: bool },
    /// It cannot be published here.
    NotHere(Obstacle),
}

/// Why a committed file cannot be published here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// This is another disk, with this id if it has one.
    OtherDisk(Option<DiskId>),
    /// The file is not here, and the entry does not identify its disk.
    UnknownDisk,
    /// The hidden file's size differs from the committed size.
    OtherSize { found: u64, committed: u64 },
    /// Other programs can write to the state, and the entry leads out of the sink's folders, for
    /// this reason.
    Refused(String),
}

/// Decides whether a file of `bytes` bytes in this state is published, has to be published, or
/// cannot be published here.
pub(super) fn decide(state: DiskState, bytes: Option<u64>) -> Verdict {
    match state {
        DiskState::Hidden(found) => match bytes.filter(|bytes| *bytes != found) {
            None => Verdict::Publish,
            Some(committed) => Verdict::NotHere(Obstacle::OtherSize { found, committed }),
        },
        // A missing hidden name means that the file got its visible name only on the disk to which
        // it was written.
        DiskState::Gone {
            disk: DiskMatch::Same,
            is_visible,
        } => Verdict::Published { is_visible },
        DiskState::Gone {
            disk: DiskMatch::Other(found),
            ..
        } => Verdict::NotHere(Obstacle::OtherDisk(found)),
        DiskState::Gone {
            disk: DiskMatch::Unknown,
            is_visible: true,
        } => Verdict::Published { is_visible: true },
        DiskState::Gone {
            disk: DiskMatch::Unknown,
            is_visible: false,
        } => Verdict::NotHere(Obstacle::UnknownDisk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_hidden_name_means_published_only_on_the_same_disk() {
        let state = |disk: DiskMatch, is_visible: bool| DiskState::Gone { disk, is_visible };
        let published = |is_visible: bool| Verdict::Published { is_visible };
        let other = DiskId::from_text(&"0".repeat(32));
        let elsewhere = |disk: &Option<DiskId>| Verdict::NotHere(Obstacle::OtherDisk(disk.clone()));
        let cases = [
            (DiskState::Hidden(3), Verdict::Publish),
            (
                DiskState::Hidden(2),
                Verdict::NotHere(Obstacle::OtherSize {
                    found: 2,
                    committed: 3,
                }),
            ),
            (state(DiskMatch::Same, true), published(true)),
            (state(DiskMatch::Same, false), published(false)),
            (
                state(DiskMatch::Other(other.clone()), false),
                elsewhere(&other),
            ),
            (
                state(DiskMatch::Other(other.clone()), true),
                elsewhere(&other),
            ),
            (state(DiskMatch::Other(None), true), elsewhere(&None)),
            (state(DiskMatch::Unknown, true), published(true)),
            (
                state(DiskMatch::Unknown, false),
                Verdict::NotHere(Obstacle::UnknownDisk),
            ),
        ];
        for (state, expected) in cases {
            assert_eq!(decide(state.clone(), Some(3)), expected, "{state:?}");
        }
        assert_eq!(
            decide(DiskState::Hidden(2), None),
            Verdict::Publish,
            "an earlier version did not record the size"
        );
    }
}
