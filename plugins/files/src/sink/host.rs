//! The machine that a process runs on, which decides whether a lock says that the process is dead.
//!
//! A lock (`flock`) that is free proves that its process is dead only where both see the same lock:
//! on one machine. On a disk that machines share, a lock may not be visible to the others. The
//! machine says nothing about the disk; see [`disk`](super::disk) for that.

use std::fs;
use std::path::Path;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    /// Names the time since the machine was started last. Containers have names of their own, but
    /// share this.
    boot: String,
}

impl Host {
    /// This machine.
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

    /// Whether locks of this machine's processes can be seen on `other`. Two machines of one name
    /// are taken for one, which costs the living process of the other machine a restart at most,
    /// since an owner is fenced before anything of it is removed.
    pub(super) fn shares_locks_with(&self, other: &Host) -> bool {
        (!self.name.is_empty() && self.name == other.name)
            || (!self.boot.is_empty() && self.boot == other.boot)
    }

    /// The machine as text; see [`Host::from_text`].
    pub(super) fn to_text(&self) -> String {
        format!("{} {}", self.name, self.boot)
    }

    /// The machine that this text names.
    pub(super) fn from_text(text: &str) -> Host {
        let (name, boot) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Host {
            name: name.to_owned(),
            boot: boot.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_shared_by_what_runs_on_one_machine() {
        let this = Host::this();
        assert!(this.shares_locks_with(&Host::from_text(&this.to_text())));
        let cases = [
            (
                "a 1",
                "a 2",
                true,
                "a machine that was started again: what ran before is dead",
            ),
            ("a 1", "b 1", true, "two containers of one machine"),
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
