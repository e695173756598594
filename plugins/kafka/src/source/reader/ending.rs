//! The end of reading: what was read is committed before the consumer leaves the group.

use pseidon_plugin::source::{SourceError, SourceExit};

use super::{FETCH_MESSAGES, Reader};
use crate::native::MessageBatch;

/// Whether reading has ended.
#[derive(Default)]
pub(super) enum Phase {
    /// It has not.
    #[default]
    Reading,
    /// Reading has ended, because of this error if there is one, and what was read is being
    /// committed.
    Ending(Option<SourceError>),
}

impl Phase {
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Phase::Ending(_))
    }

    /// Ends reading, if it has not ended.
    pub(super) fn end(&mut self) {
        if let Phase::Reading = self {
            *self = Phase::Ending(None);
        }
    }

    /// Ends reading because of this error. Returns whether it is the first error; others are
    /// discarded.
    pub(super) fn fail(&mut self, error: SourceError) -> bool {
        let is_first = !matches!(self, Phase::Ending(Some(_)));
        if is_first {
            *self = Phase::Ending(Some(error));
        }
        is_first
    }

    /// The error that ended reading, if any, to be returned once.
    pub(super) fn take_failure(&mut self) -> Option<SourceError> {
        match self {
            Phase::Reading => None,
            Phase::Ending(failure) => failure.take(),
        }
    }
}

impl Reader<'_> {
    /// Commits everything that was read before the consumer leaves the group: otherwise other
    /// instances would take the partitions over and this one's last commit would be refused.
    pub(super) fn finish(&mut self) -> Result<(), SourceExit> {
        self.end_reading()?;
        let mut fetched = MessageBatch::with_capacity(FETCH_MESSAGES);
        while !self.departures.is_empty() {
            let timeout = self.fetch_timeout();
            self.pass(&mut fetched, timeout)?;
        }
        let failure = self.phase.take_failure();
        failure.map_or(Ok(()), |error| Err(SourceExit::Failed(error)))
    }
}
