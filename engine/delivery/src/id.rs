//! Names of things that outlive a process.

use std::fmt;
use std::sync::Arc;

/// The place of a record in its split: an offset, or the byte at which a line starts. Inside a
/// split positions never decrease; records that were derived from one record share its position.
///
/// A position that bounds a range is exclusive: "up to 7" covers 0 to 6.
pub type Position = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it is written in the store.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A source's unit of order and of resuming: `clicks:clicks/3` (stage, topic and partition),
    /// `logs:8:1234` (stage, device and inode).
    SplitId
}
id! {
    /// What a sink repeatedly makes durable as one unit: a bucket of files, named by its rendered
    /// path. The same record always goes to the same lane, in every instance.
    LaneId
}
id! {
    /// One place of the flow where records leave: the sink stage's name, with `#2`, `#3` … for its
    /// further places.
    SinkId
}
id! {
    /// The unique name of an instance, which is one attempt of one process to run a plan. The part
    /// before its last `.` names the process. An owner of splits is an instance.
    InstanceId
}
id! {
    /// The name of a staged entry, unique within its sink. The sink chooses it.
    StagedId
}

impl SinkId {
    /// The sink stage's name, and the number of the place unless it is the first.
    pub fn stage_and_place(&self) -> (&str, Option<&str>) {
        self.as_str()
            .split_once('#')
            .map_or((self.as_str(), None), |(stage, place)| (stage, Some(place)))
    }
}
