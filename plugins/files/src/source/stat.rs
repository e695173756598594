//! What the metadata of a file shows about changes of its content.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long after a change another change may get the same timestamp: the clocks of file systems
/// tick at least a hundred times a second.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// Seconds and nanoseconds since 1970.
pub(super) type ChangeTime = (i64, i64);

/// The metadata of a file that shows whether it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    /// The time of its last change.
    changed: ChangeTime,
    /// Whether the timestamp is old enough that another change has another timestamp.
    is_settled: bool,
}

impl Stat {
    /// Takes it from `metadata`, which was requested at `now` or later.
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Stat {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let since = |(seconds, nanos): ChangeTime| {
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

    /// The time of its last change.
    pub(super) fn changed(&self) -> ChangeTime {
        self.changed
    }

    /// The time of its last change, if each later change has another one.
    pub(super) fn settled(&self) -> Option<ChangeTime> {
        self.is_settled.then_some(self.changed)
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

/// Parses a time of a change: seconds, a dot and nanoseconds.
pub(super) fn parse_time(word: &str) -> Option<ChangeTime> {
    let (seconds, nanos) = word.split_once('.')?;
    Some((seconds.parse().ok()?, nanos.parse().ok()?))
}
