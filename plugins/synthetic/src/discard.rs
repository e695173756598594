//! The sink `drop`: takes everything in and keeps nothing.
//!
//! It still commits how far it has come, so that a restart does not read again what was dropped, and so that it costs a pipeline what the
//! delivery protocol costs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::{Committer, LaneCommit, LaneId, Position, SplitId, Staged};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::sink::{
    Chunk, PreparedSink, Protocol, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin, SinkSetup, TakenOver, TakenSplit, Writer,
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
        SinkFacts { typed: false, copies_meta: false, protocol: Protocol::Discard, folder: None }
    }

    fn prepare(&self, _options: &Options, _input: &SinkInput) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(Prepared))
    }
}

struct Prepared;

impl PreparedSink for Prepared {
    fn nondeterminism(&self) -> Option<String> {
        None
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        Ok(Arc::new(DropSink { lane: LANE.into(), committer: setup.committer }))
    }
}

struct DropSink {
    lane: LaneId,
    committer: Arc<Committer>,
}

impl Sink for DropSink {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, _splits: &[TakenSplit], _staged: &[Staged]) -> Result<TakenOver, SinkError> {
        Ok(TakenOver::default())
    }

    fn route(&self, rows: Rows) -> Routed {
        let chunks = if rows.is_empty() { Vec::new() } else { vec![Chunk::new(self.lane.clone(), rows)] };
        Routed { chunks, bad: Vec::new() }
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        Ok(Box::new(DropWriter { lane: self.lane.clone(), committer: self.committer.clone(), dropped: HashMap::new() }))
    }
}

struct DropWriter {
    lane: LaneId,
    committer: Arc<Committer>,
    /// Up to where each split was dropped since the last commit.
    dropped: HashMap<SplitId, Position>,
}

impl DropWriter {
    fn commit(&mut self) -> Result<(), SinkError> {
        if self.dropped.is_empty() {
            return Ok(());
        }
        let splits = self.dropped.drain().collect();
        self.committer.commit(&[LaneCommit { lane: self.lane.clone(), splits }], Vec::new())?;
        Ok(())
    }
}

impl Writer for DropWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        let Some(last) = chunk.rows.len().checked_sub(1) else { return Ok(()) };
        let upto = chunk.rows.position(last) + 1;
        self.dropped.insert(chunk.rows.batch().split.id.clone(), upto);
        Ok(())
    }

    fn tick_every(&self) -> Duration {
        COMMIT_EVERY
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.commit()
    }

    fn flush(&mut self, splits: Option<&[SplitId]>) -> Result<(), SinkError> {
        let asked = |split: &SplitId| splits.is_none_or(|wanted| wanted.contains(split));
        if self.dropped.keys().any(asked) { self.commit() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
