//! Files that were not read to their end, for the summary of a run.

use std::collections::BTreeSet;

use pseidon_dsl::printable;
use pseidon_service::runs::RunRegistry;

use crate::counted::counted;
use crate::stderr_line;

/// How many files the summary names.
const MAX_NAMED: usize = 10;

/// The names of the files that the runs of the process could not read to their end.
pub(crate) struct BrokenFiles(BTreeSet<String>);

impl BrokenFiles {
    /// Those of all runs so far.
    pub(crate) fn of(runs: &RunRegistry) -> BrokenFiles {
        let entries = runs.entries();
        let names = entries
            .iter()
            .map(|entry| entry.metrics.broken_file_names());
        BrokenFiles(names.flatten().collect())
    }

    /// Logs a warning that names them.
    pub(crate) fn log(&self) {
        if !self.0.is_empty() {
            tracing::warn!(
                count = self.0.len(),
                files = self.names(),
                "files were not read to their end"
            );
        }
    }

    /// Prints a line that names them.
    pub(crate) fn print(&self) {
        if !self.0.is_empty() {
            let files = counted(self.0.len() as u64, "file");
            stderr_line!("  broken   {files} not read to the end: {}", self.names());
        }
    }

    fn names(&self) -> String {
        let names = self.0.iter().take(MAX_NAMED);
        let named: Vec<_> = names.map(|name| printable(name)).collect();
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}
