//! A target with transactions that holds the positions itself, as a Kafka cluster does, and the
//! sink that writes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use arrow::array::AsArray;
use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{
    CommitError, Committer, LaneId, Position, SplitCommit, SplitId, StagedEntry,
};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{self, Lane, LaneRules, Room, SealOutcome};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, RoutedRows, Sink, SinkError, TakenSplit, TakeoverResult, TargetPosition,
};

use crate::process::ProcessId;
use crate::scenario::{Kind, Mutation};
use crate::world::{SharedWorld, SinkKind, World};

/// The first step of a split only stores where it was begun; those that follow are copies of what
/// the target holds.
const BEGUN: u64 = 1;

/// The content of the target.
#[derive(Default)]
pub(crate) struct Target {
    /// What readers see, in order: bucket and record.
    pub(crate) records: Vec<(String, String)>,
    pub(crate) positions: BTreeMap<SplitId, Position>,
    fenced: BTreeSet<String>,
    /// Transactions that will be applied later, unless their owner is fenced before.
    late: Vec<Transaction>,
}

#[derive(Clone)]
struct Transaction {
    owner: String,
    records: Vec<(String, String)>,
    positions: Vec<(SplitId, Position)>,
}

impl Target {
    /// Applies a transaction, unless its owner is fenced. Returns whether it was applied.
    fn apply(&mut self, transaction: Transaction) -> bool {
        if self.fenced.contains(&transaction.owner) {
            return false;
        }
        self.records.extend(transaction.records);
        self.positions.extend(transaction.positions);
        true
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

/// The sink that writes to the target.
pub(crate) struct TargetSink {
    pub(crate) world: SharedWorld,
    pub(crate) process: ProcessId,
    pub(crate) committer: Arc<Committer>,
}

impl Sink for TargetSink {
    fn rules(&self) -> LaneRules {
        // Whatever is written is committed with the next tick.
        let rollover = Rollover::every(Duration::ZERO);
        LaneRules {
            single_writer: true,
            rollover,
            check_every: Duration::from_secs(1),
            most_open: usize::MAX,
        }
    }

    fn take_over(
        &self,
        splits: &[TakenSplit],
        _: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        self.world.maybe_switch();
        let owner = &self.committer.claimant().owner;
        let mut world = self.world.lock();
        for other in splits
            .iter()
            .flat_map(|taken| &taken.owners)
            .filter(|other| *other != owner)
        {
            // As in the initialisation of a producer: an open transaction is completed or aborted,
            // and then nothing follows.
            let (left, late): (Vec<_>, Vec<_>) = std::mem::take(&mut world.target.late)
                .into_iter()
                .partition(|late| late.owner == *other);
            world.target.late = late;
            for transaction in left {
                if world.rng.bool() {
                    world.target.apply(transaction);
                }
            }
            world.target.fenced.insert(other.clone());
            world.note(|| format!("{}  target: fences {other}", self.process));
        }
        let held = |taken: &TakenSplit| {
            let low = world.target.positions.get(&taken.split).copied();
            // Positions that the target has lost look as if they had never existed.
            let low = if world.mutation == Some(Mutation::UncheckedTarget) {
                low.max(taken.low)
            } else {
                low
            };
            low.map(|low| TargetPosition {
                low,
                ahead: Default::default(),
            })
        };
        let held: Vec<_> = splits.iter().map(held).collect();
        let lows: Vec<_> = held
            .iter()
            .map(|held| held.as_ref().map(|held| held.low))
            .collect();
        world.note(|| format!("{}  target: holds {lows:?}", self.process));
        Ok(TakeoverResult {
            published: Vec::new(),
            held,
            held_in: "the simulated target".to_owned(),
        })
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let chunks = if rows.is_empty() {
            Vec::new()
        } else {
            vec![Chunk::new(LaneId::from(LANE), rows)]
        };
        RoutedRows {
            chunks,
            bad: Vec::new(),
        }
    }

    fn lane(&self, _: &LaneId, _: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(self.open_transaction()))
    }

    fn transaction_without_records(&self) -> Option<Box<dyn lane::Transaction>> {
        Some(Box::new(self.open_transaction()))
    }
}

impl TargetSink {
    fn open_transaction(&self) -> OpenTransaction {
        OpenTransaction {
            world: self.world.clone(),
            process: self.process,
            owner: self.committer.claimant().owner.clone(),
            records: Vec::new(),
        }
    }
}

/// The only lane.
const LANE: &str = "transaction";

/// What is written between two commits.
struct OpenTransaction {
    world: SharedWorld,
    process: ProcessId,
    owner: String,
    records: Vec<(String, String)>,
}

impl OpenTransaction {
    /// One transaction with records and positions.
    fn transact(&mut self, splits: &[SplitCommit]) -> Result<(), CommitterError> {
        self.world.maybe_switch();
        let (owner, records) = (self.owner.clone(), std::mem::take(&mut self.records));
        let positions = splits
            .iter()
            .map(|step| (step.split.clone(), step.low))
            .collect();
        let transaction = Transaction {
            owner: owner.clone(),
            records,
            positions,
        };
        let mut world = self.world.lock();
        let fate = if world.is_calm {
            99
        } else {
            world.rng.u32(0..100)
        };
        let name = self.process;
        world.note(|| {
            format!(
                "{name}  target: {} records, positions {:?}",
                transaction.records.len(),
                transaction.positions
            )
        });
        match fate {
            0..5 => Err(CommitterError::Stopped),
            5..12 if world.kinds.has(Kind::LateMessages) => {
                world.note(|| {
                    format!("{name}  target: the transaction gets no answer and is left behind")
                });
                world.target.late.push(transaction);
                Err(CommitterError::Stopped)
            }
            _ if !world.target.apply(transaction) => {
                world.note(|| format!("{name}  target: refuses {owner}"));
                Err(CommitterError::Fenced(CommitError::OwnerFenced(owner)))
            }
            12..18 => {
                world.note(|| format!("{name}  target: the answer is lost"));
                Err(CommitterError::Stopped)
            }
            _ => Ok(()),
        }
    }
}

impl Lane for OpenTransaction {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        let keys = rows.columns().column(0).as_string::<i32>();
        for row in 0..rows.len() {
            let payload = rows.payload(row).unwrap_or_default();
            self.records.push((
                keys.value(row).to_owned(),
                String::from_utf8_lossy(payload).into_owned(),
            ));
        }
        Ok(Room::Ready)
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Transaction(self))
    }
}

impl lane::Transaction for OpenTransaction {
    fn commit(&mut self, splits: &[SplitCommit]) -> Result<(), SinkError> {
        match self.transact(splits) {
            Err(CommitterError::Stopped) => Err(SinkError::Transient(
                "the target has not answered a transaction".into(),
            )),
            other => Ok(other?),
        }
    }

    fn committed(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
