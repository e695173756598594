//! What the metadata of a file shows about changes of its content.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long after a change another change may get the same timestamp: the clocks of file systems
/// tick at least a hundred times a second.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// The metadata of a file that shows whether it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    /// The time of its last change, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
    /// Whether the timestamp is old enough that another change has another timestamp.
    is_settled: bool,
}

impl Stat {
    /// Takes it from `metadata`, which was requested at `now` or later.
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Stat {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let since = |(seconds, nanos): (i64, i64)| {
            Some(Duration::new(
                u64::try_from(seconds).ok()?,
                u32::try_from(nanos).ok()?,
            ))
        };
        let settled =
            since(changed).and_then(|changed| UNIX_EPOCH.checked_add(changed + CLOCK_TICK));
        Stat {
            size: metadata.len(),
            changed,
            is_settled: settled.is_some_and(|settled| settled < now),
        }
    }

    /// The time of its last change, in seconds and nanoseconds since 1970.
    pub(super) fn changed(&self) -> (i64, i64) {
        self.changed
    }

    /// Whether the file has certainly changed since `before`.
    pub(super) fn differs_from(&self, before: &Stat) -> bool {
        (self.size, self.changed) != (before.size, before.changed)
    }

    /// Whether the file is certainly unchanged since `before`.
    pub(super) fn is_same_as(&self, before: &Stat) -> bool {
        before.is_settled && (self.size, self.changed) == (before.size, before.changed)
    }
}
