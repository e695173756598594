//! The check of the state before anything is read.

use std::collections::HashSet;
use std::sync::Arc;

use pseidon_delivery::{
    CommitRecord, LeftWork, SinkId, SplitId, StateStore, StoreError, StoredPlan, UnfinishedSplit,
};
use pseidon_plan::Plan;

use crate::failure::PlanChanged;
use crate::outcome::RunError;

/// What is checked before anything is read.
pub(crate) struct StateCheck {
    pub(crate) plan: Arc<Plan>,
    pub(crate) store: Arc<dyn StateStore>,
    /// Whether work of other plans is left alone.
    pub(crate) ignores_other_plans: bool,
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

    /// Stores the plan's text. Refuses the plan if a sink that it does not have holds lanes or staged
    /// files of another plan. The rest is checked for each split when it is taken.
    fn check_plan(&self) -> Result<(), RunError> {
        let has = |sink: &SinkId| self.plan.sinks.iter().any(|planned| planned.id == *sink);
        for sink in self.store.sinks()?.iter().filter(|sink| !has(sink)) {
            if let Some(changed) = self.left_in(sink)?
                && !self.ignores_other_plans
            {
                return Err(RunError::PlanChanged(changed));
            }
        }
        let fingerprint = self.plan.fingerprint.clone();
        if !self.store.has_plan(&fingerprint)? {
            let text = (self.plan.stored)();
            self.store.add_plan(&StoredPlan { fingerprint, text })?;
            self.forget_plans()?;
        }
        Ok(())
    }

    /// What one plan has left in a sink that this plan does not have, if it is not finished
    /// everywhere before.
    fn left_in(&self, sink: &SinkId) -> Result<Option<PlanChanged>, StoreError> {
        let records = self.store.records(sink)?;
        let staged = self.store.staged(sink)?.len();
        let is_ahead = |(_, record): &&(SplitId, CommitRecord)| !record.ahead.is_empty();
        let is_owned = |(_, record): &&(SplitId, CommitRecord)| !record.owners.is_empty();
        let ahead = records.iter().find(is_ahead);
        if ahead.is_none() && staged == 0 {
            return Ok(None);
        }
        let by = ahead.or_else(|| records.iter().find(is_owned));
        let plan = by
            .or(records.first())
            .and_then(|(_, record)| record.plan.clone());
        let of_plan = records
            .iter()
            .filter(|named| is_ahead(named) && named.1.plan == plan);
        let splits: Vec<UnfinishedSplit> = of_plan
            .map(|(split, record)| UnfinishedSplit {
                split: split.clone(),
                low: record.low.unwrap_or(0),
                upto: record.ahead.values().copied().max().unwrap_or(0),
                left: LeftWork::LanesAhead {
                    sink: sink.clone(),
                    lanes: record.ahead.len(),
                },
            })
            .collect();
        let lanes: usize = records.iter().map(|(_, record)| record.ahead.len()).sum();
        let left = format!(
            "`{sink}`, which no longer exists: {lanes} lanes ahead, {staged} files not yet published"
        );
        Ok(Some(PlanChanged { plan, left, splits }))
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
            .filter_map(|plan| match self.stored_plan(plan) {
                // Its signature is wrong: it cannot be used again.
                Err(StoreError::Failed(_)) => None,
                found => found.transpose(),
            })
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

    /// The plans of all records of which anything may be left.
    fn named_plans(&self) -> Result<HashSet<String>, StoreError> {
        let mut named = HashSet::new();
        for sink in self.store.sinks()? {
            let records = self.store.records(&sink)?.into_iter();
            let is_over = |record: &CommitRecord| record.is_settled() && record.owners.is_empty();
            let open = records.filter(|(_, record)| !is_over(record));
            named.extend(open.filter_map(|(_, record)| record.plan));
        }
        Ok(named)
    }
}
