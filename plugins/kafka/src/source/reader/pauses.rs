//! Pauses: of all partitions while there is no room in memory, and of the partitions of one run.

use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceExit;
use rdkafka::Offset;

use super::super::outlet::{Outlet, Outlets};
use super::super::start::list_of;
use super::Reader;
use super::pace::IDLE;
use crate::native::{MessageBatch, TopicPartition};

/// How long the source only waits for room. After that it pauses its partitions, which discards
/// what librdkafka has fetched ahead, and serves the group while it keeps waiting.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// The pauses for lack of room in memory.
#[derive(Default)]
pub(super) struct Pauses {
    /// Whether all partitions are paused for lack of room.
    all: bool,
}

impl Pauses {
    /// Whether the partitions of the run are paused, by themselves or with all others.
    pub(super) fn include(&self, outlet: &Outlet) -> bool {
        self.all || outlet.is_paused()
    }

    /// Whether a source that has waited for room for so long pauses all partitions now. Partitions
    /// that leave are served only during a pause.
    fn is_due(&self, waited: Duration, is_leaving: bool) -> bool {
        !self.all && (waited >= ROOM_TIMEOUT || is_leaving)
    }
}

impl Reader<'_> {
    /// Returns once there is room in memory. Until then nothing is read, but the group is served.
    pub(super) fn wait_for_room(&mut self, fetched: &mut MessageBatch) -> Result<(), SourceExit> {
        if self.runs.outlets.wait_for_room(Duration::ZERO)? {
            return Ok(());
        }
        self.flush()?;
        let began = Instant::now();
        while !self.phase.is_ending() && !self.runs.outlets.wait_for_room(IDLE)? {
            let is_leaving = !self.departures.is_empty();
            if self.pauses.is_due(began.elapsed(), is_leaving) {
                self.pauses.all = true;
                self.pause(&self.assignment.names())?;
            }
            if self.pauses.all {
                self.pass(fetched, Duration::ZERO)?;
            }
        }
        if self.pauses.all {
            self.pauses.all = false;
            // The partitions of a run that has paused itself stay paused.
            let awake = self
                .assignment
                .iter()
                .filter(|assigned| !assigned.outlet.is_paused());
            let awake: Vec<_> = awake.map(|assigned| assigned.at.clone()).collect();
            self.resume(&awake)?;
        }
        Ok(())
    }

    pub(super) fn resume(&self, partitions: &[TopicPartition]) -> Result<(), SourceExit> {
        if partitions.is_empty() {
            return Ok(());
        }
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer.resume(&list).map_err(|error| {
            SourceExit::transient(Reason::caused_by("cannot resume reading", error))
        })
    }

    pub(super) fn pause(&self, partitions: &[TopicPartition]) -> Result<(), SourceExit> {
        if partitions.is_empty() {
            return Ok(());
        }
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer.pause(&list).map_err(|error| {
            SourceExit::transient(Reason::caused_by("cannot pause reading", error))
        })
    }

    /// Pauses and resumes the partitions of single runs of a shared consumer.
    pub(super) fn pause_by_run(&self) -> Result<(), SourceExit> {
        let Outlets::ByTopic { topics, .. } = &self.runs.outlets else {
            return Ok(());
        };
        for (topic, outlet) in topics {
            let Some(paused) = outlet.pause_change() else {
                continue;
            };
            let of_topic: Vec<_> = self
                .assignment
                .names()
                .into_iter()
                .filter(|at| at.topic == *topic)
                .collect();
            if paused {
                self.pause(&of_topic)?;
            } else if !self.pauses.all {
                self.resume(&of_topic)?;
            }
        }
        Ok(())
    }
}
