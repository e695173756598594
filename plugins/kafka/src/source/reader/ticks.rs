//! The work that is done about once a second: positions without records, lag, and the reasons why
//! nothing is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceExit;

use super::super::assignment::AssignedPartition;
use super::super::outlet::{Outlet, Outlets};
use super::{Reader, raw};
use crate::native::OffsetAndEpoch;

/// The timeout of the request that checks whether a broker can be reached again.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

impl Reader<'_> {
    /// Does all periodic work once.
    pub(super) fn tick(&mut self) -> Result<(), SourceExit> {
        self.skip_non_records()?;
        self.measure_lag();
        // librdkafka reports when the last broker is gone, but not when one is back.
        if self.membership.unreachable && self.consumer.all_partitions(PROBE_TIMEOUT).is_ok() {
            self.membership.unreachable = false;
        }
        self.runs.outlets.iter().for_each(|outlet| {
            outlet
                .unreachable
                .set(i64::from(self.membership.unreachable))
        });
        self.watch_topics();
        self.report_problems();
        self.pause_by_run()?;
        self.commit_durable();
        self.commit_last(false);
        Ok(())
    }

    fn skip_non_records(&mut self) -> Result<(), SourceExit> {
        let names = self.assignment.names();
        let Ok(positions) = self.consumer.positions(&names) else {
            return Ok(());
        };
        let skipped = |(assigned, at): (&mut AssignedPartition, Option<OffsetAndEpoch>)| {
            let OffsetAndEpoch {
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
        self.runs.outlets.iter().for_each(|outlet| {
            outlet
                .lag
                .set(behind.get(&Arc::as_ptr(outlet)).copied().unwrap_or(0))
        });
    }

    /// Reports why runs read nothing, if that is known.
    fn report_problems(&self) {
        let of_group = self.membership.problem(&self.topics);
        for outlet in self.runs.outlets.iter() {
            let problem = of_group
                .clone()
                .or_else(|| self.missing_topics())
                .or_else(|| self.arrivals.problem_of(outlet));
            let sentence = problem
                .map(|problem| format!("the source `{}` reads nothing: {problem}", outlet.stage));
            outlet.metrics.set_source_trouble(&outlet.stage, sentence);
        }
    }

    /// The topics of `:topics` that do not exist. For a shared consumer this is not a problem: the
    /// row of a table may exist before its topic.
    fn missing_topics(&self) -> Option<String> {
        if matches!(self.runs.outlets, Outlets::ByTopic { .. }) {
            return None;
        }
        let missing: Vec<&str> = self.topics.missing().map(String::as_str).collect();
        (!missing.is_empty()).then(|| format!("unknown topic `{}`", missing.join("`, `")))
    }
}
