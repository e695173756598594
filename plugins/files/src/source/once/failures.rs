//! The files of a run that cannot be read further, and what `:on-broken-file` does with them.
//!
//! An error that may pass fails the run whatever the option is: a restart tries again.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::{Reason, SplitId, WithCauses};
use pseidon_plugin::Split;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};

use super::super::and_more;
use super::super::damage::Damage;
use super::super::options::OnBrokenFile;
use super::super::read_error::{ReadError, describe, is_transient};

/// How many files are logged beside the first one, which the error names.
const MAX_LOGGED: usize = 100;
/// The pause before files are claimed again that other instances have.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);

/// The files that cannot be read further.
pub(super) struct FileFailures<'a> {
    setup: &'a SourceSetup,
    on_broken: OnBrokenFile,
    found: Mutex<FoundFailures>,
    /// Whether the run stops because of one of them.
    stops: AtomicBool,
}

#[derive(Default)]
struct FoundFailures {
    /// Those that fail the run.
    failures: Vec<FileFailure>,
    /// Those that cannot be identified and are to be quarantined.
    unidentified: Vec<Damage>,
    is_any: bool,
}

struct FileFailure {
    is_transient: bool,
    display_path: String,
    reason: Reason,
}

impl<'a> FileFailures<'a> {
    pub(super) fn new(setup: &'a SourceSetup, on_broken: OnBrokenFile) -> Self {
        setup
            .metrics
            .change_broken_files(&setup.stage, |names| names.clear());
        FileFailures {
            setup,
            on_broken,
            found: Mutex::default(),
            stops: AtomicBool::new(false),
        }
    }

    /// Whether every file could be read so far.
    pub(super) fn is_empty(&self) -> bool {
        !self.found.lock().is_any
    }

    /// Whether the run stops because of a file.
    pub(super) fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    /// Adds a file that cannot be read further. Returns the reason if the file is left behind.
    pub(super) fn add(&self, display_path: &str, error: ReadError) -> Option<Reason> {
        let is_transient = match &error {
            ReadError::Io(error) => is_transient(error),
            ReadError::Incomplete(_)
            | ReadError::Rewritten
            | ReadError::TooLong { .. }
            | ReadError::NotUtf8(_) => false,
        };
        let reason = describe(format!("cannot read {display_path}"), error);
        self.push(is_transient, display_path, reason)
    }

    /// The same for a file that does not fit what was read of it before.
    pub(super) fn add_unusable(
        &self,
        display_path: &str,
        cause: Box<dyn Error + Send + Sync>,
    ) -> Option<Reason> {
        let may_pass = cause.downcast_ref::<io::Error>().is_some_and(is_transient);
        let reason = Reason::caused_by(format!("cannot read {display_path}"), cause);
        self.push(may_pass, display_path, reason)
    }

    /// The same for a path without wildcards that is not that of a file.
    pub(super) fn add_missing(&self, path: &str, reason: Reason) {
        self.push(false, path, reason);
    }

    /// The same for a file or a folder of which nothing can be read.
    pub(super) fn add_unidentified(&self, path: &Path, display_path: &str, error: ReadError) {
        if let Some(reason) = self.add(display_path, error)
            && self.on_broken == OnBrokenFile::Quarantine
        {
            let (stage, topic) = (&self.setup.stage, display_path.to_owned());
            let damage = Damage::of_path(stage, path, topic, &reason);
            self.found.lock().unidentified.push(damage);
        }
    }

    fn push(&self, is_transient: bool, display_path: &str, reason: Reason) -> Option<Reason> {
        let mut found = self.found.lock();
        found.is_any = true;
        let (stage, name) = (&self.setup.stage, display_path.to_owned());
        if !is_transient {
            let metrics = &self.setup.metrics;
            metrics.change_broken_files(stage, |names| names.extend([name.clone()]));
            match self.on_broken {
                OnBrokenFile::Report => {}
                OnBrokenFile::Stop => self.stops.store(true, Ordering::Relaxed),
                OnBrokenFile::Skip | OnBrokenFile::Quarantine => {
                    tracing::warn!(
                        stage,
                        reason = WithCauses(&reason).to_string(),
                        "a file is not read further; it is left behind"
                    );
                    return Some(reason);
                }
            }
        }
        found.failures.push(FileFailure {
            is_transient,
            display_path: name,
            reason,
        });
        None
    }

    /// Quarantines a record about a file that is left behind, if it is to be. The caller holds the
    /// file's split.
    pub(super) fn quarantine(
        &self,
        handle: &SourceHandle,
        file: &Split,
        position: u64,
        reason: &Reason,
    ) -> Result<(), Stopped> {
        match self.on_broken {
            OnBrokenFile::Quarantine => Damage::of_split(file, position, reason).quarantine(handle),
            _ => Ok(()),
        }
    }

    /// The same for those that cannot be identified, which all instances find.
    pub(super) fn quarantine_unidentified(&self, handle: &SourceHandle) -> Result<(), Stopped> {
        let mut rest = std::mem::take(&mut self.found.lock().unidentified);
        while !rest.is_empty() {
            let wanted: Vec<SplitId> = rest.iter().map(|damage| damage.split().clone()).collect();
            let granted = handle.share_splits(wanted)?.granted;
            let is_mine = |damage: &Damage| granted.contains(damage.split());
            let (mine, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_mine);
            mine.iter()
                .try_for_each(|damage| damage.quarantine(handle))?;
            rest = others;
            if mine.is_empty() {
                handle.sleep(CLAIM_PAUSE)?;
            }
        }
        Ok(())
    }

    pub(super) fn outcome(self) -> Result<(), SourceError> {
        let mut failures = self.found.into_inner().failures;
        let count = failures.len();
        // Always the same one, whichever thread was faster.
        failures.sort_by(|one, other| {
            let paths = one.display_path.cmp(&other.display_path);
            one.is_transient.cmp(&other.is_transient).then(paths)
        });
        let mut failures = failures.into_iter();
        let Some(FileFailure {
            is_transient,
            reason: first,
            ..
        }) = failures.next()
        else {
            return Ok(());
        };
        let stage = &self.setup.stage;
        for failure in failures.by_ref().take(MAX_LOGGED) {
            let reason = WithCauses(&failure.reason).to_string();
            tracing::error!(stage, reason, "a file is not read further");
        }
        let unlogged = failures.count();
        if unlogged > 0 {
            tracing::error!(stage, files = unlogged, "more files are not read further");
        }
        let reason = and_more(first, count - 1);
        Err(if is_transient {
            SourceError::Transient(reason)
        } else {
            SourceError::Fatal(reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::World;
    use super::*;

    /// An error of a network file system, say, while a file is compared with what was read of it.
    #[test]
    fn an_error_that_may_pass_leaves_no_file_out() {
        let setup = World::new().setup();
        let outcome = |cause: Box<dyn Error + Send + Sync>| {
            let failures = FileFailures::new(&setup, OnBrokenFile::Skip);
            let is_left_out = failures.add_unusable("a.log", cause).is_some();
            (is_left_out, failures.outcome())
        };
        let may_pass = io::Error::from(io::ErrorKind::TimedOut);
        let found = outcome(may_pass.into());
        assert!(matches!(found, (false, Err(SourceError::Transient(_)))));
        let found = outcome("it was replaced".into());
        assert!(matches!(found, (true, Ok(()))));
    }
}
