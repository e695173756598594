//! The check of the state before anything is read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pseidon_delivery::{Position, SinkId, SplitId, StateStore, StoreError, StoredPlan};
use pseidon_plan::Plan;

use crate::failure::PlanChanged;
use crate::outcome::RunError;

/// What is checked before anything is read.
pub(crate) struct StateCheck {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) accept_changed_plan: bool,
}

impl StateCheck {
    /// Checks the state before anything is read. Returns the store's name. Blocks.
    pub(crate) fn check(&self) -> Result<String, RunError> {
        let store_id = self.store.identity()?;
        for weakness in self.store.weaknesses()? {
            tracing::warn!("the state store is weaker than exactly-once needs: {weakness}");
        }
        self.check_plan()?;
        Ok(store_id)
    }

    /// Stores the plan's text. Refuses the plan if a sink that it does not have holds work of
    /// another plan. For the sinks that it has, each split is checked when it is taken.
    fn check_plan(&self) -> Result<(), RunError> {
        let has = |sink: &SinkId| self.plan.sinks.iter().any(|planned| planned.id == *sink);
        for sink in self.store.sinks()?.iter().filter(|sink| !has(sink)) {
            let records = self.store.records(sink)?;
            let unfinished = records.iter().filter(|(_, record)| !record.ahead.is_empty());
            let splits: HashMap<SplitId, Position> = unfinished
                .filter_map(|(split, record)| {
                    Some((split.clone(), record.ahead.values().copied().max()?))
                })
                .collect();
            let ahead: usize = records.iter().map(|(_, record)| record.ahead.len()).sum();
            let staged = self.store.staged(sink)?.len();
            if ahead + staged > 0 && !self.accept_changed_plan {
                let plan = records.into_iter().find_map(|(_, record)| record.plan);
                let left = format!(
                    "`{sink}`, which no longer exists: {ahead} lanes ahead, {staged} files not yet \
                     published"
                );
                return Err(RunError::PlanChanged(PlanChanged { plan, left, splits }));
            }
        }
        let (fingerprint, text) = (self.plan.fingerprint.clone(), self.plan.text.clone());
        if self.store.plan(&fingerprint)?.as_ref() != Some(&text) {
            self.store.add_plan(&StoredPlan { fingerprint, text })?;
            self.forget_plans()?;
        }
        Ok(())
    }

    /// Removes the texts of plans that no record names any more.
    fn forget_plans(&self) -> Result<(), StoreError> {
        let mut unused: HashSet<String> = self
            .store
            .plans()?
            .into_iter()
            .filter(|plan| *plan != self.plan.fingerprint)
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        for sink in self.store.sinks()? {
            for plan in self
                .store
                .records(&sink)?
                .into_iter()
                .filter_map(|(_, record)| record.plan)
            {
                unused.remove(&plan);
            }
        }
        self.store
            .forget_plans(&unused.into_iter().collect::<Vec<_>>())
    }
}
