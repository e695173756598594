//! The sink that collects groups. It has one lane, which is a transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pseidon_delivery::{LaneId, Position, Reason, SplitCommit, StagedEntry, StoreError};
use pseidon_expr::aggregate::Groups;
use pseidon_plugin::Rows;
use pseidon_plugin::group::GroupStage;
use pseidon_plugin::lane::{Lane, LaneRules, Room, SealOutcome, Transaction};
use pseidon_plugin::options::ParseResult;
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    Chunk, PreparedSink, RoutedRows, Sink, SinkError, SinkInput, SinkSetup, TakenSplit,
    TakeoverResult, TargetPosition, TargetPositions,
};
use pseidon_plugin::waiting::about_to_wait;

use crate::SharedGroups;
use crate::input::GroupPlan;
use crate::table::{ForeignGroups, GroupTable, TableError};

/// The name of the only lane.
const LANE: &str = "groups";
/// How often the groups are committed, unless they use too much memory before.
const COMMIT_EVERY: Duration = Duration::from_secs(5);

/// A sink for input of known columns.
pub(crate) struct GroupSink {
    plan: Arc<GroupPlan>,
    /// What it computes, for comparison with the table's content.
    description: String,
    groups: Arc<SharedGroups>,
}

impl GroupSink {
    pub(crate) fn new(
        stage: &GroupStage,
        input: &SinkInput,
        groups: Arc<SharedGroups>,
    ) -> ParseResult<GroupSink> {
        let plan = Arc::new(GroupPlan::new(stage, input)?);
        let plan = groups.plan.get_or_init(|| plan).clone();
        let for_tests = plan.clone();
        stage.set_preview(Box::new(move |rows, split| {
            let (rows, _) = for_tests.convert(rows.clone())?;
            let results = Groups::results_of(&for_tests.grouping, rows.columns())?;
            for_tests.batch(results, split, 0)
        }));
        Ok(GroupSink {
            description: format!("{} of {}", stage.written, plan.types),
            plan,
            groups,
        })
    }
}

impl PreparedSink for GroupSink {
    fn nondeterminism(&self) -> Option<String> {
        self.plan.nondeterminism()
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        about_to_wait();
        let stage = setup.committer.sink().as_str();
        let base = setup.keeps_state.then_some(setup.base.as_path());
        let table = self.groups.open(base, &setup.pipeline, stage);
        let table = table.map_err(|error| match error {
            StoreError::Unavailable(reason) => SinkError::Transient(reason),
            StoreError::Failed(reason) => SinkError::Fatal(reason),
        })?;
        let widens_decimals = self.plan.grouping.widens_decimals();
        let begun = table.begin(&self.description, widens_decimals);
        if let Some(foreign) = begun.map_err(failed)? {
            let what = foreign_groups(&foreign, &table.location, stage);
            return Err(SinkError::Fatal(what.into()));
        }
        Ok(Arc::new(OpenGroupSink {
            shared: Arc::new(Shared {
                plan: self.plan.clone(),
                table,
                lane: LaneId::from(LANE),
                largest_group: setup.memory.limit() / 2,
            }),
            memory: setup.memory.limit() / 2,
        }))
    }
}

/// Why a stage cannot continue the groups of its table, and what to do.
fn foreign_groups(foreign: &ForeignGroups, location: &str, stage: &str) -> String {
    match foreign {
        ForeignGroups::OtherGrouping(other) => format!(
            "{location} has the unfinished groups of another version of `{stage}` ({other}): run \
             that version to its end, or rename the stage to begin again"
        ),
        ForeignGroups::NarrowSums => format!(
            "{location} has unfinished groups of an earlier version of Pseidon, whose sums of \
             decimals this version cannot continue: run the pipeline to its end with the earlier \
             version, or forget its state and groups with `pseidon reset`"
        ),
    }
}

fn failed(error: TableError) -> SinkError {
    match error.is_temporary() {
        true => SinkError::Transient(error.into()),
        false => SinkError::Fatal(error.into()),
    }
}

/// A sink that is open in a run.
struct OpenGroupSink {
    shared: Arc<Shared>,
    /// The memory that the groups of a transaction may use, in bytes.
    memory: usize,
}

/// What the transactions of a run share.
struct Shared {
    plan: Arc<GroupPlan>,
    table: Arc<GroupTable>,
    lane: LaneId,
    /// How many bytes a group may have. What is stored of a group is read to add to it.
    largest_group: usize,
}

impl OpenGroupSink {
    fn transaction(&self) -> Result<GroupLane, SinkError> {
        let groups = Groups::new(self.shared.plan.grouping.clone());
        Ok(GroupLane {
            shared: self.shared.clone(),
            groups: groups.map_err(|error| SinkError::Fatal(Reason::of(error)))?,
            memory: 0,
        })
    }
}

impl Sink for OpenGroupSink {
    fn rules(&self) -> LaneRules {
        LaneRules {
            single_writer: true,
            rollover: Rollover {
                size: self.memory as u64,
                ..Rollover::every(COMMIT_EVERY)
            },
            check_every: COMMIT_EVERY / 4,
            most_open: usize::MAX,
        }
    }

    /// No other process can have the table open, so no earlier owner can add to it.
    fn take_over(
        &self,
        splits: &[TakenSplit],
        _: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        if splits.is_empty() {
            return Ok(TakeoverResult::default());
        }
        let table = &self.shared.table;
        let positions = table.positions(splits.iter().map(|taken| &taken.split));
        let target = |low: Position| TargetPosition {
            low,
            ahead: HashMap::new(),
        };
        let by_split = positions
            .map_err(failed)?
            .into_iter()
            .map(|(split, low)| (split, target(low)));
        Ok(TakeoverResult {
            published: Vec::new(),
            held: Some(TargetPositions {
                location: table.location.clone(),
                by_split: by_split.collect(),
            }),
        })
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let count = rows.len();
        let (rows, bad) = match self.shared.plan.convert(rows) {
            Ok(converted) => converted,
            Err(error) => return RoutedRows::all_bad(count, &error),
        };
        let chunk = (!rows.is_empty()).then(|| Chunk::new(self.shared.lane.clone(), rows));
        RoutedRows {
            chunks: chunk.into_iter().collect(),
            bad,
            ..RoutedRows::default()
        }
    }

    fn lane(&self, _: &LaneId, _: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(self.transaction()?))
    }

    fn transaction_without_records(&self) -> Option<Box<dyn Transaction>> {
        Some(Box::new(self.transaction().ok()?))
    }
}

/// The groups of some records.
struct GroupLane {
    shared: Arc<Shared>,
    groups: Groups,
    /// The memory that the groups use, in bytes.
    memory: usize,
}

impl Lane for GroupLane {
    fn write(&mut self, rows: &Rows) -> Result<Room, SinkError> {
        let updated = self.groups.update(rows.columns());
        updated.map_err(|error| SinkError::Fatal(Reason::of(error)))?;
        self.memory = self.groups.memory();
        Ok(Room::Ready)
    }

    fn bytes(&self) -> u64 {
        self.memory as u64
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn seal(self: Box<Self>) -> Result<SealOutcome, SinkError> {
        Ok(SealOutcome::Transaction(self))
    }
}

impl Transaction for GroupLane {
    fn commit(&mut self, splits: &[SplitCommit]) -> Result<(), SinkError> {
        about_to_wait();
        let Shared { plan, table, .. } = &*self.shared;
        let (lane, largest) = (&self.shared.lane, self.shared.largest_group);
        let committed = table.commit(&plan.grouping, &mut self.groups, splits, (lane, largest));
        committed.map_err(failed)
    }

    fn committed(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
