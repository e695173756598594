//! Answers to a source's requests about the state as a whole. All sinks of a run have one store.

use std::collections::BTreeMap;

use pseidon_delivery::{CommitRecord, SplitId};
use pseidon_plugin::source::{KnownSplit, SplitPredicate, StateRequest};

use super::Intake;
use crate::failure::Failure;
use crate::takeover::resumption;

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
            StateRequest::KnownSplits(is_wanted, reply) => {
                let _ = reply.send(self.known_splits(&is_wanted)?);
            }
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
            let is_own = |split: &SplitId| split.as_str().starts_with(&prefix);
            if !open.committer.records(is_own)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn known_splits(&self, is_wanted: &SplitPredicate) -> Result<Vec<KnownSplit>, Failure> {
        let prefix = self.split_prefix();
        let mut records: BTreeMap<SplitId, Vec<CommitRecord>> = BTreeMap::new();
        for open in self.sinks() {
            let is_wanted =
                |split: &SplitId| split.as_str().starts_with(&prefix) && is_wanted(split);
            for (split, record) in open.committer.records(is_wanted)? {
                records.entry(split).or_default().push(record);
            }
        }
        let known = |(split, records): (SplitId, Vec<CommitRecord>)| {
            let at = resumption(&records)?;
            Some(KnownSplit { split, at })
        };
        Ok(records.into_iter().filter_map(known).collect())
    }
}
