//! Whether the sink can write: for the log, the health page, and the other users of its thread.

use std::time::{Duration, Instant};

use prometheus::IntGauge;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::waiting::about_to_wait;

/// A wait that takes longer is said to be one: to the log, the health page, and the owner of the
/// thread.
const LONG: Duration = Duration::from_secs(1);
/// How often a long wait looks what the reason is.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The state of one sink, as others see it.
#[derive(Clone)]
pub(super) struct Health {
    stage: String,
    blocked: IntGauge,
}

impl Health {
    /// That of this stage.
    pub(super) fn new(stage: &str, metrics: &Metrics) -> Health {
        Health {
            stage: stage.to_owned(),
            blocked: metrics.sink_blocked.with_label_values(&[stage]),
        }
    }

    /// Something could not be written.
    pub(super) fn ill(&self) {
        self.blocked.set(1);
    }

    /// Something was written.
    pub(super) fn well(&self) {
        if self.blocked.get() != 0 {
            self.blocked.set(0);
            tracing::info!(sink = self.stage, "the sink writes again");
        }
    }

    /// A wait for the brokers begins.
    pub(super) fn wait(&self, what: &'static str) -> Wait<'_> {
        Wait {
            health: self,
            what,
            began: Instant::now(),
            next_look: Instant::now() + LONG,
            is_long: false,
        }
    }
}

/// A wait for the brokers.
pub(super) struct Wait<'h> {
    health: &'h Health,
    what: &'static str,
    began: Instant,
    next_look: Instant,
    is_long: bool,
}

impl Wait<'_> {
    /// How long it has taken.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether it is long by now, and time to look for the reason. The first time, others hear of
    /// it.
    pub(super) fn is_due_for_a_look(&mut self) -> bool {
        if Instant::now() < self.next_look {
            return false;
        }
        if !self.is_long {
            self.is_long = true;
            about_to_wait();
            self.health.ill();
            tracing::warn!(
                sink = self.health.stage,
                "waiting for the brokers {}",
                self.what
            );
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        true
    }
}
