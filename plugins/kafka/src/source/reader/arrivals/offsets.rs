//! The second step of an arrival: the partition's offsets are looked up, and the state records where
//! it starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Resumption, SourceExit, SplitStart};

use super::super::Reader;
use super::{Arrivals, PendingLookup, PendingStart};
use crate::native::{NativeError, TopicPartition};
use crate::source::assignment::ReadySplit;
use crate::source::identity::PartitionIdentity;
use crate::source::lookup::{
    LookupError, LookupRequest, LookupResult, PartitionOffsets, PartitionQuery,
};
use crate::source::outlet::{Outlet, add_to_run};

/// The pause before a failed lookup of offsets is retried.
const LOOKUP_RETRY: Duration = Duration::from_millis(500);

impl Arrivals {
    /// Whether the result of this lookup is waited for.
    fn is_awaited(&self, query: &PartitionQuery) -> bool {
        self.lookups_in_progress
            .get(&query.at)
            .is_some_and(|lookup| lookup.ticket == query.ticket)
    }

    /// Has a lookup that failed retried.
    fn retry_later(&mut self, query: PartitionQuery, error: &NativeError) {
        if !self.warned {
            let (topic, partition) = (&query.at.topic, query.at.partition);
            tracing::warn!(
                topic, partition, %error,
                "cannot look up the offsets of the partition; retrying"
            );
            self.warned = true;
        }
        if let Some(lookup) = self.lookups_in_progress.get_mut(&query.at) {
            lookup.problem = Some(error.to_string());
        }
        self.failed_lookups.push(query);
        self.retry_at
            .get_or_insert_with(|| Instant::now() + LOOKUP_RETRY);
    }

    /// Finishes the lookup of a partition that starts at `start`.
    fn finish_lookup(
        &mut self,
        query: PartitionQuery,
        offsets: PartitionOffsets,
        start: Position,
    ) -> Option<ReadySplit> {
        let PendingLookup { outlet, split, .. } = self.lookups_in_progress.remove(&query.at)?;
        self.suspect.remove(&query.at);
        // The epoch belongs to the position in the state.
        let leader_epoch = query
            .identity
            .leader_epoch
            .filter(|_| query.known == Some(start));
        let identity = PartitionIdentity {
            topic: offsets.topic_id,
            leader_epoch,
        };
        Some(ReadySplit {
            at: query.at,
            split,
            outlet,
            identity,
            start,
            until: offsets.end,
        })
    }
}

impl Reader<'_> {
    /// Looks up the offsets of partitions that were taken over, each with its position in the
    /// state.
    pub(super) fn look_up_offsets(
        &mut self,
        outlet: &Arc<Outlet>,
        partitions: Vec<Option<(TopicPartition, Arc<Split>)>>,
        known: Vec<Option<Resumption>>,
    ) {
        let mut wanted = Vec::new();
        let first = outlet.first_subscriptions.lock();
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
                existed: first.as_ref().is_some_and(|first| first.had(&at)),
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

    /// Handles the results of lookups.
    pub(in super::super) fn handle_offsets(
        &mut self,
        results: Vec<(PartitionQuery, LookupResult)>,
    ) -> Result<(), SourceExit> {
        let mut ready_by_run: Vec<(Arc<Outlet>, Vec<ReadySplit>)> = Vec::new();
        let mut again = Vec::new();
        for (query, result) in results {
            if !self.arrivals.is_awaited(&query) {
                continue;
            }
            match result {
                Err(LookupError::Retryable(error)) => self.arrivals.retry_later(query, &error),
                Err(LookupError::Fatal(error)) => self.fail(&query.at.topic, error)?,
                Ok(offsets) if self.becomes_suspect(&query, &offsets) => {
                    self.arrivals.lookups_in_progress.remove(&query.at);
                    again.push(query.at);
                }
                Ok(offsets) => match self.start_of(&query, &offsets) {
                    Ok(start) => {
                        if let Some(one) = self.arrivals.finish_lookup(query, offsets, start) {
                            add_to_run(&mut ready_by_run, &one.outlet.clone(), one);
                        }
                    }
                    Err(error) => self.fail(&query.at.topic, error)?,
                },
            }
        }
        for (outlet, ready) in ready_by_run {
            self.record_starts(outlet, ready)?;
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

    /// Whether the state of the partition seems older than what was delivered, for the first time.
    fn becomes_suspect(&mut self, query: &PartitionQuery, offsets: &PartitionOffsets) -> bool {
        self.written_above(query, offsets).is_some()
            && self.arrivals.suspect.insert(query.at.clone())
    }

    /// Has the state of a run record where its partitions start.
    fn record_starts(
        &mut self,
        outlet: Arc<Outlet>,
        mut ready: Vec<ReadySplit>,
    ) -> Result<(), SourceExit> {
        // Another partition of the run may have failed it.
        if self.phase.is_ending()
            || ready
                .first()
                .is_some_and(|one| !self.runs.is_attended_by(&one.at.topic, &outlet))
        {
            self.runs.wait_for_run(ready.drain(..).map(|one| one.at));
            return Ok(());
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
                self.runs.continue_without(stopped)?;
                self.runs.wait_for_run(ready.into_iter().map(|one| one.at));
            }
        }
        Ok(())
    }
}
