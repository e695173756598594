//! How partitions arrive: they are taken over in the state of their runs, their offsets are looked
//! up, they are started, and only then read.
//!
//! Each step is requested and then polled, never waited for. The group is answered before: a
//! partition that is still arriving is assigned, but not read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Pending, Resumption, SourceError, SplitStart};
use rdkafka::Offset;

use super::super::assignment::{AssignedPartition, ReadySplit, split};
use super::super::failure::ReadExit;
use super::super::identity::PartitionIdentity;
use super::super::lookup::{LookupError, LookupRequest, PartitionOffsets, PartitionQuery};
use super::super::outlet::{Outlet, Outlets};
use super::super::start::{OnMissingState, list_of};
use super::{Reader, raw};
use crate::native::{OffsetAndEpoch, TopicPartition};

/// How long librdkafka's own thread may take to accept a seek.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before a failed lookup of offsets is retried.
const LOOKUP_RETRY: Duration = Duration::from_millis(500);

/// Partitions that are assigned and not read yet, or that were started in this pass.
#[derive(Default)]
pub(super) struct Arrivals {
    take_overs: Vec<PendingTakeOver>,
    lookups_in_progress: HashMap<TopicPartition, PendingLookup>,
    starts: Vec<PendingStart>,
    /// Partitions whose offsets could not be looked up.
    failed_lookups: Vec<PartitionQuery>,
    /// When to look up `failed_lookups` again.
    retry_at: Option<Instant>,
    last_ticket: u64,
    /// Partitions whose state seemed older than what was delivered. They are taken over once more
    /// before that is believed: an instance that was frozen between the take-over and the lookup
    /// sees offsets of its successor.
    suspect: BTreeSet<TopicPartition>,
    /// Partitions that are read, but whose log was not yet checked for the records that were read
    /// before.
    unchecked: BTreeSet<TopicPartition>,
    /// Whether a failed lookup was logged.
    warned: bool,
}

/// Partitions of a run that are being taken over in its state.
struct PendingTakeOver {
    outlet: Arc<Outlet>,
    /// In the order of the response; `None` for one that was removed meanwhile.
    partitions: Vec<Option<(TopicPartition, Arc<Split>)>>,
    pending: Pending<Vec<Option<Resumption>>>,
}

/// A partition whose offsets are being looked up.
struct PendingLookup {
    outlet: Arc<Outlet>,
    split: Arc<Split>,
    ticket: u64,
    /// Why the last lookup failed.
    problem: Option<String>,
}

/// Partitions of a run that are being started.
struct PendingStart {
    outlet: Arc<Outlet>,
    ready: Vec<ReadySplit>,
    pending: Pending<()>,
}

/// A partition that was removed before it was read.
pub(super) type RemovedArrival = (TopicPartition, Arc<Split>, Arc<Outlet>);

impl Arrivals {
    pub(super) fn is_empty(&self) -> bool {
        self.take_overs.is_empty()
            && self.lookups_in_progress.is_empty()
            && self.starts.is_empty()
            && self.unchecked.is_empty()
    }

    /// Whether a partition of the topic is arriving.
    pub(super) fn have_topic(&self, topic: &str) -> bool {
        self.take_overs
            .iter()
            .flat_map(|taking| taking.partitions.iter().flatten())
            .any(|(at, _)| at.topic == topic)
            || self.lookups_in_progress.keys().any(|at| at.topic == topic)
            || self
                .starts
                .iter()
                .flat_map(|beginning| &beginning.ready)
                .any(|ready| ready.at.topic == topic)
    }

    /// Removes the arriving partitions for which `is_removed` holds, and returns them.
    pub(super) fn remove(
        &mut self,
        is_removed: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<RemovedArrival> {
        let mut gone = Vec::new();
        for PendingTakeOver {
            outlet, partitions, ..
        } in &mut self.take_overs
        {
            let going = partitions
                .iter_mut()
                .filter_map(|one| one.take_if(|(at, _)| is_removed(at)));
            gone.extend(going.map(|(at, split)| (at, split, outlet.clone())));
        }
        gone.extend(
            self.lookups_in_progress
                .extract_if(|at, _| is_removed(at))
                .map(|(at, lookup)| (at, lookup.split, lookup.outlet)),
        );
        for PendingStart { ready, .. } in &mut self.starts {
            gone.extend(
                ready
                    .extract_if(.., |one| is_removed(&one.at))
                    .map(|one| (one.at, one.split, one.outlet)),
            );
        }
        self.failed_lookups.retain(|wanted| !is_removed(&wanted.at));
        gone
    }

    /// Why partitions of the run are not read yet, if their lookups fail.
    pub(super) fn problem_of(&self, outlet: &Arc<Outlet>) -> Option<String> {
        let of_run = self
            .lookups_in_progress
            .iter()
            .filter(|(_, lookup)| Arc::ptr_eq(&lookup.outlet, outlet));
        let with_problem: Vec<_> = of_run
            .filter_map(|(at, lookup)| Some((at, lookup.problem.as_ref()?)))
            .collect();
        let (at, reason) = with_problem.first()?;
        let more = if with_problem.len() > 1 {
            format!(" and {} more partitions", with_problem.len() - 1)
        } else {
            String::new()
        };
        Some(format!(
            "{}/{}{more} cannot be read: {reason}",
            at.topic, at.partition
        ))
    }
}

impl Reader<'_> {
    /// Handles an assignment by the group, which is answered at once.
    pub(super) fn accept_assignment(
        &mut self,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), ReadExit> {
        self.joined = true;
        self.group_problem = None;
        self.topics.assigned(&partitions);
        if !partitions.is_empty() {
            tracing::info!(
                count = partitions.len(),
                partitions = summary(&partitions),
                "partitions assigned"
            );
        }
        let none = list_of(&[], |_| Offset::Invalid);
        self.consumer
            .assign_more(&none)
            .map_err(|error| ReadExit::transient(format!("cannot answer the group: {error}")))?;
        self.take_over(partitions)
    }

    /// Takes partitions over in the state of their runs: from then on no other instance commits
    /// them. Partitions without an attached run wait.
    pub(super) fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<(), ReadExit> {
        let mut attended: Vec<(Arc<Outlet>, Vec<TopicPartition>)> = Vec::new();
        for at in partitions {
            match self.outlets.outlet_of(&at.topic).filter(|_| !self.ending) {
                Some(outlet) => match attended
                    .iter_mut()
                    .find(|(known, _)| Arc::ptr_eq(known, outlet))
                {
                    Some((_, others)) => others.push(at),
                    None => attended.push((outlet.clone(), vec![at])),
                },
                None => _ = self.unattended.insert(at),
            }
        }
        for (outlet, partitions) in attended {
            let splits: Vec<_> = partitions
                .iter()
                .map(|at| split(&outlet.stage, at))
                .collect();
            match outlet.outbox.take(splits.clone()) {
                Ok(pending) => {
                    let partitions = partitions.into_iter().zip(splits).map(Some).collect();
                    self.arrivals.take_overs.push(PendingTakeOver {
                        outlet,
                        partitions,
                        pending,
                    });
                }
                Err(stopped) => {
                    self.run_stopped(stopped)?;
                    self.unattended.extend(partitions);
                }
            }
        }
        Ok(())
    }

    pub(super) fn advance_arrivals(&mut self) -> Result<(), ReadExit> {
        for PendingTakeOver {
            outlet,
            partitions,
            pending,
        } in std::mem::take(&mut self.arrivals.take_overs)
        {
            match pending.poll() {
                Ok(None) => self.arrivals.take_overs.push(PendingTakeOver {
                    outlet,
                    partitions,
                    pending,
                }),
                Ok(Some(known)) => self.look_up_offsets(&outlet, partitions, known),
                Err(stopped) => {
                    self.run_stopped(stopped)?;
                    self.unattended
                        .extend(partitions.into_iter().flatten().map(|(at, _)| at));
                }
            }
        }
        for PendingStart {
            outlet,
            ready,
            pending,
        } in std::mem::take(&mut self.arrivals.starts)
        {
            match pending.poll() {
                Ok(None) => self.arrivals.starts.push(PendingStart {
                    outlet,
                    ready,
                    pending,
                }),
                Ok(Some(())) => self.start_reading(ready)?,
                Err(stopped) => {
                    self.run_stopped(stopped)?;
                    self.unattended.extend(ready.into_iter().map(|one| one.at));
                }
            }
        }
        if !self.arrivals.unchecked.is_empty() {
            self.check_logs();
        }
        if self
            .arrivals
            .retry_at
            .is_some_and(|at| Instant::now() >= at)
        {
            self.arrivals.retry_at = None;
            self.lookups
                .request(LookupRequest::OffsetsRetry(std::mem::take(
                    &mut self.arrivals.failed_lookups,
                )));
        }
        Ok(())
    }

    /// Looks up the offsets of partitions that were taken over, each with its position in the
    /// state.
    fn look_up_offsets(
        &mut self,
        outlet: &Arc<Outlet>,
        partitions: Vec<Option<(TopicPartition, Arc<Split>)>>,
        known: Vec<Option<Resumption>>,
    ) {
        let mut wanted = Vec::new();
        for (partition, known) in partitions.into_iter().zip(known) {
            let Some((at, split)) = partition else {
                continue;
            };
            self.arrivals.last_ticket += 1;
            let ticket = self.arrivals.last_ticket;
            let identity = known
                .as_ref()
                .and_then(|known| known.resume.as_ref())
                .map(PartitionIdentity::from_resume)
                .unwrap_or_default();
            wanted.push(PartitionQuery {
                at: at.clone(),
                ticket,
                known: known.map(|known| known.position),
                identity,
            });
            self.arrivals.lookups_in_progress.insert(
                at,
                PendingLookup {
                    outlet: outlet.clone(),
                    split,
                    ticket,
                    problem: None,
                },
            );
        }
        if !wanted.is_empty() {
            self.lookups.request(LookupRequest::Offsets(wanted));
        }
    }

    pub(super) fn handle_offsets(
        &mut self,
        results: Vec<(PartitionQuery, Result<PartitionOffsets, LookupError>)>,
    ) -> Result<(), ReadExit> {
        let mut ready_by_run: Vec<(Arc<Outlet>, Vec<ReadySplit>)> = Vec::new();
        let mut again = Vec::new();
        for (query, offsets) in results {
            let is_it = |lookup: &PendingLookup| lookup.ticket == query.ticket;
            let Some(lookup) = self
                .arrivals
                .lookups_in_progress
                .get_mut(&query.at)
                .filter(|lookup| is_it(lookup))
            else {
                continue;
            };
            let outcome = match offsets {
                Err(LookupError::Retryable(error)) => {
                    if !self.arrivals.warned {
                        let (topic, partition) = (&query.at.topic, query.at.partition);
                        tracing::warn!(
                            topic, partition, %error,
                            "cannot look up the offsets of the partition; retrying"
                        );
                        self.arrivals.warned = true;
                    }
                    lookup.problem = Some(error.to_string());
                    self.arrivals.failed_lookups.push(query);
                    self.arrivals
                        .retry_at
                        .get_or_insert_with(|| Instant::now() + LOOKUP_RETRY);
                    continue;
                }
                Err(LookupError::Fatal(error)) => Err(error),
                Ok(offsets)
                    if self.written_above(&query, &offsets).is_some()
                        && self.arrivals.suspect.insert(query.at.clone()) =>
                {
                    self.arrivals.lookups_in_progress.remove(&query.at);
                    again.push(query.at);
                    continue;
                }
                Ok(offsets) => self
                    .start_of(&query, &offsets)
                    .map(|start| (start, offsets)),
            };
            match outcome {
                Ok((start, offsets)) => {
                    let Some(PendingLookup { outlet, split, .. }) =
                        self.arrivals.lookups_in_progress.remove(&query.at)
                    else {
                        continue;
                    };
                    self.arrivals.suspect.remove(&query.at);
                    // The epoch belongs to the position in the state.
                    let leader_epoch = query
                        .identity
                        .leader_epoch
                        .filter(|_| query.known == Some(start));
                    let identity = PartitionIdentity {
                        topic: offsets.topic_id,
                        leader_epoch,
                    };
                    let one = ReadySplit {
                        at: query.at,
                        split,
                        outlet: outlet.clone(),
                        identity,
                        start,
                        until: offsets.end,
                    };
                    match ready_by_run
                        .iter_mut()
                        .find(|(known, _)| Arc::ptr_eq(known, &outlet))
                    {
                        Some((_, others)) => others.push(one),
                        None => ready_by_run.push((outlet, vec![one])),
                    }
                }
                Err(error) => self.fail(&query.at.topic, error)?,
            }
        }
        for (outlet, mut ready) in ready_by_run {
            // Another partition of the run may have failed it.
            if self.ending
                || ready
                    .first()
                    .is_some_and(|one| !self.is_attended_by(&one.at.topic, &outlet))
            {
                self.unattended.extend(ready.drain(..).map(|one| one.at));
                continue;
            }
            let start = |one: &ReadySplit| SplitStart {
                split: one.split.clone(),
                position: one.start,
                resume: one.identity.to_resume(),
            };
            match outlet.outbox.begin(ready.iter().map(start).collect()) {
                Ok(pending) => self.arrivals.starts.push(PendingStart {
                    outlet,
                    ready,
                    pending,
                }),
                Err(stopped) => {
                    self.run_stopped(stopped)?;
                    self.unattended.extend(ready.into_iter().map(|one| one.at));
                }
            }
        }
        if self.arrivals.failed_lookups.is_empty() {
            self.arrivals.warned = false;
        }
        if again.is_empty() {
            Ok(())
        } else {
            self.take_over(again)
        }
    }

    fn is_attended_by(&self, topic: &str, outlet: &Arc<Outlet>) -> bool {
        match &self.outlets {
            Outlets::One(_) => true,
            Outlets::ByTopic { topics, .. } => topics
                .get(topic)
                .is_some_and(|known| Arc::ptr_eq(known, outlet)),
        }
    }

    /// The group's offset, if it was written from the run's own state and is above the position
    /// that the state has now.
    fn written_above(
        &self,
        query: &PartitionQuery,
        offsets: &PartitionOffsets,
    ) -> Option<Position> {
        let outlet = &self.arrivals.lookups_in_progress.get(&query.at)?.outlet;
        let written = outlet.written_offset(offsets.committed.as_ref()?)?;
        (written > query.known?).then_some(written)
    }

    /// The offset to start at. The error says why no offset can be trusted.
    fn start_of(
        &self,
        query: &PartitionQuery,
        offsets: &PartitionOffsets,
    ) -> Result<Position, SourceError> {
        let at = &query.at;
        let name = format!("{}/{}", at.topic, at.partition);
        let group = &self.group;
        let Some(known) = query.known else {
            if let Some(offset) = offsets.external {
                tracing::info!(
                    topic = at.topic,
                    partition = at.partition,
                    offset,
                    "resuming where another program stopped"
                );
                return Ok(offset);
            }
            let by_group = offsets
                .committed
                .as_ref()
                .and_then(|committed| Position::try_from(committed.offset).ok());
            return match by_group {
                Some(offset) if self.source.on_missing_state == OnMissingState::Stop => {
                    Err(SourceError::Fatal(format!(
                        "the state does not have {name}, but the group {group} has read it up to \
                         offset {offset}: the state may have been lost. Restore it, or set \
                         :on-missing-state :group to resume at the group's offsets, or \
                         :on-missing-state :start to begin at :start"
                    )))
                }
                by_group => Ok(by_group.unwrap_or(offsets.start)),
            };
        };
        if query.identity.topic.is_other_than(&offsets.topic_id) {
            return Err(recreated_topic(&at.topic, &name, known));
        }
        if let Some(end) = offsets.too_short {
            return Err(too_short(&name, end, known));
        }
        match self.written_above(query, offsets) {
            None => Ok(known),
            Some(written) if self.source.on_missing_state == OnMissingState::Group => {
                tracing::warn!(
                    partition = name,
                    known,
                    written,
                    "the state is older than the group's offset; resuming at the group's offset"
                );
                Ok(written)
            }
            Some(written) => Err(SourceError::Fatal(format!(
                "the state is older than what was delivered: it resumes {name} at offset {known}, \
                 but offset {written} was committed from it before (to the group {group}). It was \
                 restored from an older copy, or has lost data, and {} records would be delivered \
                 twice. Restore the newest state, or set :on-missing-state :group to resume at the \
                 group's offsets, or :on-missing-state :start to resume at the position in the \
                 state",
                written - known
            ))),
        }
    }

    /// Starts reading partitions that the state has recorded as started.
    fn start_reading(&mut self, ready: Vec<ReadySplit>) -> Result<(), ReadExit> {
        if ready.is_empty() {
            return Ok(());
        }
        let starts: HashMap<&TopicPartition, Position> =
            ready.iter().map(|one| (&one.at, one.start)).collect();
        let list = list_of(starts.keys().copied(), |at| {
            Offset::Offset(starts.get(at).map_or(0, |next| raw(*next)))
        });
        self.consumer
            .assign_more(&list)
            .map_err(|error| ReadExit::transient(format!("cannot read partitions: {error}")))?;
        // librdkafka remembers that a partition was paused, even if it was unassigned since.
        let (resting, reading): (Vec<_>, Vec<_>) = ready
            .iter()
            .partition(|one| self.paused || one.outlet.is_paused());
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
    fn check_logs(&mut self) {
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

/// The error for a partition that ends below the position up to which it was read.
pub(super) fn too_short(name: &str, end: Position, known: Position) -> SourceError {
    SourceError::Fatal(format!(
        "{name} ends at offset {end}, but was read up to offset {known}: it has lost records, or \
         its topic was deleted and created again. To read what is there now, and to resume all \
         other topics where they are, rename the source's stage and set :on-missing-state :group"
    ))
}

/// The error for a partition whose topic is not the one that was read.
pub(super) fn recreated_topic(topic: &str, name: &str, known: Position) -> SourceError {
    SourceError::Fatal(format!(
        "topic {topic} was deleted and created again (its id has changed) after {name} was read up \
         to offset {known}. To read the new topic from its beginning, and to resume all other \
         topics where they are, rename the source's stage and set :on-missing-state :group"
    ))
}

/// The first partitions' names, for log messages.
pub(super) fn summary(partitions: &[TopicPartition]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = partitions
        .iter()
        .take(SHOWN)
        .map(|at| format!("{}/{}", at.topic, at.partition))
        .collect();
    if partitions.len() > SHOWN {
        names.push("…".to_owned());
    }
    names.join(" ")
}
