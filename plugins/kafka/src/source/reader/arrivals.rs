//! How partitions arrive: they are taken over in the state of their runs, their offsets are looked
//! up ([`offsets`]), which decides where they resume ([`resume`]), they are started in the state, and
//! only then read ([`start`]).
//!
//! Each step is requested and then polled, never waited for. The group is answered before: a
//! partition that is still arriving is assigned, but not read.

mod offsets;
mod resume;
mod start;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use pseidon_delivery::Reason;
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Pending, Resumption, SourceExit, Stopped};
use rdkafka::Offset;

use super::super::assignment::{ReadySplit, split};
use super::super::lookup::{LookupRequest, PartitionQuery};
use super::super::outlet::{Outlet, add_to_run};
use super::super::start::list_of;
use super::Reader;
use crate::native::TopicPartition;

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
    /// The response, once it has arrived.
    known: Option<Vec<Option<Resumption>>>,
}

impl PendingTakeOver {
    /// The response, if it has arrived and does not wait for the run's note.
    fn poll(&mut self, waits: bool) -> Result<Option<Vec<Option<Resumption>>>, Stopped> {
        if self.known.is_none() {
            self.known = self.pending.poll()?;
        }
        match waits {
            false => Ok(self.known.take()),
            true if self.outlet.outbox.handle().is_stopped() => Err(Stopped),
            true => Ok(None),
        }
    }
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
        self.suspect.retain(|at| !is_removed(at));
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
    ) -> Result<(), SourceExit> {
        self.membership.confirm();
        self.topics.assigned(&partitions);
        if !partitions.is_empty() {
            tracing::info!(
                count = partitions.len(),
                partitions = summary(&partitions),
                "partitions assigned"
            );
        }
        let none = list_of(&[], |_| Offset::Invalid);
        self.consumer.assign_more(&none).map_err(|error| {
            SourceExit::transient(Reason::caused_by("cannot answer the group", error))
        })?;
        self.take_over(partitions)
    }

    /// Takes partitions over in the state of their runs: from then on no other instance commits
    /// them. Partitions without an attached run wait.
    pub(super) fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<(), SourceExit> {
        let mut attended: Vec<(Arc<Outlet>, Vec<TopicPartition>)> = Vec::new();
        for at in partitions {
            let outlet = self.runs.outlets.outlet_of(&at.topic);
            match outlet.filter(|_| !self.phase.is_ending()) {
                Some(outlet) => add_to_run(&mut attended, outlet, at),
                None => self.runs.wait_for_run([at]),
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
                        known: None,
                    });
                }
                Err(stopped) => {
                    self.runs.continue_without(stopped)?;
                    self.runs.wait_for_run(partitions);
                }
            }
        }
        Ok(())
    }

    pub(super) fn advance_arrivals(&mut self) -> Result<(), SourceExit> {
        self.advance_notes();
        for mut taking in std::mem::take(&mut self.arrivals.take_overs) {
            match taking.poll(self.waits_for_note(&taking.outlet)) {
                Ok(None) => self.arrivals.take_overs.push(taking),
                Ok(Some(known)) => self.look_up_offsets(&taking.outlet, taking.partitions, known),
                Err(stopped) => {
                    self.runs.continue_without(stopped)?;
                    let partitions = taking.partitions.into_iter().flatten();
                    self.runs.wait_for_run(partitions.map(|(at, _)| at));
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
                    self.runs.continue_without(stopped)?;
                    self.runs.wait_for_run(ready.into_iter().map(|one| one.at));
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
