//! Why a file cannot be read, and whether that may pass.

use std::error::Error;
use std::io;

use pseidon_delivery::{Position, Reason};
use thiserror::Error;

/// Why a file cannot be read further.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// Reading or decompressing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file of columns lacks the part without which nothing can be read of it.
    #[error(transparent)]
    Incomplete(io::Error),
    /// The file is in this other encoding.
    #[error("it is in {0}: convert it to UTF-8, for example with iconv")]
    NotUtf8(&'static str),
    /// The content before the position is not the one that was read.
    #[error("it was rewritten")]
    Rewritten,
    /// A record is longer than `:max-record`.
    #[error("the record at byte {at} is longer than {limit} bytes: {help}")]
    TooLong {
        /// The position of the record.
        at: Position,
        /// The limit in bytes.
        limit: usize,
        /// What to do.
        help: &'static str,
    },
}

impl ReadError {
    /// The error itself, as the cause of another one.
    pub(super) fn into_cause(self) -> Box<dyn Error + Send + Sync> {
        match self {
            ReadError::Io(error) | ReadError::Incomplete(error) => error.into(),
            other => other.into(),
        }
    }
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

/// The error message, with what to do about it. `what` failed.
pub(super) fn describe(what: String, error: ReadError) -> Reason {
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let reason = format!(
                "it is truncated ({error}); the records before that were read: \
                 repair the file or remove it from :path"
            );
            format!("{what}: {reason}").into()
        }
        other => Reason::caused_by(what, other.into_cause()),
    }
}
