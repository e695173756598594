//! The names of processes, versions of the pipeline and splits, and the kinds of sinks.

use std::fmt;

use pseidon_delivery::SplitId;

/// The identity of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) machine: usize,
    pub(crate) number: usize,
    /// The version of the pipeline that it runs.
    pub(crate) plan: usize,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}p{}", self.machine, self.number)?;
        if self.plan > 0 {
            write!(f, "-v{}", self.plan + 1)
        } else {
            Ok(())
        }
    }
}

/// The kinds of sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkKind {
    /// Files, with the positions in the store.
    Files,
    /// A target that holds the positions.
    Target,
}

/// The fingerprint of a version of the pipeline.
pub(crate) fn plan_name(plan: usize) -> String {
    format!("plan{plan}")
}

/// The split of a partition.
pub(crate) fn split_id(partition: usize) -> SplitId {
    SplitId::from(format!("in:clicks/{partition}"))
}
