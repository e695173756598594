//! The offsets of the Kafka group: a copy of the durable positions, for tools that show the group's
//! lag, and evidence of what the state has held.

use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use rdkafka::{Offset, TopicPartitionList};

use super::super::outlet::Outlet;
use super::{Reader, raw};
use crate::native::{NativeError, TopicPartition};

/// How long committing the last offsets of a run to the group may take.
const LAST_OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before that commit is retried.
const COMMIT_RETRY: Duration = Duration::from_millis(100);

impl Reader<'_> {
    /// Commits the durable positions to the group. This may fail: delivery does not depend on it.
    pub(super) fn commit_durable(&mut self) {
        for outlet in self.outlets.iter() {
            self.durable.extend(outlet.outbox.handle().durable());
        }
        let mut moved = Vec::new();
        for assigned in self.assignment.iter_mut() {
            if let Some(next) = self.durable.remove(&assigned.split.id) {
                assigned.durable = next;
                moved.push((assigned.at.clone(), next, assigned.outlet.clone()));
            }
        }
        // What is left belongs to partitions that are no longer assigned.
        self.durable.clear();
        if let Err(error) = self.commit_offsets(
            moved
                .iter()
                .map(|(at, next, outlet)| (at, *next, outlet.as_ref())),
            None,
        ) {
            tracing::debug!(%error, "cannot commit the group's offsets");
        }
    }

    /// Commits the offsets of partitions that are read no longer. If the run ends, nothing else is
    /// left to do, so it waits for the result: a state that is lost between two runs is detected by
    /// these offsets.
    pub(super) fn commit_last(
        &self,
        outlet: &Outlet,
        offsets: &[(TopicPartition, Position)],
        is_last: bool,
    ) {
        let deadline = Instant::now() + LAST_OFFSETS_TIMEOUT;
        while let Err(error) = self.commit_offsets(
            offsets.iter().map(|(at, next)| (at, *next, outlet)),
            is_last.then_some(LAST_OFFSETS_TIMEOUT),
        ) {
            if !is_last || Instant::now() >= deadline {
                tracing::warn!(
                    group = self.group, %error,
                    "cannot commit the last offsets to the group"
                );
                return;
            }
            std::thread::sleep(COMMIT_RETRY);
        }
    }

    /// Commits positions to the group, for tools that show its lag and as evidence of what the
    /// state has held. The metadata of each names the state of the run that it belongs to.
    fn commit_offsets<'o>(
        &self,
        positions: impl Iterator<Item = (&'o TopicPartition, Position, &'o Outlet)>,
        timeout: Option<Duration>,
    ) -> Result<(), NativeError> {
        let mut list = TopicPartitionList::new();
        for (at, next, outlet) in positions {
            let mut element = list.add_partition(&at.topic, at.partition);
            // This fails only for offsets without a number, which the offsets used here have.
            let _ = element.set_offset(Offset::Offset(raw(next)));
            element.set_metadata(outlet.metadata_of(next));
        }
        if list.count() == 0 {
            Ok(())
        } else {
            self.consumer.commit(&list, timeout)
        }
    }
}
