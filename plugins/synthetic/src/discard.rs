//! The sink `drop`: takes everything in and keeps nothing.
//!
//! It still commits how far it has come, so that a restart does not read again what was dropped,
//! and so that it costs a pipeline what the delivery protocol costs.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pseidon_delivery::{LaneId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::lane::{Lane, LaneRules, Room, Sealed};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, PreparedSink, Protocol, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin,
    SinkSetup, TakenOver, TakenSplit,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::{Options, Rows};

const LANE: &str = "dropped";
const COMMIT_EVERY: Duration = Duration::from_secs(1);

static SPEC: PluginSpec = PluginSpec {
    name: "drop",
    role: Role::Sink,
    summary: "Takes every record and keeps none.",
    details: "For measuring what the rest of a pipeline costs, and for branches that are not needed. How far it has come is kept every \
              second and at the end of the run, as in every sink, so that a restart goes on where the last run stopped.",
    positional: None,
    options: &[],
    free_options: &[],
    example: "(drop)",
};

/// The plugin `drop`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropPlugin;

impl SinkPlugin for DropPlugin {
    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn facts(&self, _options: &Options) -> SinkFacts {
        SinkFacts {
            typed: false,
            copies_meta: false,
            protocol: Protocol::Discard,
            folder: None,
        }
    }

    fn prepare(
        &self,
        _options: &Options,
        _input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(Prepared))
    }
}

struct Prepared;

impl PreparedSink for Prepared {
    fn nondeterminism(&self) -> Option<String> {
        None
    }

    fn open(&self, _setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        Ok(Arc::new(DropSink { lane: LANE.into() }))
    }
}

struct DropSink {
    lane: LaneId,
}

impl Sink for DropSink {
    fn rules(&self) -> LaneRules {
        let rollover = Rollover::every(COMMIT_EVERY);
        LaneRules {
            single_writer: true,
            rollover,
            check_every: COMMIT_EVERY / 4,
            most_open: usize::MAX,
        }
    }

    fn take_over(
        &self,
        _splits: &[TakenSplit],
        _staged: &[Staged],
    ) -> Result<TakenOver, SinkError> {
        Ok(TakenOver::default())
    }

    fn route(&self, rows: Rows) -> Routed {
        let chunks = if rows.is_empty() {
            Vec::new()
        } else {
            vec![Chunk::new(self.lane.clone(), rows)]
        };
        Routed {
            chunks,
            bad: Vec::new(),
        }
    }

    fn lane(&self, _lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(DropLane))
    }
}

/// A lane whose rows are gone as soon as they come.
struct DropLane;

impl Lane for DropLane {
    fn write(&mut self, _rows: &Rows) -> Result<Room, SinkError> {
        Ok(Room::Ready)
    }

    fn seal(self: Box<Self>) -> Result<Sealed, SinkError> {
        Ok(Sealed::Durable)
    }
}

#[cfg(test)]
mod tests;
