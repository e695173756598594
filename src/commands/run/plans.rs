//! The plans that a run goes through in one process: those of earlier versions that have left work,
//! the current one, and the ones that follow when a table of a `lookup` changes.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use pseidon_delivery::{GroupCommit, UnfinishedSplit};
use pseidon_exec::{Finished, PlanChanged, Pools, Run, RunError};
use pseidon_plan::Plan;
use pseidon_plugin::format::Format;
use pseidon_plugin::source::Source;
use pseidon_service::runs::{LiveRun, RunEntry};

use super::{Interfaces, earlier, infer_once};
use crate::load::PipelineText;
use crate::reload::{self, ReplacedPlans};

/// What all plans of a run share.
pub(super) struct PlanSequence<'a> {
    pub(super) text: &'a PipelineText,
    pub(super) store: &'a Arc<GroupCommit>,
    pub(super) pools: &'a Arc<Pools>,
    pub(super) entry: &'a RunEntry,
    pub(super) interfaces: &'a Interfaces,
    pub(super) accept_changed_plan: bool,
    /// The last plans that were replaced since a table has changed. They may have left something.
    pub(super) replaced: RefCell<ReplacedPlans>,
    /// Whether the run of a current plan has ended for another plan.
    pub(super) was_open: Cell<bool>,
}

impl PlanSequence<'_> {
    /// Runs one plan after another, until one ends because its sources do, or because of a stop or
    /// a failure.
    pub(super) fn run(&self, first: Arc<Plan>) -> Result<Finished, RunError> {
        let mut current = first;
        let start = |plan, catch_up| self.start(plan, catch_up);
        loop {
            let plan_earlier = |changed: &PlanChanged| self.plan_earlier(&current, changed);
            let run = || earlier::finish_and_run(&current, &start, &plan_earlier);
            let control = &self.interfaces.control;
            match reload::run_watched(&current, control, self.replan(), run) {
                (Ok(Finished::Reloading), Some(next)) => {
                    let replaced = std::mem::replace(&mut current, Arc::new(next));
                    self.replaced.borrow_mut().push(replaced);
                }
                (outcome, _) => return outcome,
            }
        }
    }

    fn start(
        &self,
        plan: Arc<Plan>,
        catch_up: Option<Vec<UnfinishedSplit>>,
    ) -> Result<Finished, RunError> {
        self.entry.set_live(Some(LiveRun {
            plan: plan.clone(),
            control: self.interfaces.control.clone(),
            since: Instant::now(),
        }));
        let (is_current, was_open) = (catch_up.is_none(), self.was_open.get());
        let run = Run {
            plan,
            pools: self.pools.clone(),
            store: self.store.clone(),
            metrics: self.entry.metrics.clone(),
            // What is accepted is what earlier processes have left.
            accept_changed_plan: self.accept_changed_plan && !was_open,
            catch_up,
            was_open,
            control: self.interfaces.controls.clone(),
            view: self.entry.view.clone(),
        };
        let outcome = run.run();
        if is_current && matches!(outcome, Ok(Finished::Reloading)) {
            self.was_open.set(true);
        }
        outcome
    }

    fn plan_earlier(&self, current: &Plan, changed: &PlanChanged) -> Result<Arc<Plan>, String> {
        if let Some(plan) = self.replaced.borrow().find(changed) {
            return Ok(plan);
        }
        let infer = |stage: &str, source: &dyn Source, format: &dyn Format| {
            infer_once(stage, source, format, &self.text.base, self.store.as_ref())
        };
        earlier::plan(self.text, current, changed, self.store.as_ref(), &infer)
    }

    /// Makes a plan again, with the tables as they are then.
    fn replan(&self) -> impl Fn(&Plan) -> Result<Plan, String> + Send + use<> {
        let (text, store) = (self.text.clone(), self.store.clone());
        move |plan| {
            let infer = |stage: &str, source: &dyn Source, format: &dyn Format| {
                infer_once(stage, source, format, &text.base, store.as_ref())
            };
            text.plan_again(plan, &infer)
        }
    }
}
