//! The last step of an arrival: the state has recorded where the partition starts, and it is read.

use std::collections::HashMap;
use std::time::Duration;

use pseidon_delivery::{Position, Reason};
use pseidon_plugin::source::SourceExit;
use rdkafka::Offset;

use super::super::{Reader, raw};
use super::summary;
use crate::native::{OffsetAndEpoch, TopicPartition};
use crate::source::assignment::{AssignedPartition, ReadySplit};
use crate::source::start::list_of;

/// How long librdkafka's own thread may take to accept a seek.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

impl Reader<'_> {
    /// Starts reading partitions that the state has recorded as started.
    pub(super) fn start_reading(&mut self, ready: Vec<ReadySplit>) -> Result<(), SourceExit> {
        if ready.is_empty() {
            return Ok(());
        }
        let starts: HashMap<&TopicPartition, Position> =
            ready.iter().map(|one| (&one.at, one.start)).collect();
        let list = list_of(starts.keys().copied(), |at| {
            Offset::Offset(starts.get(at).map_or(0, |next| raw(*next)))
        });
        self.consumer.assign_more(&list).map_err(|error| {
            SourceExit::transient(Reason::caused_by("cannot read partitions", error))
        })?;
        // librdkafka remembers that a partition was paused, even if it was unassigned since.
        let (resting, reading): (Vec<_>, Vec<_>) = ready
            .iter()
            .partition(|one| self.pauses.include(&one.outlet));
        let names =
            |of: Vec<&ReadySplit>| of.into_iter().map(|one| one.at.clone()).collect::<Vec<_>>();
        self.pause(&names(resting))?;
        self.resume(&names(reading))?;
        let names: Vec<_> = ready.iter().map(|one| one.at.clone()).collect();
        tracing::debug!(
            count = names.len(),
            partitions = summary(&names),
            "reading partitions"
        );
        self.arrivals.unchecked.extend(
            ready
                .iter()
                .filter(|one| one.identity.leader_epoch.is_some())
                .map(|one| one.at.clone()),
        );
        ready.into_iter().for_each(|one| self.assignment.add(one));
        Ok(())
    }

    /// Has the brokers check whether the logs of partitions that were read before still have those
    /// records: librdkafka checks that only on a seek.
    pub(super) fn check_logs(&mut self) {
        let is_unchecked =
            |assigned: &&AssignedPartition| self.arrivals.unchecked.contains(&assigned.at);
        let position = |assigned: &AssignedPartition| OffsetAndEpoch {
            offset: raw(assigned.next),
            leader_epoch: assigned.identity.leader_epoch,
        };
        let wanted: Vec<_> = self
            .assignment
            .iter()
            .filter(is_unchecked)
            .map(|one| (one.at.clone(), position(one)))
            .collect();
        self.arrivals.unchecked.clear();
        if wanted.is_empty() {
            return;
        }
        let asked = self
            .consumer
            .seek_checked(&wanted, SEEK_TIMEOUT)
            .unwrap_or_else(|_| vec![false; wanted.len()]);
        let again = wanted
            .into_iter()
            .zip(asked)
            .filter(|(_, is_asked)| !is_asked);
        self.arrivals.unchecked.extend(again.map(|((at, _), _)| at));
    }
}
