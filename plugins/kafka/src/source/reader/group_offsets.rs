//! The offsets of the Kafka group: a copy of the durable positions, for tools that show the group's
//! lag, and evidence of what the state has held.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pseidon_delivery::{Position, SplitId};
use rdkafka::{Offset, TopicPartitionList};

use super::super::assignment::Assignment;
use super::super::outlet::{GroupOffset, Outlet};
use super::{Reader, raw};
use crate::native::{Consumer, NativeError, TopicPartition};

/// How long committing the last offsets of a run to the group may take.
const LAST_OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before that commit is retried.
const COMMIT_RETRY: Duration = Duration::from_millis(100);

/// Durable positions that are not yet committed to the group.
#[derive(Default)]
pub(super) struct GroupOffsets {
    /// Of partitions that are read, and of some that are not, as the runs have reported them.
    durable: HashMap<SplitId, Position>,
    /// Of partitions that are read no longer.
    last: Vec<GroupOffset>,
}

impl GroupOffsets {
    /// Accepts what the run has reported as durable.
    fn add_durable(&mut self, outlet: &Outlet) {
        self.durable.extend(outlet.outbox.handle().durable());
    }

    /// Accepts what the run has reported as durable, after everything that was read of the
    /// partitions in `gone`, which have left it, was committed.
    pub(super) fn add_last(&mut self, outlet: &Outlet, gone: &[(TopicPartition, SplitId)]) {
        for (split, next) in outlet.outbox.handle().durable() {
            match gone.iter().find(|(_, known)| *known == split) {
                Some((at, _)) => self.last.push(outlet.group_offset(at.clone(), next)),
                None => _ = self.durable.insert(split, next),
            }
        }
    }

    /// Removes the positions of the assigned partitions, which are noted there as durable, and
    /// returns them.
    fn take_durable(&mut self, assignment: &mut Assignment) -> Vec<GroupOffset> {
        let mut moved = Vec::new();
        for assigned in assignment.iter_mut() {
            if let Some(next) = self.durable.remove(&assigned.split.id) {
                assigned.durable = next;
                moved.push(assigned.outlet.group_offset(assigned.at.clone(), next));
            }
        }
        // What is left belongs to partitions that are no longer assigned.
        self.durable.clear();
        moved
    }
}

impl Reader<'_> {
    /// Commits the durable positions to the group. This may fail: delivery does not depend on it.
    pub(super) fn commit_durable(&mut self) {
        for outlet in self.runs.outlets.iter() {
            self.group_offsets.add_durable(outlet);
        }
        let moved = self.group_offsets.take_durable(&mut self.assignment);
        if let Err(error) = commit(self.consumer, &moved, None) {
            tracing::debug!(%error, "cannot commit the group's offsets");
        }
    }

    /// Commits the offsets of partitions that are read no longer. If reading has ended, nothing
    /// else is left to do, so it waits for the result: a state that is lost between two runs is
    /// detected by these offsets.
    pub(super) fn commit_last(&mut self, has_ended: bool) {
        let offsets = std::mem::take(&mut self.group_offsets.last);
        let deadline = Instant::now() + LAST_OFFSETS_TIMEOUT;
        let timeout = has_ended.then_some(LAST_OFFSETS_TIMEOUT);
        while let Err(error) = commit(self.consumer, &offsets, timeout) {
            if !has_ended || Instant::now() >= deadline {
                tracing::warn!(
                    group = self.membership.group, %error,
                    "cannot commit the last offsets to the group"
                );
                return;
            }
            std::thread::sleep(COMMIT_RETRY);
        }
    }
}

/// Commits positions to the group, for tools that show its lag and as evidence of what the state
/// has held. The metadata of each names the state of the run that it belongs to.
fn commit(
    consumer: &Consumer,
    offsets: &[GroupOffset],
    timeout: Option<Duration>,
) -> Result<(), NativeError> {
    let mut list = TopicPartitionList::new();
    for GroupOffset { at, next, metadata } in offsets {
        let mut element = list.add_partition(&at.topic, at.partition);
        // This fails only for offsets without a number, which the offsets used here have.
        let _ = element.set_offset(Offset::Offset(raw(*next)));
        element.set_metadata(metadata);
    }
    if list.count() == 0 {
        Ok(())
    } else {
        consumer.commit(&list, timeout)
    }
}
