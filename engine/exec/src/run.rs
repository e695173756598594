//! A run: the interface for its caller.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use pseidon_delivery::{StateStore, UnfinishedSplit};
use pseidon_plan::Plan;
use pseidon_plugin::metrics::Metrics;

use crate::control::Control;
use crate::outcome::{Finished, RunError};
use crate::pools::Pools;
use crate::setup::RunSetup;
use crate::view::View;

/// The parameters of a run.
pub struct Run {
    /// The plan to run.
    pub plan: Arc<Plan>,
    /// The threads and memory that the run uses.
    pub pools: Arc<Pools>,
    /// The state store of the pipeline.
    pub store: Arc<dyn StateStore>,
    /// The metrics to update.
    pub metrics: Metrics,
    /// Whether the run may continue the work of a crashed run of another plan.
    pub accept_changed_plan: bool,
    /// `Some` for a run that only finishes what an earlier version of the pipeline, whose plan this
    /// is, has left: the splits of [`PlanChanged::splits`](crate::PlanChanged::splits). It reads no
    /// others, and ends as soon as that is done, or if none of them comes.
    pub catch_up: Option<Vec<UnfinishedSplit>>,
    /// Whether it continues a run whose sinks were open, after [`Finished::Reloading`]: a sink that
    /// cannot be opened is tried again.
    pub was_open: bool,
    /// Requests of the user.
    pub control: Receiver<Control>,
    /// Shows the run to observers.
    pub view: Arc<View>,
}

impl Run {
    /// Runs the plan until its sources are exhausted, it is stopped, or it fails. Blocks.
    pub fn run(self) -> Result<Finished, RunError> {
        let (tell, ended) = bounded(1);
        self.start(move |end| _ = tell.send(end));
        ended.recv().unwrap_or_else(|_| {
            Err(RunError::Failed(
                "internal error: the outcome of a run was not reported".into(),
            ))
        })
    }

    /// Like [`Run::run`], but without a thread that waits: `on_end` is called at the end, on a
    /// thread that it may block.
    pub fn start(self, on_end: impl FnOnce(Result<Finished, RunError>) + Send + 'static) {
        let setup = RunSetup {
            plan: self.plan,
            resources: self.pools.resources().clone(),
            store: self.store,
            metrics: self.metrics,
            accept_changed_plan: self.accept_changed_plan,
            catch_up: self.catch_up,
            was_open: self.was_open,
            control: self.control,
            view: self.view,
        };
        self.pools.watch().add(setup, on_end);
    }
}
