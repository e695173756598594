//! What a source asks and keeps in the state apart from the positions of its splits.

use crossbeam_channel::Sender;
use pseidon_delivery::SplitId;

use super::{KnownSplit, SourceEvent, SourceHandle, SplitPredicate, Stopped};

/// A request of a source about the state as a whole.
pub enum StateRequest {
    /// [`SourceHandle::note`]
    Note(Sender<Option<String>>),
    /// [`SourceHandle::set_note`]
    SetNote(String, Sender<()>),
    /// [`SourceHandle::has_splits`]
    HasSplits(Sender<bool>),
    /// [`SourceHandle::known_splits`]
    KnownSplits(SplitPredicate, Sender<Vec<KnownSplit>>),
}

impl SourceHandle {
    /// What the source noted last, in this run or an earlier one, on this or another instance.
    pub fn note(&self) -> Result<Option<String>, Stopped> {
        self.ask_state(StateRequest::Note)
    }

    /// Whether the state has a record of any split of the source. The engine reads the records of
    /// all splits for this.
    pub fn has_splits(&self) -> Result<bool, Stopped> {
        self.ask_state(StateRequest::HasSplits)
    }

    /// The splits of the source in the state that satisfy the predicate, which other instances may
    /// hold. The engine reads the records of all splits for this.
    pub fn known_splits(
        &self,
        is_wanted: impl Fn(&SplitId) -> bool + Send + 'static,
    ) -> Result<Vec<KnownSplit>, Stopped> {
        self.ask_state(|reply| StateRequest::KnownSplits(Box::new(is_wanted), reply))
    }

    /// Notes a small value in the state, apart from all splits. It is stored when this returns.
    pub fn set_note(&self, value: String) -> Result<(), Stopped> {
        self.ask_state(|reply| StateRequest::SetNote(value, reply))
    }

    fn ask_state<T>(&self, request: impl FnOnce(Sender<T>) -> StateRequest) -> Result<T, Stopped> {
        self.ask(|reply| SourceEvent::State(request(reply)))?.wait()
    }
}
