//! How partitions leave: what was read of them is committed first, then the group, or the run that
//! ends, is answered.
//!
//! The consumer continues while it waits for the commits. librdkafka fetches nothing while the
//! group waits for an answer, so one run that cannot write would stop all others: after a timeout
//! that run is failed, which discards what it has not committed, and the group is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::{Reason, SplitId};
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Pending, SourceError, SourceExit};
use rdkafka::Offset;

use super::super::KafkaSource;
use super::super::assignment::AssignedPartition;
use super::super::outlet::{Outlet, Outlets, add_to_run};
use super::super::start::list_of;
use super::arrivals::{RemovedArrival, summary};
use super::{Reader, names};
use crate::native::TopicPartition;

/// How long a run may take to commit what was read of partitions that the group has revoked.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a run whose sink is known to be blocked.
const BLOCKED_COMMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Partitions that are not read any more and not committed yet.
pub(super) struct Departures {
    in_progress: Vec<Departure>,
    /// The answer that the group waits for, if any.
    answer: Option<PendingAnswer>,
    /// The limit of every answer: half of what the group allows between two polls.
    longest: Duration,
}

/// Partitions of one run that leave together.
struct Departure {
    outlet: Arc<Outlet>,
    gone: Vec<(TopicPartition, SplitId)>,
    pending: Pending<()>,
    since: Instant,
    reason: DepartureReason,
}

/// A partition that is still to be committed and released.
type DepartingSplit = (TopicPartition, Arc<Split>);
/// A run with the partitions that leave it.
type RunPartitions = (Arc<Outlet>, Vec<DepartingSplit>);

/// Why partitions leave.
enum DepartureReason {
    /// The group revoked them.
    Revoked,
    /// The group took them away: other instances may have them already, or their topic was deleted.
    Lost,
    /// Their run has stopped. Its outlet is ended after they are committed.
    Detached,
    /// Reading has ended.
    Ended,
    /// Their run failed with this error.
    Failed(SourceError),
}

/// The answer to a revocation.
struct PendingAnswer {
    /// The partitions that the group has revoked.
    revoked: Vec<TopicPartition>,
    /// The partitions to unassign with the answer.
    unassign: Vec<TopicPartition>,
}

impl Departures {
    pub(super) fn new(source: &KafkaSource) -> Departures {
        let longest = source
            .connection
            .property("max.poll.interval.ms")
            .and_then(|millis| millis.parse().ok());
        Departures {
            in_progress: Vec::new(),
            answer: None,
            longest: longest.map_or(COMMIT_TIMEOUT, |millis| Duration::from_millis(millis) / 2),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_progress.is_empty() && self.answer.is_none()
    }

    /// Whether the group waits for an answer to a revocation.
    pub(super) fn owes_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether the partition is leaving.
    pub(super) fn contains(&self, at: &TopicPartition) -> bool {
        self.in_progress
            .iter()
            .any(|leaving| leaving.gone.iter().any(|(gone, _)| gone == at))
    }

    /// Whether a departure has taken too long while the group, or a failed run, waits for it.
    fn is_overdue(&self, leaving: &Departure) -> bool {
        let revoked = self
            .answer
            .as_ref()
            .map_or(&[][..], |answer| &answer.revoked);
        let is_waited_for = matches!(leaving.reason, DepartureReason::Failed(_))
            || leaving.gone.iter().any(|(at, _)| revoked.contains(at));
        let timeout = if leaving.outlet.metrics.is_sink_blocked() {
            BLOCKED_COMMIT_TIMEOUT
        } else {
            COMMIT_TIMEOUT
        };
        is_waited_for && leaving.since.elapsed() >= timeout.min(self.longest)
    }
}

impl Reader<'_> {
    /// Handles a revocation by the group. The partitions stay assigned until everything that was
    /// read of them is committed.
    pub(super) fn handle_revocation(
        &mut self,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), SourceExit> {
        self.flush()?;
        self.membership.lose();
        tracing::info!(
            count = partitions.len(),
            partitions = summary(&partitions),
            "partitions revoked"
        );
        self.runs.forget(|at| partitions.contains(at));
        let (gone, arriving) = self.remove(|at| partitions.contains(at));
        let answer = self.departures.answer.get_or_insert_with(|| PendingAnswer {
            revoked: Vec::new(),
            unassign: Vec::new(),
        });
        answer.revoked.extend(partitions);
        answer.unassign.extend(names(&gone));
        self.release_all(&gone, arriving, || DepartureReason::Revoked)
    }

    /// Handles partitions that the group took away. If another instance owns them already, it has
    /// fenced this one off and the commit is refused. If not, or if their topic was deleted, what
    /// was read can still be committed.
    pub(super) fn handle_loss(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceExit> {
        self.flush()?;
        self.membership.lose();
        log_loss(partitions);
        self.runs.forget(|at| partitions.contains(at));
        let (gone, arriving) = self.remove(|at| partitions.contains(at));
        self.topics.lost(&gone);
        match &mut self.departures.answer {
            Some(answer) => answer.unassign.extend(names(&gone)),
            // The group waits for this answer, even if there is nothing to unassign.
            None => self.unassign_now(&names(&gone))?,
        }
        self.release_all(&gone, arriving, || DepartureReason::Lost)
    }

    /// Handles the loss of all partitions.
    pub(super) fn handle_total_loss(&mut self) -> Result<(), SourceExit> {
        self.flush()?;
        self.membership.lose();
        self.runs.forget(|_| true);
        let (gone, arriving) = self.remove(|_| true);
        log_loss(&names(&gone));
        self.topics.lost(&gone);
        self.departures.answer = None;
        self.consumer.unassign_all();
        self.release_all(&gone, arriving, || DepartureReason::Lost)
    }

    /// Ends reading.
    pub(super) fn end_reading(&mut self) -> Result<(), SourceExit> {
        self.phase.end();
        self.flush()?;
        let (gone, arriving) = self.remove(|_| true);
        self.pause(&names(&gone))?;
        self.release_all(&gone, arriving, || DepartureReason::Ended)
    }

    /// Stops reading for the topic's run, if there is one. Its outlet is ended after what was read
    /// is committed.
    pub(super) fn detach(&mut self, topic: &str) -> Result<(), SourceExit> {
        match self.detach_run(topic)? {
            Some((outlet, gone)) => self.release(outlet, gone, DepartureReason::Detached),
            None => Ok(()),
        }
    }

    /// Fails a topic that cannot be read any further. What was read is committed first, unless a
    /// retry can read it again. For a shared consumer only the topic's run ends.
    pub(super) fn fail(&mut self, topic: &str, error: SourceError) -> Result<(), SourceExit> {
        if let Outlets::One(_) = self.runs.outlets {
            if matches!(error, SourceError::Transient(_)) {
                return Err(SourceExit::Failed(error));
            }
            if self.phase.fail(error) {
                self.end_reading()?;
            }
            return Ok(());
        }
        let Some((outlet, gone)) = self.detach_run(topic)? else {
            return Ok(());
        };
        match error {
            SourceError::Fatal(_) => self.release(outlet, gone, DepartureReason::Failed(error)),
            SourceError::Transient(_) => {
                outlet.fail(error);
                Ok(())
            }
        }
    }

    /// Detaches the topic's run with its partitions, which no run reads from then on.
    fn detach_run(&mut self, topic: &str) -> Result<Option<RunPartitions>, SourceExit> {
        let Some(outlet) = self.runs.detach(topic) else {
            return Ok(None);
        };
        outlet.metrics.set_source_trouble(&outlet.stage, None);
        self.flush()?;
        let (gone, arriving) = self.remove(|at| at.topic == topic);
        self.runs.wait_for_run(names(&gone));
        self.runs
            .wait_for_run(arriving.iter().map(|(at, ..)| at.clone()));
        self.unassign(&names(&gone))?;
        let gone = gone.iter().map(|one| (one.at.clone(), one.split.clone()));
        Ok(Some((
            outlet,
            gone.chain(arriving.into_iter().map(|(at, split, _)| (at, split)))
                .collect(),
        )))
    }

    /// Stops reading these partitions and those that arrive. Partitions without an attached run are
    /// not affected: they stay assigned until the group takes them.
    fn remove(
        &mut self,
        is_removed: impl Fn(&TopicPartition) -> bool,
    ) -> (Vec<AssignedPartition>, Vec<RemovedArrival>) {
        let arriving = self.arrivals.remove(&is_removed);
        (self.assignment.remove(is_removed), arriving)
    }

    /// Unassigns partitions. While the group waits for an answer to a revocation, this call would
    /// be taken for it, so they are kept until then; nothing is fetched meanwhile.
    pub(super) fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), SourceExit> {
        if partitions.is_empty() {
            return Ok(());
        }
        if let Some(answer) = &mut self.departures.answer {
            answer.unassign.extend_from_slice(partitions);
            return Ok(());
        }
        self.unassign_now(partitions)
    }

    fn unassign_now(&self, partitions: &[TopicPartition]) -> Result<(), SourceExit> {
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer.unassign(&list).map_err(|error| {
            SourceExit::transient(Reason::caused_by("cannot unassign partitions", error))
        })
    }

    /// Has what was read of the partitions committed. All runs do so at the same time.
    fn release_all(
        &mut self,
        gone: &[AssignedPartition],
        arriving: Vec<RemovedArrival>,
        reason: impl Fn() -> DepartureReason,
    ) -> Result<(), SourceExit> {
        let mut by_run: Vec<RunPartitions> = Vec::new();
        let gone = gone
            .iter()
            .map(|one| (one.at.clone(), one.split.clone(), one.outlet.clone()));
        for (at, split, outlet) in gone.chain(arriving) {
            add_to_run(&mut by_run, &outlet, (at, split));
        }
        by_run
            .into_iter()
            .try_for_each(|(outlet, gone)| self.release(outlet, gone, reason()))
    }

    fn release(
        &mut self,
        outlet: Arc<Outlet>,
        gone: Vec<DepartingSplit>,
        reason: DepartureReason,
    ) -> Result<(), SourceExit> {
        let (gone, splits): (Vec<_>, Vec<_>) = gone
            .into_iter()
            .map(|(at, split)| ((at, split.id.clone()), split))
            .unzip();
        match outlet.outbox.release(splits) {
            Ok(pending) => {
                self.departures.in_progress.push(Departure {
                    outlet,
                    gone,
                    pending,
                    since: Instant::now(),
                    reason,
                });
                Ok(())
            }
            Err(stopped) => {
                self.report(&outlet, reason);
                self.runs.continue_without(stopped)
            }
        }
    }

    pub(super) fn advance_departures(&mut self) -> Result<(), SourceExit> {
        for leaving in std::mem::take(&mut self.departures.in_progress) {
            let sent = leaving.outlet.outbox.send_waiting(Duration::ZERO);
            match sent.and_then(|_| leaving.pending.poll()) {
                Ok(None) if self.departures.is_overdue(&leaving) => self.abandon(leaving)?,
                Ok(None) => self.departures.in_progress.push(leaving),
                Ok(Some(())) => self.finish_departure(leaving)?,
                Err(stopped) => {
                    self.report(&leaving.outlet, leaving.reason);
                    self.runs.continue_without(stopped)?;
                }
            }
        }
        let is_left = |answer: &mut PendingAnswer| {
            !answer.revoked.iter().any(|at| {
                self.departures
                    .in_progress
                    .iter()
                    .any(|one| one.contains(at))
            })
        };
        let answer = self.departures.answer.take_if(is_left);
        // Many runs that stop share one commit, since each costs the broker milliseconds.
        if answer.is_some() || self.departures.is_empty() {
            self.commit_last(false);
        }
        if let Some(answer) = answer {
            self.unassign_now(&answer.unassign)?;
        }
        Ok(())
    }

    /// Handles partitions of which everything that was read is committed.
    fn finish_departure(&mut self, leaving: Departure) -> Result<(), SourceExit> {
        let Departure {
            outlet,
            gone,
            reason,
            ..
        } = leaving;
        if !matches!(reason, DepartureReason::Lost | DepartureReason::Failed(_)) {
            self.group_offsets.add_last(&outlet, &gone);
            if matches!(reason, DepartureReason::Ended) {
                self.commit_last(true);
            }
        }
        self.report(&outlet, reason);
        Ok(())
    }

    fn report(&mut self, outlet: &Outlet, reason: DepartureReason) {
        match reason {
            DepartureReason::Revoked | DepartureReason::Lost | DepartureReason::Ended => {}
            DepartureReason::Detached => outlet.end(),
            DepartureReason::Failed(error) => outlet.fail(error),
        }
    }

    /// Handles a run that does not commit in time what the group, or its own end, waits for.
    fn abandon(&mut self, leaving: Departure) -> Result<(), SourceExit> {
        let (Some((at, _)), waited) = (leaving.gone.first(), leaving.since.elapsed()) else {
            return Ok(());
        };
        if let DepartureReason::Failed(error) = leaving.reason {
            leaving.outlet.fail(error);
            return Ok(());
        }
        let reason = format!(
            "the group has waited {waited:.0?} for {}/{}, because records read from it are not \
             committed yet",
            at.topic, at.partition
        );
        let topic = at.topic.clone();
        let error = SourceError::Transient(reason.into());
        if self.runs.is_attended_by(&topic, &leaving.outlet) {
            self.fail(&topic, error)
        } else {
            self.report(&leaving.outlet, leaving.reason);
            Ok(())
        }
    }
}

impl Departure {
    fn contains(&self, at: &TopicPartition) -> bool {
        self.gone.iter().any(|(gone, _)| gone == at)
    }
}

/// Logs that partitions belong to other members, because the group has not heard from this one for
/// longer than its session timeout. What is not committed of them is discarded, and the instances
/// that have them now re-read it.
fn log_loss(partitions: &[TopicPartition]) {
    if !partitions.is_empty() {
        tracing::warn!(
            count = partitions.len(),
            partitions = summary(partitions),
            "partitions lost: the group has given them to other instances"
        );
    }
}
