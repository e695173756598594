//! A followed file that cannot be read further, and how it is read again.

use std::io;
use std::time::Duration;

use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceError;

use super::super::super::compression::InputCompression;
use super::super::super::read_error::{ReadError, describe, is_transient};
use super::super::super::tail::Tail;
use super::{ReadResult, ReadState, TrackedFile};

impl TrackedFile {
    pub(super) fn is_incomplete(&self) -> bool {
        matches!(self.state, ReadState::Incomplete { .. })
    }

    /// Reads a file again that has changed to this size, and could not be read further before. What
    /// is appended to a file that may grow repairs nothing.
    pub(super) fn recover(&mut self, size: u64) {
        let is_plain = self.compression == InputCompression::None;
        let may_grow = is_plain || self.compression.may_grow();
        let before = match &self.state {
            ReadState::Broken {
                before,
                may_recover: true,
            } if !may_grow || size <= self.size => before.clone(),
            ReadState::Incomplete { before, .. } => before.clone(),
            _ => return,
        };
        self.read_size = if is_plain { before.upto() } else { 0 };
        self.state = ReadState::Closed(before);
    }

    /// Gives up a file that ends early and has not grown for this time. Returns why it cannot be
    /// read further.
    pub(in super::super) fn give_up_incomplete(&mut self, patience: Duration) -> Option<Reason> {
        if self.last_growth.elapsed() < patience {
            return None;
        }
        let ReadState::Incomplete { before, reason } = &self.state else {
            return None;
        };
        let (before, reason) = (before.clone(), reason.clone());
        self.state = ReadState::Broken {
            before,
            may_recover: true,
        };
        Some(reason)
    }

    /// Whether its content is compared with what was read when it is read again: a compressed file of
    /// which a part was read may be shorter for a while when it is repaired.
    pub(super) fn is_checked_when_read(&self) -> bool {
        let is_stream = !matches!(
            self.compression,
            InputCompression::None | InputCompression::Columns(_)
        );
        let is_partly_read = match &self.state {
            ReadState::Closed(_) => self.read_size == 0,
            ReadState::Incomplete { .. } => true,
            ReadState::Broken { may_recover, .. } => *may_recover,
            ReadState::ReadToEnd(_) | ReadState::Open(..) => false,
        };
        is_stream && is_partly_read
    }

    /// Handles a read error. A compressed file that ends early may still be incomplete and is
    /// retried. A file that cannot be read further keeps no others from being read.
    pub(super) fn handle_error(&mut self, error: ReadError) -> Result<ReadResult, SourceError> {
        let io_error = match &error {
            ReadError::Io(error) => Some(error),
            _ => None,
        };
        let incomplete = matches!(error, ReadError::Incomplete(_))
            || io_error.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        let may_pass = io_error.is_some_and(is_transient);
        let what = format!("cannot read {}", self.path.display());
        let reason = match incomplete {
            true => describe(what, error),
            false => Reason::caused_by(what, error.into_cause()),
        };
        if may_pass {
            return Err(SourceError::Transient(reason));
        }
        self.skipped = self.take_skipped();
        let (before, may_recover) = match &self.state {
            ReadState::Closed(before)
            | ReadState::Incomplete { before, .. }
            | ReadState::Broken { before, .. } => (before.clone(), true),
            ReadState::Open(reader, _) => (reader.before(), true),
            // What was appended to it cannot be told from what replaced it.
            ReadState::ReadToEnd(position) => (Tail::unknown(*position), false),
        };
        if incomplete && self.compression != InputCompression::None {
            self.read_size = self.opened_size;
            self.state = ReadState::Incomplete { before, reason };
            return Ok(ReadResult::Nothing);
        }
        self.state = ReadState::Broken {
            before,
            may_recover,
        };
        Ok(ReadResult::Broken(reason))
    }
}
