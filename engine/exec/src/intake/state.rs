//! Answers to a source's requests about the state as a whole. All sinks of a run have one store.

use pseidon_plugin::source::StateRequest;

use super::Intake;
use crate::failure::Failure;

impl Intake {
    /// Answers a request. A source that no longer waits for the answer has ended.
    pub(super) fn answer(&self, request: StateRequest) -> Result<(), Failure> {
        match request {
            StateRequest::Note(reply) => _ = reply.send(self.note()?),
            StateRequest::SetNote(value, reply) => {
                self.set_note(&value)?;
                let _ = reply.send(());
            }
            StateRequest::HasSplits(reply) => _ = reply.send(self.has_splits()?),
        }
        Ok(())
    }

    /// The name of the source's note in the store.
    fn note_key(&self) -> String {
        format!("source {}", self.planned().stage)
    }

    fn note(&self) -> Result<Option<String>, Failure> {
        match self.sinks().next() {
            Some(open) => Ok(open.committer.note(&self.note_key())?),
            None => Ok(None),
        }
    }

    fn set_note(&self, value: &str) -> Result<(), Failure> {
        match self.sinks().next() {
            Some(open) => Ok(open.committer.set_note(&self.note_key(), value)?),
            None => Ok(()),
        }
    }

    fn has_splits(&self) -> Result<bool, Failure> {
        let prefix = self.split_prefix();
        for open in self.sinks() {
            if open.committer.has_splits(&prefix)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
