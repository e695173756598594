//! The backoff for a blocked target.

use std::time::{Duration, Instant};

use prometheus::IntGauge;

use crate::sync::now;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Logs once that a sink is blocked and once that it is not any more. In between it is retried
/// after longer and longer waits.
///
/// Nothing sleeps here: the writer thread does other work until [`Backoff::until`].
pub(super) struct Backoff {
    sink: String,
    /// Counts the writers of the sink that are blocked.
    gauge: IntGauge,
    /// The last wait, while the sink is blocked.
    wait: Option<Duration>,
    /// When it is retried.
    until: Option<Instant>,
}

impl Backoff {
    /// Creates a backoff that is not blocked.
    pub(super) fn new(sink: String, gauge: IntGauge) -> Backoff {
        Backoff {
            sink,
            gauge,
            wait: None,
            until: None,
        }
    }

    /// The target has not accepted something. A wait that has begun continues.
    pub(super) fn block(&mut self, reason: &str) {
        if self.until.is_some() {
            return;
        }
        let wait = match self.wait {
            Some(before) => (before * 2).min(LONGEST_WAIT),
            None => {
                tracing::warn!(
                    sink = self.sink,
                    error = reason,
                    "cannot write; no records are accepted until it works again"
                );
                self.gauge.inc();
                FIRST_WAIT
            }
        };
        self.wait = Some(wait);
        self.until = Some(now() + wait);
    }

    /// When to retry; `None` if nothing is blocked.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ends the wait if its time has come. Everything that is blocked is retried now, and may block
    /// again.
    pub(super) fn end_wait(&mut self) {
        self.until = self.until.filter(|until| *until > now());
    }

    /// Called when everything that was blocked was retried.
    pub(super) fn settle(&mut self) {
        if self.until.is_none() && self.wait.take().is_some() {
            tracing::info!(sink = self.sink, "can write again");
            self.gauge.dec();
        }
    }
}

impl Drop for Backoff {
    fn drop(&mut self) {
        if self.wait.is_some() {
            self.gauge.dec();
        }
    }
}
