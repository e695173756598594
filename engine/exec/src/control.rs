//! Requests of the user to a run.

/// A request of the user to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Stop reading, commit what was read, stop within the grace period.
    Stop,
    /// Like [`Control::Stop`], but without a grace period: the caller continues with another plan.
    Reload,
    /// Leave at once. Uncommitted records are re-read at the next start.
    LeaveNow,
    /// Stop reading until [`Control::Resume`]. What was read is still processed and committed.
    Pause,
    /// Read again after [`Control::Pause`]. Has no effect on a run that reads.
    Resume,
    /// Commit and publish what is open now.
    Roll,
}
