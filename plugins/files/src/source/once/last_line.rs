//! The last line of a plain file, if it has no line end, or its last record, if only the next one
//! shows its end: it may be a whole record, or the beginning of one that is just being written.

use std::fs::Metadata;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_plugin::batch::BYTE_ORDER_MARK;
use pseidon_plugin::framing::Completeness;

use super::super::LastLine;
use super::super::lines::RecordFraming;

/// How long a file must not have changed until its last line counts as complete, if the line does
/// not show it.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// How many waiting lines are logged one by one.
const MAX_LOGGED: usize = 10;

impl LastLine {
    /// Whether `rest`, the bytes after the last end of a record, are read as a record now.
    /// `metadata` was requested after they were read.
    pub(super) fn takes(self, rest: &[u8], framing: &RecordFraming, metadata: &Metadata) -> bool {
        let rest = rest.strip_prefix(BYTE_ORDER_MARK).unwrap_or(rest);
        // The rest of a comment, which is written later, would be a record.
        let is_nothing = framing.record(rest).is_none() && !framing.is_comment(rest);
        if self == LastLine::Take || is_nothing {
            return true;
        }
        self == LastLine::Auto
            && match framing.completeness(rest) {
                Completeness::Complete => true,
                Completeness::Incomplete => false,
                Completeness::Unknown => is_settled(metadata),
            }
    }
}

/// Whether the file has not changed for some time. A time in the future does not show it.
fn is_settled(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age >= SETTLED_AFTER)
}

/// The last lines that wait for the next run.
#[derive(Default)]
pub(super) struct WaitingLines(Mutex<Vec<WaitingLine>>);

struct WaitingLine {
    display_path: String,
    bytes: u64,
}

impl WaitingLines {
    pub(super) fn add(&self, display_path: &str, bytes: u64) {
        self.0.lock().push(WaitingLine {
            display_path: display_path.to_owned(),
            bytes,
        });
    }

    /// Logs a warning for each of them.
    pub(super) fn log(self, stage: &str, framing: &RecordFraming) {
        let reason = match framing.has_open_end() {
            true => {
                "the last record may have more lines and waits for the next run; \
                 `:last-line :take` reads it"
            }
            false => {
                "the last line has no line end and waits for the next run; \
                 `:last-line :take` reads it"
            }
        };
        let mut lines = self.0.into_inner();
        lines.sort_by(|one, other| one.display_path.cmp(&other.display_path));
        for line in lines.iter().take(MAX_LOGGED) {
            tracing::warn!(
                stage,
                file = line.display_path,
                bytes = line.bytes,
                "{reason}"
            );
        }
        let more = lines.len().saturating_sub(MAX_LOGGED);
        if more > 0 {
            tracing::warn!(stage, files = more, "more last lines wait for the next run");
        }
    }
}
