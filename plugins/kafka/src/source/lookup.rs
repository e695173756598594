//! Requests to the brokers on a thread of their own: where partitions begin and end, and which
//! topics exist.
//!
//! A response may take seconds, or never arrive while a partition has no leader. The consumer's
//! thread must not wait for it: the group expects heartbeats, and other partitions are to be read.
//! It sends a request with [`Lookups::request`] and checks for responses between two fetches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select, unbounded};
use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;
use rdkafka::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::failure::{ErrorClass, ReadExit, denied};
use super::identity::{PartitionIdentity, TopicId};
use super::start::{self, OnMissingState, REQUEST_TIMEOUT, StartOption, list_of};
use super::{KafkaSource, Topics};
use crate::native::{Client, CommittedOffset, NativeError, TopicPartition};

/// The timestamps that stand for the first and the last offset in Kafka's protocol.
const BEGINNING: i64 = -2;
const END: i64 = -1;

/// A request to the lookup thread.
pub(super) enum LookupRequest {
    /// The offsets of these partitions.
    Offsets(Vec<PartitionQuery>),
    /// A retry for partitions whose offsets could not be looked up; handled after all other
    /// requests.
    OffsetsRetry(Vec<PartitionQuery>),
    /// Which of these topics exist.
    Topics(Vec<String>),
    /// Which partitions these topics have before they are subscribed to. Partitions that are
    /// created later are read from their beginning.
    Partitions(Vec<String>),
    /// Which offsets a partition has, after the requested one was not found.
    Gap(TopicPartition),
}

/// A partition whose offsets are looked up.
#[derive(Clone, Debug)]
pub(super) struct PartitionQuery {
    pub(super) at: TopicPartition,
    /// Distinguishes two lookups of the same partition.
    pub(super) ticket: u64,
    /// The position in the state; `None` if the state does not have the partition.
    pub(super) known: Option<Position>,
    /// The topic and the leader epoch that `known` belongs to.
    pub(super) identity: PartitionIdentity,
}

/// The offsets of a partition that decide where reading starts and ends.
#[derive(Debug, Default)]
pub(super) struct PartitionOffsets {
    /// The offset that the group has committed; `None` if `:on-missing-state` ignores it.
    pub(super) committed: Option<CommittedOffset>,
    /// Where another program stopped, for a partition that is not in the state.
    pub(super) external: Option<Position>,
    /// The offset of `:start`, for a partition that is not in the state.
    pub(super) start: Position,
    /// The offset after the last record that can be read, in a finite run.
    pub(super) end: Option<Position>,
    /// The offset after the last record, if it is below the position in the state.
    pub(super) too_short: Option<Position>,
    /// The topic's current id.
    pub(super) topic_id: TopicId,
}

/// Why the offsets of a partition could not be looked up.
pub(super) enum LookupError {
    /// A retry may succeed.
    Retryable(NativeError),
    /// The user has to resolve it.
    Fatal(SourceError),
}

/// The response to a request.
pub(super) enum LookupResponse {
    Offsets(Vec<(PartitionQuery, Result<PartitionOffsets, LookupError>)>),
    /// The topics of the request, and the ids of those that exist.
    Topics(Vec<String>, Result<HashMap<String, String>, NativeError>),
    Partitions(Vec<String>, Result<(), NativeError>),
    /// The first offset and the one after the last.
    Gap(TopicPartition, Result<(i64, i64), NativeError>),
}

/// The consumer's handle of the lookup thread. The thread ends when this is dropped, after the
/// request in progress.
pub(super) struct Lookups {
    requests: Sender<LookupRequest>,
    retries: Sender<LookupRequest>,
    answers: Receiver<LookupResponse>,
}

impl Lookups {
    /// Starts the thread.
    pub(super) fn start(source: &KafkaSource, client: Arc<Client>) -> Result<Lookups, ReadExit> {
        let (requests, received) = unbounded();
        let (retries, received_retries) = unbounded();
        let (reply, answers) = unbounded();
        let worker = LookupWorker {
            source: source.clone(),
            client,
            looked_up: HashSet::new(),
            existed_before: HashSet::new(),
            has_ids: true,
            ids_confirmed: false,
        };
        thread::Builder::new()
            .name("kafka-lookup".to_owned())
            .spawn(move || worker.run(&received, &received_retries, &reply))
            .map_err(|error| ReadExit::transient(format!("cannot start a thread: {error}")))?;
        Ok(Lookups {
            requests,
            retries,
            answers,
        })
    }

    /// Sends a request. The response arrives with [`Lookups::try_response`].
    pub(super) fn request(&self, request: LookupRequest) {
        let queue = if matches!(request, LookupRequest::OffsetsRetry(_)) {
            &self.retries
        } else {
            &self.requests
        };
        // If the thread has ended, `try_response` reports that.
        let _ = queue.send(request);
    }

    /// The next response, if one has arrived.
    pub(super) fn try_response(&self) -> Result<Option<LookupResponse>, ReadExit> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ReadExit::transient(
                "internal error: the lookup thread has ended",
            )),
        }
    }
}

/// The state of the lookup thread.
struct LookupWorker {
    source: KafkaSource,
    client: Arc<Client>,
    /// With `:start :latest`, the topics that were looked up before they were subscribed to.
    looked_up: HashSet<String>,
    /// The partitions that the topics in `looked_up` had then.
    existed_before: HashSet<TopicPartition>,
    /// Whether the brokers have topic ids, as far as is known.
    has_ids: bool,
    /// Whether the brokers have returned topic ids before.
    ids_confirmed: bool,
}

impl LookupWorker {
    fn run(
        mut self,
        requests: &Receiver<LookupRequest>,
        retries: &Receiver<LookupRequest>,
        reply: &Sender<LookupResponse>,
    ) {
        let mut next = None;
        loop {
            let received = next.take().map_or_else(|| requests.try_recv(), Ok);
            let request = match received {
                Ok(request) => merge_waiting(request, requests, &mut next),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => select! {
                    recv(requests) -> request => match request {
                        Ok(request) => merge_waiting(request, requests, &mut next),
                        Err(_) => return,
                    },
                    recv(retries) -> request => match request {
                        Ok(request) => request,
                        Err(_) => return,
                    },
                },
            };
            if reply.send(self.answer(request)).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: LookupRequest) -> LookupResponse {
        match request {
            LookupRequest::Offsets(wanted) | LookupRequest::OffsetsRetry(wanted) => {
                LookupResponse::Offsets(self.look_up(wanted))
            }
            LookupRequest::Topics(names) => {
                let found = self.topics(&names);
                LookupResponse::Topics(names, found)
            }
            LookupRequest::Partitions(names) => {
                let recorded = self.record_partitions(&names);
                LookupResponse::Partitions(names, recorded)
            }
            LookupRequest::Gap(at) => {
                let offsets = self.client.watermarks(&at, REQUEST_TIMEOUT);
                LookupResponse::Gap(at, offsets)
            }
        }
    }

    /// The ids of those topics that exist.
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

    /// Like [`LookupWorker::topics`], or `None` if the brokers cannot return ids.
    fn ids(&mut self, names: &[String]) -> Result<Option<HashMap<String, String>>, NativeError> {
        if !self.has_ids {
            return Ok(None);
        }
        match self.client.topic_ids(names, REQUEST_TIMEOUT) {
            Ok(ids) => {
                self.ids_confirmed = true;
                Ok(Some(ids))
            }
            Err(error) if self.ids_confirmed => Err(error),
            Err(error) => {
                tracing::debug!(
                    %error,
                    "the brokers do not return topic ids; a topic that is deleted and created \
                     again cannot be detected by its id"
                );
                self.has_ids = false;
                Ok(None)
            }
        }
    }

    /// Records which partitions exist: records of one that is created later must not be skipped.
    fn record_partitions(&mut self, names: &[String]) -> Result<(), NativeError> {
        let new: Vec<String> = names
            .iter()
            .filter(|name| !self.looked_up.contains(*name))
            .cloned()
            .collect();
        if let Ok(topics) = Topics::names(&new) {
            let found = start::partitions(&self.client, &topics)?;
            self.existed_before
                .extend(found.into_iter().map(|found| found.at));
        }
        self.looked_up.extend(new);
        Ok(())
    }

    /// The offsets of the partitions that have a leader. One without does not delay the others.
    fn look_up(
        &mut self,
        wanted: Vec<PartitionQuery>,
    ) -> Vec<(PartitionQuery, Result<PartitionOffsets, LookupError>)> {
        let brokers = self.source.connection.brokers.clone();
        let failed = |wanted: Vec<PartitionQuery>, error: &NativeError| -> Vec<_> {
            let refused = |error: &NativeError| match ErrorClass::of(error.code) {
                ErrorClass::Denied => LookupError::Fatal(denied(&brokers, error)),
                _ => LookupError::Retryable(error.clone()),
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
                Ok(Err(error)) => return failed(wanted, &error),
                Err(_) => return Vec::new(),
            };
        let with_leader: HashSet<TopicPartition> = found
            .into_iter()
            .filter(|found| found.has_leader)
            .map(|found| found.at)
            .collect();
        let (ready, leaderless): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|one| with_leader.contains(&one.at));
        let code = RDKafkaErrorCode::LeaderNotAvailable;
        let mut answered = failed(
            leaderless,
            &NativeError {
                code,
                text: "no broker leads it".to_owned(),
            },
        );
        if !ready.is_empty() {
            match self.look_up_led(&ready, &names) {
                Ok(places) => answered.extend(ready.into_iter().zip(places)),
                Err(error) => answered.extend(failed(ready, &error)),
            }
        }
        answered
    }

    fn look_up_led(
        &mut self,
        wanted: &[PartitionQuery],
        topics: &[String],
    ) -> Result<Vec<Result<PartitionOffsets, LookupError>>, NativeError> {
        let ids = self.ids(topics)?.unwrap_or_default();
        let is_unknown = |one: &&PartitionQuery| one.known.is_none();
        let unknown: Vec<TopicPartition> = wanted
            .iter()
            .filter(is_unknown)
            .map(|one| one.at.clone())
            .collect();
        let external = self.external_offsets(&unknown);
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
        let place = |(index, one): (usize, &PartitionQuery)| {
            let start = match starts.get(&one.at) {
                Some(Err(error)) => return Err(LookupError::Retryable(error.clone())),
                Some(Ok(start)) => *start,
                None => 0,
            };
            let end = match ends.as_ref().map(|ends| &ends[index]) {
                Some(Err(error)) => return Err(LookupError::Retryable(error.clone())),
                Some(Ok(end)) => Some(*end),
                None => None,
            };
            Ok(PartitionOffsets {
                committed: committed.as_ref().map(|committed| committed[index].clone()),
                external: match external.get(&one.at.topic) {
                    Some(Err(error)) => return Err(LookupError::Fatal(same_error(error))),
                    Some(Ok(offsets)) => offsets.get(&one.at.partition).copied(),
                    None => None,
                },
                start,
                end,
                too_short: self.too_short(one, end).map_err(LookupError::Retryable)?,
                topic_id: TopicId(ids.get(&one.at.topic).cloned().unwrap_or_default()),
            })
        };
        Ok(wanted.iter().enumerate().map(place).collect())
    }

    /// A topic that ends below the position up to which it was read has lost records. Only a finite
    /// run has to check: otherwise the brokers report it when that position is fetched.
    fn too_short(
        &self,
        wanted: &PartitionQuery,
        end: Option<Position>,
    ) -> Result<Option<Position>, NativeError> {
        let (Some(known), Some(end)) = (wanted.known, end) else {
            return Ok(None);
        };
        if end >= known {
            return Ok(None);
        }
        let (_, high) = self.client.watermarks(&wanted.at, REQUEST_TIMEOUT)?;
        Ok(Position::try_from(high).ok().filter(|high| *high < known))
    }

    /// Where another program stopped, by topic and partition. Each topic is looked up separately,
    /// so that an error with one does not affect the others.
    fn external_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> HashMap<String, Result<HashMap<i32, Position>, SourceError>> {
        let Some(ask) = &self.source.external_offsets else {
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
    ) -> Result<Option<Vec<CommittedOffset>>, NativeError> {
        if self.source.on_missing_state == OnMissingState::Start {
            return Ok(None);
        }
        self.client
            .committed(
                &mut list_of(partitions, |_| Offset::Invalid),
                REQUEST_TIMEOUT,
            )
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

    /// The offsets of `:start` for these partitions.
    fn offsets_at_start(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<Position, NativeError>>, NativeError> {
        let times = |at: &TopicPartition| match self.source.start {
            StartOption::Earliest => BEGINNING,
            StartOption::Latest if !self.existed_before.contains(at) => BEGINNING,
            StartOption::Latest => END,
            StartOption::At(millis) => millis,
        };
        // Looked up first, so that a record that arrives between the two requests is not skipped.
        let ends = if matches!(self.source.start, StartOption::At(_)) {
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
        self.client.offsets_for_times(&mut list, REQUEST_TIMEOUT)?;
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

/// Merges the waiting requests for offsets into one, since hundreds of runs may send one at the
/// same time. `next` receives the first request that is not merged.
fn merge_waiting(
    request: LookupRequest,
    requests: &Receiver<LookupRequest>,
    next: &mut Option<LookupRequest>,
) -> LookupRequest {
    let LookupRequest::Offsets(mut wanted) = request else {
        return request;
    };
    while let Ok(request) = requests.try_recv() {
        match request {
            LookupRequest::Offsets(more) => wanted.extend(more),
            other => {
                *next = Some(other);
                break;
            }
        }
    }
    LookupRequest::Offsets(wanted)
}

/// A copy of the error for another partition.
fn same_error(error: &SourceError) -> SourceError {
    match error {
        SourceError::Transient(reason) => SourceError::Transient(reason.clone()),
        SourceError::Fatal(reason) => SourceError::Fatal(reason.clone()),
    }
}
