//! The sink that writes to the target.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use arrow::array::AsArray;
use pseidon_delivery::committer::CommitterError;
use pseidon_delivery::{
    CommitError, Committer, InstanceId, LaneId, Position, SplitCommit, SplitId, StagedEntry,
};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{self, Lane, LaneRules, Room, SealOutcome};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, RoutedRows, Sink, SinkError, TakenSplit, TakeoverResult, TargetPosition, TargetPositions,
};

use crate::names::ProcessId;
use crate::scenario::{Kind, Mutation};
use crate::world::SharedWorld;
use crate::world::target::Transaction;

/// A sink in one process.
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
            for transaction in world.target.take_late(other) {
                if world.rng.bool() {
                    world.target.apply(transaction);
                }
            }
            world.target.fence(other);
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
            (taken.split.clone(), low)
        };
        let lows: Vec<_> = splits.iter().map(held).collect();
        world.note(|| {
            let lows: Vec<_> = lows.iter().map(|(_, low)| low).collect();
            format!("{}  target: holds {lows:?}", self.process)
        });
        let position = |(split, low): (SplitId, Option<Position>)| {
            let ahead = Default::default();
            Some((split, TargetPosition { low: low?, ahead }))
        };
        Ok(TakeoverResult {
            published: Vec::new(),
            held: Some(TargetPositions {
                location: "the simulated target".to_owned(),
                by_split: lows.into_iter().filter_map(position).collect(),
            }),
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
            ..RoutedRows::default()
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
    owner: InstanceId,
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
                world.target.leave_behind(transaction);
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
