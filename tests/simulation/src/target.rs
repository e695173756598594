//! A target with transactions that holds the positions itself, as a Kafka cluster does, and the sink that writes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use pseidon_delivery::committer::Abandon;
use pseidon_delivery::{CommitError, Committer, LaneCommit, LaneId, Position, SplitCommit, SplitId, Staged};
use pseidon_plugin::Rows;
use pseidon_plugin::sink::{Chunk, Routed, Sink, SinkError, TakenOver, TakenSplit, TargetPosition, Writer};

use crate::process::ProcessId;
use crate::scenario::{Kind, Mutation};
use crate::world::{Shared, SinkKind, World};

/// The first step of a split only says where it was begun; those that follow are copies of what the target holds.
const BEGUN: u64 = 1;

/// What the target holds.
#[derive(Default)]
pub(crate) struct Target {
    /// Everything that readers see, in its order: bucket and record.
    pub(crate) records: Vec<(String, String)>,
    pub(crate) positions: BTreeMap<SplitId, Position>,
    fenced: BTreeSet<String>,
    /// Transactions that are to be applied some day, unless their owner is fenced before.
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
    /// A transaction that was left behind is applied, or is not.
    pub(crate) fn move_a_transaction(&mut self) {
        if self.target.late.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.target.late.len());
        let transaction = self.target.late.remove(at);
        let owner = transaction.owner.clone();
        let is_applied = self.rng.u32(0..4) > 0 && self.target.apply(transaction);
        self.note(|| format!("target  a late transaction of {owner} is {}", if is_applied { "committed" } else { "aborted" }));
    }

    /// Transactions that were left behind time out.
    pub(crate) fn drop_transactions(&mut self) {
        self.target.late.clear();
    }

    /// Whether there is a copy in the store of every position that the target holds.
    pub(crate) fn losing_positions_is_noticed(&self) -> bool {
        let Some((sink, _)) = self.sinks.iter().find(|(_, kind)| *kind == SinkKind::Target) else { return false };
        self.target.positions.keys().all(|split| self.store.record(sink, split).sequence > BEGUN)
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
    pub(crate) world: Shared,
    pub(crate) process: ProcessId,
    pub(crate) committer: Arc<Committer>,
}

impl Sink for TargetSink {
    fn single_writer(&self) -> bool {
        true
    }

    fn take_over(&self, splits: &[TakenSplit], _: &[Staged]) -> Result<TakenOver, SinkError> {
        self.world.maybe_switch();
        let owner = &self.committer.claimant().owner;
        let mut world = self.world.lock();
        for other in splits.iter().flat_map(|taken| &taken.owners).filter(|other| *other != owner) {
            // As the initialisation of a producer does it: what is under way is finished one way or the other, and then nothing follows.
            let (left, late): (Vec<_>, Vec<_>) = std::mem::take(&mut world.target.late).into_iter().partition(|late| late.owner == *other);
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
            // What the target has lost looks as if it had never been there.
            let low = if world.mutation == Some(Mutation::UncheckedTarget) { low.max(taken.low) } else { low };
            low.map(|low| TargetPosition { low, ahead: Default::default() })
        };
        let held: Vec<_> = splits.iter().map(held).collect();
        let lows: Vec<_> = held.iter().map(|held| held.as_ref().map(|held| held.low)).collect();
        world.note(|| format!("{}  target: holds {lows:?}", self.process));
        Ok(TakenOver { published: Vec::new(), held, held_in: "the simulated target".to_owned() })
    }

    fn route(&self, rows: Rows) -> Routed {
        let keys = rows.columns().column(0).as_string::<i32>().clone();
        let mut by_key: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for row in 0..keys.len() {
            by_key.entry(keys.value(row)).or_default().push(row as u32);
        }
        let chunk = |(key, numbers): (&str, Vec<u32>)| Some(Chunk::new(LaneId::from(key), rows.take(&numbers.into()).ok()?));
        Routed { chunks: by_key.into_iter().filter_map(chunk).collect(), bad: Vec::new() }
    }

    fn writer(&self) -> Result<Box<dyn Writer>, SinkError> {
        let (world, process, committer) = (self.world.clone(), self.process, self.committer.clone());
        Ok(Box::new(TargetWriter { world, process, committer, records: Vec::new(), lanes: BTreeMap::new() }))
    }
}

struct TargetWriter {
    world: Shared,
    process: ProcessId,
    committer: Arc<Committer>,
    records: Vec<(String, String)>,
    lanes: BTreeMap<LaneId, BTreeMap<SplitId, Position>>,
}

impl TargetWriter {
    fn commit(&mut self) -> Result<(), SinkError> {
        let records = std::mem::take(&mut self.records);
        let lane = |(lane, splits): (LaneId, BTreeMap<SplitId, Position>)| LaneCommit { lane, splits: splits.into_iter().collect() };
        let lanes: Vec<LaneCommit> = std::mem::take(&mut self.lanes).into_iter().map(lane).collect();
        let mut is_unanswered = false;
        let outcome = self.committer.commit_through(&lanes, |splits| {
            let outcome = self.transact(records, splits);
            is_unanswered = matches!(outcome, Err(Abandon::Stopped));
            outcome
        });
        match outcome {
            Err(_) if is_unanswered => Err(SinkError::Transient("the target has not answered a transaction".into())),
            other => Ok(other?),
        }
    }

    /// One transaction with records and positions.
    fn transact(&self, records: Vec<(String, String)>, splits: &[SplitCommit]) -> Result<(), Abandon> {
        self.world.maybe_switch();
        let owner = self.committer.claimant().owner.clone();
        let positions = splits.iter().map(|step| (step.split.clone(), step.low)).collect();
        let transaction = Transaction { owner: owner.clone(), records, positions };
        let mut world = self.world.lock();
        let fate = if world.is_calm { 99 } else { world.rng.u32(0..100) };
        let name = self.process;
        world.note(|| format!("{name}  target: {} records, positions {:?}", transaction.records.len(), transaction.positions));
        match fate {
            0..5 => Err(Abandon::Stopped),
            5..12 if world.kinds.has(Kind::LateMessages) => {
                world.note(|| format!("{name}  target: the transaction is not answered, and left behind"));
                world.target.late.push(transaction);
                Err(Abandon::Stopped)
            }
            _ if !world.target.apply(transaction) => {
                world.note(|| format!("{name}  target: refuses {owner}"));
                Err(Abandon::Fenced(CommitError::OwnerFenced(owner)))
            }
            12..18 => {
                world.note(|| format!("{name}  target: the answer is lost"));
                Err(Abandon::Stopped)
            }
            _ => Ok(()),
        }
    }
}

impl Writer for TargetWriter {
    fn write(&mut self, chunk: Chunk) -> Result<(), SinkError> {
        let rows = &chunk.rows;
        let Some(last) = rows.len().checked_sub(1) else { return Ok(()) };
        let split = rows.batch().split.id.clone();
        self.lanes.entry(chunk.lane.clone()).or_default().insert(split, rows.position(last) + 1);
        for row in 0..rows.len() {
            let payload = rows.payload(row).unwrap_or_default();
            self.records.push((chunk.lane.to_string(), String::from_utf8_lossy(payload).into_owned()));
        }
        Ok(())
    }

    fn tick_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.commit()
    }

    fn flush(&mut self, _: Option<&[SplitId]>) -> Result<(), SinkError> {
        self.commit()
    }
}
