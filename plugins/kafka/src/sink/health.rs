//! Reports whether the sink can write: to the log, the health page, and the owner of its thread.

use std::time::{Duration, Instant};

use prometheus::IntGauge;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::waiting::about_to_wait;

/// A wait that takes longer is reported to the log, the health page, and the owner of the thread.
const LONG_WAIT: Duration = Duration::from_secs(1);
/// The interval at which the cause of a long wait is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Whether a sink can write, shared by its producers.
#[derive(Clone)]
pub(super) struct SinkHealth {
    stage: String,
    blocked: IntGauge,
}

impl SinkHealth {
    /// The health of this stage.
    pub(super) fn new(stage: &str, metrics: &Metrics) -> SinkHealth {
        SinkHealth {
            stage: stage.to_owned(),
            blocked: metrics.sink_blocked.with_label_values(&[stage]),
        }
    }

    /// Records that something could not be written.
    pub(super) fn set_blocked(&self) {
        self.blocked.set(1);
    }

    /// Records that something was written.
    pub(super) fn set_writing(&self) {
        if self.blocked.get() != 0 {
            self.blocked.set(0);
            tracing::info!(sink = self.stage, "the sink writes again");
        }
    }

    /// Starts a wait for the brokers. `what` completes "waiting for the brokers".
    pub(super) fn start_wait(&self, what: &'static str) -> BrokerWait<'_> {
        BrokerWait {
            health: self,
            what,
            began: Instant::now(),
            next_check: Instant::now() + LONG_WAIT,
            is_long: false,
        }
    }
}

/// A wait for the brokers.
pub(super) struct BrokerWait<'h> {
    health: &'h SinkHealth,
    what: &'static str,
    began: Instant,
    next_check: Instant,
    is_long: bool,
}

impl BrokerWait<'_> {
    /// The time since the wait started.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether the wait is long by now and a check of its cause is due. The first time, the wait is
    /// also reported.
    pub(super) fn is_check_due(&mut self) -> bool {
        if Instant::now() < self.next_check {
            return false;
        }
        if !self.is_long {
            self.is_long = true;
            about_to_wait();
            self.health.set_blocked();
            tracing::warn!(
                sink = self.health.stage,
                "waiting for the brokers {}",
                self.what
            );
        }
        self.next_check = Instant::now() + CHECK_INTERVAL;
        true
    }
}
