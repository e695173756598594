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
            let unfinished = records
                .iter()
                .filter(|(_, record)| !record.ahead.is_empty());
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
        let (fingerprint, text) = (self.plan.fingerprint.clone(), self.plan.stored.clone());
        if self.store.plan(&fingerprint)?.as_ref() != Some(&text) {
            self.store.add_plan(&StoredPlan { fingerprint, text })?;
            self.forget_plans()?;
        }
        Ok(())
    }

    /// Removes the texts of plans that no record names any more. An instance of such a plan may
    /// just be taking splits, so what is named afterwards is stored again. (If that instance is the
    /// later one, it finds that the text is missing.)
    fn forget_plans(&self) -> Result<(), StoreError> {
        let stored = self.store.plans()?.into_iter();
        let others: HashSet<String> = stored
            .filter(|plan| *plan != self.plan.fingerprint)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let named = self.named_plans()?;
        let unused: Vec<String> = others.difference(&named).cloned().collect();
        let texts: Vec<StoredPlan> = unused
            .iter()
            .filter_map(|plan| self.stored_plan(plan).transpose())
            .collect::<Result<_, _>>()?;
        self.store.forget_plans(&unused)?;
        let named = self.named_plans()?;
        let named_since = texts
            .iter()
            .filter(|plan| named.contains(&plan.fingerprint));
        named_since
            .into_iter()
            .try_for_each(|plan| self.store.add_plan(plan))
    }

    fn stored_plan(&self, fingerprint: &str) -> Result<Option<StoredPlan>, StoreError> {
        let text = self.store.plan(fingerprint)?;
        Ok(text.map(|text| StoredPlan {
            fingerprint: fingerprint.to_owned(),
            text,
        }))
    }

    /// The plans of all records.
    fn named_plans(&self) -> Result<HashSet<String>, StoreError> {
        let mut named = HashSet::new();
        for sink in self.store.sinks()? {
            let records = self.store.records(&sink)?.into_iter();
            named.extend(records.filter_map(|(_, record)| record.plan));
        }
        Ok(named)
    }
}
