//! The errors of files that cannot be read. They fail the run after the other files are read.

use std::error::Error;

use parking_lot::Mutex;
use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceError;

use super::super::read_error::{ReadError, describe, is_transient};

/// The errors by file.
#[derive(Default)]
pub(super) struct FileFailures(Mutex<Vec<FileFailure>>);

struct FileFailure {
    is_transient: bool,
    display_path: String,
    reason: Reason,
}

impl FileFailures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn add(&self, display_path: &str, error: ReadError) {
        let is_transient = match &error {
            ReadError::Incomplete(_) | ReadError::TooLong { .. } | ReadError::Utf16 => false,
            ReadError::Io(error) => is_transient(error),
        };
        let reason = describe(format!("cannot read {display_path}"), error);
        self.push(is_transient, display_path, reason);
    }

    pub(super) fn add_unusable(&self, display_path: &str, cause: Box<dyn Error + Send + Sync>) {
        let reason = Reason::caused_by(format!("cannot read {display_path}"), cause);
        self.push(false, display_path, reason);
    }

    fn push(&self, is_transient: bool, display_path: &str, reason: Reason) {
        self.0.lock().push(FileFailure {
            is_transient,
            display_path: display_path.to_owned(),
            reason,
        });
    }

    pub(super) fn outcome(self) -> Result<(), SourceError> {
        let mut failures = self.0.into_inner();
        let count = failures.len();
        // Always the same one, whichever thread was faster.
        failures.sort_by(|one, other| {
            let paths = one.display_path.cmp(&other.display_path);
            one.is_transient.cmp(&other.is_transient).then(paths)
        });
        let Some(FileFailure {
            is_transient,
            reason: first,
            ..
        }) = failures.into_iter().next()
        else {
            return Ok(());
        };
        let reason = match count {
            1 => first,
            all => first.followed_by(format!(" (and {} more cannot be read)", all - 1)),
        };
        Err(if is_transient {
            SourceError::Transient(reason)
        } else {
            SourceError::Fatal(reason)
        })
    }
}
