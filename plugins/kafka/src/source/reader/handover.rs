//! How partitions come and go: taken over in the state of their runs before they are read, and given back when what was read is committed.

use std::collections::HashMap;
use std::sync::Arc;

use pseidon_delivery::Position;
use pseidon_plugin::batch::Split;
use rdkafka::Offset;

use super::super::assignment::{Assigned, split};
use super::super::failure::Leave;
use super::super::outlet::Outlet;
use super::super::start::list_of;
use super::{Reader, raw};
use crate::native::TopicPartition;

impl Reader<'_> {
    /// The group gives us partitions: nobody else commits them from now on. Those for which nobody is there wait.
    pub(super) fn take(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Leave> {
        self.joined = true;
        if !partitions.is_empty() {
            tracing::info!(count = partitions.len(), partitions = summary(&partitions), "partitions assigned");
        }
        let taken = self.take_over(partitions)?;
        let begun = self.begin(taken)?;
        // The group waits for this answer, also when there is nothing to read.
        let offsets: HashMap<&TopicPartition, Position> = begun.iter().map(|one| (&one.at, one.start)).collect();
        let list = list_of(offsets.keys().copied(), |at| Offset::Offset(offsets.get(at).map_or(0, |next| raw(*next))));
        self.consumer.assign_more(&list).map_err(|error| Leave::transient(format!("cannot take partitions over: {error}")))?;
        let resting: Vec<_> = begun.iter().filter(|one| self.paused || one.outlet.is_paused()).map(|one| one.at.clone()).collect();
        if !resting.is_empty() {
            self.pause(&resting)?;
        }
        for Begun { at, split, outlet, start, until } in begun {
            self.assignment.add(at, split, outlet, start, until);
        }
        Ok(())
    }

    /// Takes partitions over in the state of their runs. All runs do it at the same time.
    fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<Vec<Taken>, Leave> {
        let mut attended = Vec::new();
        for at in partitions {
            match self.outlets.of(&at.topic) {
                Some(outlet) => attended.push((outlet.clone(), at)),
                None => _ = self.unattended.insert(at),
            }
        }
        let mut asked = Vec::new();
        for (outlet, partitions) in by_run(attended, |(outlet, _)| outlet) {
            let partitions: Vec<_> = partitions.into_iter().map(|(_, at)| at).collect();
            let splits: Vec<_> = partitions.iter().map(|at| split(&outlet.stage, at)).collect();
            match outlet.handle.start_take(splits.clone()) {
                Ok(pending) => asked.push((outlet, partitions, splits, pending)),
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended.extend(partitions);
                }
            }
        }
        let mut taken = Vec::new();
        for (outlet, partitions, splits, pending) in asked {
            match pending.wait() {
                Ok(known) => taken.extend(partitions.into_iter().zip(splits).zip(known).map(|((at, split), known)| Taken {
                    at,
                    split,
                    outlet: outlet.clone(),
                    known: known.map(|known| known.position),
                })),
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended.extend(partitions);
                }
            }
        }
        Ok(taken)
    }

    /// Finds out where partitions start, and says so to their runs.
    fn begin(&mut self, taken: Vec<Taken>) -> Result<Vec<Begun>, Leave> {
        let unknown: Vec<_> = taken.iter().filter(|one| one.known.is_none()).map(|one| one.at.clone()).collect();
        let by_group: HashMap<_, _> = unknown.iter().cloned().zip(self.starts.group_offsets(&unknown, &self.outlets)?).collect();
        let by_start: HashMap<_, _> = unknown.iter().cloned().zip(self.starts.offsets_at_start(&unknown, &self.outlets)?).collect();
        let names: Vec<_> = taken.iter().map(|one| one.at.clone()).collect();
        let ends = if self.source.until_latest && !names.is_empty() { self.starts.ends(&names, &self.outlets)? } else { Vec::new() };
        let mut begun = Vec::new();
        for (index, Taken { at, split, outlet, known }) in taken.into_iter().enumerate() {
            let first = by_group.get(&at).copied().flatten().or_else(|| by_start.get(&at).copied());
            let start = known.or(first).unwrap_or(0);
            begun.push(Begun { at, split, outlet, start, until: ends.get(index).copied() });
        }
        let mut all_begun = Vec::new();
        for (outlet, of_run) in by_run(begun, |one| &one.outlet) {
            let names: Vec<_> = of_run.iter().map(|one| one.at.clone()).collect();
            match self.begin_for_one(&outlet, of_run, &by_group)? {
                Some(of_run) => all_begun.extend(of_run),
                None => self.unattended.extend(names),
            }
        }
        Ok(all_begun)
    }

    /// Gives the partitions that the run has begun with; `None` if it has ended, or must. `by_group` has those that are new to the state.
    fn begin_for_one(
        &mut self,
        outlet: &Outlet,
        mut begun: Vec<Begun>,
        by_group: &HashMap<TopicPartition, Option<Position>>,
    ) -> Result<Option<Vec<Begun>>, Leave> {
        let Some(topic) = begun.first().map(|one| one.at.topic.clone()) else { return Ok(None) };
        let is_new = |one: &&mut Begun| by_group.contains_key(&one.at);
        let elsewhere = self.starts.stopped_elsewhere(begun.iter_mut().filter(is_new).map(|one| (&one.at, &mut one.start)));
        let read_before = |taken_over: &[TopicPartition]| -> Vec<_> {
            let others = begun.iter().filter(|one| !taken_over.contains(&one.at));
            others.filter_map(|one| Some((one.at.clone(), *by_group.get(&one.at)?))).collect()
        };
        if let Err(error) = elsewhere.and_then(|taken_over| self.starts.refuse_known(&read_before(&taken_over))) {
            self.fail_topic(&topic, Leave::Failed(error))?;
            return Ok(None);
        }
        match outlet.handle.begin(begun.iter().map(|one| (one.split.clone(), one.start)).collect()) {
            Ok(()) => Ok(Some(begun)),
            Err(stopped) => self.ended(stopped).map(|()| None),
        }
    }

    /// The group wants partitions back. They stay ours until everything that was read of them is committed.
    pub(super) fn give_back(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        self.flush()?;
        tracing::info!(count = partitions.len(), partitions = summary(partitions), "partitions revoked");
        let gone = self.remove(partitions);
        self.release(&gone)?;
        self.tell_group(&gone, false);
        self.unassign(&names(&gone))
    }

    /// Somebody else has partitions already.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) -> Result<(), Leave> {
        self.logs.warn("LOST", "the group has given our partitions to others; what was not committed is read again by them");
        let gone = self.remove(partitions);
        self.unassign(&names(&gone))?;
        self.report_lost(&gone)
    }

    fn remove(&mut self, partitions: &[TopicPartition]) -> Vec<Assigned> {
        self.unattended.retain(|at| !partitions.contains(at));
        self.assignment.remove(|at| partitions.contains(at))
    }

    /// Waits until everything that was read of partitions is committed. All runs do it at the same time.
    pub(super) fn release(&self, gone: &[Assigned]) -> Result<(), Leave> {
        let mut asked = Vec::new();
        for (outlet, gone) in by_run(gone, |assigned| &assigned.outlet) {
            match outlet.handle.start_release(splits(&gone)) {
                Ok(pending) => asked.push(pending),
                Err(stopped) => self.ended(stopped)?,
            }
        }
        asked.into_iter().try_for_each(|pending| pending.wait().or_else(|stopped| self.ended(stopped)))
    }

    pub(super) fn report_lost(&self, gone: &[Assigned]) -> Result<(), Leave> {
        by_run(gone, |assigned| &assigned.outlet)
            .into_iter()
            .try_for_each(|(outlet, gone)| outlet.handle.lost(splits(&gone)).or_else(|stopped| self.ended(stopped)))
    }
}

/// A partition that was taken over.
struct Taken {
    at: TopicPartition,
    split: Arc<Split>,
    outlet: Arc<Outlet>,
    /// Where to read on, if the state knows.
    known: Option<Position>,
}

/// A partition of which it is known where to read.
struct Begun {
    at: TopicPartition,
    split: Arc<Split>,
    outlet: Arc<Outlet>,
    start: Position,
    until: Option<Position>,
}

/// Parts things by the runs that they belong to.
fn by_run<T>(things: impl IntoIterator<Item = T>, outlet: impl Fn(&T) -> &Arc<Outlet>) -> Vec<(Arc<Outlet>, Vec<T>)> {
    let mut parted: Vec<(Arc<Outlet>, Vec<T>)> = Vec::new();
    for thing in things {
        let of = outlet(&thing).clone();
        match parted.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &of)) {
            Some((_, others)) => others.push(thing),
            None => parted.push((of, vec![thing])),
        }
    }
    parted
}

fn splits(assigned: &[&Assigned]) -> Vec<Arc<Split>> {
    assigned.iter().map(|one| one.split.clone()).collect()
}

fn names(assigned: &[Assigned]) -> Vec<TopicPartition> {
    assigned.iter().map(|one| one.at.clone()).collect()
}

/// The partitions as a short text.
fn summary(partitions: &[TopicPartition]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<_> = partitions.iter().take(SHOWN).map(|at| format!("{}/{}", at.topic, at.partition)).collect();
    if partitions.len() > SHOWN {
        names.push("…".to_owned());
    }
    names.join(" ")
}
