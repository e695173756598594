//! Lanes that fail because of their records, and how a lane is divided to find which.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pseidon_delivery::{LaneId, SplitId, WithCauses};
use pseidon_expr::panics;
use pseidon_plugin::Rows;
use pseidon_plugin::sink::SinkError;

use super::Lanes;
use super::suspects::{FailedLane, Finding, PositionRange};

/// Calls a lane; a panic means that it cannot write its records.
pub(super) fn without_panic<T>(
    work: impl FnOnce() -> Result<T, SinkError>,
) -> Result<T, SinkError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panics::describe(panic.as_ref());
        Err(SinkError::Unwritable(reason.into()))
    })
}

impl Lanes {
    /// What has been learned of the records because of which a lane has just failed with this error.
    /// The lanes must not be used afterwards.
    pub(crate) fn search(&mut self, error: &SinkError) -> Finding {
        match (self.failed.take(), &self.setup.suspects) {
            (Some(failed), Some(suspects)) => {
                let lows = self.setup.committer.ledger().lows();
                suspects.note(&failed, &WithCauses(error).to_string(), &lows)
            }
            _ => Finding::Nothing,
        }
    }

    /// Remembers what a lane held and was offered, if it has failed because of that.
    pub(super) fn note_failed(
        &mut self,
        lane: &LaneId,
        accepted: Vec<PositionRange>,
        offered: Option<PositionRange>,
        error: SinkError,
    ) -> SinkError {
        if matches!(error, SinkError::Unwritable(_)) {
            self.failed = Some(FailedLane {
                lane: lane.clone(),
                accepted,
                offered,
            });
        }
        error
    }

    /// Seals the lane if it holds records of another part of what has failed than the first of
    /// these rows.
    pub(super) fn seal_other_part(&mut self, lane: &LaneId, rows: &Rows) -> Result<(), SinkError> {
        let suspects = self.setup.suspects.as_ref();
        let Some(suspects) = suspects.filter(|suspects| !suspects.is_empty()) else {
            return Ok(());
        };
        let part = |split: &SplitId, position| {
            let first = suspects.part(lane, split, position)?;
            Some((split.clone(), first))
        };
        let next = part(&rows.batch().split.id, rows.position(0));
        let is_other = |held: &PositionRange| part(&held.split, held.first) != next;
        let held = self.open.get(lane).map(|open| open.ranges());
        match held.is_some_and(|held| held.iter().any(is_other)) {
            true => self.seal(std::slice::from_ref(lane)),
            false => Ok(()),
        }
    }

    /// How many of these rows are in the part of the first.
    pub(super) fn rows_of_part(&self, lane: &LaneId, rows: &Rows) -> usize {
        let suspects = self.setup.suspects.as_ref();
        let split = &rows.batch().split.id;
        let next = suspects.and_then(|found| found.next_part(lane, split, rows.position(0)));
        next.map_or(rows.len(), |next| {
            (0..rows.len())
                .take_while(|row| rows.position(*row) < next)
                .count()
        })
    }
}
