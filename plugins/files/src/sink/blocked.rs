//! Waiting for a target that cannot be written.

use std::time::Duration;

use prometheus::IntGauge;
use pseidon_delivery::committer::Abandon;
use pseidon_plugin::Stop;
use pseidon_plugin::sink::SinkError;
use pseidon_plugin::waiting::about_to_wait;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Says once that a sink cannot write and once that it can again, and waits longer each time in between.
pub(super) struct Blocked {
    sink: String,
    gauge: IntGauge,
    stop: Stop,
    /// The next wait, while it is blocked.
    wait: Option<Duration>,
}

impl Blocked {
    /// Not blocked. `gauge` counts the writers of the sink that are.
    pub(super) fn new(sink: String, gauge: IntGauge, stop: Stop) -> Self {
        Blocked { sink, gauge, stop, wait: None }
    }

    /// Writing did not work: waits before it is tried again. An error means that the run is left.
    pub(super) fn wait(&mut self, error: &std::io::Error) -> Result<(), SinkError> {
        if self.wait.is_none() {
            tracing::warn!(sink = self.sink, %error, "cannot write; no records are taken in until it works again");
            self.gauge.inc();
            about_to_wait();
        }
        let wait = self.wait.unwrap_or(FIRST_WAIT);
        self.wait = Some((wait * 2).min(LONGEST_WAIT));
        // A run that is only asked to stop reading still finishes what it has read, so that does not end the wait.
        if self.stop.is_left_within(wait) { Err(Abandon::Stopped.into()) } else { Ok(()) }
    }

    /// Writing worked.
    pub(super) fn over(&mut self) {
        if self.wait.take().is_some() {
            tracing::info!(sink = self.sink, "can write again");
            self.gauge.dec();
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if self.wait.is_some() {
            self.gauge.dec();
        }
    }
}
