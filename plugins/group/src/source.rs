//! The source that reads the results of groups. Each closed generation is a split, and the position
//! of a result is its number in the order of the keys.

use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::Position;
use pseidon_expr::aggregate::Group;
use pseidon_plugin::batch::{Batch, Payloads, Split};
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourceSetup,
};

use crate::SharedGroups;
use crate::input::GroupPlan;
use crate::table::{GroupTable, TableError};

/// How many results are read at once, unless they have more than [`BATCH_BYTES`].
const BATCH_ROWS: usize = 4096;
/// The bytes of stored groups from which no more are read at once.
const BATCH_BYTES: usize = 1 << 20;
/// How often a source that waits for room looks again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A source of the results of groups.
pub(crate) struct GroupSource {
    plan: Arc<GroupPlan>,
    groups: Arc<SharedGroups>,
}

impl GroupSource {
    pub(crate) fn new(plan: Arc<GroupPlan>, groups: Arc<SharedGroups>) -> GroupSource {
        GroupSource { plan, groups }
    }

    /// Reads a closed generation from where it was left, and removes it when all of its results are
    /// durable.
    fn read(
        &self,
        generation: u64,
        table: &GroupTable,
        stage: &str,
        handle: &SourceHandle,
    ) -> Result<(), SourceExit> {
        let split = Arc::new(Split {
            id: format!("{stage}:{generation}").into(),
            topic: stage.to_owned(),
            partition: 0,
        });
        let known = handle.take(vec![split.clone()])?.pop().flatten();
        if !known.as_ref().is_some_and(|known| known.is_finished) {
            let position = known.map_or(0, |known| known.position);
            handle.begin(vec![(split.clone(), position)])?;
            self.emit(generation, position, table, &split, handle)?;
        }
        handle.release(vec![split])?;
        table.remove(generation).map_err(failed)?;
        let stage = stage.to_owned();
        handle.forget_finished(move |split| {
            let name = split.as_str().strip_prefix(&stage);
            let number = name.and_then(|rest| rest.strip_prefix(':')?.parse().ok());
            number.is_some_and(|number: u64| number <= generation)
        })?;
        Ok(())
    }

    fn emit(
        &self,
        generation: u64,
        from: Position,
        table: &GroupTable,
        split: &Arc<Split>,
        handle: &SourceHandle,
    ) -> Result<(), SourceExit> {
        let (mut next, mut last): (Position, Option<Group>) = (from, None);
        loop {
            while !handle.wait_for_room(PATIENCE)? {}
            let after = last.as_ref().map(|group| group.key.as_slice());
            let groups = table.groups(generation, next, after, (BATCH_ROWS, BATCH_BYTES));
            let groups = groups.map_err(failed)?;
            let first = next;
            next += groups.len() as u64;
            if groups.is_empty() {
                handle.emit(Batch::end_of(split.clone(), next))?;
                return Ok(());
            }
            let batch = self.plan.grouping.results(&groups);
            let batch = batch.and_then(|results| self.plan.batch(results, split.clone(), first));
            handle.emit(batch.map_err(|error| failed(error.into()))?)?;
            last = groups.into_iter().next_back();
        }
    }
}

fn failed(error: TableError) -> SourceExit {
    match error.is_temporary() {
        true => SourceExit::transient(error),
        false => SourceExit::fatal(error),
    }
}

impl Source for GroupSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: self.plan.format().into(),
            format_span: None,
            schema: self.plan.fields(),
            infer: None,
            splits_bytes: false,
            reads_columns: true,
            reread: Reread::Exact,
            finite: true,
            topic_may_change: false,
        }
    }

    fn sample(&self, _: &SourceSetup, _: usize) -> Result<Vec<Payloads>, SourceError> {
        Ok(Vec::new())
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        let Some(table) = self.groups.open_table() else {
            return Err(SourceExit::fatal("internal error: the groups are not open"));
        };
        for generation in table.close().map_err(failed)? {
            self.read(generation, &table, &setup.stage, &handle)?;
        }
        Ok(())
    }
}
