//! What is done about once a second: positions without records, lag, pauses, the group's offsets,
//! and what keeps us from reading.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;

use super::super::assignment::Assigned;
use super::super::failure::Leave;
use super::super::outlet::{Outlet, Outlets};
use super::{Reader, raw};
use crate::native::LogPosition;

/// How often.
const TICK: Duration = Duration::from_secs(1);
/// How long a broker may take to show that it is there.
const GREETING: Duration = Duration::from_millis(300);
/// How long the group may take to admit us before that is called a trouble.
const ADMISSION: Duration = Duration::from_secs(30);

impl Reader<'_> {
    pub(super) fn tick(&mut self) -> Result<(), Leave> {
        self.next_tick = Instant::now() + TICK;
        self.skip_what_is_no_record()?;
        self.measure_lag();
        // librdkafka says when the last broker is gone, and not when one is back.
        if self.unreachable && self.consumer.all_partitions(GREETING).is_ok() {
            self.unreachable = false;
        }
        self.outlets
            .iter()
            .for_each(|outlet| outlet.unreachable.set(i64::from(self.unreachable)));
        self.watch_topics();
        self.say_troubles();
        self.pause_by_run()?;
        self.tell_group();
        Ok(())
    }

    fn skip_what_is_no_record(&mut self) -> Result<(), Leave> {
        let names = self.assignment.names();
        let Ok(positions) = self.consumer.positions(&names) else {
            return Ok(());
        };
        let skipped = |(assigned, at): (&mut Assigned, Option<LogPosition>)| {
            let LogPosition {
                offset,
                leader_epoch,
            } = at?;
            Some((
                assigned.skip_to(Position::try_from(offset).ok()?, leader_epoch)?,
                assigned.outlet.clone(),
            ))
        };
        let skips: Vec<_> = self
            .assignment
            .iter_mut()
            .zip(positions)
            .filter_map(skipped)
            .collect();
        skips
            .into_iter()
            .try_for_each(|(batch, outlet)| self.emit(&outlet, batch))
    }

    fn measure_lag(&self) {
        let mut behind: HashMap<*const Outlet, i64> = HashMap::new();
        for assigned in self.assignment.iter() {
            if let Some(high) = self.consumer.last_high_watermark(&assigned.at) {
                *behind.entry(Arc::as_ptr(&assigned.outlet)).or_default() +=
                    (high - raw(assigned.next)).max(0);
            }
        }
        self.outlets.iter().for_each(|outlet| {
            outlet
                .lag
                .set(behind.get(&Arc::as_ptr(outlet)).copied().unwrap_or(0))
        });
    }

    /// Says why runs read nothing, where that is known.
    fn say_troubles(&self) {
        let of_group = self.group_trouble.clone().or_else(|| self.late_admission());
        for outlet in self.outlets.iter() {
            let trouble = of_group
                .clone()
                .or_else(|| self.missing_topics())
                .or_else(|| self.arrivals.trouble_of(outlet));
            let sentence = trouble
                .map(|trouble| format!("the source `{}` reads nothing: {trouble}", outlet.stage));
            outlet.metrics.set_source_trouble(&outlet.stage, sentence);
        }
    }

    fn late_admission(&self) -> Option<String> {
        let (topics, since) = self.subscribed;
        let is_late = topics > 0
            && !self.joined
            && !self.unreachable
            && since.elapsed() >= ADMISSION
            && self.topics.has_some_of(topics);
        is_late.then(|| {
            format!(
                "the group {} has not admitted this instance for {:.0?}",
                self.group,
                since.elapsed()
            )
        })
    }

    /// A topic that a run names and that does not exist. A log of a table may well be there before
    /// its topic.
    fn missing_topics(&self) -> Option<String> {
        if matches!(self.outlets, Outlets::ByTopic { .. }) {
            return None;
        }
        let missing: Vec<&str> = self.topics.missing().map(String::as_str).collect();
        (!missing.is_empty()).then(|| format!("there is no topic `{}`", missing.join("`, `")))
    }

    /// Pauses the partitions of runs that take nothing more, where they are some of many.
    fn pause_by_run(&self) -> Result<(), Leave> {
        let Outlets::ByTopic { topics, .. } = &self.outlets else {
            return Ok(());
        };
        for (topic, outlet) in topics {
            let Some(paused) = outlet.changed_pause() else {
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

    /// Copies to the group how far partitions are durable. It may fail: delivery does not rest on
    /// it.
    fn tell_group(&mut self) {
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
        // What is left is about partitions that are ours no longer.
        self.durable.clear();
        if let Err(error) = self.commit_offsets(
            moved
                .iter()
                .map(|(at, next, outlet)| (at, *next, outlet.as_ref())),
            None,
        ) {
            tracing::debug!(%error, "the group's offsets were not written");
        }
    }
}
