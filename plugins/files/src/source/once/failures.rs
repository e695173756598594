//! The errors of files that cannot be read. They fail the run after the other files are read.

use parking_lot::Mutex;
use pseidon_plugin::source::SourceError;

use super::super::read_error::{ReadError, describe, is_transient};

/// The errors by file, each with whether it is transient.
#[derive(Default)]
pub(super) struct Failures(Mutex<Vec<(bool, String)>>);

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn add(&self, display_path: &str, error: &ReadError) {
        let is_transient = match error {
            ReadError::TooLong { .. } => false,
            ReadError::Io(error) => is_transient(error),
        };
        self.0.lock().push((
            is_transient,
            format!("cannot read {display_path}: {}", describe(error)),
        ));
    }

    pub(super) fn add_message(&self, display_path: &str, reason: String) {
        self.0
            .lock()
            .push((false, format!("cannot read {display_path}: {reason}")));
    }

    pub(super) fn outcome(self) -> Result<(), SourceError> {
        let failures = self.0.into_inner();
        let Some((is_transient, first)) = failures
            .iter()
            .min_by_key(|(is_transient, _)| *is_transient)
        else {
            return Ok(());
        };
        let more = match failures.len() {
            1 => String::new(),
            all => format!(" (and {} more files cannot be read)", all - 1),
        };
        Err(if *is_transient {
            SourceError::Transient(format!("{first}{more}"))
        } else {
            SourceError::Fatal(format!("{first}{more}"))
        })
    }
}
