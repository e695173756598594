//! How partitions go: what was read of them is committed first, then the group, or the run that
//! ends, gets its answer.
//!
//! The consumer goes on while it waits for the commits. librdkafka fetches nothing while the group
//! waits for an answer, so one run that cannot write would stop all others: after a while it is
//! failed, which throws away what it has not committed, and the group is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Pending, SourceError};
use rdkafka::Offset;

use super::super::KafkaSource;
use super::super::assignment::Assigned;
use super::super::failure::Leave;
use super::super::outlet::{Outlet, Outlets};
use super::super::start::list_of;
use super::arrivals::{Gone, summary};
use super::{Reader, names, raw};
use crate::native::TopicPartition;

/// How long a run may take to commit what was read of partitions that the group wants back, and how
/// long one whose sink is known not to write.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_IF_BLOCKED: Duration = Duration::from_secs(3);
/// How long the last offsets of a run may take to be written to the group, and the pause before
/// they are written again.
const LAST_OFFSETS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Partitions that are not read any more, and not committed yet.
pub(super) struct Departures {
    leaving: Vec<Leaving>,
    /// The group waits for an answer.
    owed: Option<Owed>,
    /// No answer may take longer than half of what the group grants between two polls.
    longest: Duration,
}

/// Partitions of a run.
struct Leaving {
    outlet: Arc<Outlet>,
    gone: Vec<(TopicPartition, SplitId)>,
    pending: Pending<()>,
    since: Instant,
    why: Why,
}

/// A partition that is still to be committed and released.
type Going = (TopicPartition, Arc<Split>);
/// A run with those of its partitions.
type OfRun = (Arc<Outlet>, Vec<Going>);

/// Why partitions go.
enum Why {
    /// The group wants them back.
    Revoked,
    /// The group has taken them: other instances may have them already, or their topic was deleted.
    Lost,
    /// Their run ends. Its outlet is ended when they are committed.
    Detached,
    /// The run ends,
    Ended,
    /// since this went wrong.
    Failed(SourceError),
}

/// An answer that the group waits for.
struct Owed {
    /// What it wants back.
    revoked: Vec<TopicPartition>,
    /// What is given up with the answer.
    unassign: Vec<TopicPartition>,
}

impl Departures {
    pub(super) fn new(source: &KafkaSource) -> Departures {
        let longest = source
            .connection
            .property("max.poll.interval.ms")
            .and_then(|millis| millis.parse().ok());
        Departures {
            leaving: Vec::new(),
            owed: None,
            longest: longest.map_or(PATIENCE, |millis| Duration::from_millis(millis) / 2),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leaving.is_empty() && self.owed.is_none()
    }

    /// Whether the group waits for an answer.
    pub(super) fn owe_an_answer(&self) -> bool {
        self.owed.is_some()
    }

    /// Whether the partition is among them.
    pub(super) fn hold(&self, at: &TopicPartition) -> bool {
        self.leaving
            .iter()
            .any(|leaving| leaving.gone.iter().any(|(gone, _)| gone == at))
    }

    /// Whether what leaves has taken too long while the group, or a failed run, waits for it.
    fn is_overdue(&self, leaving: &Leaving) -> bool {
        let revoked = self.owed.as_ref().map_or(&[][..], |owed| &owed.revoked);
        let is_waited_for = matches!(leaving.why, Why::Failed(_))
            || leaving.gone.iter().any(|(at, _)| revoked.contains(at));
        let patience = if leaving.outlet.metrics.is_sink_blocked() {
            PATIENCE_IF_BLOCKED
        } else {
            PATIENCE
        };
        is_waited_for && leaving.since.elapsed() >= patience.min(self.longest)
    }
}

impl Reader<'_> {
    /// The group wants partitions back. They stay ours until everything that was read of them is
    /// committed.
    pub(super) fn give_back(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Leave> {
        self.flush()?;
        tracing::info!(
            count = partitions.len(),
            partitions = summary(&partitions),
            "partitions revoked"
        );
        self.unattended.retain(|at| !partitions.contains(at));
        let (gone, arriving) = self.remove(|at| partitions.contains(at));
        let owed = self.departures.owed.get_or_insert_with(|| Owed {
            revoked: Vec::new(),
            unassign: Vec::new(),
        });
        owed.revoked.extend(partitions);
        owed.unassign.extend(names(&gone));
        self.depart(&gone, arriving, || Why::Revoked)
    }

    /// The group has taken partitions away. If another instance has them already, it has cut us off
    /// and the commit is refused. If it has not, or if their topic was deleted, what was read is
    /// still ours to commit.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        self.flush()?;
        self.unattended.retain(|at| !partitions.contains(at));
        let (gone, arriving) = self.remove(|at| partitions.contains(at));
        self.topics.lost(&gone);
        match &mut self.departures.owed {
            Some(owed) => owed.unassign.extend(names(&gone)),
            // The group waits for this answer, also when there is nothing to give up.
            None => self.unassign_now(&names(&gone))?,
        }
        self.depart(&gone, arriving, || Why::Lost)
    }

    /// The group has taken everything away.
    pub(super) fn lose_all(&mut self) -> Result<(), Leave> {
        self.flush()?;
        self.unattended.clear();
        let (gone, arriving) = self.remove(|_| true);
        self.topics.lost(&gone);
        self.departures.owed = None;
        self.consumer.unassign_all();
        self.depart(&gone, arriving, || Why::Lost)
    }

    /// The run has come to its end.
    pub(super) fn leave_all(&mut self) -> Result<(), Leave> {
        self.ending = true;
        self.flush()?;
        let (gone, arriving) = self.remove(|_| true);
        self.pause(&names(&gone))?;
        self.depart(&gone, arriving, || Why::Ended)
    }

    /// Reads nothing more for the topic's run, if there is one. Its outlet is ended when what was
    /// read is committed.
    pub(super) fn detach(&mut self, topic: &str) -> Result<(), Leave> {
        match self.take_out(topic)? {
            Some((outlet, gone)) => self.leave(outlet, gone, Why::Detached),
            None => Ok(()),
        }
    }

    /// A topic cannot be read on. What was read is committed first, unless it can be read again.
    /// Where it is one of many, only its run ends.
    pub(super) fn fail(&mut self, topic: &str, error: SourceError) -> Result<(), Leave> {
        if let Outlets::One(_) = self.outlets {
            if matches!(error, SourceError::Transient(_)) {
                return Err(Leave::Failed(error));
            }
            if self.failure.is_none() {
                self.failure = Some(error);
                self.leave_all()?;
            }
            return Ok(());
        }
        let Some((outlet, gone)) = self.take_out(topic)? else {
            return Ok(());
        };
        match error {
            SourceError::Fatal(_) => self.leave(outlet, gone, Why::Failed(error)),
            SourceError::Transient(_) => {
                outlet.fail(error);
                Ok(())
            }
        }
    }

    /// Takes the topic's run out, with its partitions, which no run reads from then on.
    fn take_out(&mut self, topic: &str) -> Result<Option<OfRun>, Leave> {
        let Outlets::ByTopic { topics, .. } = &mut self.outlets else {
            return Ok(None);
        };
        let Some(outlet) = topics.remove(topic) else {
            return Ok(None);
        };
        outlet.metrics.set_source_trouble(&outlet.stage, None);
        self.flush()?;
        let (gone, arriving) = self.remove(|at| at.topic == topic);
        self.unattended.extend(names(&gone));
        self.unattended
            .extend(arriving.iter().map(|(at, ..)| at.clone()));
        self.unassign(&names(&gone))?;
        let gone = gone.iter().map(|one| (one.at.clone(), one.split.clone()));
        Ok(Some((
            outlet,
            gone.chain(arriving.into_iter().map(|(at, split, _)| (at, split)))
                .collect(),
        )))
    }

    /// Reads these no longer. Those that no run reads stay as they are: they are ours until the
    /// group takes them.
    fn remove(&mut self, goes: impl Fn(&TopicPartition) -> bool) -> (Vec<Assigned>, Vec<Gone>) {
        let arriving = self.arrivals.remove(&goes);
        (self.assignment.remove(goes), arriving)
    }

    /// Gives partitions up. While the group waits for an answer that would be taken for it, so they
    /// are kept until then; nothing is fetched meanwhile.
    pub(super) fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        if partitions.is_empty() {
            return Ok(());
        }
        if let Some(owed) = &mut self.departures.owed {
            owed.unassign.extend_from_slice(partitions);
            return Ok(());
        }
        self.unassign_now(partitions)
    }

    fn unassign_now(&self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        let list = list_of(partitions, |_| Offset::Invalid);
        self.consumer
            .unassign(&list)
            .map_err(|error| Leave::transient(format!("cannot give partitions back: {error}")))
    }

    /// Has everything committed that was read of partitions. All runs do it at the same time.
    fn depart(
        &mut self,
        gone: &[Assigned],
        arriving: Vec<Gone>,
        why: impl Fn() -> Why,
    ) -> Result<(), Leave> {
        let mut by_run: Vec<OfRun> = Vec::new();
        let gone = gone
            .iter()
            .map(|one| (one.at.clone(), one.split.clone(), one.outlet.clone()));
        for (at, split, outlet) in gone.chain(arriving) {
            match by_run
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &outlet))
            {
                Some((_, others)) => others.push((at, split)),
                None => by_run.push((outlet, vec![(at, split)])),
            }
        }
        by_run
            .into_iter()
            .try_for_each(|(outlet, gone)| self.leave(outlet, gone, why()))
    }

    fn leave(&mut self, outlet: Arc<Outlet>, gone: Vec<Going>, why: Why) -> Result<(), Leave> {
        let (gone, splits): (Vec<_>, Vec<_>) = gone
            .into_iter()
            .map(|(at, split)| ((at, split.id.clone()), split))
            .unzip();
        match outlet.outbox.release(splits) {
            Ok(pending) => {
                self.departures.leaving.push(Leaving {
                    outlet,
                    gone,
                    pending,
                    since: Instant::now(),
                    why,
                });
                Ok(())
            }
            Err(stopped) => {
                self.answer(&outlet, why);
                self.ended(stopped)
            }
        }
    }

    pub(super) fn advance_departures(&mut self) -> Result<(), Leave> {
        for leaving in std::mem::take(&mut self.departures.leaving) {
            let sent = leaving.outlet.outbox.send_waiting(Duration::ZERO);
            match sent.and_then(|_| leaving.pending.poll()) {
                Ok(None) if self.departures.is_overdue(&leaving) => self.give_up(leaving)?,
                Ok(None) => self.departures.leaving.push(leaving),
                Ok(Some(())) => self.departed(leaving)?,
                Err(stopped) => {
                    self.answer(&leaving.outlet, leaving.why);
                    self.ended(stopped)?;
                }
            }
        }
        let is_left = |owed: &mut Owed| {
            !owed
                .revoked
                .iter()
                .any(|at| self.departures.leaving.iter().any(|one| one.holds(at)))
        };
        if let Some(owed) = self.departures.owed.take_if(is_left) {
            self.unassign_now(&owed.unassign)?;
        }
        Ok(())
    }

    /// Everything that was read of partitions is committed.
    fn departed(&mut self, leaving: Leaving) -> Result<(), Leave> {
        let Leaving {
            outlet, gone, why, ..
        } = leaving;
        if !matches!(why, Why::Lost | Why::Failed(_)) {
            let durable = outlet.outbox.handle().durable();
            let place_of = |split: &SplitId| {
                gone.iter()
                    .find(|(_, known)| known == split)
                    .map(|(at, _)| at.clone())
            };
            let (ours, others): (Vec<_>, Vec<_>) = durable
                .into_iter()
                .partition(|(split, _)| place_of(split).is_some());
            self.durable.extend(others);
            let offsets: Vec<_> = ours
                .into_iter()
                .filter_map(|(split, next)| Some((place_of(&split)?, next)))
                .collect();
            let is_last = matches!(why, Why::Ended);
            self.commit_last(&outlet, &offsets, is_last);
        }
        self.answer(&outlet, why);
        Ok(())
    }

    fn answer(&mut self, outlet: &Outlet, why: Why) {
        match why {
            Why::Revoked | Why::Lost | Why::Ended => {}
            Why::Detached => outlet.end(),
            Why::Failed(error) => outlet.fail(error),
        }
    }

    /// The offsets of partitions that are read no longer. When the run ends, nothing else is to be
    /// done, and the group's answer is waited for: a state that is lost between two runs is noticed
    /// by them.
    fn commit_last(&self, outlet: &Outlet, offsets: &[(TopicPartition, Position)], is_last: bool) {
        let deadline = Instant::now() + LAST_OFFSETS;
        while let Err(error) = self.commit_offsets(
            offsets.iter().map(|(at, next)| (at, *next, outlet)),
            is_last.then_some(LAST_OFFSETS),
        ) {
            if !is_last || Instant::now() >= deadline {
                tracing::warn!(group = self.group, %error, "the last offsets were not written to the group");
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// A run does not commit in time what the group, or its own end, waits for.
    fn give_up(&mut self, leaving: Leaving) -> Result<(), Leave> {
        let (Some((at, _)), waited) = (leaving.gone.first(), leaving.since.elapsed()) else {
            return Ok(());
        };
        if let Why::Failed(error) = leaving.why {
            leaving.outlet.fail(error);
            return Ok(());
        }
        let reason = format!(
            "the group has waited {waited:.0?} for {}/{}, and what was read of it is not committed",
            at.topic, at.partition
        );
        let topic = at.topic.clone();
        let error = SourceError::Transient(reason);
        if matches!(self.outlets.of(&topic), Some(outlet) if Arc::ptr_eq(outlet, &leaving.outlet)) {
            self.fail(&topic, error)
        } else {
            self.answer(&leaving.outlet, leaving.why);
            Ok(())
        }
    }

    /// Copies positions to the group, for tools that show its lag and as evidence of what the state
    /// has held. Each position stands with the run whose state has it.
    pub(super) fn commit_offsets<'o>(
        &self,
        positions: impl Iterator<Item = (&'o TopicPartition, Position, &'o Outlet)>,
        patience: Option<Duration>,
    ) -> Result<(), crate::native::NativeError> {
        let mut list = rdkafka::TopicPartitionList::new();
        for (at, next, outlet) in positions {
            let mut element = list.add_partition(&at.topic, at.partition);
            // It fails for offsets that have no number, which ours have.
            let _ = element.set_offset(Offset::Offset(raw(next)));
            element.set_metadata(outlet.note_of(next));
        }
        if list.count() == 0 {
            Ok(())
        } else {
            self.consumer.commit(&list, patience)
        }
    }
}

impl Leaving {
    fn holds(&self, at: &TopicPartition) -> bool {
        self.gone.iter().any(|(gone, _)| gone == at)
    }
}
