//! Pauses: of all partitions while there is no room in memory, and of the partitions of one run.

use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::source::SourceExit;
use rdkafka::Offset;

use super::super::outlet::Outlets;
use super::super::start::list_of;
use super::Reader;
use super::pace::{BUSY, IDLE};
use crate::native::{MessageBatch, TopicPartition};

/// How long the source only waits for room. After that it pauses its partitions, which discards
/// what librdkafka has fetched ahead, and serves the group while it keeps waiting. It pauses at
/// once if librdkafka would fetch ahead without a limit.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

impl Reader<'_> {
    /// Returns once there is room in memory. Until then nothing is read, but the group is served.
    pub(super) fn wait_for_room(&mut self, fetched: &mut MessageBatch) -> Result<(), SourceExit> {
        if self.outlets.wait_for_room(Duration::ZERO)? {
            return Ok(());
        }
        self.flush()?;
        let began = Instant::now();
        while !self.ending
            && !self
                .outlets
                .wait_for_room(if self.fetches_uncounted { BUSY } else { IDLE })?
        {
            if !self.paused
                && (self.fetches_uncounted
                    || began.elapsed() >= ROOM_TIMEOUT
                    || !self.departures.is_empty())
            {
                self.paused = true;
                self.pause(&self.assignment.names())?;
            }
            if self.paused {
                self.pass(fetched, Duration::ZERO)?;
            }
        }
        if self.paused {
            self.paused = false;
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
        let Outlets::ByTopic { topics, .. } = &self.outlets else {
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
            } else if !self.paused {
                self.resume(&of_topic)?;
            }
        }
        Ok(())
    }
}
