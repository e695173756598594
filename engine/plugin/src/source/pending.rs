//! Answers for which a source waits.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::Stopped;
use crate::stop::Stop;

/// The answer to a request to the engine.
pub struct Pending<T> {
    pub(super) answer: Receiver<T>,
    pub(super) stop: Stop,
}

/// How often a source that waits for an answer checks whether the run is left and no answer will
/// come.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

impl<T> Pending<T> {
    /// Waits for the answer.
    pub fn wait(self) -> Result<T, Stopped> {
        loop {
            match self.answer.recv_timeout(CHECK_INTERVAL) {
                Ok(answer) => return Ok(answer),
                // An event that was never received keeps the reply channel open.
                Err(RecvTimeoutError::Timeout) if !self.stop.leaving_now() => {}
                Err(_) => return Err(Stopped),
            }
        }
    }

    /// The answer, if it has arrived.
    pub fn poll(&self) -> Result<Option<T>, Stopped> {
        match self.answer.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) if !self.stop.leaving_now() => Ok(None),
            Err(_) => Err(Stopped),
        }
    }
}
