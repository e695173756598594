//! Waits for a file with a time limit, so that the caller can check in between whether the run is
//! stopping.

use std::fs::File;
use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Whether `file` is readable, or at its end, now or within `timeout`.
pub(crate) fn readable(file: &File, timeout: Duration) -> io::Result<bool> {
    Ok(!wait(file, PollFlags::IN, timeout)?.is_empty())
}

/// Whether `file` is writable, or reports an error when written to, now or within `timeout`.
pub(crate) fn writable(file: &File, timeout: Duration) -> io::Result<bool> {
    Ok(!wait(file, PollFlags::OUT, timeout)?.is_empty())
}

/// Whether `file` is a pipe whose other end is closed.
pub(crate) fn broken(file: &File) -> io::Result<bool> {
    let occurred = wait(file, PollFlags::empty(), Duration::ZERO)?;
    Ok(occurred.contains(PollFlags::ERR))
}

/// Returns which of `events`, or which errors, occurred within `timeout`.
fn wait(file: &File, events: PollFlags, timeout: Duration) -> io::Result<PollFlags> {
    let mut entries = [PollFd::new(file, events)];
    // A duration that is too long for the system has no end.
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut entries, timeout.as_ref()) {
        Ok(_) => Ok(entries[0].revents()),
        // Interrupted by a signal: the caller checks whether it stops the run.
        Err(Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error.into()),
    }
}
