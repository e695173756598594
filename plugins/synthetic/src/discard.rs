//! The sink `drop`: accepts every record and discards it.
//!
//! It still commits positions, so that a restart does not re-read what was dropped, and so that it
//! costs a pipeline as much as the delivery protocol costs.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pseidon_delivery::{LaneId, StagedEntry};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Lane, LaneRules, Room, SealOutcome};
use pseidon_plugin::options::{OnError, Options};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, NeedsColumns, PreparedSink, Protocol, RoutedRows, Sink, SinkError, SinkFacts, SinkInput,
    SinkPlugin, SinkSetup, TakenSplit, TakeoverResult,
};
use pseidon_plugin::spec::{PluginSpec, Role};

const LANE: &str = "dropped";
const COMMIT_EVERY: Duration = Duration::from_secs(1);

static SPEC: PluginSpec = PluginSpec {
    name: "drop",
    role: Role::Sink,
    summary: "Discards every record.",
    details: "For measuring the cost of the rest of a pipeline, and for branches whose records are \
        not needed. Positions are committed every second and at the end of the run, as in every \
        sink, so that a restart resumes where the last run stopped.",
    positional: DropOptions::POSITIONAL,
    options: DropOptions::DECLARED,
    example: "(drop)",
};

/// The options of the sink `drop`: none.
#[derive(Clone, Debug, Options)]
pub struct DropOptions {}

/// The plugin `drop`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropPlugin;

impl SinkPlugin for DropPlugin {
    type Options = DropOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, _options: &DropOptions) -> OnError {
        OnError::default()
    }

    fn facts(&self, _options: &DropOptions) -> SinkFacts {
        SinkFacts {
            needs_columns: NeedsColumns::Never,
            copies_meta: false,
            protocol: Protocol::Discard,
            folder: None,
        }
    }

    fn prepare(
        &self,
        _options: &DropOptions,
        _input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(PreparedDrop))
    }
}

struct PreparedDrop;

impl PreparedSink for PreparedDrop {
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
        _staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        Ok(TakeoverResult::default())
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let chunks = if rows.is_empty() {
            Vec::new()
        } else {
            vec![Chunk::new(self.lane.clone(), rows)]
        };
        RoutedRows {
            chunks,
            ..RoutedRows::default()
        }
    }

    fn lane(&self, _lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(DropLane))
    }
}

/// A lane that discards its rows.
struct DropLane;

impl Lane for DropLane {
    fn write(&mut self, _rows: &Rows) -> Result<Room, SinkError> {
        Ok(Room::Ready)
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Durable)
    }
}

#[cfg(test)]
mod tests;
