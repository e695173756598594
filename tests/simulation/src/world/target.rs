//! A target with transactions that holds the positions itself, as a Kafka cluster does.

use std::collections::{BTreeMap, BTreeSet};

use pseidon_delivery::{InstanceId, Position, SplitId};

use super::World;
use crate::names::SinkKind;

/// The first step of a split only stores where it was begun; those that follow are copies of what
/// the target holds.
const BEGUN: u64 = 1;

/// The content of the target.
#[derive(Default)]
pub(crate) struct Target {
    /// What readers see, in order: bucket and record.
    pub(crate) records: Vec<(String, String)>,
    pub(crate) positions: BTreeMap<SplitId, Position>,
    fenced: BTreeSet<InstanceId>,
    /// Transactions that will be applied later, unless their owner is fenced before.
    late: Vec<Transaction>,
}

/// Records and positions that become visible together.
pub(crate) struct Transaction {
    pub(crate) owner: InstanceId,
    pub(crate) records: Vec<(String, String)>,
    pub(crate) positions: Vec<(SplitId, Position)>,
}

impl Target {
    /// Applies a transaction, unless its owner is fenced. Returns whether it was applied.
    pub(crate) fn apply(&mut self, transaction: Transaction) -> bool {
        if self.fenced.contains(&transaction.owner) {
            return false;
        }
        self.records.extend(transaction.records);
        self.positions.extend(transaction.positions);
        true
    }

    /// Leaves a transaction behind, to be applied later.
    pub(crate) fn leave_behind(&mut self, transaction: Transaction) {
        self.late.push(transaction);
    }

    /// Removes the transactions that an owner has left behind.
    pub(crate) fn take_late(&mut self, owner: &InstanceId) -> Vec<Transaction> {
        let (left, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|late| late.owner == *owner);
        self.late = late;
        left
    }

    /// Applies no transaction of this owner from now on.
    pub(crate) fn fence(&mut self, owner: &InstanceId) {
        self.fenced.insert(owner.clone());
    }
}

impl World {
    /// Applies or drops a transaction that was left behind.
    pub(crate) fn move_a_transaction(&mut self) {
        if self.target.late.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.target.late.len());
        let transaction = self.target.late.remove(at);
        let owner = transaction.owner.clone();
        let is_applied = self.rng.u32(0..4) > 0 && self.target.apply(transaction);
        self.note(|| {
            format!(
                "target  a late transaction of {owner} is {}",
                if is_applied { "committed" } else { "aborted" }
            )
        });
    }

    /// Lets transactions that were left behind time out.
    pub(crate) fn drop_transactions(&mut self) {
        self.target.late.clear();
    }

    /// Whether the store has a copy of every position that the target holds.
    pub(crate) fn losing_positions_is_noticed(&self) -> bool {
        let Some((sink, _)) = self
            .sinks
            .iter()
            .find(|(_, kind)| *kind == SinkKind::Target)
        else {
            return false;
        };
        self.target
            .positions
            .keys()
            .all(|split| self.store.record(sink, split).sequence > BEGUN)
    }

    /// The target loses the positions that it holds, as by a retention that removes them.
    pub(crate) fn lose_positions(&mut self) {
        self.target.positions.clear();
        self.may_alarm = true;
        self.note(|| "target  loses all positions".into());
    }
}
