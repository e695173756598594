//! Questions to the brokers, asked on a thread of their own: where partitions begin and end, and
//! which topics exist.
//!
//! An answer may take seconds, or never come while a partition has no leader. The consumer's thread
//! must not wait for it: the group expects to hear from it, and other partitions are to be read. It
//! asks with [`Lookups::ask`] and looks for answers between two fetches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select, unbounded};
use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::failure::{Leave, Meaning, denied};
use super::identity::{LogIdentity, TopicId};
use super::start::{self, OnMissingState, PATIENCE, Start, list_of};
use super::{KafkaSource, Topics};
use crate::native::{Client, Committed, NativeError, TopicPartition};

/// The times that mean the first and the last offset in Kafka's protocol.
const BEGINNING: i64 = -2;
const END: i64 = -1;

/// What can be asked.
pub(super) enum Question {
    /// Where these partitions begin.
    Places(Vec<Wanted>),
    /// The same for partitions of which it could not be said; asked when nothing else is.
    PlacesAgain(Vec<Wanted>),
    /// Which of these topics exist.
    Topics(Vec<String>),
    /// Which partitions these topics have before they are subscribed to. Those that come later are
    /// read from their beginning.
    Present(Vec<String>),
    /// Which offsets a partition has, of which the wanted one is not there.
    Gap(TopicPartition),
}

/// A partition whose place is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) at: TopicPartition,
    /// Tells two questions for the same partition apart.
    pub(super) ticket: u64,
    /// Where to resume, if the state has it,
    pub(super) known: Option<Position>,
    /// and the log that this belongs to.
    pub(super) log: LogIdentity,
}

/// What is known of a partition's place.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What the group has committed, where that is to be looked at.
    pub(super) committed: Option<Committed>,
    /// Where another program has stopped, for a partition that the state does not have.
    pub(super) elsewhere: Option<Position>,
    /// Where `:start` says that it begins, for the same.
    pub(super) start: Position,
    /// The offset after the last record that can be read, in a finite run.
    pub(super) end: Option<Position>,
    /// The offset after the last record that there is, if that is below the position in the state.
    pub(super) too_short: Option<Position>,
    /// The topic's id now.
    pub(super) topic_id: TopicId,
}

/// Why the place of a partition is not known.
pub(super) enum NoPlace {
    /// It may be at another time.
    Later(NativeError),
    /// The user has to do something.
    Never(SourceError),
}

/// What was found out.
pub(super) enum Answer {
    Places(Vec<(Wanted, Result<Place, NoPlace>)>),
    /// The ids of those that exist, of those that were asked for.
    Topics(Vec<String>, Result<HashMap<String, String>, NativeError>),
    Present(Vec<String>, Result<(), NativeError>),
    /// The first offset and the one after the last.
    Gap(TopicPartition, Result<(i64, i64), NativeError>),
}

/// The consumer's end of the thread. It ends when this is dropped, after the question that it is
/// at.
pub(super) struct Lookups {
    first: Sender<Question>,
    again: Sender<Question>,
    answers: Receiver<Answer>,
}

impl Lookups {
    /// Starts the thread.
    pub(super) fn start(source: &KafkaSource, client: Arc<Client>) -> Result<Lookups, Leave> {
        let (first, asked) = unbounded();
        let (again, asked_again) = unbounded();
        let (reply, answers) = unbounded();
        let work = Work {
            source: source.clone(),
            client,
            looked_at: HashSet::new(),
            there_before: HashSet::new(),
            has_ids: true,
            was_told_ids: false,
        };
        thread::Builder::new()
            .name("kafka-lookup".to_owned())
            .spawn(move || work.run(&asked, &asked_again, &reply))
            .map_err(|error| Leave::transient(format!("cannot start a thread: {error}")))?;
        Ok(Lookups {
            first,
            again,
            answers,
        })
    }

    /// Asks. The answer comes with [`Lookups::answer`].
    pub(super) fn ask(&self, question: Question) {
        let way = if matches!(question, Question::PlacesAgain(_)) {
            &self.again
        } else {
            &self.first
        };
        // That the thread is gone is seen where its answers are missed.
        let _ = way.send(question);
    }

    /// The next answer, if there is one.
    pub(super) fn answer(&self) -> Result<Option<Answer>, Leave> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Leave::transient(
                "internal error: the thread that asks the brokers has ended",
            )),
        }
    }
}

/// What the thread has.
struct Work {
    source: KafkaSource,
    client: Arc<Client>,
    /// With `:start :latest`, the topics that were looked at before they were subscribed to,
    looked_at: HashSet<String>,
    /// and the partitions that they had.
    there_before: HashSet<TopicPartition>,
    /// Whether topics have ids, as far as is known,
    has_ids: bool,
    /// and whether that is certain.
    was_told_ids: bool,
}

impl Work {
    fn run(
        mut self,
        first: &Receiver<Question>,
        again: &Receiver<Question>,
        reply: &Sender<Answer>,
    ) {
        let mut next = None;
        loop {
            let asked = next.take().map_or_else(|| first.try_recv(), Ok);
            let question = match asked {
                Ok(question) => with_more(question, first, &mut next),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => select! {
                    recv(first) -> question => match question {
                        Ok(question) => with_more(question, first, &mut next),
                        Err(_) => return,
                    },
                    recv(again) -> question => match question {
                        Ok(question) => question,
                        Err(_) => return,
                    },
                },
            };
            if reply.send(self.answer(question)).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Places(wanted) | Question::PlacesAgain(wanted) => {
                Answer::Places(self.places(wanted))
            }
            Question::Topics(names) => {
                let found = self.topics(&names);
                Answer::Topics(names, found)
            }
            Question::Present(names) => {
                let noted = self.note_present(&names);
                Answer::Present(names, noted)
            }
            Question::Gap(at) => {
                let offsets = self.client.watermarks(&at, PATIENCE);
                Answer::Gap(at, offsets)
            }
        }
    }

    /// The ids of those that exist.
    fn topics(&mut self, names: &[String]) -> Result<HashMap<String, String>, NativeError> {
        if let Some(ids) = self.ids(names)? {
            return Ok(ids);
        }
        let Ok(topics) = Topics::names(names) else {
            return Ok(HashMap::new());
        };
        let found = start::partitions(&self.client, &topics)?;
        Ok(found
            .into_iter()
            .map(|found| (found.at.topic, String::new()))
            .collect())
    }

    /// The same, or `None` from brokers that cannot be asked for ids.
    fn ids(&mut self, names: &[String]) -> Result<Option<HashMap<String, String>>, NativeError> {
        if !self.has_ids {
            return Ok(None);
        }
        match self.client.topic_ids(names, PATIENCE) {
            Ok(ids) => {
                self.was_told_ids = true;
                Ok(Some(ids))
            }
            Err(error) if self.was_told_ids => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the brokers do not give the ids of topics; a topic that is made again is not noticed by its id");
                self.has_ids = false;
                Ok(None)
            }
        }
    }

    /// A record in a partition that is made after this must not be left out.
    fn note_present(&mut self, names: &[String]) -> Result<(), NativeError> {
        let new: Vec<String> = names
            .iter()
            .filter(|name| !self.looked_at.contains(*name))
            .cloned()
            .collect();
        if let Ok(topics) = Topics::names(&new) {
            let found = start::partitions(&self.client, &topics)?;
            self.there_before
                .extend(found.into_iter().map(|found| found.at));
        }
        self.looked_at.extend(new);
        Ok(())
    }

    /// The places of those that have a leader. One without does not keep the others waiting.
    fn places(&mut self, wanted: Vec<Wanted>) -> Vec<(Wanted, Result<Place, NoPlace>)> {
        let brokers = self.source.connection.brokers.clone();
        let later = |wanted: Vec<Wanted>, error: &NativeError| -> Vec<_> {
            let refused = |error: &NativeError| match Meaning::of(error.code) {
                Meaning::Denied => NoPlace::Never(denied(&brokers, error)),
                _ => NoPlace::Later(error.clone()),
            };
            wanted
                .into_iter()
                .map(|one| (one, Err(refused(error))))
                .collect()
        };
        let names: HashSet<String> = wanted.iter().map(|one| one.at.topic.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let found =
            match Topics::names(&names).map(|topics| start::partitions(&self.client, &topics)) {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return later(wanted, &error),
                Err(_) => return Vec::new(),
            };
        let led: HashSet<TopicPartition> = found
            .into_iter()
            .filter(|found| found.has_leader)
            .map(|found| found.at)
            .collect();
        let (ready, leaderless): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|one| led.contains(&one.at));
        let code = RDKafkaErrorCode::LeaderNotAvailable;
        let mut answered = later(
            leaderless,
            &NativeError {
                code,
                text: "no broker leads it".to_owned(),
            },
        );
        if !ready.is_empty() {
            match self.places_of_led(&ready, &names) {
                Ok(places) => answered.extend(ready.into_iter().zip(places)),
                Err(error) => answered.extend(later(ready, &error)),
            }
        }
        answered
    }

    fn places_of_led(
        &mut self,
        wanted: &[Wanted],
        topics: &[String],
    ) -> Result<Vec<Result<Place, NoPlace>>, NativeError> {
        let ids = self.ids(topics)?.unwrap_or_default();
        let is_unknown = |one: &&Wanted| one.known.is_none();
        let unknown: Vec<TopicPartition> = wanted
            .iter()
            .filter(is_unknown)
            .map(|one| one.at.clone())
            .collect();
        let elsewhere = self.stopped_elsewhere(&unknown);
        let all: Vec<TopicPartition> = wanted.iter().map(|one| one.at.clone()).collect();
        let committed = self.committed(&all)?;
        let starts: HashMap<_, _> = unknown
            .iter()
            .zip(self.offsets_at_start(&unknown)?)
            .collect();
        let ends = if self.source.until_latest {
            Some(self.ends(&all)?)
        } else {
            None
        };
        let place = |(index, one): (usize, &Wanted)| {
            let start = match starts.get(&one.at) {
                Some(Err(error)) => return Err(NoPlace::Later(error.clone())),
                Some(Ok(start)) => *start,
                None => 0,
            };
            let end = match ends.as_ref().map(|ends| &ends[index]) {
                Some(Err(error)) => return Err(NoPlace::Later(error.clone())),
                Some(Ok(end)) => Some(*end),
                None => None,
            };
            Ok(Place {
                committed: committed.as_ref().map(|committed| committed[index].clone()),
                elsewhere: match elsewhere.get(&one.at.topic) {
                    Some(Err(error)) => return Err(NoPlace::Never(same_error(error))),
                    Some(Ok(offsets)) => offsets.get(&one.at.partition).copied(),
                    None => None,
                },
                start,
                end,
                too_short: self.too_short(one, end).map_err(NoPlace::Later)?,
                topic_id: TopicId(ids.get(&one.at.topic).cloned().unwrap_or_default()),
            })
        };
        Ok(wanted.iter().enumerate().map(place).collect())
    }

    /// A topic that ends before the position up to which it was read has lost records. Only a
    /// finite run has to look: otherwise the brokers say so when they are asked for that position.
    fn too_short(
        &self,
        wanted: &Wanted,
        end: Option<Position>,
    ) -> Result<Option<Position>, NativeError> {
        let (Some(known), Some(end)) = (wanted.known, end) else {
            return Ok(None);
        };
        if end >= known {
            return Ok(None);
        }
        let (_, high) = self.client.watermarks(&wanted.at, PATIENCE)?;
        Ok(Position::try_from(high).ok().filter(|high| *high < known))
    }

    /// Where another program has stopped, by topic and partition. Each topic is asked for by
    /// itself: what is wrong with one is not with others.
    fn stopped_elsewhere(
        &self,
        partitions: &[TopicPartition],
    ) -> HashMap<String, Result<HashMap<i32, Position>, SourceError>> {
        let Some(ask) = &self.source.stopped_elsewhere else {
            return HashMap::new();
        };
        let mut asked: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for at in partitions {
            asked
                .entry(at.topic.clone())
                .or_default()
                .push((at.topic.clone(), at.partition));
        }
        let offsets = |(topic, asked): (String, Vec<(String, i32)>)| {
            let found = ask(&asked).map(|found| {
                let known = asked
                    .iter()
                    .zip(found)
                    .filter_map(|((_, partition), offset)| Some((*partition, offset?)));
                known.collect()
            });
            (topic, found)
        };
        asked.into_iter().map(offsets).collect()
    }

    fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Option<Vec<Committed>>, NativeError> {
        if self.source.on_missing_state == OnMissingState::Start {
            return Ok(None);
        }
        self.client
            .committed(&mut list_of(partitions, |_| Offset::Invalid), PATIENCE)
            .map(Some)
    }

    fn ends(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Position, NativeError>>, NativeError> {
        let ends = self.offsets_for(partitions, |_| END)?;
        Ok(ends
            .into_iter()
            .map(|end| end.map(|end| end.unwrap_or(0)))
            .collect())
    }

    /// Where `:start` says that these partitions begin.
    fn offsets_at_start(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Position, NativeError>>, NativeError> {
        let times = |at: &TopicPartition| match self.source.start {
            Start::Earliest => BEGINNING,
            Start::Latest if !self.there_before.contains(at) => BEGINNING,
            Start::Latest => END,
            Start::At(millis) => millis,
        };
        // Asked first: a record that arrives between the two questions must not fall between them.
        let ends = if matches!(self.source.start, Start::At(_)) {
            self.ends(partitions)?
        } else {
            vec![Ok(0); partitions.len()]
        };
        let found = self.offsets_for(partitions, times)?;
        Ok(found
            .into_iter()
            .zip(ends)
            .map(|(offset, end)| Ok(offset?.unwrap_or(end?)))
            .collect())
    }

    fn offsets_for(
        &self,
        partitions: &[TopicPartition],
        time: impl Fn(&TopicPartition) -> i64,
    ) -> Result<Vec<Result<Option<Position>, NativeError>>, NativeError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = list_of(partitions, |at| Offset::from_raw(time(at)));
        self.client.offsets_for_times(&mut list, PATIENCE)?;
        let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element.error().map_err(|error| {
                let code = error
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown);
                NativeError {
                    code,
                    text: code.to_string(),
                }
            })?;
            Ok(element
                .offset()
                .to_raw()
                .and_then(|raw| Position::try_from(raw).ok()))
        };
        Ok(list.elements().iter().map(offset).collect())
    }
}

/// Hundreds of runs may ask for the places of their partitions at once: what has been asked by now
/// is answered together. `next` gets the question after these.
fn with_more(
    question: Question,
    asked: &Receiver<Question>,
    next: &mut Option<Question>,
) -> Question {
    let Question::Places(mut wanted) = question else {
        return question;
    };
    while let Ok(question) = asked.try_recv() {
        match question {
            Question::Places(more) => wanted.extend(more),
            other => {
                *next = Some(other);
                break;
            }
        }
    }
    Question::Places(wanted)
}

/// The same error for one partition more.
fn same_error(error: &SourceError) -> SourceError {
    match error {
        SourceError::Transient(reason) => SourceError::Transient(reason.clone()),
        SourceError::Fatal(reason) => SourceError::Fatal(reason.clone()),
    }
}
