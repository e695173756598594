//! A queue of events to the engine, for a source that must not block.
//!
//! A source that reads for several runs, or that must answer others in time, cannot block when the
//! engine's queue is full. An [`Outbox`] keeps the events that the queue has no room for, in order,
//! and the source sends them later. Waiting events count against the memory budget, so a source
//! that reads nothing while there is no room stays bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::batch::{Batch, Split};
use crate::source::{
    Pending, Resumption, SourceEvent, SourceHandle, SplitStart, StateRequest, Stopped,
};

/// Events that wait for room in the engine's queue.
pub struct Outbox {
    handle: SourceHandle,
    waiting: Mutex<VecDeque<SourceEvent>>,
    /// The length of `waiting`, readable without the lock.
    count: AtomicUsize,
}

impl Outbox {
    /// Creates an outbox that sends through this handle. Events that are sent through the handle
    /// itself may overtake those that wait here.
    pub fn new(handle: SourceHandle) -> Outbox {
        Outbox {
            handle,
            waiting: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// The handle that events are sent through.
    pub fn handle(&self) -> &SourceHandle {
        &self.handle
    }

    /// How many events wait for room in the engine's queue.
    pub fn waiting(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// [`SourceHandle::emit`] without waiting.
    pub fn emit(&self, mut batch: Batch) -> Result<(), Stopped> {
        self.handle.charge(&mut batch);
        self.post(SourceEvent::Emit(Box::new(batch)))
    }

    /// [`SourceHandle::take`] without waiting.
    pub fn take(
        &self,
        splits: Vec<Arc<Split>>,
    ) -> Result<Pending<Vec<Option<Resumption>>>, Stopped> {
        let (reply, pending) = self.handle.pending();
        self.post(SourceEvent::Take(splits, reply))?;
        Ok(pending)
    }

    /// [`SourceHandle::begin`] without waiting.
    pub fn begin(&self, splits: Vec<SplitStart>) -> Result<Pending<()>, Stopped> {
        let (reply, pending) = self.handle.pending();
        self.post(SourceEvent::Begin(splits, reply))?;
        Ok(pending)
    }

    /// [`SourceHandle::note`] without waiting.
    pub fn note(&self) -> Result<Pending<Option<String>>, Stopped> {
        let (reply, pending) = self.handle.pending();
        self.post(SourceEvent::State(StateRequest::Note(reply)))?;
        Ok(pending)
    }

    /// [`SourceHandle::set_note`] without waiting.
    pub fn set_note(&self, value: String) -> Result<Pending<()>, Stopped> {
        let (reply, pending) = self.handle.pending();
        self.post(SourceEvent::State(StateRequest::SetNote(value, reply)))?;
        Ok(pending)
    }

    /// [`SourceHandle::release`] without waiting.
    pub fn release(&self, splits: Vec<Arc<Split>>) -> Result<Pending<()>, Stopped> {
        let (reply, pending) = self.handle.pending();
        self.post(SourceEvent::Release(splits, reply))?;
        Ok(pending)
    }

    /// Sends waiting events, in order. Waits up to `patience` for room. Returns whether everything
    /// is sent.
    pub fn send_waiting(&self, patience: Duration) -> Result<bool, Stopped> {
        if self.waiting() == 0 {
            return Ok(true);
        }
        let mut waiting = self.waiting.lock();
        let mut patience = patience;
        while let Some(event) = waiting.pop_front() {
            match self.handle.send_within(event, patience) {
                Ok(None) => patience = Duration::ZERO,
                Ok(Some(event)) => {
                    waiting.push_front(event);
                    break;
                }
                Err(stopped) => {
                    waiting.clear();
                    self.count.store(0, Ordering::Relaxed);
                    return Err(stopped);
                }
            }
        }
        self.count.store(waiting.len(), Ordering::Relaxed);
        Ok(waiting.is_empty())
    }

    fn post(&self, event: SourceEvent) -> Result<(), Stopped> {
        let mut waiting = self.waiting.lock();
        let left = if waiting.is_empty() {
            self.handle.send_within(event, Duration::ZERO)?
        } else {
            Some(event)
        };
        waiting.extend(left);
        self.count.store(waiting.len(), Ordering::Relaxed);
        Ok(())
    }
}
