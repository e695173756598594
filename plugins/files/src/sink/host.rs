//! The machine on which a process runs, which decides whether a free lock proves that the process
//! is dead.
//!
//! A free lock (`flock`) proves that its process is dead only where both processes see the same
//! lock: on one machine. On a disk that several machines share, a lock may not be visible to the
//! other machines. The machine does not identify the disk; see [`disk`](super::disk) for that.

use std::fs;
use std::path::Path;

/// A machine. Containers on it count as the same machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    /// The boot id of the kernel. Containers have host names of their own, but share this.
    boot: String,
}

impl Host {
    /// The machine of this process.
    pub(super) fn this() -> Host {
        let read = |name: &str| {
            fs::read_to_string(Path::new("/proc/sys/kernel").join(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Host {
            name: read("hostname"),
            boot: read("random/boot_id"),
        }
    }

    /// The name of the machine.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether locks of this machine's processes are visible on `other`. Two machines with the same
    /// name count as one, which costs the live process of the other machine at most a restart,
    /// since an owner is fenced before any of its files is removed.
    pub(super) fn shares_locks_with(&self, other: &Host) -> bool {
        (!self.name.is_empty() && self.name == other.name)
            || (!self.boot.is_empty() && self.boot == other.boot)
    }

    /// The machine as a string; see [`Host::from_text`].
    pub(super) fn to_text(&self) -> String {
        format!("{} {}", self.name, self.boot)
    }

    /// Parses `NAME BOOT_ID`; a missing boot id is empty, and so may the name be.
    pub(super) fn from_text(text: &str) -> Host {
        let text = text.trim_end_matches('\n');
        // A boot id has no space.
        let (name, boot) = text.rsplit_once(' ').unwrap_or((text, ""));
        Host {
            name: name.to_owned(),
            boot: boot.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hosts_round_trip(name in "[^\n]{0,8}", boot in "[0-9a-f-]{0,8}") {
            let host = Host { name, boot };
            prop_assert_eq!(Host::from_text(&host.to_text()), host.clone());
            // In a lock file, a line end follows.
            prop_assert_eq!(Host::from_text(&format!("{}\n", host.to_text())), host);
        }
    }

    #[test]
    fn processes_on_one_machine_share_locks() {
        let this = Host::this();
        assert!(this.shares_locks_with(&Host::from_text(&this.to_text())));
        let cases = [
            (
                "a 1",
                "a 2",
                true,
                "a machine after a reboot: earlier processes are dead",
            ),
            ("a 1", "b 1", true, "two containers on one machine"),
            ("a 1", "b 2", false, "two machines"),
            ("", "", false, "unknown machines"),
        ];
        for (one, other, expected, case) in cases {
            assert_eq!(
                Host::from_text(one).shares_locks_with(&Host::from_text(other)),
                expected,
                "{case}"
            );
        }
    }
}
