//! How partitions come: taken over in the state of their runs, looked up where they begin, begun,
//! and only then read.
//!
//! Each step is asked for and waited for by looking, never by blocking. The group's answer does not
//! wait for them: a partition that is still on its way is ours, and not read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pseidon_delivery::Position;
use pseidon_plugin::batch::Split;
use pseidon_plugin::source::{Pending, Resumption, SourceError, Start};
use rdkafka::Offset;

use super::super::assignment::{Assigned, ReadySplit, split};
use super::super::failure::Leave;
use super::super::identity::LogIdentity;
use super::super::lookup::{NoPlace, Place, Question, Wanted};
use super::super::outlet::{Outlet, Outlets};
use super::super::start::{OnMissingState, list_of};
use super::{Reader, raw};
use crate::native::{LogPosition, TopicPartition};

/// How long librdkafka's own thread may take to be told where to read.
const SEEK_PATIENCE: Duration = Duration::from_millis(500);
/// The pause before brokers are asked again where a partition begins.
const PAUSE: Duration = Duration::from_millis(500);

/// Partitions that are ours and not read yet, or only since now.
#[derive(Default)]
pub(super) struct Arrivals {
    taking: Vec<Taking>,
    placing: HashMap<TopicPartition, Placing>,
    beginning: Vec<Beginning>,
    /// Partitions of which the brokers could not say where they begin, and when to ask again.
    unplaced: Vec<Wanted>,
    ask_again: Option<Instant>,
    last_ticket: u64,
    /// Partitions of which the state seemed older than what was delivered. They are taken over once
    /// more before that is believed: an instance that was frozen between taking and asking sees
    /// offsets of its successor.
    doubted: BTreeSet<TopicPartition>,
    /// Partitions that are assigned, and of whose log it was not asked yet whether it still has
    /// what was read of it.
    unchecked: BTreeSet<TopicPartition>,
    /// Whether it was said that brokers do not answer.
    told: bool,
}

/// Partitions of a run that are being taken over.
struct Taking {
    outlet: Arc<Outlet>,
    /// In the order of the answer; `None` for one that has gone meanwhile.
    partitions: Vec<Option<(TopicPartition, Arc<Split>)>>,
    pending: Pending<Vec<Option<Resumption>>>,
}

/// A partition of which is asked where it begins.
struct Placing {
    outlet: Arc<Outlet>,
    split: Arc<Split>,
    ticket: u64,
    /// Why that is not known yet.
    trouble: Option<String>,
}

/// Partitions of a run that are being begun.
struct Beginning {
    outlet: Arc<Outlet>,
    begun: Vec<ReadySplit>,
    pending: Pending<()>,
}

/// A partition that has gone before it was read.
pub(super) type Gone = (TopicPartition, Arc<Split>, Arc<Outlet>);

impl Arrivals {
    pub(super) fn is_empty(&self) -> bool {
        self.taking.is_empty()
            && self.placing.is_empty()
            && self.beginning.is_empty()
            && self.unchecked.is_empty()
    }

    /// Whether a partition of the topic is on its way.
    pub(super) fn have_topic(&self, topic: &str) -> bool {
        self.taking
            .iter()
            .flat_map(|taking| taking.partitions.iter().flatten())
            .any(|(at, _)| at.topic == topic)
            || self.placing.keys().any(|at| at.topic == topic)
            || self
                .beginning
                .iter()
                .flat_map(|beginning| &beginning.begun)
                .any(|begun| begun.at.topic == topic)
    }

    /// These are not to be read any more.
    pub(super) fn remove(&mut self, goes: impl Fn(&TopicPartition) -> bool) -> Vec<Gone> {
        let mut gone = Vec::new();
        for Taking {
            outlet, partitions, ..
        } in &mut self.taking
        {
            let going = partitions
                .iter_mut()
                .filter_map(|one| one.take_if(|(at, _)| goes(at)));
            gone.extend(going.map(|(at, split)| (at, split, outlet.clone())));
        }
        gone.extend(
            self.placing
                .extract_if(|at, _| goes(at))
                .map(|(at, placing)| (at, placing.split, placing.outlet)),
        );
        for Beginning { begun, .. } in &mut self.beginning {
            gone.extend(
                begun
                    .extract_if(.., |one| goes(&one.at))
                    .map(|one| (one.at, one.split, one.outlet)),
            );
        }
        self.unplaced.retain(|wanted| !goes(&wanted.at));
        gone
    }

    /// Why partitions of the run are not read yet, if the brokers do not say where they begin.
    pub(super) fn trouble_of(&self, outlet: &Arc<Outlet>) -> Option<String> {
        let of_run = self
            .placing
            .iter()
            .filter(|(_, placing)| Arc::ptr_eq(&placing.outlet, outlet));
        let troubled: Vec<_> = of_run
            .filter_map(|(at, placing)| Some((at, placing.trouble.as_ref()?)))
            .collect();
        let (at, reason) = troubled.first()?;
        let more = if troubled.len() > 1 {
            format!(" and {} more partitions", troubled.len() - 1)
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
    /// The group gives us partitions. It is answered at once.
    pub(super) fn take(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Leave> {
        self.joined = true;
        self.group_trouble = None;
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
            .map_err(|error| Leave::transient(format!("cannot answer the group: {error}")))?;
        self.arrive(partitions)
    }

    /// Takes partitions over in the state of their runs: no other instance commits them from then
    /// on. Those for which no run is there wait.
    pub(super) fn arrive(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Leave> {
        let mut attended: Vec<(Arc<Outlet>, Vec<TopicPartition>)> = Vec::new();
        for at in partitions {
            match self.outlets.of(&at.topic).filter(|_| !self.ending) {
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
                    self.arrivals.taking.push(Taking {
                        outlet,
                        partitions,
                        pending,
                    });
                }
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended.extend(partitions);
                }
            }
        }
        Ok(())
    }

    pub(super) fn advance_arrivals(&mut self) -> Result<(), Leave> {
        for Taking {
            outlet,
            partitions,
            pending,
        } in std::mem::take(&mut self.arrivals.taking)
        {
            match pending.poll() {
                Ok(None) => self.arrivals.taking.push(Taking {
                    outlet,
                    partitions,
                    pending,
                }),
                Ok(Some(known)) => self.place(&outlet, partitions, known),
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended
                        .extend(partitions.into_iter().flatten().map(|(at, _)| at));
                }
            }
        }
        for Beginning {
            outlet,
            begun,
            pending,
        } in std::mem::take(&mut self.arrivals.beginning)
        {
            match pending.poll() {
                Ok(None) => self.arrivals.beginning.push(Beginning {
                    outlet,
                    begun,
                    pending,
                }),
                Ok(Some(())) => self.begun(begun)?,
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended.extend(begun.into_iter().map(|one| one.at));
                }
            }
        }
        if !self.arrivals.unchecked.is_empty() {
            self.check_logs();
        }
        if self
            .arrivals
            .ask_again
            .is_some_and(|at| Instant::now() >= at)
        {
            self.arrivals.ask_again = None;
            self.lookups.ask(Question::PlacesAgain(std::mem::take(
                &mut self.arrivals.unplaced,
            )));
        }
        Ok(())
    }

    /// Partitions are taken over, each with its position in the state: asks where they begin.
    fn place(
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
            let log = known
                .as_ref()
                .and_then(|known| known.resume.as_ref())
                .map(LogIdentity::from_resume)
                .unwrap_or_default();
            wanted.push(Wanted {
                at: at.clone(),
                ticket,
                known: known.map(|known| known.position),
                log,
            });
            self.arrivals.placing.insert(
                at,
                Placing {
                    outlet: outlet.clone(),
                    split,
                    ticket,
                    trouble: None,
                },
            );
        }
        if !wanted.is_empty() {
            self.lookups.ask(Question::Places(wanted));
        }
    }

    pub(super) fn hear_places(
        &mut self,
        places: Vec<(Wanted, Result<Place, NoPlace>)>,
    ) -> Result<(), Leave> {
        let mut placed: Vec<(Arc<Outlet>, Vec<ReadySplit>)> = Vec::new();
        let mut doubted = Vec::new();
        for (wanted, place) in places {
            let is_it = |placing: &Placing| placing.ticket == wanted.ticket;
            let Some(placing) = self
                .arrivals
                .placing
                .get_mut(&wanted.at)
                .filter(|placing| is_it(placing))
            else {
                continue;
            };
            let outcome = match place {
                Err(NoPlace::Later(error)) => {
                    if !self.arrivals.told {
                        let (topic, partition) = (&wanted.at.topic, wanted.at.partition);
                        tracing::warn!(topic, partition, %error, "kafka does not say where the partition begins; it is asked again");
                        self.arrivals.told = true;
                    }
                    placing.trouble = Some(error.to_string());
                    self.arrivals.unplaced.push(wanted);
                    self.arrivals
                        .ask_again
                        .get_or_insert_with(|| Instant::now() + PAUSE);
                    continue;
                }
                Err(NoPlace::Never(error)) => Err(error),
                Ok(place)
                    if self.written_above(&wanted, &place).is_some()
                        && self.arrivals.doubted.insert(wanted.at.clone()) =>
                {
                    self.arrivals.placing.remove(&wanted.at);
                    doubted.push(wanted.at);
                    continue;
                }
                Ok(place) => self.start_of(&wanted, &place).map(|start| (start, place)),
            };
            match outcome {
                Ok((start, place)) => {
                    let Some(Placing { outlet, split, .. }) =
                        self.arrivals.placing.remove(&wanted.at)
                    else {
                        continue;
                    };
                    self.arrivals.doubted.remove(&wanted.at);
                    // The epoch belongs to the position that the state has.
                    let leader_epoch = wanted
                        .log
                        .leader_epoch
                        .filter(|_| wanted.known == Some(start));
                    let log = LogIdentity {
                        topic: place.topic_id,
                        leader_epoch,
                    };
                    let one = ReadySplit {
                        at: wanted.at,
                        split,
                        outlet: outlet.clone(),
                        log,
                        start,
                        until: place.end,
                    };
                    match placed
                        .iter_mut()
                        .find(|(known, _)| Arc::ptr_eq(known, &outlet))
                    {
                        Some((_, others)) => others.push(one),
                        None => placed.push((outlet, vec![one])),
                    }
                }
                Err(error) => self.fail(&wanted.at.topic, error)?,
            }
        }
        for (outlet, mut begun) in placed {
            // Another partition of the run may have failed it.
            if self.ending
                || begun
                    .first()
                    .is_some_and(|one| !self.is_attended_by(&one.at.topic, &outlet))
            {
                self.unattended.extend(begun.drain(..).map(|one| one.at));
                continue;
            }
            let start = |one: &ReadySplit| Start {
                split: one.split.clone(),
                position: one.start,
                resume: one.log.to_resume(),
            };
            match outlet.outbox.begin(begun.iter().map(start).collect()) {
                Ok(pending) => self.arrivals.beginning.push(Beginning {
                    outlet,
                    begun,
                    pending,
                }),
                Err(stopped) => {
                    self.ended(stopped)?;
                    self.unattended.extend(begun.into_iter().map(|one| one.at));
                }
            }
        }
        if self.arrivals.unplaced.is_empty() {
            self.arrivals.told = false;
        }
        if doubted.is_empty() {
            Ok(())
        } else {
            self.arrive(doubted)
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
    fn written_above(&self, wanted: &Wanted, place: &Place) -> Option<Position> {
        let outlet = &self.arrivals.placing.get(&wanted.at)?.outlet;
        let written = outlet.has_written(place.committed.as_ref()?)?;
        (written > wanted.known?).then_some(written)
    }

    /// The offset to begin with. The error says why there is none to trust.
    fn start_of(&self, wanted: &Wanted, place: &Place) -> Result<Position, SourceError> {
        let at = &wanted.at;
        let name = format!("{}/{}", at.topic, at.partition);
        let group = &self.group;
        let Some(known) = wanted.known else {
            if let Some(offset) = place.elsewhere {
                tracing::info!(
                    topic = at.topic,
                    partition = at.partition,
                    offset,
                    "resuming where another program has stopped"
                );
                return Ok(offset);
            }
            let by_group = place
                .committed
                .as_ref()
                .and_then(|committed| Position::try_from(committed.offset).ok());
            return match by_group {
                Some(offset) if self.source.on_missing_state == OnMissingState::Stop => {
                    Err(SourceError::Fatal(format!(
                        "the state does not know {name}, but the group {group} has read it up to offset {offset}: the state may have been lost. \
                     Bring it back, or say :on-missing-state :group to resume at the group's offsets, or :on-missing-state :start to begin \
                     at :start"
                    )))
                }
                by_group => Ok(by_group.unwrap_or(place.start)),
            };
        };
        if wanted.log.topic.is_other_than(&place.topic_id) {
            return Err(made_again(&at.topic, &name, known));
        }
        if let Some(end) = place.too_short {
            return Err(too_short(&name, end, known));
        }
        match self.written_above(wanted, place) {
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
                "the state is older than what was delivered: it resumes {name} at offset {known}, but offset {written} was committed from it \
                 before (to the group {group}). It was restored from an older copy, or has lost data, and {} records would be delivered twice. \
                 Bring the newest state back, or say :on-missing-state :group to resume at the group's offsets, or :on-missing-state :start to \
                 resume where the state says",
                written - known
            ))),
        }
    }

    /// These can be read now.
    fn begun(&mut self, begun: Vec<ReadySplit>) -> Result<(), Leave> {
        if begun.is_empty() {
            return Ok(());
        }
        let starts: HashMap<&TopicPartition, Position> =
            begun.iter().map(|one| (&one.at, one.start)).collect();
        let list = list_of(starts.keys().copied(), |at| {
            Offset::Offset(starts.get(at).map_or(0, |next| raw(*next)))
        });
        self.consumer
            .assign_more(&list)
            .map_err(|error| Leave::transient(format!("cannot read partitions: {error}")))?;
        // librdkafka remembers that a partition was paused, also when it was given up since.
        let (resting, reading): (Vec<_>, Vec<_>) = begun
            .iter()
            .partition(|one| self.paused || one.outlet.is_paused());
        let names =
            |of: Vec<&ReadySplit>| of.into_iter().map(|one| one.at.clone()).collect::<Vec<_>>();
        self.pause(&names(resting))?;
        self.resume(&names(reading))?;
        let names: Vec<_> = begun.iter().map(|one| one.at.clone()).collect();
        tracing::debug!(
            count = names.len(),
            partitions = summary(&names),
            "reading partitions"
        );
        self.arrivals.unchecked.extend(
            begun
                .iter()
                .filter(|one| one.log.leader_epoch.is_some())
                .map(|one| one.at.clone()),
        );
        begun.into_iter().for_each(|one| self.assignment.add(one));
        Ok(())
    }

    /// Has the brokers say whether the logs of partitions that were read before still have what was
    /// read: librdkafka asks that only where a position is sought.
    fn check_logs(&mut self) {
        let is_unchecked = |assigned: &&Assigned| self.arrivals.unchecked.contains(&assigned.at);
        let position = |assigned: &Assigned| LogPosition {
            offset: raw(assigned.next),
            leader_epoch: assigned.log.leader_epoch,
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
            .seek_checked(&wanted, SEEK_PATIENCE)
            .unwrap_or_else(|_| vec![false; wanted.len()]);
        let again = wanted
            .into_iter()
            .zip(asked)
            .filter(|(_, is_asked)| !is_asked);
        self.arrivals.unchecked.extend(again.map(|((at, _), _)| at));
    }
}

/// The error for a partition that ends before the position up to which it was read.
pub(super) fn too_short(name: &str, end: Position, known: Position) -> SourceError {
    SourceError::Fatal(format!(
        "{name} ends at offset {end}, but was read up to offset {known}: it has lost records, or its topic was deleted and made again. To read \
         what is there now, and to resume all other topics where they are, give the source's stage another name and say :on-missing-state :group"
    ))
}

/// The error for a partition of a topic that is another one than the one that was read.
pub(super) fn made_again(topic: &str, name: &str, known: Position) -> SourceError {
    SourceError::Fatal(format!(
        "topic {topic} was deleted and made again (its id has changed) after {name} was read up to offset {known}. To read the new topic from \
         its beginning, and to resume all other topics where they are, give the source's stage another name and say :on-missing-state :group"
    ))
}

/// The partitions as a short text.
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
