//! Versions of the pipeline: which records each sends to which sink, and what one has left
//! unfinished.

use pseidon_delivery::unfinished::{SinkRecord, unfinished_work};
use pseidon_delivery::{CommitRecord, SinkId, SplitId, UnfinishedSplit, position_in_target};

use super::World;
use crate::fixture::PLANS;
use crate::names::{ProcessId, SinkKind, plan_name, split_id};
use crate::scenario::Kind;

/// A version of the pipeline that no instance runs.
const NO_PLAN: &str = "";

/// Whether this version of the pipeline sends records with this key to the sink of this kind, in
/// runs in which each record belongs to one sink. Two versions send every key to different ones.
pub(crate) fn is_sent_to(kind: SinkKind, plan: usize, key: u8) -> bool {
    let is_for_files = (usize::from(key) + plan).is_multiple_of(2);
    is_for_files == (kind == SinkKind::Files)
}

impl World {
    /// Whether a process that another version does not let continue is started again, until that
    /// version has finished: so the versions meet more often.
    pub(crate) fn starts_again(&self) -> bool {
        self.is_routed && !self.is_calm
    }

    /// Whether every second request to take splits is slow, so that the take-overs of two versions
    /// overlap.
    pub(crate) fn has_slow_takes(&self) -> bool {
        self.is_routed && self.kinds.has(Kind::LateMessages)
    }

    /// The group assigns a partition to a process with another version of the pipeline than the
    /// one that has it, unless instances share the partitions.
    pub(crate) fn move_to_another_version(&mut self, processes: &[ProcessId]) {
        if self.is_shared {
            return;
        }
        let partition = self.rng.usize(0..self.partitions.len());
        let before = self.partitions[partition].assigned.map(|id| id.plan);
        let others = processes.iter().filter(|id| Some(id.plan) != before);
        if let Some(id) = self.rng.choice(others.collect::<Vec<_>>()) {
            self.note(|| format!("group  assigns partition {partition} to {id}"));
            self.partitions[partition].assigned = Some(*id);
        }
    }

    /// Whether this version of the pipeline may continue a partition: no other one has left
    /// anything of it unfinished.
    pub(crate) fn may_continue(&self, partition: usize, plan: usize) -> bool {
        self.left_by_others(partition, &plan_name(plan)).is_none()
    }

    /// The version of the pipeline that has left work of this partition unfinished, if one has.
    pub(crate) fn version_that_left(&self, partition: usize) -> Option<usize> {
        let (left_by, _) = self.left_by_others(partition, NO_PLAN)?;
        (0..PLANS).find(|number| left_by.as_ref() == Some(&plan_name(*number)))
    }

    /// What is unfinished of this partition, if anything is.
    pub(crate) fn left_of(&self, partition: usize) -> Option<UnfinishedSplit> {
        let (_, left) = self.left_by_others(partition, NO_PLAN)?;
        Some(left)
    }

    /// What other versions than this one have left unfinished, by the rule of the engine.
    fn left_by_others(
        &self,
        partition: usize,
        plan: &str,
    ) -> Option<(Option<String>, UnfinishedSplit)> {
        let split = split_id(partition);
        let records: Vec<(&SinkId, CommitRecord)> = self
            .sinks
            .iter()
            .map(|(sink, kind)| (sink, self.record_with_positions(sink, *kind, &split)))
            .collect();
        let records: Vec<SinkRecord<'_>> = records
            .iter()
            .map(|(sink, record)| SinkRecord {
                sink,
                record,
                is_reached: true,
            })
            .collect();
        let (left_by, left) = unfinished_work(&split, &records, plan)?;
        Some((left_by.map(str::to_owned), left))
    }

    /// The record of a split as a take-over sees it: with the position of the target, if that holds
    /// it.
    fn record_with_positions(
        &self,
        sink: &SinkId,
        kind: SinkKind,
        split: &SplitId,
    ) -> CommitRecord {
        let mut record = self.store.record(sink, split);
        if kind == SinkKind::Target {
            let held = self.target.positions.get(split).copied();
            // A process that takes a split of which the position is lost gives up.
            record.low = position_in_target(&record, held).unwrap_or(held);
            record.ahead.clear();
        }
        record
    }
}
