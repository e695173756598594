//! Waits for a file with a time limit, so that the caller can check in between whether the run is
//! stopping.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Whether `file` is readable, or at its end, now or within `timeout`.
pub(crate) fn readable(file: &File, timeout: Duration) -> io::Result<bool> {
    Ok(poll(file, libc::POLLIN, timeout)? != 0)
}

/// Whether `file` is writable, or reports an error when written to, now or within `timeout`.
pub(crate) fn writable(file: &File, timeout: Duration) -> io::Result<bool> {
    Ok(poll(file, libc::POLLOUT, timeout)? != 0)
}

/// Whether `file` is a pipe whose other end is closed.
pub(crate) fn broken(file: &File) -> io::Result<bool> {
    Ok(poll(file, 0, Duration::ZERO)? & libc::POLLERR != 0)
}

/// Returns which of `events`, or which errors, occurred within `timeout`; 0 if none.
fn poll(file: &File, events: libc::c_short, timeout: Duration) -> io::Result<libc::c_short> {
    let mut entry = libc::pollfd {
        fd: file.as_raw_fd(),
        events,
        revents: 0,
    };
    let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `entry` is one valid `pollfd` for as long as the call takes, and `file` keeps its
    // descriptor open.
    let result = unsafe { libc::poll(&raw mut entry, 1, timeout) };
    if result >= 0 {
        return Ok(entry.revents);
    }
    let error = io::Error::last_os_error();
    // Interrupted by a signal: the caller checks whether it stops the run.
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(0)
    } else {
        Err(error)
    }
}
