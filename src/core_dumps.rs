//! No core dumps: the memory of a run has the passwords of its pipeline.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Prevents core dumps of this process, and that another process of the same user reads its memory
/// and its environment. The limit alone would not do: the kernel ignores it if core dumps are piped
/// to a program. The process can still read its own files in `/proc`; a program that it starts can
/// be debugged again, and has the limit.
pub(crate) fn forbid() {
    let limit = getrlimit(Resource::Core);
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    let limited = setrlimit(Resource::Core, none);
    if let Err(error) = limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
    {
        tracing::warn!(%error, "cannot forbid core dumps, which have the passwords of the pipeline");
    }
}
