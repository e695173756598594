//! Waiting for a file without being stuck in it, so that whoever waits can look in between whether
//! the run ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Whether `file` can be read, or has come to its end, now or within `patience`.
pub(crate) fn readable(file: &File, patience: Duration) -> io::Result<bool> {
    Ok(poll(file, libc::POLLIN, patience)? != 0)
}

/// Whether `file` can be written, or shows an error when written, now or within `patience`.
pub(crate) fn writable(file: &File, patience: Duration) -> io::Result<bool> {
    Ok(poll(file, libc::POLLOUT, patience)? != 0)
}

/// Whether `file` is the end of a pipe whose other end is closed.
pub(crate) fn broken(file: &File) -> io::Result<bool> {
    Ok(poll(file, 0, Duration::ZERO)? & libc::POLLERR != 0)
}

/// What has happened of `events`, or of errors.
fn poll(file: &File, events: libc::c_short, patience: Duration) -> io::Result<libc::c_short> {
    let mut entry = libc::pollfd {
        fd: file.as_raw_fd(),
        events,
        revents: 0,
    };
    let patience = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `entry` is one valid `pollfd` for as long as the call takes, and `file` keeps its
    // descriptor open.
    let answer = unsafe { libc::poll(&raw mut entry, 1, patience) };
    if answer >= 0 {
        return Ok(entry.revents);
    }
    let error = io::Error::last_os_error();
    // A signal: the caller looks whether it meant the end.
    if error.kind() == io::ErrorKind::Interrupted {
        Ok(0)
    } else {
        Err(error)
    }
}
