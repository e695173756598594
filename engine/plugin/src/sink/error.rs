//! The errors of a sink and its lanes.

use pseidon_delivery::Reason;
use pseidon_delivery::committer::CommitterError;
use thiserror::Error;

/// Why a sink cannot continue.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A commit was abandoned.
    #[error(transparent)]
    Committer(#[from] CommitterError),
    /// The target has refused some records and identified them: the sink's next
    /// [`Sink::route`](crate::sink::Sink::route) passes these to the error policy. The records that
    /// were written together with them are re-read from the committed positions, at once. This does
    /// not count as a failure of the sink.
    #[error(transparent)]
    Refused(Reason),
    /// A lane cannot write one of its records, or all of them together. The engine re-reads them from
    /// the committed positions and writes them in ever smaller units, until it has found the record;
    /// this goes to the error policy. A panic in a lane means the same.
    #[error(transparent)]
    Unwritable(Reason),
    /// A retry may succeed; the run restarts after a backoff.
    #[error(transparent)]
    Transient(Reason),
    /// A retry will fail until the user changes something.
    #[error(transparent)]
    Fatal(Reason),
}
