//! A reader of a topic, which returns batches that a pipeline's stages accept.
//!
//! Without a group, partitions are read directly and nothing is written anywhere, so other
//! consumers are not affected. With a group, the reader is an ordinary member, and
//! [`TopicReader::commit`] commits its offsets.

use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::{Position, Reason, SplitId};
use pseidon_plugin::batch::{RecordMeta, WantedMetadata};
use pseidon_plugin::options::kinds::Properties;
use pseidon_plugin::{Batch, BatchBuilder, Split};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::start::StartPosition;
use super::{REQUEST_TIMEOUT, config, unreachable};
use crate::logs::ClientLogs;
use crate::native::{Consumer, Event, Message, MessageBatch, NativeError, TopicPartition};
use crate::topics::check_name;

/// The maximum number of records of one [`TopicReader::read`].
const FETCH_MESSAGES: usize = 8192;
/// librdkafka requires a group for every consumer. It does not send it to the brokers unless the
/// consumer subscribes or commits.
const NO_GROUP: &str = "pseidon-consume";

/// What a [`TopicReader`] reads.
#[derive(Clone, Debug)]
pub struct ReaderSettings {
    /// `host:port,host:port`
    pub brokers: String,
    /// The only topic that is read.
    pub topic: String,
    /// Only this partition; all if `None`. A member of a group cannot choose.
    pub partition: Option<i32>,
    /// Where to start; in a group, only if the group has no offset.
    pub begin: StartPosition,
    /// The consumer group to join.
    pub group: Option<String>,
    /// Properties of librdkafka, which override those that the reader sets itself.
    pub properties: Properties,
    /// Which metadata of a record to return.
    pub wanted: WantedMetadata,
}

/// A reader of one topic, alone or as a member of a group.
pub struct TopicReader {
    settings: ReaderSettings,
    /// Declared before the client, which cannot be destroyed while its messages exist.
    fetched: MessageBatch,
    consumer: Consumer,
    /// The capacity of `fetched`.
    room: usize,
    logs: ClientLogs,
    /// The offset after the last record of each partition when the reader was opened.
    ends: Vec<(TopicPartition, Position)>,
    partitions: Vec<PartitionProgress>,
    /// Whether the partitions to read are known.
    joined: bool,
}

/// A partition that is being read.
struct PartitionProgress {
    at: TopicPartition,
    split: Arc<Split>,
    /// The offset after the last record that was returned.
    next: Position,
    /// The offset that was last committed to the group.
    committed: Position,
}

impl TopicReader {
    /// Looks the topic up and starts reading. The error says why that is not possible.
    pub fn open(settings: ReaderSettings) -> Result<TopicReader, Reason> {
        check_name(&settings.topic)?;
        let own = [
            ("group.id", settings.group.as_deref().unwrap_or(NO_GROUP)),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.partition.eof", "true"),
            ("fetch.queue.backoff.ms", "5"),
            ("queued.max.messages.kbytes", "32768"),
        ];
        let consumer = Consumer::new(
            &config(&settings.brokers, &own, &settings.properties.0),
            ClientLogs::new("consume"),
        )?;
        let mut reader = TopicReader {
            consumer,
            fetched: MessageBatch::with_capacity(FETCH_MESSAGES),
            room: FETCH_MESSAGES,
            logs: ClientLogs::new("consume"),
            ends: Vec::new(),
            partitions: Vec::new(),
            joined: false,
            settings,
        };
        let partitions = reader.find_partitions()?;
        for at in &partitions {
            let (_, high) = reader.watermarks(at)?;
            reader.ends.push((at.clone(), high));
        }
        if reader.settings.group.is_some() {
            let topic = std::slice::from_ref(&reader.settings.topic);
            reader.consumer.subscribe(topic).map_err(|error| {
                Reason::caused_by(
                    format!("cannot subscribe to {}", reader.settings.topic),
                    error,
                )
            })?;
        } else {
            let list = reader.add(partitions, &[])?;
            reader.consumer.assign(&list).map_err(Reason::of)?;
        }
        Ok(reader)
    }

    fn find_partitions(&self) -> Result<Vec<TopicPartition>, Reason> {
        let ReaderSettings {
            brokers,
            topic,
            partition,
            ..
        } = &self.settings;
        let all = self
            .consumer
            .partitions_of(topic, REQUEST_TIMEOUT)
            .map_err(|error| match error.code {
                RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                    format!("unknown topic `{topic}` at {brokers}").into()
                }
                _ => unreachable(brokers, error),
            })?;
        let Some(partition) = partition else {
            return Ok(all);
        };
        let count = all.len();
        let found: Vec<_> = all
            .into_iter()
            .filter(|at| at.partition == *partition)
            .collect();
        if found.is_empty() {
            let what =
                format!("{topic} has no partition {partition}; it has {count}, numbered from 0");
            return Err(what.into());
        }
        Ok(found)
    }

    fn watermarks(&self, at: &TopicPartition) -> Result<(Position, Position), Reason> {
        let known = self
            .consumer
            .watermarks(at, REQUEST_TIMEOUT)
            .map_err(|error| unreachable(&self.settings.brokers, error))?;
        Ok((
            Position::try_from(known.0).unwrap_or(0),
            Position::try_from(known.1).unwrap_or(0),
        ))
    }

    /// Adds partitions to read, from the group's committed offset or from the start position of the
    /// settings.
    fn add(
        &mut self,
        partitions: Vec<TopicPartition>,
        committed: &[Option<Position>],
    ) -> Result<TopicPartitionList, Reason> {
        let mut list = TopicPartitionList::new();
        for (number, at) in partitions.into_iter().enumerate() {
            let known = committed.get(number).copied().flatten();
            let next = match known {
                Some(next) => next,
                None => self.first(&at)?,
            };
            let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
            list.add_partition_offset(&at.topic, at.partition, offset)
                .map_err(Reason::of)?;
            let id = SplitId::from(format!("{}/{}", at.topic, at.partition));
            let split = Arc::new(Split {
                id,
                topic: at.topic.clone(),
                partition: at.partition,
            });
            self.partitions.push(PartitionProgress {
                at,
                split,
                next,
                committed: known.unwrap_or(Position::MAX),
            });
        }
        self.joined = true;
        Ok(list)
    }

    /// The first offset to read if the group has none.
    fn first(&self, at: &TopicPartition) -> Result<Position, Reason> {
        let (low, high) = self.watermarks(at)?;
        match self.settings.begin {
            StartPosition::Earliest => Ok(low),
            StartPosition::Latest => Ok(high),
            StartPosition::Offset(offset) => Ok(offset.clamp(low, high)),
            StartPosition::Time(millis) => {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&at.topic, at.partition, Offset::Offset(millis))
                    .map_err(Reason::of)?;
                self.consumer
                    .offsets_for_times(&mut list, REQUEST_TIMEOUT)
                    .map_err(|error| unreachable(&self.settings.brokers, error))?;
                Ok(offsets_of(&list).first().copied().flatten().unwrap_or(high))
            }
        }
    }

    /// The waiting records, at most `limit`, in the order of arrival; each batch is of one
    /// partition. Waits up to `timeout` if there are none. The error says why no more will come.
    pub fn read(&mut self, limit: usize, timeout: Duration) -> Result<Vec<Batch>, Reason> {
        let room = limit.clamp(1, FETCH_MESSAGES);
        if room != self.room {
            self.fetched = MessageBatch::with_capacity(room);
            self.room = room;
        }
        self.consumer.fetch(&mut self.fetched, timeout);
        // The caller has processed what was returned earlier. Records that have just arrived from a
        // partition that is revoked are left to its next reader.
        self.serve_events()?;
        self.batches()
    }

    fn batches(&mut self) -> Result<Vec<Batch>, Reason> {
        let TopicReader {
            settings,
            fetched,
            partitions,
            logs,
            ..
        } = self;
        let mut batches = Vec::new();
        let mut open: Option<(usize, BatchBuilder)> = None;
        for message in fetched.iter_from(0) {
            let error = message.error();
            if let Some(error) = error
                .as_ref()
                .filter(|error| error.code != RDKafkaErrorCode::PartitionEOF)
            {
                stop_or_warn(settings, logs, error)?;
                continue;
            }
            // There is one topic, and most messages follow one of the same partition, so most need
            // no search.
            let is_it = |reading: &PartitionProgress| reading.at.partition == message.partition();
            let place = match &open {
                Some((place, _)) if is_it(&partitions[*place]) => Some(*place),
                _ => partitions.iter().position(is_it),
            };
            // Skip messages of a partition that was just revoked.
            let Some(place) = place else { continue };
            let offset = Position::try_from(message.offset()).unwrap_or(0);
            if error.is_some() {
                // The end may lie behind the last record, because transaction markers are not
                // records.
                partitions[place].next = partitions[place].next.max(offset);
                continue;
            }
            if open.as_ref().is_none_or(|(of, _)| *of != place) {
                batches.extend(
                    open.take()
                        .map(|(of, builder)| builder.finish(partitions[of].next)),
                );
            }
            let (_, builder) = open.get_or_insert_with(|| {
                (
                    place,
                    BatchBuilder::new(partitions[place].split.clone(), settings.wanted, 0),
                )
            });
            push_record(builder, offset, &message, settings.wanted);
            partitions[place].next = offset + 1;
        }
        batches.extend(open.map(|(of, builder)| builder.finish(partitions[of].next)));
        Ok(batches)
    }

    fn serve_events(&mut self) -> Result<(), Reason> {
        for event in self.consumer.events() {
            match event {
                Event::Assigned(partitions) => {
                    let mut list = list_of(&partitions, |_| Offset::Invalid);
                    let committed = self.consumer.committed(&mut list, REQUEST_TIMEOUT);
                    let committed =
                        committed.map_err(|error| unreachable(&self.settings.brokers, error))?;
                    let committed: Vec<_> = committed
                        .iter()
                        .map(|offset| Position::try_from(offset.offset).ok())
                        .collect();
                    let list = self.add(partitions, &committed)?;
                    self.consumer.assign_more(&list).map_err(Reason::of)?;
                }
                Event::Revoked(partitions) => {
                    if !self.consumer.assignment_is_lost() {
                        self.commit()?;
                    }
                    self.partitions
                        .retain(|reading| !partitions.contains(&reading.at));
                    self.consumer
                        .unassign(&list_of(&partitions, |_| Offset::Invalid))
                        .map_err(Reason::of)?;
                }
                Event::RebalanceFailed(error) => {
                    self.partitions.clear();
                    self.consumer.unassign_all();
                    stop_or_warn(&self.settings, &self.logs, &error)?;
                }
                Event::Error(error) => stop_or_warn(&self.settings, &self.logs, &error)?,
            }
        }
        Ok(())
    }

    /// Whether every record that existed when the reader was opened has been returned, for the
    /// partitions that it reads.
    pub fn is_at_end(&self) -> bool {
        let end_of = |at: &TopicPartition| {
            self.ends
                .iter()
                .find(|(known, _)| known == at)
                .map_or(0, |(_, end)| *end)
        };
        self.joined
            && self
                .partitions
                .iter()
                .all(|reading| reading.next >= end_of(&reading.at))
    }

    /// Commits the offsets of everything returned so far to the group and waits for the result.
    /// Does nothing without a group.
    pub fn commit(&mut self) -> Result<(), Reason> {
        if self.settings.group.is_none() {
            return Ok(());
        }
        let is_uncommitted = |reading: &&PartitionProgress| reading.committed != reading.next;
        let uncommitted: Vec<_> = self
            .partitions
            .iter()
            .filter(is_uncommitted)
            .map(|reading| (reading.at.clone(), reading.next))
            .collect();
        if uncommitted.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (at, next) in &uncommitted {
            let offset = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            list.add_partition_offset(&at.topic, at.partition, offset)
                .map_err(Reason::of)?;
        }
        self.consumer
            .commit(&list, Some(REQUEST_TIMEOUT))
            .map_err(|error| Reason::caused_by("cannot commit the group's offsets", error))?;
        for reading in &mut self.partitions {
            reading.committed = reading.next;
        }
        Ok(())
    }
}

fn push_record(
    builder: &mut BatchBuilder,
    offset: Position,
    message: &Message<'_>,
    wanted: WantedMetadata,
) {
    let headers = if wanted.headers {
        message.headers_as_json()
    } else {
        Ok(None)
    };
    let (headers, bad_metadata) = match &headers {
        Ok(headers) => (headers.as_deref(), None),
        Err(reason) => (None, Some(reason.as_str())),
    };
    builder.push(
        offset,
        message.payload(),
        RecordMeta {
            timestamp: message.timestamp(),
            key: message.key(),
            headers,
            bad_metadata,
            raw_headers: None,
        },
    );
}

/// Returns an error that waiting cannot resolve, and logs any other.
fn stop_or_warn(
    settings: &ReaderSettings,
    logs: &ClientLogs,
    error: &NativeError,
) -> Result<(), Reason> {
    use RDKafkaErrorCode::{
        Authentication, AutoOffsetReset, ClusterAuthorizationFailed, Fatal,
        GroupAuthorizationFailed, OffsetOutOfRange, SaslAuthenticationFailed,
        TopicAuthorizationFailed, UnsupportedSASLMechanism,
    };
    let failed = |what: String| Err(Reason::caused_by(what, error.clone()));
    match error.code {
        AutoOffsetReset | OffsetOutOfRange => {
            failed("the records to read next are no longer available".into())
        }
        Authentication
        | ClusterAuthorizationFailed
        | GroupAuthorizationFailed
        | SaslAuthenticationFailed
        | TopicAuthorizationFailed
        | UnsupportedSASLMechanism => failed(format!("{} refused access", settings.brokers)),
        Fatal => failed("the kafka client cannot continue".into()),
        code => {
            logs.warn(&format!("{code:?}"), &error.text);
            Ok(())
        }
    }
}

fn list_of(
    partitions: &[TopicPartition],
    offset: impl Fn(&TopicPartition) -> Offset,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        // This fails only for offsets without a number, which the offsets used here have.
        let _ = list.add_partition_offset(&at.topic, at.partition, offset(at));
    }
    list
}

/// The offsets that librdkafka filled in; `None` if it found none.
fn offsets_of(list: &TopicPartitionList) -> Vec<Option<Position>> {
    list.elements()
        .iter()
        .map(|element| {
            element
                .offset()
                .to_raw()
                .and_then(|raw| Position::try_from(raw).ok())
        })
        .collect()
}
