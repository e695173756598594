//! Why a file cannot be read, and whether that may pass.

use std::io;

use pseidon_delivery::Position;
use thiserror::Error;

/// Why a file cannot be read further.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// Reading or decompressing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A record is longer than `:max-record`.
    #[error("the record at byte {at} is longer than {limit} bytes: raise :max-record")]
    TooLong {
        /// The position of the record.
        at: Position,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Whether an error may disappear without intervention.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, NetworkUnreachable, StaleNetworkFileHandle, TimedOut, WouldBlock,
    };
    matches!(
        error.kind(),
        TimedOut | StaleNetworkFileHandle | NetworkUnreachable | Interrupted | WouldBlock
    ) || error.raw_os_error().is_some_and(|code| {
        code == rustix::io::Errno::IO.raw_os_error()
            || code == rustix::io::Errno::MFILE.raw_os_error()
    })
}

/// The error message, with what to do about it.
pub(super) fn describe(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!(
                "it is truncated ({error}); the records before that were read: \
                 repair the file or remove it from :path"
            )
        }
        other => other.to_string(),
    }
}
