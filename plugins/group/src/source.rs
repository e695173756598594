//! The source that reads the results of groups. Each closed generation is a split, and the position
//! of a result is its number in the order of the keys.

use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::Position;
use pseidon_expr::aggregate::{Group, Grouping};
use pseidon_plugin::batch::{Batch, Payloads, Split};
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourceSetup,
};

use crate::OpenTable;
use crate::table::{GroupTable, TableError};

/// How many results are read at once.
const BATCH_ROWS: usize = 4096;
/// How often a source that waits for room looks again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A source of the results of groups.
pub(crate) struct GroupSource {
    grouping: Arc<Grouping>,
    open: Arc<OpenTable>,
}

impl GroupSource {
    pub(crate) fn new(grouping: Arc<Grouping>, open: Arc<OpenTable>) -> GroupSource {
        GroupSource { grouping, open }
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
            let groups = table.groups(generation, next, after, BATCH_ROWS);
            let groups = groups.map_err(failed)?;
            let first = next;
            next += groups.len() as u64;
            if groups.is_empty() {
                handle.emit(Batch::end_of(split.clone(), next))?;
                return Ok(());
            }
            let results = self.grouping.results(&groups);
            let results = results.map_err(|error| failed(error.into()))?;
            let payloads = Payloads::of_columns(results);
            let positions = (first..next).collect();
            handle.emit(Batch::from_payloads(
                split.clone(),
                payloads,
                positions,
                next,
            ))?;
            last = groups.into_iter().next_back();
        }
    }
}

fn failed(error: TableError) -> SourceExit {
    match error {
        TableError::Storage(_) => SourceExit::transient(error),
        TableError::Compute(_) => SourceExit::fatal(error),
    }
}

impl Source for GroupSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: pseidon_formats::ParquetReader::FORMAT.into(),
            format_span: None,
            schema: Some(self.grouping.output().clone()),
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
        let Some(table) = self.open.get() else {
            return Err(SourceExit::fatal("internal error: the groups are not open"));
        };
        for generation in table.close().map_err(failed)? {
            self.read(generation, &table, &setup.stage, &handle)?;
        }
        Ok(())
    }
}
